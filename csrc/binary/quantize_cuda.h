// The CUDA launchers of the quantizers, masks and conditional networks: same arguments and semantics as the CPU launchers, every
// pointer in device memory. They enqueue on ctx.stream, never synchronise, and throw std::runtime_error on a CUDA error.
#pragma once
#include "binary/fff.h"
#include "binary/mask.h"
#include "binary/quantize.h"
#include "core/cuda/context.h"

namespace structops::cuda {

void quantize_fwd(const QuantizeArgs& a, const CudaContext& ctx);
void quantize_bwd(const QuantizeArgs& a, const CudaContext& ctx);
void channel_stats(const ChannelStatsArgs& a, const CudaContext& ctx);
void fff_descend(const DescendArgs& a, const CudaContext& ctx);
void fff_leaf(const LeafArgs& a, const CudaContext& ctx);
void fff_leaf_bwd(const LeafArgs& a, const CudaContext& ctx);
void topk_mask(const TopkMaskArgs& a, const CudaContext& ctx);
void mask_apply(const MaskApplyArgs& a, const CudaContext& ctx);

}  // namespace structops::cuda
