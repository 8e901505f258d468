// The CUDA launchers of the tree family: same arguments and semantics as the CPU launchers, every pointer in device memory.
// They enqueue on ctx.stream, never synchronise, and throw std::runtime_error on a CUDA error.
#pragma once
#include "core/cuda/context.h"
#include "tree/arborescence.h"
#include "tree/chain.h"
#include "tree/chart.h"
#include "tree/grand.h"
#include "tree/factored.h"
#include "tree/matrix_tree.h"
#include "tree/pcfg.h"

namespace structops::cuda {

void chart_logz(const ChartArgs& a, const CudaContext& ctx);
void chart_marginals(const ChartArgs& a, const CudaContext& ctx);
void chart_hvp(const ChartArgs& a, const CudaContext& ctx);
void chart_best(const ChartTreeArgs& a, const CudaContext& ctx);
void chart_sample(const ChartTreeArgs& a, const CudaContext& ctx);
void chart_max_marginals(const ChartMaxArgs& a, const CudaContext& ctx);
void grand_logz(const GrandArgs& a, const CudaContext& ctx);
void grand_marginals(const GrandArgs& a, const CudaContext& ctx);
void grand_hvp(const GrandArgs& a, const CudaContext& ctx);
void grand_best(const GrandTreeArgs& a, const CudaContext& ctx);
void grand_sample(const GrandTreeArgs& a, const CudaContext& ctx);
void grand_max_marginals(const GrandMaxArgs& a, const CudaContext& ctx);
void pcfg_logz(const PcfgArgs& a, const CudaContext& ctx);
void pcfg_marginals(const PcfgArgs& a, const CudaContext& ctx);
void pcfg_hvp(const PcfgArgs& a, const CudaContext& ctx);
void pcfg_max_marginals(const PcfgArgs& a, const CudaContext& ctx);
void pcfg_best(const PcfgTreeArgs& a, const CudaContext& ctx);
void pcfg_sample(const PcfgTreeArgs& a, const CudaContext& ctx);
void factored_logz(const FactoredArgs& a, const CudaContext& ctx);
void factored_marginals(const FactoredArgs& a, const CudaContext& ctx);
void factored_hvp(const FactoredArgs& a, const CudaContext& ctx);
void chain_logz(const ChainArgs& a, const CudaContext& ctx);
void chain_marginals(const ChainArgs& a, const CudaContext& ctx);
void chain_hvp(const ChainArgs& a, const CudaContext& ctx);
void chain_best(const ChainPathArgs& a, const CudaContext& ctx);
void chain_sample(const ChainPathArgs& a, const CudaContext& ctx);
void chain_max_marginals(const ChainMaxArgs& a, const CudaContext& ctx);

void matrix_tree_logz(const MatrixTreeArgs& a, const CudaContext& ctx);
void matrix_tree_marginals(const MatrixTreeArgs& a, const CudaContext& ctx);
void matrix_tree_hvp(const MatrixTreeArgs& a, const CudaContext& ctx);
void matrix_tree_sample(const MatrixTreeSampleArgs& a, const CudaContext& ctx);
void arborescence(const ArborescenceArgs& a, const CudaContext& ctx);
void arborescence_kbest(const ArborescenceKbestArgs& a, const CudaContext& ctx);
void arborescence_max_marginals(const ArborescenceMaxArgs& a, const CudaContext& ctx);
void tree_check(const TreeCheckArgs& a, const CudaContext& ctx);

}  // namespace structops::cuda
