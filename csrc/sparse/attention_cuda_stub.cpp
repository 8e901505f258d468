// Stands in for the CUDA launchers in builds without nvcc.
#include <stdexcept>

#include "sparse/cuda.h"

namespace structops::cuda {

void attention_fwd(const AttentionArgs&, const CudaContext&) { throw std::runtime_error("structops was built without CUDA"); }
void attention_bwd(const AttentionArgs&, const CudaContext&) { throw std::runtime_error("structops was built without CUDA"); }

}  // namespace structops::cuda
