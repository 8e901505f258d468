// Stands in for the CUDA launchers in builds without nvcc.
#include <stdexcept>

#include "binary/cuda.h"

namespace structops::cuda {
namespace {

[[noreturn]] void missing() {
  throw std::runtime_error("structops was built without CUDA: rebuild with nvcc on the PATH (STRUCTOPS_CUDA=ON)");
}

}  // namespace

void bits_pack(const BitsPackArgs&, const CudaContext&) { missing(); }
void bits_unpack(const BitsUnpackArgs&, const CudaContext&) { missing(); }
void bits_count(const BitsCountArgs&, const CudaContext&) { missing(); }
void bits_panels(const BitsPanelsArgs&, const CudaContext&) { missing(); }
void bits_gemm(const BitsGemmArgs&, const CudaContext&) { missing(); }
void bits_w1a8(const BitsMixedArgs&, const CudaContext&) { missing(); }
void bits_w1a16(const BitsMixedArgs&, const CudaContext&) { missing(); }
void bits_bag(const BitsBagArgs&, const CudaContext&) { missing(); }

}  // namespace structops::cuda
