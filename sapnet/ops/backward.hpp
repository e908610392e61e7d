// Gradients of the filter. Positions and readings are computed again: forward saves nothing.
#pragma once
#include <atomic>

#include "bands.hpp"
#include "taps.hpp"
#include "weight.hpp"
#include "work.hpp"

template <typename T> struct Gradients {
  T *canvas, *weight, *kernel, *offsets;  // null: not needed
};

template <typename T> T total(typename Vector<T>::type v) {
  typedef T Half __attribute__((vector_size(kBytes / 2)));
  Half sum = load<Half>(reinterpret_cast<T*>(&v)) + load<Half>(reinterpret_cast<T*>(&v) + kWidth<T> / 2);
  T out = 0;
  for (int i = 0; i < kWidth<T> / 2; i++) out += sum[i];
  return out;
}

// <back, pixel> for the four pixels of a reading give the gradients of V (weighted) and of the offset (differences).
template <typename T>
void to_kernel_and_offsets(const Problem<T>& p, const Tile<T>& tile, const T* zeros, long k, long g, const T* back,
                           long wide, const Gradients<T>& to) {
  using V = typename Vector<T>::type;
  const auto pixels = pixels_of(p, zeros);
  const long base = tile.first * tile.taps, corners = p.offsets ? 4 : 1;
  each_tap(p, tile, k, g, [&](long t, long j, long i, T v) __attribute__((always_inline)) {
    const T *q[4], *from = back + t * wide + j * p.c;
    if (p.offsets) pixels.four(tile.image[t], tile.y[i], tile.x[i], q);
    else q[0] = pixels.one(tile.image[t], tile.y[i], tile.x[i]);
    T dot[4];
    for (long m = 0; m < corners; m++) {
      V sum{};
      long n = 0;
      for (; n + kWidth<T> <= p.c; n += kWidth<T>) sum += load<V>(from + n) * load<V>(q[m] + n);
      dot[m] = total<T>(sum);
      for (; n < p.c; n++) dot[m] += from[n] * q[m][n];
    }
    if (!p.offsets) {
      to.kernel[base + i] = dot[0];
      return;
    }
    const T y = tile.fy[i], x = tile.fx[i];
    T s[4];
    share(y, x, T(1), s);
    if (to.kernel) to.kernel[base + i] = s[0] * dot[0] + s[1] * dot[1] + s[2] * dot[2] + s[3] * dot[3];
    if (!to.offsets) return;
    to.offsets[2 * (base + i)] = v * ((1 - x) * (dot[2] - dot[0]) + x * (dot[3] - dot[1]));
    to.offsets[2 * (base + i) + 1] = v * ((1 - y) * (dot[1] - dot[0]) + y * (dot[3] - dot[2]));
  });
}

// Adds V times the shares of `back` to the pixels each tap has read.
template <typename T, typename P>
void to_canvas(const Problem<T>& p, const Tile<T>& tile, const P& pixels, long k, long g, const T* back, long wide) {
  each_tap(p, tile, k, g, [&](long t, long j, long i, T v) __attribute__((always_inline)) {
    const T* from = back + t * wide + j * p.c;
    T *q[4], s[4] = {v};
    if (p.offsets) {
      pixels.four(tile.image[t], tile.y[i], tile.x[i], q);
      share(tile.fy[i], tile.fx[i], v, s);
    } else {
      q[0] = pixels.one(tile.image[t], tile.y[i], tile.x[i]);
    }
    for (long m = 0; m < (p.offsets ? 4 : 1); m++)
      across<T>(p.c, [&](auto kind, long n) __attribute__((always_inline)) {
        using V = decltype(kind);
        store(q[m] + n, V(load<V>(q[m] + n) + s[m] * load<V>(from + n)));
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
    const Pixels pixels{p_.h, p_.w, p_.c, dump_.data(), rows};
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
