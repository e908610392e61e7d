// Gradients of the filter. Positions and samples are recomputed, because the forward pass saves nothing.
#pragma once
#include <atomic>
#include <type_traits>

#include "bands.hpp"
#include "taps.hpp"
#include "weight.hpp"
#include "work.hpp"

template <typename T> struct Gradients {
  T *canvas, *weight, *kernel, *offsets;  // null: not needed
};

// Sums of the lanes of four vectors.
template <typename T>
inline __attribute__((always_inline)) typename Short<T>::type totals(const typename Short<T>::type (&s)[4]) {
#if defined(__clang__)
  const auto a = __builtin_shufflevector(s[0], s[1], 0, 4, 1, 5) + __builtin_shufflevector(s[0], s[1], 2, 6, 3, 7);
  const auto b = __builtin_shufflevector(s[2], s[3], 0, 4, 1, 5) + __builtin_shufflevector(s[2], s[3], 2, 6, 3, 7);
  return __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
#else
  typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Index;
  typedef Index Mask __attribute__((vector_size(4 * sizeof(T))));
  constexpr Mask kFirst = {0, 4, 1, 5}, kSecond = {2, 6, 3, 7}, kLow = {0, 1, 4, 5}, kHigh = {2, 3, 6, 7};
  const auto a = __builtin_shuffle(s[0], s[1], kFirst) + __builtin_shuffle(s[0], s[1], kSecond);
  const auto b = __builtin_shuffle(s[2], s[3], kFirst) + __builtin_shuffle(s[2], s[3], kSecond);
  return __builtin_shuffle(a, b, kLow) + __builtin_shuffle(a, b, kHigh);
#endif
}

// Adds the halves of a vector until four lanes remain.
template <typename T, typename V> inline __attribute__((always_inline)) typename Short<T>::type fold(V v) {
  if constexpr (sizeof(V) > 4 * sizeof(T)) {
    typedef T Half __attribute__((vector_size(sizeof(V) / 2)));
    Half half[2];
    std::memcpy(half, &v, sizeof(V));
    return fold<T, Half>(half[0] + half[1]);
  } else {
    typename Short<T>::type four{};
    std::memcpy(&four, &v, sizeof(V));
    return four;
  }
}

// The dot products of a row with N others, accumulated piece by piece.
template <int N, typename T, typename C> struct Dots {
  using V = typename Row<T, C>::type;
  using S = typename Short<T>::type;
  V wide[N] = {};
  S four[N] = {};
  // Separate from the others: adding to single lanes of a vector would move it out of its register.
  T one[4] = {};

  template <typename A> inline __attribute__((always_inline)) void add(int m, A a, A b) {
    if constexpr (std::is_same_v<A, V>) wide[m] += a * b;
    else if constexpr (std::is_same_v<A, S>) four[m] += a * b;
    else one[m] += a * b;
  }

  inline __attribute__((always_inline)) S total() const {
    S sums[4] = {};
    for (int m = 0; m < N; m++) sums[m] = fold<T>(wide[m]);
    if constexpr (!std::is_same_v<C, long>) return totals<T>(sums);
    for (int m = 0; m < N; m++) sums[m] += four[m];
    return totals<T>(sums) + load<S>(one);
  }
};

