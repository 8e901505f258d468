// The CUDA launchers of the so2 family: same arguments and semantics as the CPU launchers, every pointer in device memory.
// They enqueue on ctx.stream, never synchronise, and throw std::runtime_error on a CUDA error.
#pragma once
#include "core/cuda/context.h"
#include "so2/sph.h"
#include "so2/tp.h"

namespace structops::cuda {

// tensor products, spherical harmonics
void spherical_harmonics(const SphArgs& a, const CudaContext& ctx);
void spherical_harmonics_bwd(const SphArgs& a, const CudaContext& ctx);
void spherical_harmonics_jet(const SphArgs& a, const CudaContext& ctx);
void tp_conv(const TpArgs& a, const CudaContext& ctx);
void tp_conv_edge(const TpArgs& a, const CudaContext& ctx);

// frames, Wigner matrices, SO(2) convolutions

}  // namespace structops::cuda
