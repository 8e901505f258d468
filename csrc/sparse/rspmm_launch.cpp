// The CPU launchers of relational_spmm.
#include "core/isa.h"
#include "sparse/rspmm.h"

namespace structops {

STRUCTOPS_DISPATCH(void, rspmm_fwd, (const RspmmArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, rspmm_bwd, (const RspmmArgs& a, const ParallelFor& pf), (a, pf))

}  // namespace structops
