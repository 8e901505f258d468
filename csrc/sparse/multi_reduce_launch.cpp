#include "core/isa.h"
#include "sparse/multi_reduce.h"

namespace structops {

STRUCTOPS_DISPATCH(void, multi_reduce_fwd, (const MultiReduceArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, multi_reduce_bwd, (const MultiReduceArgs& a, const ParallelFor& pf), (a, pf))

}  // namespace structops
