// The CPU launchers: each picks the instruction set's own copy of the kernel.
#include "core/isa.h"
#include "tree/arborescence.h"
#include "tree/chain.h"
#include "tree/chart.h"
#include "tree/grand.h"
#include "tree/factored.h"
#include "tree/matrix_tree.h"
#include "tree/pcfg.h"

namespace structops {

STRUCTOPS_DISPATCH(void, chart_logz, (const ChartArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chart_marginals, (const ChartArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chart_hvp, (const ChartArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chart_best, (const ChartTreeArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chart_sample, (const ChartTreeArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chart_max_marginals, (const ChartMaxArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, grand_logz, (const GrandArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, grand_marginals, (const GrandArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, grand_hvp, (const GrandArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, grand_best, (const GrandTreeArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, grand_sample, (const GrandTreeArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, grand_max_marginals, (const GrandMaxArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, pcfg_logz, (const PcfgArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, pcfg_marginals, (const PcfgArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, pcfg_hvp, (const PcfgArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, pcfg_max_marginals, (const PcfgArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, pcfg_best, (const PcfgTreeArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, pcfg_sample, (const PcfgTreeArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, factored_logz, (const FactoredArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, factored_marginals, (const FactoredArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, factored_hvp, (const FactoredArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chain_logz, (const ChainArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chain_marginals, (const ChainArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chain_hvp, (const ChainArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chain_best, (const ChainPathArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chain_sample, (const ChainPathArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, chain_max_marginals, (const ChainMaxArgs& a, const ParallelFor& pf), (a, pf))

STRUCTOPS_DISPATCH(void, matrix_tree_logz, (const MatrixTreeArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, matrix_tree_marginals, (const MatrixTreeArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, matrix_tree_hvp, (const MatrixTreeArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, matrix_tree_sample, (const MatrixTreeSampleArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, arborescence, (const ArborescenceArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, arborescence_kbest, (const ArborescenceKbestArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, arborescence_max_marginals, (const ArborescenceMaxArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, tree_check, (const TreeCheckArgs& a, const ParallelFor& pf), (a, pf))

}  // namespace structops
