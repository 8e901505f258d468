// Stands in for the CUDA launchers in builds without nvcc.
#include <stdexcept>

#include "sparse/cuda.h"

namespace structops::cuda {
namespace {

[[noreturn]] void missing() {
  throw std::runtime_error("structops was built without CUDA: rebuild with nvcc on the PATH (STRUCTOPS_CUDA=ON)");
}

}  // namespace

bool compiled() { return false; }

void spmm_fwd(const SpmmArgs&, const CudaContext&) { missing(); }
void sddmm_fwd(const SddmmArgs&, const CudaContext&) { missing(); }
void softmax_fwd(const SoftmaxArgs&, const CudaContext&) { missing(); }
void softmax_bwd(const SoftmaxArgs&, const CudaContext&) { missing(); }
bool scatter_fwd(const ScatterArgs&, const CudaContext&) { missing(); }
void select_fwd(const SelectArgs&, const CudaContext&) { missing(); }
void select_bwd(const SelectArgs&, const CudaContext&) { missing(); }
bool csr_build(const CsrArgs&, const CudaContext&) { missing(); }
Range index_range(const Index&, int64_t, bool*, const CudaContext&) { missing(); }

}  // namespace structops::cuda
