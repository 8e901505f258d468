// The CPU launchers: each picks the instruction set's own copy of the kernel.
#include "core/isa.h"
#include "tree/chain.h"
#include "tree/chart.h"

namespace structops {

STRUCTOPS_DISPATCH(void, chart_logz, (const ChartArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chart_marginals, (const ChartArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chart_hvp, (const ChartArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chart_best, (const ChartTreeArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chart_sample, (const ChartTreeArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chain_logz, (const ChainArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chain_marginals, (const ChainArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chain_hvp, (const ChainArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chain_best, (const ChainPathArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chain_sample, (const ChainPathArgs& a, const ParallelFor& pf), (a, pf))

}  // namespace structops
