// segment_softmax over the edges of every row, feature by feature, and its gradient.
//
//   fwd:  out[b, j] = exp(src[b, j] - L[v])  or, log = true,  src[b, j] - L[v],   L[v] = logsumexp of the row of j
//   bwd:  d_src[b, j] = out_j (g_j - sum_row out g)          or  g_j - exp(out_j) sum_row g
//
// j = eid[k] for edge k of row v (eid null: j = k). A row of only -inf has no distribution: softmax gives NaN, as torch.
// Sources: online softmax (arXiv:1805.02867). Rows are never cut; sums run in order of k.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

struct SoftmaxArgs {
  Dtype dtype;  // floating
  bool log;
  int64_t B, N, E, F;
  Index rowptr, eid;
  const void* src;   // fwd: [B, E, F] scores; bwd: the forward result
  const void* grad;  // bwd only
  void* out;         // [B, E, F]
};

void softmax_fwd(const SoftmaxArgs& a, const ParallelFor& pf);
void softmax_bwd(const SoftmaxArgs& a, const ParallelFor& pf);

}  // namespace structops
