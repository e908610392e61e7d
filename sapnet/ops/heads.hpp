// Linear heads with activations on shared features, and their gradients. One matrix product computes all heads, and its
// results stay in the caches until they are activated.
#pragma once
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "gemm.hpp"
#include "taps.hpp"
#include "work.hpp"

enum Activation { kPlain = 0, kTanh = 1, kSigmoid = 2, kSoftmax = 3 };

template <typename T> struct Heads {
  const T *x, *weight, *bias;        // [n][c], [o][c], [o]
  const int64_t *kinds, *widths;     // of each head; the sum of the widths is o
  long count, n, c, o;
  T scale;  // of tanh
  int threads;

  long tiles() const { return (n + kTile - 1) / kTile; }
  int workers() const { return static_cast<int>(std::max(1L, std::min<long>(threads, tiles()))); }
  long wide() const { return round_up(o, kHalf<T>); }
  long deep() const { return round_up(c, kHalf<T>); }
};

// Accurate to 2 ulp; 0 below -87, because subnormal numbers slow down all later computations; NaN propagates. Unlike
// the library function, it is vectorised without -ffast-math.
inline __attribute__((always_inline)) float exponential(float x) {
  const bool none = x < -87.0f;
  x = x > 88.0f ? 88.0f : x < -87.0f ? -87.0f : x;
  const float n = std::floor(x * 1.44269504f + 0.5f);
  const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f, y = y * r + 8.3334519073e-3f, y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f, y = y * r + 5.0000001201e-1f, y = y * r * r + r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return none ? 0.0f : y * power;
}
inline double exponential(double x) { return std::exp(x); }

inline __attribute__((always_inline)) float hyperbolic(float x) {
  const float size = std::fabs(x), z = x * x;
  const float far = 1.0f - 2.0f / (exponential(2.0f * size) + 1.0f);
  float near = -5.70498872745e-3f;
  near = near * z + 2.06390887954e-2f, near = near * z - 5.37397155531e-2f, near = near * z + 1.33314422036e-1f;
  near = (near * z - 3.33332819422e-1f) * z * x + x;
  return size < 0.625f ? near : std::copysign(far, x);
}
inline double hyperbolic(double x) { return std::tanh(x); }

// Runs f with the number of maps, as a constant for common small numbers so that short loops over maps unroll.
template <typename F> void with_maps(long maps, F f) {
  switch (maps) {
    case 8: return f(std::integral_constant<long, 8>{});
    case 12: return f(std::integral_constant<long, 12>{});
    case 16: return f(std::integral_constant<long, 16>{});
    case 24: return f(std::integral_constant<long, 24>{});
    default: return f(maps);
  }
}

// Applies the activation of a head to `rows` rows in place.
template <typename T> void activate(int64_t kind, T scale, long rows, long width, T* y) {
  const long n = rows * width;
  if (kind == kTanh) {
#pragma omp simd
    for (long i = 0; i < n; i++) y[i] = scale * hyperbolic(y[i]);
  } else if (kind == kSigmoid) {
#pragma omp simd
    for (long i = 0; i < n; i++) y[i] = T(1) / (T(1) + exponential(-y[i]));
  } else if (kind == kSoftmax) {
    with_maps(width, [&](auto width) {
      for (long t = 0; t < rows; t++) {
        T *row = y + t * width, most = row[0];
#pragma omp simd reduction(max : most)
        for (long i = 0; i < width; i++) most = row[i] > most ? row[i] : most;
#pragma omp simd
        for (long i = 0; i < width; i++) row[i] -= most;
      }
    });
#pragma omp simd
    for (long i = 0; i < n; i++) y[i] = exponential(y[i]);
    with_maps(width, [&](auto width) {
      for (long t = 0; t < rows; t++) {
        T *row = y + t * width, sum = 0;
#pragma omp simd reduction(+ : sum)
        for (long i = 0; i < width; i++) sum += row[i];
        const T part = T(1) / sum;
#pragma omp simd
        for (long i = 0; i < width; i++) row[i] *= part;
      }
    });
  }
}

// to[row][width], with rows `stride` apart, = gradient before the activation, from the outputs and their gradient.
template <typename T>
void deactivate(int64_t kind, T scale, long rows, long width, const T* y, const T* grad, T* to, long stride) {
  if (kind == kSoftmax) {
    return with_maps(width, [&](auto width) {
      for (long t = 0; t < rows; t++) {
        const T *result = y + t * width, *from = grad + t * width;
        T *row = to + t * stride, dot = 0;
#pragma omp simd reduction(+ : dot)
        for (long i = 0; i < width; i++) dot += from[i] * result[i];
#pragma omp simd
        for (long i = 0; i < width; i++) row[i] = result[i] * (from[i] - dot);
      }
    });
  }
  const T inverse = T(1) / scale;
  for (long t = 0; t < rows; t++, y += width, grad += width, to += stride) {
    if (kind == kPlain) {
      for (long i = 0; i < width; i++) to[i] = grad[i];
    } else if (kind == kTanh) {
      for (long i = 0; i < width; i++) to[i] = grad[i] * (scale - y[i] * y[i] * inverse);
    } else {
      for (long i = 0; i < width; i++) to[i] = grad[i] * (T(1) - y[i]) * y[i];
    }
  }
}

