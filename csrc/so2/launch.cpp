// The CPU launchers: each picks the instruction set's own copy of the kernel.
#include "core/isa.h"
#include "so2/edge_block.h"
#include "so2/so2_conv.h"
#include "so2/wigner.h"

namespace structops {

// tensor products, spherical harmonics

// frames, Wigner matrices, SO(2) convolutions
STRUCTOPS_DISPATCH(void, wigner_fwd, (const WignerArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, rotate_fwd, (const WignerArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, rotate_back, (const WignerArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, rotate_outer, (const WignerArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, so3_turn, (const WignerArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, so3_torque, (const WignerArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, so2_conv_fwd, (const So2ConvArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, so2_conv_wgrad, (const So2ConvArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, edge_block_fwd, (const EdgeBlockArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, edge_block_bwd, (const EdgeBlockArgs& a, const ParallelFor& pf), (a, pf))

}  // namespace structops
