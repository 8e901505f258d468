// What csr_cuda.cu offers to the other CUDA launchers.
#pragma once
#include "core/cuda/device.cuh"
#include "sparse/csr.h"

namespace structops::cuda {

// csr_build for keys already known to lie in [0, N): no synchronisation.
void csr_sort(const char* op, const CsrArgs& a, const CudaContext& ctx);

// Whether all of index [E] lies in [0, N). Synchronises the stream.
bool csr_in_range(const char* op, const Index& index, int64_t E, int64_t N, const CudaContext& ctx);

}  // namespace structops::cuda
