// CPU launchers of the powers of differences.
#include "core/isa.h"
#include "sparse/difference.h"

namespace structops {

STRUCTOPS_DISPATCH(void, difference_rows_fwd, (const DifferenceArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, difference_edges_fwd, (const DifferenceArgs& a, const ParallelFor& pf), (a, pf))

}  // namespace structops
