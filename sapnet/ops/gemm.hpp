// Register-blocked matrix products of tiles that fit into the caches, with the compiler's vector types.
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
// Half a vector, but at least four floats; rows are padded to a multiple of it.
constexpr int kHalfBytes = kBytes > 16 ? kBytes / 2 : kBytes;
template <typename T> constexpr int kHalf = kHalfBytes / sizeof(T);
template <typename T> struct Half { typedef T type __attribute__((vector_size(kHalfBytes))); };
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

constexpr int kHalves = kBytes / kHalfBytes;  // in a vector

// c[MR, N halves] (+)= a[MR, depth] b[depth, N halves]. `a` is stored row by row with stride `lda`, or column by column
// (Across).
template <typename T, int MR, int N, bool Across>
void block(long depth, const T* a, long lda, const T* b, long ldb, T* c, long ldc, bool add) {
  using V = typename Vector<T>::type;
  using H = typename Half<T>::type;
  constexpr int NV = N / kHalves;  // whole vectors, followed by a half if N is odd
  constexpr bool kOdd = N % kHalves != 0;
  constexpr long kRest = NV * kWidth<T>;
  V sum[MR][NV + 1];
  H rest[MR];
  for (int i = 0; i < MR; i++) {
    for (int j = 0; j < NV; j++) sum[i][j] = add ? load<V>(c + i * ldc + j * kWidth<T>) : V{};
    if constexpr (kOdd) rest[i] = add ? load<H>(c + i * ldc + kRest) : H{};
  }
  // One pointer for three rows: offsets of 0, lda and 2 lda need no further register.
  const T* row[(MR + 2) / 3];
  for (int i = 0; i < (MR + 2) / 3; i++) row[i] = a + 3 * i * lda;
  for (long k = 0; k < depth; k++, b += ldb) {
    V right[NV + 1];
    H last{};
    for (int j = 0; j < NV; j++) right[j] = load<V>(b + j * kWidth<T>);
    if constexpr (kOdd) last = load<H>(b + kRest);
    for (int i = 0; i < MR; i++) {
      const T left = Across ? a[k * lda + i] : row[i / 3][i % 3 * lda + k];
      for (int j = 0; j < NV; j++) sum[i][j] += left * right[j];
      if constexpr (kOdd) rest[i] += left * last;
    }
  }
  for (int i = 0; i < MR; i++) {
    for (int j = 0; j < NV; j++) store(c + i * ldc + j * kWidth<T>, sum[i][j]);
    if constexpr (kOdd) store(c + i * ldc + kRest, rest[i]);
  }
}

template <typename T, int MR, int N, bool Across>
void strip(long m, long depth, const T* a, long lda, const T* b, long ldb, T* c, long ldc, bool add) {
  const long step = Across ? 1 : lda;
  for (; m >= MR; m -= MR, a += MR * step, c += MR * ldc) block<T, MR, N, Across>(depth, a, lda, b, ldb, c, ldc, add);
  if constexpr (MR > 1) {
    constexpr int kLess = MR > 8 ? 8 : MR > 4 ? 4 : MR / 2;
    if (m > 0) strip<T, kLess, N, Across>(m, depth, a, lda, b, ldb, c, ldc, add);
  }
}

// Number of rows of a block that is N halves wide, limited by the registers for the sums.
constexpr int height(int n) {
  const int vectors = (n + kHalves - 1) / kHalves;
  if (kRegisters < 32) return vectors == 2 ? 6 : 12;
  return vectors == 4 ? 6 : vectors == 3 ? 8 : 12;
}

// Computes the strip that is `take` <= N halves wide.
template <int N, bool Across, typename T>
void strip_of(long take, long m, long depth, const T* a, long lda, const T* b, long ldb, T* c, long ldc, bool add) {
  if (take == N) return strip<T, height(N), N, Across>(m, depth, a, lda, b, ldb, c, ldc, add);
  if constexpr (N > 1) strip_of<N - 1, Across>(take, m, depth, a, lda, b, ldb, c, ldc, add);
}

// c[m, n] (+)= a[m, depth] b[depth, n]; with Across `a` is stored [depth, m]. n is a multiple of half the vector width.
template <bool Across, typename T>
void multiply(long m, long n, long depth, const T* a, long lda, const T* b, long ldb, T* c, long ldc, bool add) {
  constexpr int kMost = (kRegisters == 32 ? 4 : 2) * kHalves;
  for (long left = n / kHalf<T>; left > 0;) {
    const long take = left < kMost ? left : kMost;
    strip_of<kMost, Across>(take, m, depth, a, lda, b, ldb, c, ldc, add);
    b += take * kHalf<T>, c += take * kHalf<T>, left -= take;
  }
}
