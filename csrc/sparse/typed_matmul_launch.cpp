// The CPU launchers of typed and edge-conditioned products: each picks the instruction set's own copy of the kernel.
#include "core/isa.h"
#include "sparse/edge_matmul.h"
#include "sparse/typed_matmul.h"

namespace structops {

STRUCTOPS_DISPATCH(void, typed_matmul_fwd, (const TypedArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, typed_matmul_wgrad, (const TypedArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, edge_matmul_fwd, (const EdgeMatmulArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, edge_matmul_hgrad, (const EdgeMatmulArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, edge_matmul_wgrad, (const EdgeMatmulArgs& a, const ParallelFor& pf), (a, pf))

}  // namespace structops
