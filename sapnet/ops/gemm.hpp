// Matrix products of tiles that fit the caches, in registers, by the compiler's vector types.
#pragma once
#include <cstring>

#if defined(__AVX512F__)
constexpr int kBytes = 64, kRegisters = 32;
#elif defined(__AVX__)
constexpr int kBytes = 32, kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kBytes = 16, kRegisters = 32;
#else
constexpr int kBytes = 16, kRegisters = 16;
#endif

template <typename T> constexpr int kWidth = kBytes / sizeof(T);
template <typename T> struct Vector { typedef T type __attribute__((vector_size(kBytes))); };
template <typename T> struct Short { typedef T type __attribute__((vector_size(4 * sizeof(T)))); };

template <typename V, typename T> inline __attribute__((always_inline)) V load(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof(V));
  return v;
}

template <typename V, typename T> inline __attribute__((always_inline)) void store(T* p, V v) {
  std::memcpy(p, &v, sizeof(V));
}

inline long round_up(long n, long step) { return (n + step - 1) / step * step; }

// c[MR, NV vectors] (+)= a[MR, depth] b[depth, NV vectors]. Either the rows of `a` lie `lda` apart and its columns
// are neighbours, or (Across) the other way round.
template <typename T, int MR, int NV, bool Across>
void block(long depth, const T* a, long lda, const T* b, long ldb, T* c, long ldc, bool add) {
  using V = typename Vector<T>::type;
  V sum[MR][NV];
  for (int i = 0; i < MR; i++)
    for (int j = 0; j < NV; j++) sum[i][j] = add ? load<V>(c + i * ldc + j * kWidth<T>) : V{};
  // One pointer for three rows: the addresses 0, lda and 2 lda past it cost no register.
  const T* row[(MR + 2) / 3];
  for (int i = 0; i < (MR + 2) / 3; i++) row[i] = a + 3 * i * lda;
  for (long k = 0; k < depth; k++, b += ldb) {
    V right[NV];
    for (int j = 0; j < NV; j++) right[j] = load<V>(b + j * kWidth<T>);
    for (int i = 0; i < MR; i++) {
      const T left = Across ? a[k * lda + i] : row[i / 3][i % 3 * lda + k];
      for (int j = 0; j < NV; j++) sum[i][j] += left * right[j];
    }
  }
  for (int i = 0; i < MR; i++)
    for (int j = 0; j < NV; j++) store(c + i * ldc + j * kWidth<T>, sum[i][j]);
}

template <typename T, int MR, int NV, bool Across>
void strip(long m, long depth, const T* a, long lda, const T* b, long ldb, T* c, long ldc, bool add) {
  const long step = Across ? 1 : lda;
  for (; m >= MR; m -= MR, a += MR * step, c += MR * ldc) block<T, MR, NV, Across>(depth, a, lda, b, ldb, c, ldc, add);
  if constexpr (MR > 1) {
    constexpr int kLess = MR > 8 ? 8 : MR > 4 ? 4 : MR / 2;
    if (m > 0) strip<T, kLess, NV, Across>(m, depth, a, lda, b, ldb, c, ldc, add);
  }
}

// c[m, n] (+)= a[m, depth] b[depth, n]; with Across `a` is stored [depth, m]. n is a multiple of the vector width.
template <bool Across, typename T>
void multiply(long m, long n, long depth, const T* a, long lda, const T* b, long ldb, T* c, long ldc, bool add) {
  constexpr bool kMany = kRegisters == 32;
  constexpr int kMost = kMany ? 4 : 2;
  for (long left = n / kWidth<T>; left > 0;) {
    const long take = left < kMost ? left : kMost;
    if constexpr (kMany) {
      if (take == 4) strip<T, 6, 4, Across>(m, depth, a, lda, b, ldb, c, ldc, add);
      if (take == 3) strip<T, 8, 3, Across>(m, depth, a, lda, b, ldb, c, ldc, add);
    }
    if (take == 2) strip<T, kMany ? 12 : 6, 2, Across>(m, depth, a, lda, b, ldb, c, ldc, add);
    if (take == 1) strip<T, 12, 1, Across>(m, depth, a, lda, b, ldb, c, ldc, add);
    b += take * kWidth<T>, c += take * kWidth<T>, left -= take;
  }
}
