// scatter: reduction by an unsorted index, without building a plan.
//
//   out[b, n, f] = REDUCE over e with index[e] == n of src[b, e, f]        REDUCE in sum, mean, min, max, prod
//
// Every thread owns a range of output rows and takes its edges in order of e, so the result depends neither on threads nor
// on their number. Empty groups: fill, arg = E; arg is the first winner's e (int64). NaN as in spmm.h.
// bf16/f16 accumulate in a float buffer of B*N*F elements. mean divides in floating point; integer dtypes take sum, min,
// max, prod. Out-of-range indices are an error: nothing outside `out` is touched and the launcher returns false.
#pragma once
#include "core/parallel.h"
#include "core/types.h"
#include "sparse/spmm.h"

namespace structops {

struct ScatterArgs {
  Dtype dtype;
  Reduce reduce;
  bool skip_nan;
  double fill;
  int64_t B, N, E, F;
  const void* src;  // [B, E, F]
  Index index;      // [E]
  void* out;        // [B, N, F]
  int64_t* arg;     // [B, N, F] or null
};

bool scatter_fwd(const ScatterArgs& a, const ParallelFor& pf);

}  // namespace structops
