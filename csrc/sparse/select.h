// select: one source row per output element, and its transpose. The backward of min and max.
//
//   fwd:  out[b, n, f] = src[b, idx[b, n, f], f]      (0 where idx is outside [0, M))
//   bwd:  out[b, m, f] = sum over n with idx[b, n, f] == m of grad[b, n, f]
//
// bwd gives each thread whole feature columns, so sums run in order of n for any number of threads.
// bf16/f16 sums are kept in float.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

struct SelectArgs {
  Dtype dtype;
  int64_t B, N, M, F;
  const void* src;  // fwd: [B, M, F]; bwd: grad [B, N, F]
  Index idx;        // [B, N, F]
  void* out;        // fwd: [B, N, F]; bwd: [B, M, F]
};

void select_fwd(const SelectArgs& a, const ParallelFor& pf);
void select_bwd(const SelectArgs& a, const ParallelFor& pf);

}  // namespace structops
