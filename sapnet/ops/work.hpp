// Aligned buffers and threads.
#pragma once
#include <omp.h>

#include <cstdlib>
#include <new>

#include "gemm.hpp"

template <typename T> struct Buffer {
  T* data;
  explicit Buffer(long n) : data(static_cast<T*>(std::aligned_alloc(64, round_up(n * sizeof(T) + 1, 64)))) {
    if (!data) throw std::bad_alloc();
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { std::free(data); }
};

// Runs f(0) to f(parts - 1). The team always has the same size, because the runtime restarts threads when it changes.
template <typename F> void work(int threads, long parts, F f) {
  if (parts == 1 || threads == 1) {
    for (long i = 0; i < parts; i++) f(i);
    return;
  }
#pragma omp parallel for schedule(static, 1) num_threads(threads)
  for (long i = 0; i < parts; i++) f(i);
}

// Start of the i-th of equal parts of n elements.
inline long part(long n, long i, long parts) { return n * i / parts; }
