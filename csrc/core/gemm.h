// Small dense products for tiles of rows: C += alpha A B on one core, blocks held in registers.
//
// A micro-kernel computes kMR x kNR numbers of C. B is packed in panels of kNR columns, [panel][k][kNR], zero beyond N; A is
// read in place, row-major (rows are edges or nodes) or k-major (its transpose, for weight gradients, where B is read in place too).
// Every row sums over k in the same order whatever its place in the tile: an edge's result does not depend on its neighbours.
// Include only from *_cpu.cpp.
#pragma once
#include "core/simd.h"
#include "core/transpose.h"

namespace structops::STRUCTOPS_ISA {
namespace {

template <class A>
constexpr int kMR = STRUCTOPS_VBYTES == 64 ? 14 : 6;
template <class A>
constexpr int kNR = 2 * W<A>;
constexpr int kTile = 84;  // rows of a tile: a multiple of every kMR
constexpr int kDepth = 256;

// Rows of A or C at a stride of an odd number of cache lines, so that a column does not fall into few sets of the cache.
template <class A>
STRUCTOPS_INLINE int64_t padded(int64_t n) {
  constexpr int64_t line = 64 / sizeof(A);
  const int64_t lines = (n + line - 1) / line;
  return (lines | 1) * line;
}
template <class A>
STRUCTOPS_INLINE int64_t panels(int64_t N) {
  return (N + kNR<A> - 1) / kNR<A>;
}
template <class A>
STRUCTOPS_INLINE int64_t packed_floats(int64_t K, int64_t N) {
  return panels<A>(N) * kNR<A> * K;
}

// a in every lane. a - 0 is a for -0 too, so the compiler folds it to a broadcast, which it cannot do with a + 0.
template <class A>
STRUCTOPS_INLINE Vec<A> every(A a) {
  return a - Vec<A>{};
}

// c[i, j] (+)= alpha sum_k a[i, k] b[k, j] for i < m <= kMR, j < n <= kNR. Reads all kMR rows (columns, where k-major) of a.
template <class A, bool k_major>
[[gnu::noinline]] void micro(int64_t K, const A* a, int64_t lda, const A* b, int64_t ldb, A* c, int64_t ldc, int m, int n,
                             A alpha, bool add) {
  constexpr int MR = kMR<A>, L = W<A>;
  Vec<A> acc[MR][2];
#pragma GCC unroll 14
  for (int i = 0; i < MR; ++i) acc[i][0] = acc[i][1] = Vec<A>{};
  for (int64_t k = 0; k < K; ++k) {
    const Vec<A> b0 = load(b), b1 = load(b + L);
#pragma GCC unroll 14
    for (int i = 0; i < MR; ++i) {
      const Vec<A> ai = every(k_major ? a[i] : a[i * lda]);
      acc[i][0] += ai * b0;
      acc[i][1] += ai * b1;
    }
    b += ldb;
    a += k_major ? lda : 1;
  }
  if (m == MR && n == kNR<A>) {
#pragma GCC unroll 14
    for (int i = 0; i < MR; ++i) {
      A* const row = c + i * ldc;
      store(row, add ? load(row) + alpha * acc[i][0] : alpha * acc[i][0]);
      store(row + L, add ? load(row + L) + alpha * acc[i][1] : alpha * acc[i][1]);
    }
    return;
  }
  const int n0 = n < L ? n : L, n1 = n - n0;
  A edge[MR][2 * L];
#pragma GCC unroll 14
  for (int i = 0; i < MR; ++i) {
    store(edge[i], acc[i][0]);
    store(edge[i] + L, acc[i][1]);
  }
  for (int i = 0; i < m; ++i) {
    A* const row = c + i * ldc;
    for (int h = 0; h < 2; ++h) {
      const int w = h ? n1 : n0;
      if (w <= 0) continue;
      const Vec<A> v = alpha * load(edge[i] + h * L);
      store_n(row + h * L, add ? load_n(row + h * L, w) + v : v, w);
    }
  }
}

// C [M, N] (+)= alpha A [M, K] packed B. Rows of a and c exist up to the next multiple of kMR.
template <class A>
void gemm(int64_t M, int64_t N, int64_t K, const A* a, int64_t lda, const A* packed, A* c, int64_t ldc, A alpha = 1,
          bool add = true) {
  constexpr int MR = kMR<A>, NR = kNR<A>;
  int64_t k = 0;
  do {  // once even for K = 0, which makes C zero
    const int64_t depth = K - k < kDepth ? K - k : kDepth;
    for (int64_t j = 0; j < N; j += NR)
      for (int64_t i = 0; i < M; i += MR)
        micro<A, false>(depth, a + i * lda + k, lda, packed + j * K + k * NR, NR, c + i * ldc + j, ldc, MR,
                        int(N - j < NR ? N - j : NR), alpha, add || k > 0);
    k += kDepth;
  } while (k < K);
}

// C [M, N] += alpha A^T B, a [K, M], b [K, N]. Reads up to kMR and kNR numbers beyond the rows of a and b.
template <class A>
void gemm_transposed(int64_t M, int64_t N, int64_t K, const A* a, int64_t lda, const A* b, int64_t ldb, A* c, int64_t ldc,
                     A alpha) {
  constexpr int MR = kMR<A>, NR = kNR<A>;
  for (int64_t j = 0; j < N; j += NR)
    for (int64_t i = 0; i < M; i += MR)
      micro<A, true>(K, a + i, lda, b + j, ldb, c + i * ldc + j, ldc, int(M - i < MR ? M - i : MR),
                     int(N - j < NR ? N - j : NR), alpha, true);
}

// Packs panel p of B[k, n] = alpha w[n * ldn + k * ldk].
template <class A, class T>
void pack_panel(A* packed, int64_t p, int64_t K, int64_t N, const T* w, int64_t ldn, int64_t ldk, A alpha, int64_t k_begin,
                int64_t k_total) {
  constexpr int NR = kNR<A>, L = W<A>;
  const int64_t n0 = p * NR, n = N - n0 < NR ? N - n0 : NR;
  A* const out = packed + (p * k_total + k_begin) * NR;
  const T* const from = w + n0 * ldn;
  if (ldn == 1) {
    for (int64_t k = 0; k < K; ++k)
      for (int64_t j = 0; j < NR; j += L) {
        const T* const at = from + k * ldk + j;
        store(out + k * NR + j, n - j >= L ? alpha * load(at) : n > j ? alpha * load_n(at, int(n - j)) : Vec<A>{});
      }
    return;
  }
  if (__is_same(T, float) && ldk == 1) {
    for (int64_t i = 0; n < NR && i < K * NR; i += L) store(out + i, Vec<A>{});
    transpose(from, ldn, n, K, out, NR);
    for (int64_t i = 0; alpha != 1 && i < K * NR; i += L) store(out + i, alpha * load(out + i));
    return;
  }
  for (int64_t k = 0; k < K; ++k)
    for (int64_t j = 0; j < NR; ++j) out[k * NR + j] = j < n ? alpha * widen(from[j * ldn + k * ldk]) : A(0);
}

}  // namespace
}  // namespace structops::STRUCTOPS_ISA
