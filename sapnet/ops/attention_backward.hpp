// Gradients of a block's attentions and their fusion, see attention.hpp.
#pragma once
#include "attention.hpp"

template <typename T> struct BranchGradients {
  T *source, *p, *query, *query_bias, *space, *space_bias, *channel, *channel_bias;  // source: null if not needed
};

template <typename T> struct AttentionGradients {
  T *grid, *local, *fusion;
  BranchGradients<T> of[kAttentions];
};

// The gradients at a range of points, and their contribution to the pooled maps, part_pooled[attention][m][deep].
template <typename T>
void from_points(const Attention<T>& p, long image, long begin, long end, const T* grad, const T* pooled,
                 const T* across, T* scratch, T* part_pooled, const AttentionGradients<T>& to) {
  const long c = p.c, m = p.m, deep = p.deep(), maps = p.maps();
  T *attended = scratch, *shares = attended + kTile * deep;
  std::fill_n(part_pooled, p.count * m * deep, T(0));
  each_tile(begin, end, [&](long first, long rows) {
    const long at = image * p.l + first;
    distribute(p, image, first, rows, pooled, attended);
    for (long t = 0; t < rows; t++) {
      const T *g = grad + (at + t) * c, *from = p.local + (at + t) * c, share = p.fusion[at + t];
      T *row = attended + t * deep, *local = to.local + (at + t) * c, dot = 0;
#pragma omp simd reduction(+ : dot)
      for (long i = 0; i < c; i++) {
        dot += g[i] * (row[i] - from[i]);
        row[i] = share * g[i];
        local[i] = g[i] - row[i];
      }
      to.fusion[at + t] = dot;
    }
    for (long a = 0; a < p.count; a++) {
      const T* right = across + (a * p.b + image) * c * maps;
      multiply<false>(rows, maps, c, attended, deep, right, maps, shares, maps, false);
      T* back = to.of[a].p + at * m;
      with_maps(m, [&](auto m) {
        for (long t = 0; t < rows; t++)
#pragma omp simd
          for (long k = 0; k < m; k++) back[t * m + k] = shares[t * maps + k];
      });
      const T* weights = p.of[a].p + at * m;
      multiply<true>(m, deep, rows, weights, m, attended, deep, part_pooled + a * m * deep, deep, true);
    }
  });
}

// Backward pass of M_C and of the scale of the softmax. pooled: on entry the gradient of the pooled maps, [m][deep], on
// return that of q^T source before the scale; across: its transpose; dot: dot product of q with its gradient over space,
// times the scale; mean: the gradient through the mean, added at every position.
template <typename T>
void from_maps(const Attention<T>& p, const Branch<T>& of, long image, T* pooled, T* across, T* dot, T* mean,
               const BranchGradients<T>& to) {
  const long c = p.c, m = p.m, deep = p.deep(), maps = p.maps();
  const T *raw = of.raw + image * m * c, *gain = of.gain + image * c, *scale = of.scale + image * m;
  const T* seen = of.mean + image * c;
  std::vector<T> logit(c, T(0));
  std::fill_n(across, c * maps, T(0));
  for (long k = 0; k < m; k++) {
    T* row = pooled + k * deep;
    dot[k] = 0;
    for (long i = 0; i < c; i++) {
      logit[i] += row[i] * raw[k * c + i];
      row[i] *= gain[i] * scale[k];
      dot[k] += row[i] * raw[k * c + i];
      across[i * maps + k] = row[i];
    }
  }
  for (long o = 0; o < c; o++) {
    logit[o] *= gain[o] * (T(1) - gain[o]);
    to.channel_bias[o] += logit[o];
    for (long i = 0; i < c; i++) {
      to.channel[o * c + i] += logit[o] * seen[i];
      mean[i] += logit[o] * of.channel[o * c + i] / static_cast<T>(p.n());
    }
  }
}

// to[rows][c] (+)= a[rows, depth] b[depth, deep]; `copy` is a buffer for rows that are wider than c.
template <typename T>
void multiply_rows(long rows, long c, long depth, const T* a, long lda, const T* b, long deep, T* copy, T* to,
                   bool adds) {
  if (c == deep) return multiply<false>(rows, deep, depth, a, lda, b, deep, to, deep, adds);
  multiply<false>(rows, deep, depth, a, lda, b, deep, copy, deep, false);
  for (long t = 0; t < rows; t++) {
    if (adds) add(c, copy + t * deep, to + t * c);
    else std::copy_n(copy + t * deep, c, to + t * c);
  }
}

