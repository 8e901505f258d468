// The CPU launcher of segment_order: picks the instruction set's own copy of the kernel.
#include "sparse/segment_order.h"

#include "core/isa.h"

namespace structops {

STRUCTOPS_DISPATCH(bool, segment_order_fwd, (const SegmentOrderArgs& a, const ParallelFor& pf), (a, pf))

}  // namespace structops
