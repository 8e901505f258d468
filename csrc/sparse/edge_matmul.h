// Products with a matrix per edge that is a combination of K matrices, summed over the incoming edges of every row.
//
//   T(h, x, w, y) = sum_e sum_k h[e, k]  x[u_e]^T w[k] y[v_e]          edge e: u_e -> v_e, the edge row of CSR position j is eid[j]
//
//   fwd:    out[v]    = sum over edges of v of  x[u]^T (sum_k h[e, k] w[k])     the derivative of T by y
//   hgrad:  out[e, k] = x[u]^T w[k] y[v]                                        ... by h
//   wgrad:  out[k]    = sum_e h[e, k] x[u] y[v]^T                               ... by w
//
// The derivative by x is fwd on the reversed edges with every w[k] transposed. No matrix of an edge is formed: fwd sums the outer
// products h[e] x[u] of a row, [K, I], and multiplies some eighty rows of such sums by w at a time; hgrad multiplies y[v] by w
// first. Order: edges of a row in CSR order, then (k, i); wgrad sums rows in order, in pieces whose number depends on sizes only.
// Rows without edges give 0. NaN and inf propagate as in the products; h[e, k] = 0 does not hide an infinite x. The caller
// guarantees the ranges of rowptr, col and eid. Source of the layer: neural message passing (arXiv:1704.01212).
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

struct EdgeMatmulArgs {
  Dtype dtype;             // floating
  int64_t N, M, E;         // rows, sources, edges
  int64_t K, I, O;         // matrices, columns of x, columns of y and out
  Index rowptr, col, eid;  // [N + 1], [E], [E] or null
  const void* x;           // [M, I]
  const void* h;           // [E, K]; not read by hgrad
  const void* w;           // [K, I, O]; not read by wgrad
  const void* y;           // [N, O]; not read by fwd
  void* out;               // fwd: [N, O]; hgrad: [E, K]; wgrad: [K, I, O]
};

void edge_matmul_fwd(const EdgeMatmulArgs& a, const ParallelFor& pf);
void edge_matmul_hgrad(const EdgeMatmulArgs& a, const ParallelFor& pf);
void edge_matmul_wgrad(const EdgeMatmulArgs& a, const ParallelFor& pf);

}  // namespace structops