// From `back`, the gradient of the taps [k, k + g) before V, computes three results that need the same pixels: adds to
// the gradient of the canvas (`to`) at the sampled pixels; the dot products with these pixels, dots[point][tap][pixel];
// and the samples times V, cols[point][tap][c]. A null pointer skips a result.
template <typename T, typename C, typename P>
void backward_taps(const Problem<T>& p, const Tile<T>& tile, const T* zeros, const P& to, long k, long g, C c,
                   const T* back, long wide, bool canvas, T* dots, T* cols) {
  const auto from = pixels_of(p, zeros, c);
  const Arrays<T> at(tile);
  if (cols) clear_padded(tile, g * c, cols);
  if (!p.offsets) {
    each_tap(tile, k, g, [&](long image, long t, long j, long i) __attribute__((always_inline)) {
      const T *q = from.one(image, at.y[i], at.x[i]), *here = back + t * wide + j * c, v = at.v[i];
      T *r = canvas ? to.one(image, at.y[i], at.x[i]) : nullptr, *read = cols + (t * g + j) * c;
      Dots<1, T, C> dot;
      across<T>(c, [&](auto kind, long n) __attribute__((always_inline)) {
        using V = decltype(kind);
        const V b = load<V>(here + n), a = load<V>(q + n);
        if (cols) store(read + n, V(v * a));
        if (dots) dot.add(0, b, a);
        if (canvas) store(r + n, V(load<V>(r + n) + v * b));
      });
      if (dots) dots[4 * i] = dot.total()[0];
    });
    return;
  }
  each_tap(tile, k, g, [&](long image, long t, long j, long i) __attribute__((always_inline)) {
    const T *q[4], *here = back + t * wide + j * c;
    T *r[4], *read = cols + (t * g + j) * c;
    from.four(image, at.y[i], at.x[i], q);
    if (canvas) to.four(image, at.y[i], at.x[i], r);
    const T s0 = at.share[0][i], s1 = at.share[1][i], s2 = at.share[2][i], s3 = at.share[3][i];
    Dots<4, T, C> dot;
    across<T>(c, [&](auto kind, long n) __attribute__((always_inline)) {
      using V = decltype(kind);
      const V b = load<V>(here + n);
      const V a0 = load<V>(q[0] + n), a1 = load<V>(q[1] + n), a2 = load<V>(q[2] + n), a3 = load<V>(q[3] + n);
      if (cols) store(read + n, V((s0 * a0 + s1 * a1) + (s2 * a2 + s3 * a3)));
      if (dots) dot.add(0, b, a0), dot.add(1, b, a1), dot.add(2, b, a2), dot.add(3, b, a3);
      if (!canvas) return;
      store(r[0] + n, V(load<V>(r[0] + n) + s0 * b));
      store(r[1] + n, V(load<V>(r[1] + n) + s1 * b));
      store(r[2] + n, V(load<V>(r[2] + n) + s2 * b));
      store(r[3] + n, V(load<V>(r[3] + n) + s3 * b));
    });
    if (dots) store(dots + 4 * i, dot.total());
  });
}

// The gradients of V (weighted sums) and of the offsets (differences) from <back, pixel> at the corners of a sample.
template <typename T>
void to_kernel_and_offsets(const Problem<T>& p, const Tile<T>& tile, const T* dots, const Gradients<T>& to) {
  const Arrays<T> at(tile);
  const long n = tile.count * tile.taps, base = tile.first * tile.taps;
  T *kernel = to.kernel ? to.kernel + base : nullptr, *offsets = to.offsets ? to.offsets + 2 * base : nullptr;
  if (kernel && !p.offsets)
    for (long i = 0; i < n; i++) kernel[i] = dots[4 * i];
  if (kernel && p.offsets) {
#pragma omp simd
    for (long i = 0; i < n; i++) {
      const T *d = dots + 4 * i, top = d[0] + at.fx[i] * (d[1] - d[0]), below = d[2] + at.fx[i] * (d[3] - d[2]);
      kernel[i] = top + at.fy[i] * (below - top);
    }
  }
  if (offsets) {
#pragma omp simd
    for (long i = 0; i < n; i++) {
      const T *d = dots + 4 * i, right = d[1] - d[0], right_below = d[3] - d[2];
      offsets[2 * i] = at.v[i] * (d[2] + at.fx[i] * right_below - (d[0] + at.fx[i] * right));
      offsets[2 * i + 1] = at.v[i] * (right + at.fy[i] * (right_below - right));
    }
  }
  if (kernel) clear_padded(tile, tile.taps, kernel);
  if (offsets) clear_padded(tile, 2 * tile.taps, offsets);
}

