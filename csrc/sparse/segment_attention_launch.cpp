#include "core/isa.h"
#include "sparse/segment_attention.h"

namespace structops {

STRUCTOPS_DISPATCH(void, segment_attention_fwd, (const SegmentAttentionArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, segment_attention_bwd, (const SegmentAttentionArgs& a, const ParallelFor& pf), (a, pf))

}  // namespace structops
