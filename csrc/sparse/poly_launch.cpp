// The CPU launchers of poly_filter: each picks the instruction set's own copy of the kernel.
#include "core/isa.h"
#include "sparse/poly.h"

namespace structops {

STRUCTOPS_DISPATCH(void, poly_fwd, (const PolyArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, poly_bwd, (const PolyArgs& a, const ParallelFor& pf), (a, pf))

}  // namespace structops
