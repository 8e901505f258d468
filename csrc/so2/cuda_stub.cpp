// Stands in for the CUDA launchers in builds without nvcc.
#include <stdexcept>

#include "so2/cuda.h"

namespace structops::cuda {
namespace {

[[noreturn, maybe_unused]] void missing() {
  throw std::runtime_error("structops was built without CUDA: rebuild with nvcc on the PATH (STRUCTOPS_CUDA=ON)");
}

}  // namespace

// tensor products, spherical harmonics
void spherical_harmonics(const SphArgs&, const CudaContext&) { missing(); }
void spherical_harmonics_bwd(const SphArgs&, const CudaContext&) { missing(); }
void spherical_harmonics_jet(const SphArgs&, const CudaContext&) { missing(); }
void tp_conv(const TpArgs&, const CudaContext&) { missing(); }
void tp_conv_edge(const TpArgs&, const CudaContext&) { missing(); }
void sparse_bilinear(const BilinearArgs&, const CudaContext&) { missing(); }
void symmetric_contraction(const SymmetricArgs&, const CudaContext&) { missing(); }

// frames, Wigner matrices, SO(2) convolutions
void wigner_fwd(const WignerArgs&, const CudaContext&) { missing(); }
void rotate_fwd(const WignerArgs&, const CudaContext&) { missing(); }
void rotate_back(const WignerArgs&, const CudaContext&) { missing(); }
void rotate_outer(const WignerArgs&, const CudaContext&) { missing(); }
void so3_turn(const WignerArgs&, const CudaContext&) { missing(); }
void so3_torque(const WignerArgs&, const CudaContext&) { missing(); }
void so2_conv_fwd(const So2ConvArgs&, const CudaContext&) { missing(); }
void so2_conv_wgrad(const So2ConvArgs&, const CudaContext&) { missing(); }
void edge_block_fwd(const EdgeBlockArgs&, const CudaContext&) { missing(); }
void edge_block_bwd(const EdgeBlockArgs&, const CudaContext&) { missing(); }

// eigen-decompositions
void eigh_small(const EighSmallArgs&, const CudaContext&) { missing(); }
void eigh_small_bwd(const EighSmallBwdArgs&, const CudaContext&) { missing(); }

}  // namespace structops::cuda
