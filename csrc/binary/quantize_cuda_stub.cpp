// Stands in for the CUDA launchers in builds without nvcc.
#include <stdexcept>

#include "binary/quantize_cuda.h"

namespace structops::cuda {
namespace {

[[noreturn]] void missing() {
  throw std::runtime_error("structops was built without CUDA: rebuild with nvcc on the PATH (STRUCTOPS_CUDA=ON)");
}

}  // namespace

void quantize_fwd(const QuantizeArgs&, const CudaContext&) { missing(); }
void quantize_bwd(const QuantizeArgs&, const CudaContext&) { missing(); }
void channel_stats(const ChannelStatsArgs&, const CudaContext&) { missing(); }
void fff_descend(const DescendArgs&, const CudaContext&) { missing(); }
void fff_leaf(const LeafArgs&, const CudaContext&) { missing(); }
void fff_leaf_bwd(const LeafArgs&, const CudaContext&) { missing(); }
void topk_mask(const TopkMaskArgs&, const CudaContext&) { missing(); }
void mask_apply(const MaskApplyArgs&, const CudaContext&) { missing(); }

}  // namespace structops::cuda
