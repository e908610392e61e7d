// Gradients of the filter. Positions and readings are computed again: forward saves nothing.
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

// Halves a vector until four lanes are left.
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

// The dot products of `from` with N rows.
template <int N, typename T>
inline __attribute__((always_inline)) typename Short<T>::type dots(long c, const T* from, const T* const* q) {
  using V = typename Vector<T>::type;
  using S = typename Short<T>::type;
  V wide[N] = {};
  S sums[4] = {};
  long n = 0;
  for (; n + kWidth<T> <= c; n += kWidth<T>)
    for (int m = 0; m < N; m++) wide[m] += load<V>(from + n) * load<V>(q[m] + n);
  for (int m = 0; m < N; m++) sums[m] = fold<T>(wide[m]);
  for (; n + 4 <= c; n += 4)
    for (int m = 0; m < N; m++) sums[m] += load<S>(from + n) * load<S>(q[m] + n);
  if (n == c) return totals<T>(sums);
  // Apart from the sums, which would leave their registers if single lanes of them were added to.
  T rest[4] = {};
  for (; n < c; n++)
    for (int m = 0; m < N; m++) rest[m] += from[n] * q[m][n];
  return totals<T>(sums) + load<S>(rest);
}

// <back, pixel> for the pixels of a reading give the gradients of V (weighted) and of the offset (differences).
template <typename T>
void to_kernel_and_offsets(const Problem<T>& p, const Tile<T>& tile, const T* zeros, long k, long g, const T* back,
                           long wide, const Gradients<T>& to) {
  const auto pixels = pixels_of(p, zeros);
  const Arrays<T> at(tile);
  const long c = p.c, base = tile.first * tile.taps;
  T *kernel = to.kernel ? to.kernel + base : nullptr, *offsets = to.offsets ? to.offsets + 2 * base : nullptr;
  if (!p.offsets) {
    each_tap(tile, k, g, [&](long image, long t, long j, long i) __attribute__((always_inline)) {
      const T* q = pixels.one(image, at.y[i], at.x[i]);
      kernel[i] = dots<1>(c, back + t * wide + j * c, &q)[0];
    });
    return;
  }
  each_tap(tile, k, g, [&](long image, long t, long j, long i) __attribute__((always_inline)) {
    const T* q[4];
    pixels.four(image, at.y[i], at.x[i], q);
    const auto dot = dots<4>(c, back + t * wide + j * c, q);
    const T y = at.fy[i], x = at.fx[i];
    const T right = dot[1] - dot[0], right_below = dot[3] - dot[2];
    const T top = dot[0] + x * right, below = dot[2] + x * right_below;
    if (kernel) kernel[i] = top + y * (below - top);
    if (!offsets) return;
    offsets[2 * i] = at.v[i] * (below - top);
    offsets[2 * i + 1] = at.v[i] * (right + y * (right_below - right));
  });
}

// Adds V times the shares of `back` to the pixels each tap has read.
template <typename T, typename P>
void to_canvas(const Problem<T>& p, const Tile<T>& tile, const P& to, long k, long g, const T* back, long wide) {
  const P pixels = to;
  const Arrays<T> at(tile);
  const long c = p.c;
  if (!p.offsets) {
    each_tap(tile, k, g, [&](long image, long t, long j, long i) __attribute__((always_inline)) {
      T *q = pixels.one(image, at.y[i], at.x[i]), v = at.v[i];
      const T* from = back + t * wide + j * c;
      across<T>(c, [&](auto kind, long n) __attribute__((always_inline)) {
        using V = decltype(kind);
        store(q + n, V(load<V>(q + n) + v * load<V>(from + n)));
      });
    });
    return;
  }
  each_tap(tile, k, g, [&](long image, long t, long j, long i) __attribute__((always_inline)) {
    T *q[4], s[4] = {at.share[0][i], at.share[1][i], at.share[2][i], at.share[3][i]};
    pixels.four(image, at.y[i], at.x[i], q);
    const T* from = back + t * wide + j * c;
    across<T>(c, [&](auto kind, long n) __attribute__((always_inline)) {
      using V = decltype(kind);
      const V here = load<V>(from + n);
      for (int m = 0; m < 4; m++) store(q[m] + n, V(load<V>(q[m] + n) + s[m] * here));
    });
  });
}

