// Stands in for the CUDA launchers in builds without nvcc.
#include <stdexcept>

#include "sparse/cuda.h"

namespace structops::cuda {

void segment_attention_fwd(const SegmentAttentionArgs&, const CudaContext&) { throw std::runtime_error("structops was built without CUDA"); }
void segment_attention_bwd(const SegmentAttentionArgs&, const CudaContext&) { throw std::runtime_error("structops was built without CUDA"); }

}  // namespace structops::cuda
