#include "core/isa.h"
#include "sparse/attention.h"

namespace structops {

STRUCTOPS_DISPATCH(void, attention_fwd, (const AttentionArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, attention_bwd, (const AttentionArgs& a, const ParallelFor& pf), (a, pf))

}  // namespace structops
