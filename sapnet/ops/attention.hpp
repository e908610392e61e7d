// The cluster attentions of one block (Eq. 10-16) and their fusion with the local branch (Eq. 20), forward:
//   q = softmax over space of Q's logits, mask = sigmoid(M_S), raw = (q * mask)^T source, pooled = raw * M_C,
//   out = local + fusion * (sum over the attentions of p pooled - local).
// The grid of an image is divided into pieces of whole rows, and its points into the same number of pieces. The pieces
// of all images are independent parts.
#pragma once
#include <limits>
#include <numeric>

#include "heads.hpp"

constexpr long kSpace = 9;       // taps of M_S, 3x3
constexpr long kAttentions = 2;  // maximum per block

template <typename T> struct Branch {
  const T *source, *p;                       // [b][n][c], [b][l][m]
  const T *query, *query_bias;               // Q: [m][c], [m]
  const T *space, *space_bias;               // M_S: [c][9], [1]
  const T *channel, *channel_bias;           // M_C: [c][c], [c]
  bool own;                                  // the source is the grid
  T *q, *mask, *scale, *raw, *gain, *mean;   // kept for backward, see `keep`
};

template <typename T> struct Attention {
  long b, h, w, c, m, l, count;
  int threads;
  const T *grid, *local, *fusion;  // [b][n][c], [b][l][c], [b][l]
  Branch<T> of[kAttentions];

  long n() const { return h * w; }
  // Columns of the product that computes the logits of Q and the taps of M_S of all attentions.
  long columns() const { return m + kSpace; }
  long wide() const { return round_up(count * columns(), kHalf<T>); }
  long deep() const { return round_up(c, kHalf<T>); }
  long maps() const { return round_up(m, kHalf<T>); }
  long pieces() const { return std::min(threads / std::gcd(b, static_cast<long>(threads)), h); }
  long parts() const { return b * pieces(); }
  long workers() const { return std::max(1L, std::min<long>(threads, parts())); }
  // Elements that a worker needs for a tile in any phase.
  long scratch() const { return (kTile + maps() + 1) * (wide() + 2 * deep() + 2 * maps()); }
  long kept() const { return b * (n() * (m + 1) + m * (c + 1) + 2 * c); }

  // Sets the pointers to the saved results of each branch: q before its `scale`, [b][n][m] and [b][m]; mask [b][n]; raw
  // [b][m][c]; gain (M_C) and the mean over space, [b][c].
  void keep(T* state) {
    for (Branch<T>* a = of; a < of + count; a++) {
      a->q = state, a->mask = a->q + b * n() * m, a->scale = a->mask + b * n(), a->raw = a->scale + b * m;
      a->gain = a->raw + b * m * c, a->mean = a->gain + b * c, state += kept();
    }
  }

  // Runs f(worker, part, image, first, end) for every part; [first, end) are rows of the grid or points of `length`.
  template <typename F> void each_part(long length, F f) const {
    work(threads, workers(), [&](long j) {
      for (long i = part(parts(), j, workers()); i < part(parts(), j + 1, workers()); i++) {
        const long piece = i % pieces();
        f(j, i, i / pieces(), part(length, piece, pieces()), part(length, piece + 1, pieces()));
      }
    });
  }
};

// Runs f(first, rows) over tiles of [begin, end).
template <typename F> void each_tile(long begin, long end, F f) {
  for (; begin < end; begin += kTile) f(begin, std::min(kTile, end - begin));
}

// Rows of c elements for the right side of a product, copied and padded to whole half vectors if necessary.
template <typename T> const T* padded(const T* from, long rows, long c, long deep, T* copy) {
  if (c == deep) return from;
  for (long t = 0; t < rows; t++) {
    std::copy_n(from + t * c, c, copy + t * deep);
    std::fill(copy + t * deep + c, copy + (t + 1) * deep, T(0));
  }
  return copy;
}

// to[i] += from[i]
template <typename T> void add(long n, const T* from, T* to) {
#pragma omp simd
  for (long i = 0; i < n; i++) to[i] += from[i];
}

// The weights of Q and M_S of all attentions as columns, [c][wide].
template <typename T> void pack_columns(const Attention<T>& p, T* to) {
  const long wide = p.wide();
  std::fill_n(to, p.c * wide, T(0));
  for (long a = 0; a < p.count; a++) {
    T* at = to + a * p.columns();
    for (long c = 0; c < p.c; c++) {
      for (long k = 0; k < p.m; k++) at[c * wide + k] = p.of[a].query[k * p.c + c];
      for (long k = 0; k < kSpace; k++) at[c * wide + p.m + k] = p.of[a].space[c * kSpace + k];
    }
  }
}

