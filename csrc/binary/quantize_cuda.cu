// CUDA quantizers: launch. The contract is quantize.h, the algorithm is in quantize.cuh.
#include "binary/quantize.cuh"
#include "binary/quantize_cuda.h"

namespace structops::cuda {
namespace {

unsigned channel_blocks(int64_t C) { return unsigned(C < 65536 ? C : 65536); }

}  // namespace

void quantize_fwd(const QuantizeArgs& a, const CudaContext& ctx) {
  if (a.numel == 0) return;
  with_float("quantize", a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    launch("quantize", ctx, quantize_forward<T>, blocks_for(div_up(a.numel, 8), kQuantizeThreads), kQuantizeThreads, a, slope_top(a));
  });
}

void quantize_bwd(const QuantizeArgs& a, const CudaContext& ctx) {
  with_float("quantize_bwd", a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if (a.numel)
      launch("quantize_bwd", ctx, quantize_backward<T>, blocks_for(a.numel, kQuantizeThreads), kQuantizeThreads, a, slope_top(a));
    if (a.d_shift || a.d_scale || a.d_extra)
      launch("quantize_bwd", ctx, quantize_sums<T>, channel_blocks(a.C), kQuantizeThreads, a, slope_top(a));
  });
}

void channel_stats(const ChannelStatsArgs& a, const CudaContext& ctx) {
  with_float("channel_stats", a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    launch("channel_stats", ctx, channel_statistics<T>, channel_blocks(a.C), kQuantizeThreads, a);
  });
}

}  // namespace structops::cuda
