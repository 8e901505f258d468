// The CUDA launchers of poly_filter: same arguments and semantics as the CPU launchers, every pointer in device memory.
// They enqueue on ctx.stream and throw std::runtime_error on a CUDA error.
#pragma once
#include "core/cuda/context.h"
#include "sparse/poly.h"

namespace structops::cuda {

void poly_fwd(const PolyArgs& a, const CudaContext& ctx);
void poly_bwd(const PolyArgs& a, const CudaContext& ctx);

}  // namespace structops::cuda
