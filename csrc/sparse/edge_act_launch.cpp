#include "core/isa.h"
#include "sparse/edge_act.h"

namespace structops {

STRUCTOPS_DISPATCH(void, edge_act_fwd, (const EdgeActArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, edge_act_bwd, (const EdgeActArgs& a, const ParallelFor& pf), (a, pf))

}  // namespace structops
