// The CUDA launchers of the quantizers, masks and conditional networks: same arguments and semantics as the CPU launchers, every
// pointer in device memory. They enqueue on ctx.stream, never synchronise, and throw std::runtime_error on a CUDA error.
#pragma once
#include "binary/quantize.h"
#include "core/cuda/context.h"

namespace structops::cuda {

void quantize_fwd(const QuantizeArgs& a, const CudaContext& ctx);
void quantize_bwd(const QuantizeArgs& a, const CudaContext& ctx);
void channel_stats(const ChannelStatsArgs& a, const CudaContext& ctx);

}  // namespace structops::cuda