// For a range of rows: the logits of Q, the maximum of each column, the taps of M_S, [attention][image][tap][n], and
// sums over space.
template <typename T>
void project(const Attention<T>& p, long image, long begin, long end, const T* packed, T* scratch, T* most, T* sum,
          T* taps) {
  const long n = p.n(), c = p.c, m = p.m, wide = p.wide();
  T *product = scratch, *some = product + kTile * wide;
  std::fill_n(most, wide, -std::numeric_limits<T>::infinity());
  std::fill_n(sum, c, T(0));
  each_tile(begin * p.w, end * p.w, [&](long first, long rows) {
    const T* x = p.grid + (image * n + first) * c;
    multiply<false>(rows, wide, c, x, c, packed, wide, product, wide, false);
    std::fill_n(some, c, T(0));
    for (long t = 0; t < rows; t++) {
      const T* row = product + t * wide;
#pragma omp simd
      for (long o = 0; o < wide; o++) most[o] = row[o] > most[o] ? row[o] : most[o];
      add(c, x + t * c, some);
    }
    add(c, some, sum);
    for (long a = 0; a < p.count; a++) {
      const T *from = product + a * p.columns(), *bias = p.of[a].query_bias;
      T *q = p.of[a].q + (image * n + first) * m, *tap = taps + (a * p.b + image) * kSpace * n + first;
      with_maps(m, [&](auto m) {
        for (long t = 0; t < rows; t++)
#pragma omp simd
          for (long k = 0; k < m; k++) q[t * m + k] = from[t * wide + k] + bias[k];
      });
      for (long k = 0; k < kSpace; k++)
        for (long t = 0; t < rows; t++) tap[k * n + t] = from[t * wide + p.m + k];
    }
  });
}

// M_S of a range of rows, from the taps of the image.
template <typename T>
void mask_rows(const Attention<T>& p, const Branch<T>& of, long image, long begin, long end, const T* taps) {
  const long n = p.n(), w = p.w;
  T* mask = of.mask + image * n;
  for (long y = begin; y < end; y++) {
    T* row = mask + y * w;
    std::fill_n(row, w, of.space_bias[0]);
    for (long k = 0; k < kSpace; k++) {
      const long dy = k / 3 - 1, dx = k % 3 - 1;
      if (y + dy < 0 || y + dy >= p.h) continue;
      const T* from = taps + k * n + (y + dy) * w + dx;
#pragma omp simd
      for (long x = std::max(0L, -dx); x < w - std::max(0L, dx); x++) row[x] += from[x];
    }
  }
  activate<T>(kSigmoid, T(1), end - begin, w, mask + begin * w);
}

// For a range of rows: the exponentials of the logits, their sums, and the source pooled with them and the mask.
template <typename T>
void pool(const Attention<T>& p, const Branch<T>& of, long image, long begin, long end, const T* most, T* scratch,
          T* total, T* pooled) {
  const long n = p.n(), c = p.c, m = p.m, deep = p.deep();
  T *share = scratch, *copy = share + kTile * m, *product = copy + kTile * deep, *some = product + m * deep;
  std::fill_n(total, m, T(0));
  std::fill_n(pooled, m * deep, T(0));
  each_tile(begin * p.w, end * p.w, [&](long first, long rows) {
    T* q = of.q + (image * n + first) * m;
    const T* mask = of.mask + image * n + first;
    with_maps(m, [&](auto m) {
      for (long t = 0; t < rows; t++)
#pragma omp simd
        for (long k = 0; k < m; k++) q[t * m + k] -= most[k];
    });
#pragma omp simd
    for (long i = 0; i < rows * m; i++) q[i] = exponential(q[i]);
    std::fill_n(some, m, T(0));
    with_maps(m, [&](auto m) {
      for (long t = 0; t < rows; t++)
#pragma omp simd
        for (long k = 0; k < m; k++) {
          some[k] += q[t * m + k];
          share[t * m + k] = q[t * m + k] * mask[t];
        }
    });
    add(m, some, total);
    const T* source = padded(of.source + (image * n + first) * c, rows, c, deep, copy);
    // Accumulated tile by tile, because a single sum over a large image would lose precision.
    multiply<true>(m, deep, rows, share, m, source, deep, product, deep, false);
    add(m * deep, product, pooled);
  });
}

// pooled[m][deep] of an image: raw times M_C, padded with zeros.
template <typename T> void gain_maps(const Attention<T>& p, const Branch<T>& of, long image, T* pooled) {
  const T *raw = of.raw + image * p.m * p.c, *gain = of.gain + image * p.c;
  for (long k = 0; k < p.m; k++) {
    for (long i = 0; i < p.c; i++) pooled[k * p.deep() + i] = raw[k * p.c + i] * gain[i];
    std::fill(pooled + k * p.deep() + p.c, pooled + (k + 1) * p.deep(), T(0));
  }
}