// No gradient comes back from padded slots.
template <typename T> void clear_padded(const Tile<T>& tile, const Gradients<T>& to) {
  for (long t = 0; t < tile.count; t++) {
    if (tile.image[t] >= 0) continue;
    const long begin = (tile.first + t) * tile.taps;
    if (to.kernel) std::fill_n(to.kernel + begin, tile.taps, T(0));
    if (to.offsets) std::fill_n(to.offsets + 2 * begin, 2 * tile.taps, T(0));
  }
}

// One worker's share of everything but the collection of what the workers have summed up apart.
template <typename T> class Worker {
  const Problem<T>& p_;
  const Gradients<T>& to_;
  const long wide_, back_wide_;  // padded lengths of a row of `gradient` and of `back`
  Buffer<T> gradient_, cols_, back_;
  std::vector<T> zeros_, dump_;
  Tile<T> tile_;

 public:
  Buffer<T> weight;  // its gradient from this worker's points, packed like the weight

  Worker(const Problem<T>& p, const Gradients<T>& to)
      : p_(p), to_(to), wide_(mixed_width(p)), back_wide_(spread_width(p)), gradient_(kTile * wide_),
        cols_(kTile * p.group() * p.c), back_(kTile * back_wide_), zeros_(p.c), dump_(p.c), tile_(p),
        weight(to.weight ? packed_size(p) : 0) {}

  // Tiles [i, end); `rows` are those of the canvas gradient. False if a point lies outside the canvas.
  template <typename Rows> bool run(long i, long end, const T* grad, const T* packed, Rows rows) {
    bool right = true;
    const Pixels pixels{int(p_.h), int(p_.w), p_.c, dump_.data(), rows};
    if (to_.weight) std::fill_n(weight.data, packed_size(p_), T(0));
    for (; i < end; i++) {
      right &= tile_.place(p_, i);
      take(grad);
      clear_padded(tile_, to_);
      for (long k = 0; k < p_.taps(); k += p_.group()) {
        const long g = std::min(p_.group(), p_.taps() - k);
        if (to_.weight) {
          gather(p_, tile_, zeros_.data(), k, g, cols_.data);
          outer(p_, tile_, k, g, cols_.data, gradient_.data, weight.data);
        }
        if (!to_.canvas && !to_.kernel && !to_.offsets) continue;
        spread(p_, tile_, k, g, gradient_.data, packed, back_.data);
        if (to_.kernel || to_.offsets)
          to_kernel_and_offsets(p_, tile_, zeros_.data(), k, g, back_.data, back_wide_, to_);
        if (to_.canvas) to_canvas(p_, tile_, pixels, k, g, back_.data, back_wide_);
      }
    }
    return right;
  }

 private:
  // The tile's rows of the output's gradient, padded; zeros in padded slots.
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
  std::atomic<bool> right{true};
  work(p.threads, workers, [&](long j) {
    const long begin = part(p.tiles(), j, workers), end = part(p.tiles(), j + 1, workers);
    bool ok;
    if (bands) {
      bands->clear(j);
      ok = all[j]->run(begin, end, grad, packed.data, bands->rows_of(j));
    } else {
      ok = all[j]->run(begin, end, grad, packed.data, [](long) { return static_cast<T*>(nullptr); });
    }
    if (!ok) right = false;
  });
  work(p.threads, workers, [&](long j) {
    if (bands) bands->collect(j);
    if (!to.weight) return;
    const long n = packed_size(p), begin = part(n, j, workers), end = part(n, j + 1, workers);
    for (long i = 1; i < workers; i++)
      for (long m = begin; m < end; m++) all[0]->weight.data[m] += all[i]->weight.data[m];
  });
  if (to.weight) unpack(p, all[0]->weight.data, to.weight);
  return right ? kDone : kPointOutside;
}
