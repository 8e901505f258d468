// Stands in for the CUDA launchers in builds without nvcc.
#include <stdexcept>

#include "sparse/poly_cuda.h"

namespace structops::cuda {
namespace {

[[noreturn]] void missing() {
  throw std::runtime_error("structops was built without CUDA: rebuild with nvcc on the PATH (STRUCTOPS_CUDA=ON)");
}

}  // namespace

void poly_fwd(const PolyArgs&, const CudaContext&) { missing(); }
void poly_bwd(const PolyArgs&, const CudaContext&) { missing(); }

}  // namespace structops::cuda
