// The CPU launchers: each picks the instruction set's own copy of the kernel.
#include "core/isa.h"
#include "sparse/csr.h"
#include "sparse/scatter.h"
#include "sparse/sddmm.h"
#include "sparse/select.h"
#include "sparse/softmax.h"
#include "sparse/spmm.h"

namespace structops {

STRUCTOPS_DISPATCH(void, spmm_fwd, (const SpmmArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, sddmm_fwd, (const SddmmArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, softmax_fwd, (const SoftmaxArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, softmax_bwd, (const SoftmaxArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(bool, scatter_fwd, (const ScatterArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, select_fwd, (const SelectArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, select_bwd, (const SelectArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(bool, csr_build, (const CsrArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(Range, index_range, (const Index& index, int64_t n, bool* sorted, const ParallelFor& pf), (index, n, sorted, pf))

}  // namespace structops
