// Stands in for the CUDA launchers in builds without nvcc.
#include <stdexcept>

#include "sparse/cuda.h"

namespace structops::cuda {

void multi_reduce_fwd(const MultiReduceArgs&, const CudaContext&) { throw std::runtime_error("structops was built without CUDA"); }
void multi_reduce_bwd(const MultiReduceArgs&, const CudaContext&) { throw std::runtime_error("structops was built without CUDA"); }

}  // namespace structops::cuda
