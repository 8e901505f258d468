// Stands in for the CUDA launchers of relational_spmm in builds without nvcc.
#include <stdexcept>

#include "sparse/cuda.h"

namespace structops::cuda {
namespace {

[[noreturn]] void missing() {
  throw std::runtime_error("structops was built without CUDA: rebuild with nvcc on the PATH (STRUCTOPS_CUDA=ON)");
}

}  // namespace

void rspmm_fwd(const RspmmArgs&, const CudaContext&) { missing(); }
void rspmm_bwd(const RspmmArgs&, const CudaContext&) { missing(); }

}  // namespace structops::cuda