// For a range of rows of the grid: the gradient of the source, accumulated if `adds`; that of the logits of Q, in
// `columns`; and that of the logits of M_S, inside the border of `frame`, [h + 2][w + 2].
template <typename T>
void from_pool(const Attention<T>& p, const Branch<T>& of, long image, long begin, long end, const T* pooled,
               const T* across, const T* dot, T* scratch, T* columns, T* frame, T* to_source, bool adds) {
  const long n = p.n(), c = p.c, m = p.m, w = p.w, wide = p.wide(), deep = p.deep(), maps = p.maps();
  T *shares = scratch, *weights = shares + kTile * maps, *back = weights + kTile * maps;
  each_tile(begin * w, end * w, [&](long first, long rows) {
    const long at = image * n + first;
    const T *q = of.q + at * m, *mask = of.mask + at;
    multiply<false>(rows, maps, c, of.source + at * c, c, across, maps, shares, maps, false);
    // Start of the tile in the frame; each row of the grid is followed by two elements of the border.
    T* to_frame = frame + (first / w + 1) * (w + 2) + first % w + 1;
    with_maps(m, [&](auto m) {
      for (long t = 0, x = first % w; t < rows; t++) {
        const T *e = q + t * m, *share = shares + t * maps, s = mask[t];
        T *to = columns + (at + t) * wide, *weight = weights + t * m, sum = 0;
#pragma omp simd reduction(+ : sum)
        for (long k = 0; k < m; k++) {
          sum += e[k] * share[k];
          to[k] = e[k] * (s * share[k] - dot[k]);
          weight[k] = e[k] * s;
        }
        *to_frame++ = s * (T(1) - s) * sum;
        if (++x == w) x = 0, to_frame += 2;
      }
    });
    if (to_source) multiply_rows(rows, c, m, weights, m, pooled, deep, back, to_source + at * c, adds);
  });
}

// Sums of a worker for the gradients of the weights and biases of Q and M_S of all attentions.
template <typename T> struct ColumnSums {
  Buffer<T> weight, bias;
  ColumnSums(long wide, long deep) : weight(wide * deep), bias(wide) {
    std::fill_n(weight.data, wide * deep, T(0)), std::fill_n(bias.data, wide, T(0));
  }
};

// Backward pass of the product that computes the columns, for a range of rows of the grid.
template <typename T>
void from_columns(const Attention<T>& p, long image, long begin, long end, const T* frames, const T* packed,
                  const T* mean, T* scratch, T* columns, ColumnSums<T>& sums, T* to_grid, bool adds) {
  const long n = p.n(), c = p.c, w = p.w, wide = p.wide(), deep = p.deep(), depth = p.count * p.columns();
  const long frame = (p.h + 2) * (w + 2);
  T *copy = scratch, *some = copy + kTile * deep;
  each_tile(begin * w, end * w, [&](long first, long rows) {
    T* gradient = columns + (image * n + first) * wide;
    std::fill_n(some, wide, T(0));
    for (long t = 0, x = first % w, at = (first / w + 2) * (w + 2) + x + 2; t < rows; t++, at++) {
      T* row = gradient + t * wide;
      for (long a = 0; a < p.count; a++) {
        const T* from = frames + (a * p.b + image) * frame + at;
        for (long k = 0; k < kSpace; k++) row[a * p.columns() + p.m + k] = from[-(k / 3) * (w + 2) - k % 3];
      }
      std::fill(row + depth, row + wide, T(0));
      add(wide, row, some);
      if (++x == w) x = 0, at += 2;
    }
    add(wide, some, sums.bias.data);
    const T* x = padded(p.grid + (image * n + first) * c, rows, c, deep, copy);
    multiply<true>(depth, deep, rows, gradient, wide, x, deep, sums.weight.data, deep, true);
    T* to = to_grid + (image * n + first) * c;
    multiply_rows(rows, c, depth, gradient, wide, packed, deep, copy, to, adds);
    for (long t = 0; t < rows; t++) add(c, mean, to + t * c);
  });
}

