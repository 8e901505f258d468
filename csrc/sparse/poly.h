// poly_filter: a polynomial of a sparse matrix P applied to features, as one three-term recurrence, and its gradients.
//
//   h_0 = x,   h_{k+1} = a_k (P h_k) + b_k h_k + c_k h_{k-1},   out = sum_{k <= K} alpha_k q_k h_k        (per channel)
//   (P h)[v] = sum over k in [rowptr[v], rowptr[v+1]) of  weight[eid[k]] h[col[k]]          h_{-1} = 0, weight null: 1
//   q_k[v] = 1, or with a gate [C + 1] the number  sigmoid(<gate[:C], h_k[v]> + gate[C])
//   dots[k] = sum over v of dot[v] h_k[v]                                                  (per channel, where dot is given)
//
// Coefficients are constant over nodes, so they commute with P: the gradient of x is the same filter on the reversed edges, and
// dots of that run with x is the gradient of alpha. poly_filter_bwd is for the rest. With l_k the cotangent of h_k:
//
//   l_k = alpha_k grad (gated: alpha_k q grad + q (1 - q) <grad, alpha_k h_k> gate) + a_k (P' l_{k+1}) + b_k l_{k+1} + c_{k+1} l_{k+2}
//   d_x = l_0          d_alpha[k] = sum_v q grad h_k          d_gate = sum_{k, v} q (1 - q) <grad, alpha_k h_k> (h_k, 1)
//   d_recur[0..2, k] = sum_v (P' l_{k+1}) h_k,  l_{k+1} h_k,  l_{k+1} h_{k-1}       d_weight[u -> v] = sum_{k, c} a_k h_k[u] l_{k+1}[v]
//
// Memory: channels are independent and are taken in blocks, whose features stay in cache over all K steps. The forward keeps three
// blocks, the backward K + 4; a gate needs every channel of a node at once, and then there is one block.
// Arithmetic, h_k included: float for f32, bf16 and f16, double for f64; dots and gradients of coefficients are summed in double.
// Rows are never cut. A row is summed in 1, 2 or 4 interleaved parts in order of k; nothing depends on the number of threads.
// A term of the recurrence whose coefficients are 0 in every channel is left out: 0 times infinity does not arise there.
//
// The caller guarantees: rowptr is non-decreasing from 0 to E, 0 <= col < N < 2^32, and that the transposed structure is the same edges.
// Sources: Favard's theorem, arXiv:2302.12432; Chebyshev filters, arXiv:1606.09375; gates, arXiv:2007.09296; Clenshaw (1955).
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

struct PolyArgs {
  Dtype dtype;  // floating
  int64_t N, E, C, K;
  const void* x;       // [N, C]
  const void* weight;  // [E] or null
  Index rowptr, col, eid;        // eid null: the position
  Index colptr, row_t, eid_t;    // bwd only: the reversed edges
  // In the accumulator's type. Ca and Cr are 1 or C.
  const void* alpha;   // [K + 1, Ca]
  const void* recur;   // [3, K, Cr]: a, b, c
  int64_t Ca, Cr;
  const void* gate;    // [C + 1] or null
  const void* dot;     // fwd: [N, C] or null
  const void* grad;    // bwd: [N, C]
  void* out;           // [N, C]; bwd: d_x
  // In the accumulator's type:
  void* dots;          // [K + 1, C]; null without dot; bwd: d_alpha
  void* d_recur;       // [3, K, C]
  void* d_gate;        // [C + 1] or null
  void* d_weight;      // [E] in dtype, or null
};

void poly_fwd(const PolyArgs& a, const ParallelFor& pf);
void poly_bwd(const PolyArgs& a, const ParallelFor& pf);

}  // namespace structops
