// spmm: generalised sparse-matrix times dense-matrix product (g-SpMM), the one engine behind segment_reduce too.
//
//   out[b, v, f] = REDUCE over k in [rowptr[v], rowptr[v+1]) of  m_k,f = MESSAGE(x[b, col[k], fx(f)], e[b, eid[k], fe(f)])
//
// col and eid may be null: the position k itself. A segment reduction is MESSAGE = copy_e with col unused.
// Broadcasting of features: Fx == F or 1, Fe == F or 1, or offset tables x_off/e_off [F] for anything NumPy allows.
//
// REDUCE   sum; mean = sum / n; min, max (first k wins a tie); prod; var = M2 / max(n - ddof, 1) (Welford);
//          std = sqrt(var); logsumexp (online, running maximum).
// Rows without edges give `fill`, and arg = E, or -1 where col[k] is wanted, of which E could be one. NaN propagates (arg = the first NaN) unless skip_nan, where comparisons
// with NaN are false and an all-NaN row counts as empty.
// arg [B, N, F] of min/max, in the index type of rowptr: the position k, eid[k] or col[k].
//
// Accumulation: float for f32/bf16/f16, double for f64; i32 and i64 wrap, and take copy messages with sum, min, max, prod.
// Order: edges of a row in order of k, cut into pieces at fixed positions that depend on (N, E) alone and merged in
// order. The result does not depend on the number of threads; it may differ between instruction sets by rounding.
//
// The caller guarantees: rowptr is non-decreasing from 0 to E, 0 <= col < Nx, 0 <= eid < rows of e.
// Sources: g-SpMM of DGL (arXiv:1909.01315); merge-path splits (Merrill and Garland, SC16); Welford (1962), merged as in
// Chan, Golub and LeVeque (1979); online softmax (arXiv:1805.02867).
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

enum class Message : int { copy_u, copy_e, add, sub, mul, div };
enum class Reduce : int { sum, mean, min, max, prod, var, std, logsumexp };
enum class ArgKind : int { none, position, edge, source };

struct SpmmArgs {
  Dtype dtype;
  Message message;
  Reduce reduce;
  ArgKind arg_kind;
  bool skip_nan, unbiased;
  double fill;
  int64_t B, N, E, F;
  int64_t gathered;  // rows of the one operand of a copy message, of x otherwise; only prefetching depends on it, 0: unknown
  const void* x;  // [B, Nx, Fx] or [Nx, Fx] when x_batch == 0; null for copy_e
  int64_t Fx, x_batch;
  const void* e;  // [B, *, Fe] or [*, Fe] when e_batch == 0; null for copy_u
  int64_t Fe, e_batch;
  Index rowptr;  // [N + 1]
  Index col;     // [E] or null
  Index eid;     // [E] or null
  const int32_t* x_off;  // [F] or null
  const int32_t* e_off;  // [F] or null
  void* out;  // [B, N, F]
  void* arg;  // [B, N, F] in the type of rowptr, or null
};

void spmm_fwd(const SpmmArgs& a, const ParallelFor& pf);

// The work list: items of `chunk` (edges + rows); a row is cut only when it alone exceeds a chunk.
static inline int64_t spmm_chunk(int64_t N, int64_t E) {
  const int64_t chunk = (N + E) / 256;
  return chunk < 256 ? 256 : chunk > 8192 ? 8192 : chunk;
}

struct Cut { int64_t row, k; };  // an item starts at edge k of row `row`

static inline Cut spmm_cut(const Index& rowptr, int64_t N, int64_t E, int64_t chunk, int64_t item) {
  const int64_t diag = item * chunk;
  if (diag <= 0) return {0, 0};
  if (diag >= N + E) return {N, E};
  int64_t lo = diag > E ? diag - E : 0, hi = diag < N ? diag : N;  // rows finished before the diagonal
  while (lo < hi) {
    const int64_t mid = (lo + hi) / 2;
    if (rowptr[mid + 1] + mid + 1 <= diag) lo = mid + 1; else hi = mid;
  }
  if (lo >= N) return {N, E};
  const int64_t begin = rowptr[lo], end = rowptr[lo + 1];
  if (end - begin <= chunk) return {lo, begin};
  return {lo, diag - lo < begin ? begin : diag - lo};
}

}  // namespace structops
