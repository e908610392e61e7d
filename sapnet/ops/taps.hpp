// Positions of the taps of a tile of points, and sampling of the canvas.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "gemm.hpp"

constexpr long kTile = 48;     // points; a multiple of 6, 8 and 12, the block heights of the products
constexpr long kDepth = 320;   // target width of a group of taps: channels x taps
constexpr int kFar = 1 << 29;  // larger than any canvas

enum Status { kDone = 0, kPointOutside = 1, kNoMemory = 2 };

template <typename T> struct Problem {
  const T *canvas, *weight, *kernel, *offsets;  // kernel, offsets and points may be null
  const int64_t* points;
  long b, h, w, c, l, o, size;
  bool depthwise;
  int threads;

  long taps() const { return size * size; }
  long positions() const { return b * l; }
  long tiles() const { return (positions() + kTile - 1) / kTile; }
  long group() const { return std::min(taps(), std::max(1L, kDepth / c)); }
  long groups() const { return (taps() + group() - 1) / group(); }
  int workers() const { return static_cast<int>(std::max(1L, std::min<long>(threads, tiles()))); }

  // Sets the raster index of the n-th of all points, -1 in padded slots; returns false for a point outside the canvas.
  bool point(long n, long& index) const {
    index = points ? points[n] : n % l;
    const bool valid = index >= -1 && index < h * w;
    if (!valid) index = -1;
    return valid;
  }
};

template <typename T> struct Tile {
  long first = 0, count = 0, taps;
  long image[kTile];      // first row of the point's image among the rows of all images; -1 in padded slots
  std::vector<int> y, x;    // [point][tap]: the pixel
  std::vector<T> fy, fx;    // fractional part of the position; only with offsets
  std::vector<T> v;         // V
  std::vector<T> share[4];  // with offsets, the bilinear weights of (0, 0), (0, 1), (1, 0), (1, 1), times V

  explicit Tile(const Problem<T>& p) : taps(p.taps()), y(kTile * taps), x(y.size()), v(y.size(), T(1)) {
    if (!p.offsets) return;
    fy = fx = share[0] = share[1] = share[2] = share[3] = v;
  }

  bool place(const Problem<T>& p, long tile) {
    bool valid = true;
    first = tile * kTile, count = std::min(kTile, p.positions() - first);
    for (long t = 0; t < count; t++) {
      long index;
      valid &= p.point(first + t, index);
      image[t] = index < 0 ? -1 : (first + t) / p.l * p.h;
      index = std::max(index, 0L);
      reach(p.size, t, static_cast<int>(index / p.w), static_cast<int>(index % p.w));
    }
    if (p.kernel) std::copy_n(p.kernel + first * taps, count * taps, v.data());
    if (p.offsets) move(p.offsets + 2 * first * taps), weigh();
    return valid;
  }

 private:
  void reach(long size, long t, int row, int column) {
    int *ys = &y[t * taps], *xs = &x[t * taps];
    const int reach = static_cast<int>(size / 2);
    for (int dy = -reach, k = 0; dy <= reach; dy++)
      for (int dx = -reach; dx <= reach; dx++, k++) ys[k] = row + dy, xs[k] = column + dx;
  }

  void move(const T* shift) {
    int *ys = y.data(), *xs = x.data();
    T *fys = fy.data(), *fxs = fx.data();
    const long n = count * taps;
#pragma omp simd
    for (long i = 0; i < n; i++) {
      split(shift[2 * i], ys[i], fys[i]);
      split(shift[2 * i + 1], xs[i], fxs[i]);
    }
  }

  void weigh() {
    const T *ys = fy.data(), *xs = fx.data(), *vs = v.data();
    T *s0 = share[0].data(), *s1 = share[1].data(), *s2 = share[2].data(), *s3 = share[3].data();
    const long n = count * taps;
#pragma omp simd
    for (long i = 0; i < n; i++) {
      const T high = ys[i] * vs[i], low = vs[i] - high;
      s1[i] = low * xs[i], s0[i] = low - s1[i];
      s3[i] = high * xs[i], s2[i] = high - s3[i];
    }
  }

  // The offset is split before it is added, so no precision is lost. NaN is sampled outside, with weights of NaN.
  static inline __attribute__((always_inline)) void split(T shift, int& whole, T& fraction) {
    shift = shift > kFar ? T(kFar) : shift < -kFar ? T(-kFar) : shift;
    const T floor = std::floor(shift);
    fraction = shift - floor;
    whole += floor == floor ? static_cast<int>(floor) : -kFar;
  }
};

// Addresses of pixels: `row(r)` is the start of row r among the rows of all images, `outside` is used off the canvas.
template <typename P, typename C, typename Rows> struct Pixels {
  int h, w;
  C c;
  P outside;
  Rows row;

  // 0 <= i < n
  static bool below(int i, int n) { return static_cast<unsigned>(i) < static_cast<unsigned>(n); }

  P one(long image, int y, int x) const {
    return below(y, h) && below(x, w) ? row(image + y) + static_cast<long>(x) * c : outside;
  }
  void four(long image, int y, int x, P (&q)[4]) const {
    if (below(y, h - 1) && below(x, w - 1)) {
      q[0] = row(image + y) + static_cast<long>(x) * c, q[1] = q[0] + c;
      q[2] = row(image + y + 1) + x * c, q[3] = q[2] + c;
    } else {
      for (int i = 0; i < 4; i++) q[i] = one(image, y + i / 2, x + i % 2);
    }
  }
};
template <typename P, typename C, typename Rows> Pixels(int, int, C, P, Rows) -> Pixels<P, C, Rows>;

