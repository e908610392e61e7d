// The pixel-dependent filter, the heads and the attention with their gradients on CPUs. The interface for cpu.py uses
// plain pointers and does not depend on torch.
//
// Points are processed in tiles and taps in groups. The samples of a tile and a group (bilinear, times V) fill a buffer
// that stays in the L1 or L2 cache, and one small matrix product mixes them with the fixed weight. The backward pass
// recomputes them. A worker processes one range of consecutive tiles, which depends only on the number of threads, so
// results are reproducible.
#include <atomic>
#include <new>

#include "attention_backward.hpp"
#include "backward.hpp"
#include "heads.hpp"
#include "taps.hpp"
#include "weight.hpp"
#include "work.hpp"

namespace {

template <typename T> Status forward(const Problem<T>& p, T* out) {
  const long workers = p.workers(), cols_size = kTile * p.group() * p.c, wide = mixed_width(p);
  Buffer<T> packed(packed_size(p)), cols(workers * cols_size), sums(workers * kTile * wide);
  const std::vector<T> zeros(p.c);
  std::vector<Tile<T>> tiles(workers, Tile<T>(p));
  std::atomic<bool> valid{true};
  pack(p, packed.data);
  work(p.threads, workers, [&](long j) {
    Tile<T>& tile = tiles[j];
    T *read = cols.data + j * cols_size, *sum = sums.data + j * kTile * wide;
    for (long i = part(p.tiles(), j, workers); i < part(p.tiles(), j + 1, workers); i++) {
      if (!tile.place(p, i)) valid = false;
      for (long k = 0; k < p.taps(); k += p.group()) {
        const long g = std::min(p.group(), p.taps() - k);
        with_channels(p.c, [&](auto c) { gather(p, tile, zeros.data(), k, g, c, read); });
        mix(p, tile, k, g, read, packed.data, sum);
      }
      for (long t = 0; t < tile.count; t++) {
        T* row = out + (tile.first + t) * p.o;
        if (tile.image[t] < 0) std::fill_n(row, p.o, T(0));
        else std::copy_n(sum + t * wide, p.o, row);
      }
    }
  });
  return valid ? kDone : kPointOutside;
}

// shape: b, h, w, c, l, o, K, depthwise, threads.
template <typename T>
Problem<T> problem(const T* canvas, const T* weight, const T* kernel, const T* offsets, const int64_t* points,
                   const int64_t* shape) {
  return {canvas,   weight,   kernel,   offsets,  points,   shape[0], shape[1],      shape[2],
          shape[3], shape[4], shape[5], shape[6], shape[7] != 0, static_cast<int>(shape[8])};
}

// Exceptions must not propagate to the caller, which is not C++.
template <typename F> int guarded(F f) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return kNoMemory;
  }
}

}  // namespace

// shape: n, c, o, number of heads, threads, the kind of each head, the width of each head.
template <typename T> Heads<T> heads(const T* x, const T* weight, const T* bias, const int64_t* shape, double scale) {
  return {x, weight, bias, shape + 5, shape + 5 + shape[3], shape[3], shape[0], shape[1], shape[2],
          static_cast<T>(scale), static_cast<int>(shape[4])};
}

// shape: b, h, w, c, m, l, number of attentions, threads. inputs: grid, local, fusion, and those of each attention in the
// order of Branch, with a null source if it is the grid.
template <typename T> Attention<T> attention(const T* const* inputs, const int64_t* s, T* state) {
  Attention<T> p{s[0], s[1], s[2], s[3], s[4], s[5], s[6], static_cast<int>(s[7]), inputs[0], inputs[1], inputs[2], {}};
  for (long a = 0; a < p.count; a++) {
    const T* const* i = inputs + 3 + 8 * a;
    p.of[a] = {i[0] ? i[0] : p.grid, i[1], i[2], i[3], i[4], i[5], i[6], i[7], !i[0], {}, {}, {}, {}, {}, {}};
  }
  p.keep(state);
  return p;
}

// to: the gradients in the order of the inputs; null for a source if not needed.
template <typename T>
void attention_backward(const T* const* inputs, const int64_t* shape, T* state, const T* grad, T* const* to) {
  const Attention<T> p = attention(inputs, shape, state);
  AttentionGradients<T> gradients{to[0], to[1], to[2], {}};
  for (long a = 0; a < p.count; a++) {
    T* const* i = to + 3 + 8 * a;
    gradients.of[a] = {i[0], i[1], i[2], i[3], i[4], i[5], i[6], i[7]};
  }
  attention_backward(p, grad, gradients);
}

// kernel, offsets, points and, in the backward pass, the gradients may be null. All functions return a Status.
#define EXPORT(T, SUFFIX)                                                                                            \
  extern "C" int forward_##SUFFIX(const T* canvas, const T* weight, const T* kernel, const T* offsets,               \
                                  const int64_t* points, const int64_t* shape, T* out) {                             \
    return guarded([&] { return forward(problem(canvas, weight, kernel, offsets, points, shape), out); });           \
  }                                                                                                                  \
  extern "C" int backward_##SUFFIX(const T* canvas, const T* weight, const T* kernel, const T* offsets,              \
                                   const int64_t* points, const int64_t* shape, const T* grad, T* to_canvas,         \
                                   T* to_weight, T* to_kernel, T* to_offsets) {                                      \
    return guarded([&] {                                                                                             \
      const Gradients<T> to{to_canvas, to_weight, to_kernel, to_offsets};                                            \
      return backward(problem(canvas, weight, kernel, offsets, points, shape), grad, to);                            \
    });                                                                                                              \
  }                                                                                                                  \
  extern "C" int heads_forward_##SUFFIX(const T* x, const T* weight, const T* bias, const int64_t* shape,            \
                                        double scale, T* out) {                                                      \
    return guarded([&] { return heads_forward(heads(x, weight, bias, shape, scale), out), kDone; });                 \
  }                                                                                                                  \
  extern "C" int heads_backward_##SUFFIX(const T* x, const T* weight, const T* bias, const int64_t* shape,           \
                                         double scale, const T* out, const T* const* grads, T* to_x, T* to_weight,   \
                                         T* to_bias) {                                                               \
    return guarded([&] {                                                                                             \
      heads_backward(heads(x, weight, bias, shape, scale), out, grads, to_x, to_weight, to_bias);                    \
      return kDone;                                                                                                  \
    });                                                                                                              \
  }                                                                                                                  \
  extern "C" int attention_forward_##SUFFIX(const T* const* inputs, const int64_t* shape, T* state, T* out) {        \
    return guarded([&] { return attention_forward(attention(inputs, shape, state), out), kDone; });                  \
  }                                                                                                                  \
  extern "C" int attention_backward_##SUFFIX(const T* const* inputs, const int64_t* shape, T* state, const T* grad,  \
                                             T* const* to) {                                                         \
    return guarded([&] { return attention_backward(inputs, shape, state, grad, to), kDone; });                       \
  }

EXPORT(float, float32)
EXPORT(double, float64)
