// The CUDA launchers of the so2 family: same arguments and semantics as the CPU launchers, every pointer in device memory.
// They enqueue on ctx.stream, never synchronise, and throw std::runtime_error on a CUDA error.
#pragma once
#include "core/cuda/context.h"
#include "so2/bilinear.h"
#include "so2/edge_block.h"
#include "so2/eigh_small.h"
#include "so2/so2_conv.h"
#include "so2/wigner.h"
#include "so2/sph.h"
#include "so2/symmetric_contraction.h"
#include "so2/tp.h"

namespace structops::cuda {

// tensor products, spherical harmonics
void spherical_harmonics(const SphArgs& a, const CudaContext& ctx);
void spherical_harmonics_bwd(const SphArgs& a, const CudaContext& ctx);
void spherical_harmonics_jet(const SphArgs& a, const CudaContext& ctx);
void tp_conv(const TpArgs& a, const CudaContext& ctx);
void tp_conv_edge(const TpArgs& a, const CudaContext& ctx);
void sparse_bilinear(const BilinearArgs& a, const CudaContext& ctx);
void symmetric_contraction(const SymmetricArgs& a, const CudaContext& ctx);

// frames, Wigner matrices, SO(2) convolutions
void wigner_fwd(const WignerArgs& a, const CudaContext& ctx);
void rotate_fwd(const WignerArgs& a, const CudaContext& ctx);
void rotate_back(const WignerArgs& a, const CudaContext& ctx);
void rotate_outer(const WignerArgs& a, const CudaContext& ctx);
void so3_turn(const WignerArgs& a, const CudaContext& ctx);
void so3_torque(const WignerArgs& a, const CudaContext& ctx);
void so2_conv_fwd(const So2ConvArgs& a, const CudaContext& ctx);
void so2_conv_wgrad(const So2ConvArgs& a, const CudaContext& ctx);
void edge_block_fwd(const EdgeBlockArgs& a, const CudaContext& ctx);
void edge_block_bwd(const EdgeBlockArgs& a, const CudaContext& ctx);

// eigen-decompositions
void eigh_small(const EighSmallArgs& a, const CudaContext& ctx);
void eigh_small_bwd(const EighSmallBwdArgs& a, const CudaContext& ctx);

}  // namespace structops::cuda