template <typename T, typename C> auto pixels_of(const Problem<T>& p, const T* zeros, C c) {
  const T* canvas = p.canvas;
  const long step = p.w * p.c;
  return Pixels{int(p.h), int(p.w), c, zeros, [canvas, step](long r) { return canvas + r * step; }};
}

// Runs f with the number of channels, as a constant for common small numbers so that loops over channels unroll.
template <typename F> void with_channels(long c, F f) {
  switch (c) {
    case 8: return f(std::integral_constant<long, 8>{});
    case 16: return f(std::integral_constant<long, 16>{});
    case 24: return f(std::integral_constant<long, 24>{});
    case 32: return f(std::integral_constant<long, 32>{});
    case 40: return f(std::integral_constant<long, 40>{});
    case 48: return f(std::integral_constant<long, 48>{});
    case 64: return f(std::integral_constant<long, 64>{});
    default: return f(c);
  }
}

// The vector type for a row of channels: whole vectors, or halves if a constant number is a multiple of halves only.
template <typename T, typename C> struct Row { typedef typename Vector<T>::type type; };
template <typename T, long N> struct Row<T, std::integral_constant<long, N>> {
  static_assert(N % kHalf<T> == 0);
  typedef std::conditional_t<N % kWidth<T> == 0, typename Vector<T>::type, typename Half<T>::type> type;
};

// Runs f(vector type, i) over a row of channels: first vectors, then groups of four, then single elements.
template <typename T, typename C, typename F> inline __attribute__((always_inline)) void across(C c, F f) {
  using V = typename Row<T, C>::type;
  constexpr long kStep = sizeof(V) / sizeof(T);
  long i = 0;
#pragma GCC unroll 8
  for (; i + kStep <= c; i += kStep) f(V{}, i);
  if constexpr (std::is_same_v<C, long>) {
    for (; i + 4 <= c; i += 4) f(typename Short<T>::type{}, i);
    for (; i < c; i++) f(T{}, i);
  }
}

// Runs f(image, t, j, i) over a tile's points and the taps [k, k + g): the j-th of these taps is the tile's i-th.
template <typename T, typename F>
inline __attribute__((always_inline)) void each_tap(const Tile<T>& tile, long k, long g, F f) {
  const long count = tile.count, taps = tile.taps;
  for (long t = 0; t < count; t++) {
    const long image = tile.image[t];
    if (image < 0) continue;
    for (long j = 0; j < g; j++) f(image, t, j, t * taps + k + j);
  }
}

// Pointers to the arrays of a tile; without them the compiler reloads the addresses after each store.
template <typename T> struct Arrays {
  const int *y, *x;
  const T *fy, *fx, *v, *share[4];
  explicit Arrays(const Tile<T>& tile)
      : y(tile.y.data()), x(tile.x.data()), fy(tile.fy.data()), fx(tile.fx.data()), v(tile.v.data()),
        share{tile.share[0].data(), tile.share[1].data(), tile.share[2].data(), tile.share[3].data()} {}
};

// Fills the rows of n elements of padded slots with zeros.
template <typename T> void clear_padded(const Tile<T>& tile, long n, T* rows) {
  for (long t = 0; t < tile.count; t++)
    if (tile.image[t] < 0) std::fill_n(rows + t * n, n, T(0));
}

// Samples times V of the taps [k, k + g) at a tile's points: cols[point][tap][channel]; zeros in padded slots.
template <typename T, typename C>
void gather(const Problem<T>& p, const Tile<T>& tile, const T* zeros, long k, long g, C c, T* cols) {
  const auto pixels = pixels_of(p, zeros, c);
  const Arrays<T> at(tile);
  clear_padded(tile, g * c, cols);
  if (p.offsets) {
    each_tap(tile, k, g, [&](long image, long t, long j, long i) __attribute__((always_inline)) {
      const T *q[4], s[4] = {at.share[0][i], at.share[1][i], at.share[2][i], at.share[3][i]};
      pixels.four(image, at.y[i], at.x[i], q);
      T* to = cols + (t * g + j) * c;
      across<T>(c, [&](auto kind, long n) __attribute__((always_inline)) {
        using V = decltype(kind);
        const V low = s[0] * load<V>(q[0] + n) + s[1] * load<V>(q[1] + n);
        store(to + n, V(low + (s[2] * load<V>(q[2] + n) + s[3] * load<V>(q[3] + n))));
      });
    });
  } else {
    each_tap(tile, k, g, [&](long image, long t, long j, long i) __attribute__((always_inline)) {
      const T *q = pixels.one(image, at.y[i], at.x[i]), v = at.v[i];
      T* to = cols + (t * g + j) * c;
      across<T>(c, [&](auto kind, long n) __attribute__((always_inline)) {
        using V = decltype(kind);
        store(to + n, V(v * load<V>(q + n)));
      });
    });
  }
}
