// Stands in for the CUDA launcher in builds without nvcc.
#include <stdexcept>

#include "sparse/cuda.h"

namespace structops::cuda {

void segment_order_fwd(const SegmentOrderArgs&, const CudaContext&) {
  throw std::runtime_error("structops was built without CUDA: rebuild with nvcc on the PATH (STRUCTOPS_CUDA=ON)");
}

}  // namespace structops::cuda