// Combines the sums of the workers and splits them into the gradients of each attention; the bias of M_S has the same
// gradient as the sum of its middle tap.
template <typename T>
void unpack_columns(const Attention<T>& p, const std::vector<std::unique_ptr<ColumnSums<T>>>& all, long a,
                    const BranchGradients<T>& to) {
  const long c = p.c, m = p.m, deep = p.deep(), first = a * p.columns();
  for (auto& sums : all) {
    if (sums == all[0]) continue;
    add(p.columns() * deep, sums->weight.data + first * deep, all[0]->weight.data + first * deep);
    add(p.columns(), sums->bias.data + first, all[0]->bias.data + first);
  }
  const T* weight = all[0]->weight.data + first * deep;
  for (long k = 0; k < m; k++) std::copy_n(weight + k * deep, c, to.query + k * c);
  std::copy_n(all[0]->bias.data + first, m, to.query_bias);
  for (long i = 0; i < c; i++)
    for (long k = 0; k < kSpace; k++) to.space[i * kSpace + k] = weight[(m + k) * deep + i];
  to.space_bias[0] = all[0]->bias.data[first + m + kSpace / 2];
}

template <typename T> void attention_backward(const Attention<T>& p, const T* grad, const AttentionGradients<T>& to) {
  const long b = p.b, c = p.c, m = p.m, wide = p.wide(), deep = p.deep(), maps = p.maps(), parts = p.parts();
  const long count = p.count, map = m * deep, flipped = c * maps, frame = (p.h + 2) * (p.w + 2);
  Buffer<T> pooled(count * b * map), across(count * b * flipped), part_pooled(parts * count * map);
  Buffer<T> dot(count * b * m), mean(b * c), columns(b * p.n() * wide), frames(count * b * frame);
  Buffer<T> scratch(p.workers() * p.scratch());
  for (long i = 0; i < count * b; i++) {
    gain_maps(p, p.of[i / b], i % b, pooled.data + i * map);
    T* flip = across.data + i * flipped;
    std::fill_n(flip, flipped, T(0));
    for (long k = 0; k < m; k++)
      for (long o = 0; o < c; o++) flip[o * maps + k] = pooled.data[i * map + k * deep + o];
  }
  p.each_part(p.l, [&](long j, long i, long image, long begin, long end) {
    from_points(p, image, begin, end, grad, pooled.data, across.data, scratch.data + j * p.scratch(),
                part_pooled.data + i * count * map, to);
  });
  std::fill_n(mean.data, b * c, T(0));
  for (long a = 0; a < count; a++) {
    std::fill_n(to.of[a].channel, c * c, T(0)), std::fill_n(to.of[a].channel_bias, c, T(0));
    for (long image = 0; image < b; image++) {
      const long i = a * b + image;
      std::fill_n(pooled.data + i * map, map, T(0));
      for (long j = image * p.pieces(); j < (image + 1) * p.pieces(); j++)
        add(map, part_pooled.data + (j * count + a) * map, pooled.data + i * map);
      from_maps(p, p.of[a], image, pooled.data + i * map, across.data + i * flipped, dot.data + i * m,
                mean.data + image * c, to.of[a]);
    }
  }
  // The grid can be a source too; the first attention that pools it initialises its gradient.
  bool begun = false;
  std::fill_n(frames.data, count * b * frame, T(0));
  for (long a = 0; a < count; a++) {
    const bool own = p.of[a].own;
    p.each_part(p.h, [&](long j, long, long image, long begin, long end) {
      const long i = a * b + image;
      from_pool(p, p.of[a], image, begin, end, pooled.data + i * map, across.data + i * flipped, dot.data + i * m,
                scratch.data + j * p.scratch(), columns.data + a * p.columns(), frames.data + i * frame,
                own ? to.grid : to.of[a].source, own && begun);
    });
    begun |= own;
  }
  Buffer<T> packed(count * p.columns() * deep), by_column(c * wide);
  pack_columns(p, by_column.data);
  for (long o = 0; o < count * p.columns(); o++)
    for (long i = 0; i < deep; i++) packed.data[o * deep + i] = i < c ? by_column.data[i * wide + o] : T(0);
  std::vector<std::unique_ptr<ColumnSums<T>>> sums(p.workers());
  for (auto& each : sums) each = std::make_unique<ColumnSums<T>>(wide, deep);
  p.each_part(p.h, [&](long j, long, long image, long begin, long end) {
    from_columns(p, image, begin, end, frames.data, packed.data, mean.data + image * c,
                 scratch.data + j * p.scratch(), columns.data, *sums[j], to.grid, begun);
  });
  for (long a = 0; a < count; a++) unpack_columns(p, sums, a, to.of[a]);
}
