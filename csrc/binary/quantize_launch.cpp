// The CPU launchers of the quantizers, masks and conditional networks: each picks the instruction set's own copy of the kernel.
#include "binary/fff.h"
#include "binary/mask.h"
#include "binary/quantize.h"
#include "core/isa.h"

namespace structops {

STRUCTOPS_DISPATCH_ON(bits_isa(), void, quantize_fwd, (const QuantizeArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH_ON(bits_isa(), void, quantize_bwd, (const QuantizeArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH_ON(bits_isa(), void, channel_stats, (const ChannelStatsArgs& a, const ParallelFor& pf), (a, pf))

STRUCTOPS_DISPATCH_ON(bits_isa(), void, fff_descend, (const DescendArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH_ON(bits_isa(), void, fff_leaf, (const LeafArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH_ON(bits_isa(), void, fff_leaf_bwd, (const LeafArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH_ON(bits_isa(), void, topk_mask, (const TopkMaskArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH_ON(bits_isa(), void, mask_apply, (const MaskApplyArgs& a, const ParallelFor& pf), (a, pf))

}  // namespace structops
