// Block-sparse products: a matrix at every edge.
//
//   block_spmm    out[v] = D_v x[v] + alpha * sum over k in [rowptr[v], rowptr[v+1]) of  M_j x[u],   j = eid[k], u = col[k]
//   block_sddmm   out[j] = alpha * lhs[v] rhs[u]^T,   out[j] = alpha * rhs[u] lhs[v]^T if transpose
//   block_matmul  out[k] = op(a[s(k)]) op(b[t(k)]),   s, t = the identity or `pair`, op = the identity or the transpose
//
// With `batch_first` the features f, rows of a batch, come first: x [f, Nu, q], out [f, N, p]; lhs [f, N, p], rhs [f, Nu, q].
// With `transpose` the product reads M_j^T and D_v^T. The derivatives of each are among the three: of block_spmm, itself on
// the reversed edges with transposed blocks (x) and block_sddmm (M, and D on the graph of self-loops); of block_sddmm,
// block_spmm; of block_matmul, itself, because pair is an involution: pair[pair[k]] = k.
//
// col and eid may be null: the position k itself. A row without edges gives D_v x[v], or 0. NaN and infinities propagate as in
// any sum of products. Sums run in order of k, then over the columns of a block, then times alpha, then plus D_v x[v]; those of
// block_sddmm over features in an order that depends on the sizes and the instruction set. Accumulation: float for f32, bf16 and f16,
// double for f64. Rows are never cut: the result does not depend on the number of threads.
//
// The caller guarantees valid rowptr, col, eid and pair, that eid is a permutation of [0, E) and pair an involution of it.
// Sources: block compressed rows (BSR) of SciPy; sheaf Laplacians as block matrices (Hansen and Ghrist, arXiv:1808.01513).
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

struct BlockSpmmArgs {
  Dtype dtype;  // floating
  bool transpose, batch_first;
  double alpha;
  int64_t N, Nu, E, p, q, f;
  Index rowptr, col, eid;  // [N + 1], [E], [E]
  const void* x;           // [Nu, q, f]
  const void* blocks;      // [E, p, q];  transpose: [E, q, p]
  const void* diag;        // [N, p, q] (transpose: [N, q, p]) or null
  void* out;               // [N, p, f]
};

struct BlockSddmmArgs {
  Dtype dtype;
  bool transpose, batch_first;
  double alpha;
  int64_t N, Nu, E, p, q, f;
  Index rowptr, col, eid;
  const void* lhs;  // [N, p, f], read at v
  const void* rhs;  // [Nu, q, f], read at u
  void* out;        // [E, p, q];  transpose: [E, q, p]
};

struct BlockMatmulArgs {
  Dtype dtype;
  bool pair_a, pair_b, transpose_a, transpose_b;
  int64_t E, p, q, r;  // [p, r] times [r, q], after the transposes
  Index pair;          // [E] or null
  const void* a;       // [E, p, r] or, transposed, [E, r, p]
  const void* b;       // [E, r, q] or, transposed, [E, q, r]
  void* out;           // [E, p, q]
};

void block_spmm_fwd(const BlockSpmmArgs& a, const ParallelFor& pf);
void block_sddmm_fwd(const BlockSddmmArgs& a, const ParallelFor& pf);
void block_matmul_fwd(const BlockMatmulArgs& a, const ParallelFor& pf);

}  // namespace structops
