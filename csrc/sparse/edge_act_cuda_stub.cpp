// Stands in for the CUDA launchers in builds without nvcc.
#include <stdexcept>

#include "sparse/cuda.h"

namespace structops::cuda {

void edge_act_fwd(const EdgeActArgs&, const CudaContext&) { throw std::runtime_error("structops was built without CUDA"); }
void edge_act_bwd(const EdgeActArgs&, const CudaContext&) { throw std::runtime_error("structops was built without CUDA"); }

}  // namespace structops::cuda
