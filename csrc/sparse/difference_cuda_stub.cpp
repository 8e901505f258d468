// Stands in for the CUDA launchers of the powers of differences in builds without nvcc.
#include <stdexcept>

#include "sparse/cuda.h"

namespace structops::cuda {
namespace {

[[noreturn]] void missing() {
  throw std::runtime_error("structops was built without CUDA: rebuild with nvcc on the PATH (STRUCTOPS_CUDA=ON)");
}

}  // namespace

void difference_rows_fwd(const DifferenceArgs&, const CudaContext&) { missing(); }
void difference_edges_fwd(const DifferenceArgs&, const CudaContext&) { missing(); }

}  // namespace structops::cuda
