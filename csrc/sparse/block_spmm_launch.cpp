// CPU launchers of the block-sparse products.
#include "core/isa.h"
#include "sparse/block_spmm.h"

namespace structops {

STRUCTOPS_DISPATCH(void, block_spmm_fwd, (const BlockSpmmArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, block_sddmm_fwd, (const BlockSddmmArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, block_matmul_fwd, (const BlockMatmulArgs& a, const ParallelFor& pf), (a, pf))

}  // namespace structops