// out: the outputs of the heads one after another, each [n][width].
template <typename T> void heads_forward(const Heads<T>& p, T* out) {
  const long wide = p.wide(), workers = p.workers();
  Buffer<T> packed(p.c * wide), products(workers * kTile * wide);
  for (long c = 0; c < p.c; c++)
    for (long o = 0; o < wide; o++) packed.data[c * wide + o] = o < p.o ? p.weight[o * p.c + c] : T(0);
  work(p.threads, workers, [&](long j) {
    T* product = products.data + j * kTile * wide;
    for (long i = part(p.tiles(), j, workers); i < part(p.tiles(), j + 1, workers); i++) {
      const long first = i * kTile, rows = std::min(kTile, p.n - first);
      multiply<false>(rows, wide, p.c, p.x + first * p.c, p.c, packed.data, wide, product, wide, false);
      for (long h = 0, o = 0; h < p.count; o += p.widths[h++]) {
        const long width = p.widths[h];
        T* to = out + p.n * o + first * width;
        for (long t = 0; t < rows; t++)
          for (long k = 0; k < width; k++) to[t * width + k] = product[t * wide + o + k] + p.bias[o + k];
        activate(p.kinds[h], p.scale, rows, width, to);
      }
    }
  });
}

// out: the outputs of `heads_forward`; grads: the gradient of each head, null for zeros.
template <typename T>
void heads_backward(const Heads<T>& p, const T* out, const T* const* grads, T* to_x, T* to_weight, T* to_bias) {
  const long wide = p.wide(), deep = p.deep(), workers = p.workers();
  Buffer<T> packed(p.o * deep);
  for (long o = 0; o < p.o; o++)
    for (long c = 0; c < deep; c++) packed.data[o * deep + c] = c < p.c ? p.weight[o * p.c + c] : T(0);
  struct Worker {
    Buffer<T> x, back, gradient, weight, bias;
    Worker(long wide, long deep)
        : x(kTile * deep), back(kTile * deep), gradient(kTile * wide), weight(wide * deep), bias(wide) {
      std::fill_n(x.data, kTile * deep, T(0)), std::fill_n(gradient.data, kTile * wide, T(0));
      std::fill_n(weight.data, wide * deep, T(0)), std::fill_n(bias.data, wide, T(0));
    }
  };
  std::vector<std::unique_ptr<Worker>> all(workers);
  for (auto& worker : all) worker = std::make_unique<Worker>(wide, deep);
  work(p.threads, workers, [&](long j) {
    T *x = all[j]->x.data, *back = all[j]->back.data, *gradient = all[j]->gradient.data, *bias = all[j]->bias.data;
    for (long i = part(p.tiles(), j, workers); i < part(p.tiles(), j + 1, workers); i++) {
      const long first = i * kTile, rows = std::min(kTile, p.n - first);
      for (long t = 0; t < rows; t++) std::copy_n(p.x + (first + t) * p.c, p.c, x + t * deep);
      for (long h = 0, o = 0; h < p.count; o += p.widths[h++]) {
        const long width = p.widths[h], begin = first * width;
        if (grads[h])
          deactivate(p.kinds[h], p.scale, rows, width, out + p.n * o + begin, grads[h] + begin, gradient + o, wide);
      }
      for (long t = 0; t < rows; t++)
        for (long o = 0; o < wide; o++) bias[o] += gradient[t * wide + o];
      multiply<false>(rows, deep, p.o, gradient, wide, packed.data, deep, back, deep, false);
      for (long t = 0; t < rows; t++) std::copy_n(back + t * deep, p.c, to_x + (first + t) * p.c);
      multiply<true>(p.o, deep, rows, gradient, wide, x, deep, all[j]->weight.data, deep, true);
    }
  });
  for (long o = 0; o < p.o; o++) {
    to_bias[o] = 0;
    for (auto& worker : all) to_bias[o] += worker->bias.data[o];
    for (long c = 0; c < p.c; c++) {
      T sum = 0;
      for (auto& worker : all) sum += worker->weight.data[o * deep + c];
      to_weight[o * p.c + c] = sum;
    }
  }
}
