// Stands in for the CUDA launchers of the block-sparse products in builds without nvcc.
#include <stdexcept>

#include "sparse/cuda.h"

namespace structops::cuda {
namespace {

[[noreturn]] void missing() {
  throw std::runtime_error("structops was built without CUDA: rebuild with nvcc on the PATH (STRUCTOPS_CUDA=ON)");
}

}  // namespace

void block_spmm_fwd(const BlockSpmmArgs&, const CudaContext&) { missing(); }
void block_sddmm_fwd(const BlockSddmmArgs&, const CudaContext&) { missing(); }
void block_matmul_fwd(const BlockMatmulArgs&, const CudaContext&) { missing(); }

}  // namespace structops::cuda