// Sum of all attentions at a range of points, [rows][deep]; pooled: [attention][b][m][deep].
template <typename T>
void distribute(const Attention<T>& p, long image, long first, long rows, const T* pooled, T* to) {
  for (long a = 0; a < p.count; a++) {
    const T* shares = p.of[a].p + (image * p.l + first) * p.m;
    const T* from = pooled + (a * p.b + image) * p.m * p.deep();
    multiply<false>(rows, p.deep(), p.m, shares, p.m, from, p.deep(), to, p.deep(), a > 0);
  }
}

// Combines the sums of the parts of an image: scale, raw, mean, M_C, and the pooled maps.
template <typename T>
void finish(const Attention<T>& p, const Branch<T>& of, long image, const T* sum, const T* total, const T* part_pooled,
            long step, T* pooled) {
  const long c = p.c, m = p.m, deep = p.deep();
  T *mean = of.mean + image * c, *gain = of.gain + image * c;
  T *scale = of.scale + image * m, *raw = of.raw + image * m * c;
  std::fill_n(mean, c, T(0)), std::fill_n(scale, m, T(0)), std::fill_n(raw, m * c, T(0));
  for (long i = image * p.pieces(); i < (image + 1) * p.pieces(); i++) {
    add(c, sum + i * c, mean), add(m, total + i * p.count * m, scale);
    for (long k = 0; k < m; k++) add(c, part_pooled + i * step + k * deep, raw + k * c);
  }
  for (long i = 0; i < c; i++) mean[i] /= static_cast<T>(p.n());
  for (long k = 0; k < m; k++) {
    scale[k] = T(1) / scale[k];
    for (long i = 0; i < c; i++) raw[k * c + i] *= scale[k];
  }
  for (long o = 0; o < c; o++) {
    gain[o] = of.channel_bias[o];
    for (long i = 0; i < c; i++) gain[o] += of.channel[o * c + i] * mean[i];
  }
  activate<T>(kSigmoid, T(1), 1, c, gain);
  gain_maps(p, of, image, pooled);
}

template <typename T> void attention_forward(const Attention<T>& p, T* out) {
  const long c = p.c, m = p.m, wide = p.wide(), deep = p.deep(), parts = p.parts(), step = p.count * m * deep;
  Buffer<T> pooled(p.count * p.b * m * deep), scratch(p.workers() * p.scratch());
  {
    Buffer<T> packed(c * wide), taps(p.count * p.b * kSpace * p.n()), most(parts * wide), sum(parts * c);
    Buffer<T> total(parts * p.count * m), part_pooled(parts * step);
    pack_columns(p, packed.data);
    p.each_part(p.h, [&](long j, long i, long image, long begin, long end) {
      project(p, image, begin, end, packed.data, scratch.data + j * p.scratch(), most.data + i * wide, sum.data + i * c,
           taps.data);
    });
    p.each_part(p.h, [&](long j, long i, long image, long begin, long end) {
      std::vector<T> largest(m);
      for (long a = 0; a < p.count; a++) {
        const Branch<T>& of = p.of[a];
        for (long k = 0; k < m; k++) {
          const T* from = most.data + image * p.pieces() * wide + a * p.columns() + k;
          T value = from[0];
          for (long n = 1; n < p.pieces(); n++) value = from[n * wide] > value ? from[n * wide] : value;
          largest[k] = value + of.query_bias[k];
        }
        mask_rows(p, of, image, begin, end, taps.data + (a * p.b + image) * kSpace * p.n());
        pool(p, of, image, begin, end, largest.data(), scratch.data + j * p.scratch(),
             total.data + (i * p.count + a) * m, part_pooled.data + i * step + a * m * deep);
      }
    });
    for (long a = 0; a < p.count; a++)
      for (long image = 0; image < p.b; image++)
        finish(p, p.of[a], image, sum.data, total.data + a * m, part_pooled.data + a * m * deep, step,
               pooled.data + (a * p.b + image) * m * deep);
  }
  p.each_part(p.l, [&](long j, long, long image, long begin, long end) {
    T* attended = scratch.data + j * p.scratch();
    each_tile(begin, end, [&](long first, long rows) {
      const long at = image * p.l + first;
      distribute(p, image, first, rows, pooled.data, attended);
      for (long t = 0; t < rows; t++) {
        const T *row = attended + t * deep, *local = p.local + (at + t) * c, share = p.fusion[at + t];
        T* to = out + (at + t) * c;
#pragma omp simd
        for (long i = 0; i < c; i++) to[i] = local[i] + share * (row[i] - local[i]);
      }
    });
  });
}
