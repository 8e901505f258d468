// Powers of differences along edges, reduced to rows or to edges; the E x F differences are never stored.
//
//   d = y[v, f] - x[u, f],   u = col[k],   t(d) = |d|^power, or |d|^power sign(d) if odd
//
//   difference_rows    out[v, f] = sum over k of row v of  weight[j] * hu[u, f] * t(d),   j = eid[k]
//   difference_edges   out[j]    = sum over f of  hv[v, f] * hu[u, f] * t(d)
//
// weight, hu and hv are 1 where null. At d = 0: t = 1 for the even power 0, else 0, for negative powers too: a tie has no
// slope. So 0 is the subgradient that |d| gets there, and derivatives of t are again such functions:
// (|d|^a)' = a |d|^(a-1) sign(d) and (|d|^a sign(d))' = a |d|^(a-1); a factor a = 0 is never multiplied out. Differences below
// the smallest normal number are ties for powers other than 0, 1 and 2. NaN propagates. Rows without edges give 0.
//
// Powers 0, 1 and 2 are multiplications; others are exp(power * log |d|), accurate to about |power log d| units.
// Sums of rows run in order of k, those of edges over f in an order that depends on F and the instruction set. Accumulation:
// float for f32, bf16 and f16, double for f64. Rows are never cut: the result does not depend on the number of threads.
//
// The caller guarantees valid rowptr, col, eid, and that eid is a permutation of [0, E).
// Sources: graph p-Laplacian (Buehler and Hein, ICML 2009); total variation of graph signals (Shuman et al., arXiv:1211.0053).
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

struct DifferenceArgs {
  Dtype dtype;  // floating
  bool odd;
  double power;
  int64_t N, E, F;
  Index rowptr, col, eid;  // [N + 1], [E], [E]
  const void* x;           // [Nu, F]
  const void* y;           // [N, F]
  const void* weight;      // rows only: [E] or null
  const void* hu;          // [Nu, F] or null
  const void* hv;          // edges only: [N, F] or null
  void* out;               // rows: [N, F]; edges: [E]
};

void difference_rows_fwd(const DifferenceArgs& a, const ParallelFor& pf);
void difference_edges_fwd(const DifferenceArgs& a, const ParallelFor& pf);

}  // namespace structops