// The computations of one worker, before the separate sums of all workers are collected.
template <typename T> class Worker {
  const Problem<T>& p_;
  const Gradients<T>& to_;
  const long wide_, back_wide_;  // padded lengths of a row of `gradient` and of `back`
  Buffer<T> gradient_, cols_, back_, dots_;
  std::vector<T> zeros_, dump_;
  Tile<T> tile_;

 public:
  Buffer<T> weight;  // gradient of the weight from this worker's points, packed like the weight

  Worker(const Problem<T>& p, const Gradients<T>& to)
      : p_(p), to_(to), wide_(mixed_width(p)), back_wide_(spread_width(p)), gradient_(kTile * wide_),
        cols_(kTile * p.group() * p.c), back_(kTile * back_wide_), dots_(4 * kTile * p.taps()), zeros_(p.c),
        dump_(p.c), tile_(p), weight(to.weight ? packed_size(p) : 0) {}

  // Processes the tiles [i, end); `rows` are those of the canvas gradient. Returns false if a point is outside.
  template <typename Rows> bool run(long i, long end, const T* grad, const T* packed, Rows rows) {
    bool valid = true;
    T* dots = to_.kernel || to_.offsets ? dots_.data : nullptr;
    T* cols = to_.weight ? cols_.data : nullptr;
    const bool needs_back = to_.canvas || dots;
    if (to_.weight) std::fill_n(weight.data, packed_size(p_), T(0));
    for (; i < end; i++) {
      valid &= tile_.place(p_, i);
      take(grad);
      for (long k = 0; k < p_.taps(); k += p_.group()) {
        const long g = std::min(p_.group(), p_.taps() - k);
        if (needs_back) {
          spread(p_, tile_, k, g, gradient_.data, packed, back_.data);
          with_channels(p_.c, [&](auto c) {
            const Pixels to{int(p_.h), int(p_.w), c, dump_.data(), rows};
            backward_taps(p_, tile_, zeros_.data(), to, k, g, c, back_.data, back_wide_, to_.canvas != nullptr, dots,
                          cols);
          });
        } else if (to_.weight) {
          with_channels(p_.c, [&](auto c) { gather(p_, tile_, zeros_.data(), k, g, c, cols); });
        }
        if (to_.weight) outer(p_, tile_, k, g, cols, gradient_.data, weight.data);
      }
      if (dots) to_kernel_and_offsets(p_, tile_, dots, to_);
    }
    return valid;
  }

 private:
  // Copies the tile's rows of the output's gradient, padded; zeros in padded slots.
  void take(const T* grad) {
    std::fill_n(gradient_.data, kTile * wide_, T(0));
    for (long t = 0; t < tile_.count; t++)
      if (tile_.image[t] >= 0) std::copy_n(grad + (tile_.first + t) * p_.o, p_.o, gradient_.data + t * wide_);
  }
};

template <typename T> Status backward(const Problem<T>& p, const T* grad, const Gradients<T>& to) {
  std::unique_ptr<Bands<T>> bands;
  if (to.canvas) bands = std::make_unique<Bands<T>>(p, to.canvas);
  const long workers = bands ? bands->workers() : p.workers();
  Buffer<T> packed(spread_size(p));
  pack_to_spread(p, packed.data);
  std::vector<std::unique_ptr<Worker<T>>> all(workers);
  for (auto& worker : all) worker = std::make_unique<Worker<T>>(p, to);
  std::atomic<bool> valid{true};
  work(p.threads, workers, [&](long j) {
    const long begin = part(p.tiles(), j, workers), end = part(p.tiles(), j + 1, workers);
    bool ok;
    if (bands) {
      bands->clear(j);
      ok = all[j]->run(begin, end, grad, packed.data, bands->rows_of(j));
    } else {
      ok = all[j]->run(begin, end, grad, packed.data, [](long) { return static_cast<T*>(nullptr); });
    }
    if (!ok) valid = false;
  });
  work(p.threads, workers, [&](long j) {
    if (bands) bands->collect(j);
    if (!to.weight) return;
    const long n = packed_size(p), begin = part(n, j, workers), end = part(n, j + 1, workers);
    for (long i = 1; i < workers; i++)
      for (long m = begin; m < end; m++) all[0]->weight.data[m] += all[i]->weight.data[m];
  });
  if (to.weight) unpack(p, all[0]->weight.data, to.weight);
  return valid ? kDone : kPointOutside;
}
