// Packing of the fixed weight and the three products with it. Depthwise weights need no matrix product.
#pragma once
#include "gemm.hpp"
#include "taps.hpp"
#include "work.hpp"

// Padded row lengths of the mixed results, [point][o], and of the gradients of a group of taps, [point][tap][c].
template <typename T> long mixed_width(const Problem<T>& p) { return round_up(p.o, kHalf<T>); }
template <typename T> long spread_width(const Problem<T>& p) { return round_up(p.group() * p.c, kHalf<T>); }

// Number of elements of the two packings.
template <typename T> long packed_size(const Problem<T>& p) { return p.taps() * p.c * (p.depthwise ? 1 : mixed_width(p)); }
template <typename T> long spread_size(const Problem<T>& p) {
  return p.depthwise ? packed_size(p) : p.groups() * p.o * spread_width(p);
}

// [o][c][k] -> [k][c][o, padded]; depthwise [c][k] -> [k][c].
template <typename T> void pack(const Problem<T>& p, T* to) {
  const long taps = p.taps(), wide = mixed_width(p), workers = p.workers();
  work(p.threads, workers, [&](long j) {
    for (long c = part(p.c, j, workers); c < part(p.c, j + 1, workers); c++) {
      if (p.depthwise) {
        for (long k = 0; k < taps; k++) to[k * p.c + c] = p.weight[c * taps + k];
        continue;
      }
      for (long o = 0; o < wide; o++)
        for (long k = 0; k < taps; k++) to[(k * p.c + c) * wide + o] = o < p.o ? p.weight[(o * p.c + c) * taps + k] : 0;
    }
  });
}

// Inverse of `pack`.
template <typename T> void unpack(const Problem<T>& p, const T* packed, T* weight) {
  const long taps = p.taps(), wide = mixed_width(p), workers = p.workers();
  work(p.threads, workers, [&](long j) {
    for (long c = part(p.c, j, workers); c < part(p.c, j + 1, workers); c++) {
      if (p.depthwise) {
        for (long k = 0; k < taps; k++) weight[c * taps + k] = packed[k * p.c + c];
        continue;
      }
      for (long o = 0; o < p.o; o++)
        for (long k = 0; k < taps; k++) weight[(o * p.c + c) * taps + k] = packed[(k * p.c + c) * wide + o];
    }
  });
}

// [o][c][k] -> [group][o][tap of the group][c], rows padded; depthwise as above.
template <typename T> void pack_to_spread(const Problem<T>& p, T* to) {
  if (p.depthwise) return pack(p, to);
  const long taps = p.taps(), wide = spread_width(p), workers = p.workers();
  work(p.threads, workers, [&](long j) {
    for (long o = part(p.o, j, workers); o < part(p.o, j + 1, workers); o++)
      for (long i = 0; i < p.groups(); i++) {
        T* row = to + (i * p.o + o) * wide;
        const long k = i * p.group(), g = std::min(p.group(), taps - k);
        std::fill(row + g * p.c, row + wide, T(0));
        for (long c = 0; c < p.c; c++)
          for (long n = 0; n < g; n++) row[n * p.c + c] = p.weight[(o * p.c + c) * taps + k + n];
      }
  });
}

// sums[point][o] (+)= weight . samples, over the taps [k, k + g); the first group sets the sums.
template <typename T> void mix(const Problem<T>& p, const Tile<T>& tile, long k, long g, const T* cols, const T* packed, T* sums) {
  const long c = p.c, wide = mixed_width(p);
  if (!p.depthwise) {
    multiply<false>(tile.count, wide, g * c, cols, g * c, packed + k * c * wide, wide, sums, wide, k > 0);
    return;
  }
  if (k == 0) std::fill_n(sums, tile.count * wide, T(0));
  for (long t = 0; t < tile.count; t++)
    for (long j = 0; j < g; j++) {
      const T *from = cols + (t * g + j) * c, *w = packed + (k + j) * c;
      T* to = sums + t * wide;
      for (long n = 0; n < c; n++) to[n] += from[n] * w[n];
    }
}

// back[point][tap][c] = gradient of the taps [k, k + g) before V, from the gradient[point][o].
template <typename T>
void spread(const Problem<T>& p, const Tile<T>& tile, long k, long g, const T* gradient, const T* packed, T* back) {
  const long c = p.c, wide = mixed_width(p), back_wide = spread_width(p);
  if (!p.depthwise) {
    const T* from = packed + k / p.group() * p.o * back_wide;
    multiply<false>(tile.count, round_up(g * c, kHalf<T>), p.o, gradient, wide, from, back_wide, back, back_wide, false);
    return;
  }
  for (long t = 0; t < tile.count; t++)
    for (long j = 0; j < g; j++)
      for (long n = 0; n < c; n++) back[t * back_wide + j * c + n] = gradient[t * wide + n] * packed[(k + j) * c + n];
}

// The packed gradient of the weight += samples x gradient[point][o] for the taps [k, k + g).
template <typename T>
void outer(const Problem<T>& p, const Tile<T>& tile, long k, long g, const T* cols, const T* gradient, T* packed) {
  const long c = p.c, wide = mixed_width(p);
  if (!p.depthwise) {
    multiply<true>(g * c, wide, tile.count, cols, g * c, gradient, wide, packed + k * c * wide, wide, true);
    return;
  }
  for (long t = 0; t < tile.count; t++)
    for (long j = 0; j < g; j++)
      for (long n = 0; n < c; n++) packed[(k + j) * c + n] += cols[(t * g + j) * c + n] * gradient[t * wide + n];
}
