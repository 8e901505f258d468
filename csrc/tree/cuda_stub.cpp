// Stands in for the CUDA launchers in builds without nvcc.
#include <stdexcept>

#include "tree/cuda.h"

namespace structops::cuda {
namespace {

[[noreturn]] void missing() {
  throw std::runtime_error("structops was built without CUDA: rebuild with nvcc on the PATH (STRUCTOPS_CUDA=ON)");
}

}  // namespace

void chart_logz(const ChartArgs&, const CudaContext&) { missing(); }
void chart_marginals(const ChartArgs&, const CudaContext&) { missing(); }
void chart_hvp(const ChartArgs&, const CudaContext&) { missing(); }
void chart_best(const ChartTreeArgs&, const CudaContext&) { missing(); }
void chart_sample(const ChartTreeArgs&, const CudaContext&) { missing(); }
void chart_max_marginals(const ChartMaxArgs&, const CudaContext&) { missing(); }
void grand_logz(const GrandArgs&, const CudaContext&) { missing(); }
void grand_marginals(const GrandArgs&, const CudaContext&) { missing(); }
void grand_hvp(const GrandArgs&, const CudaContext&) { missing(); }
void grand_best(const GrandTreeArgs&, const CudaContext&) { missing(); }
void grand_sample(const GrandTreeArgs&, const CudaContext&) { missing(); }
void grand_max_marginals(const GrandMaxArgs&, const CudaContext&) { missing(); }
void pcfg_logz(const PcfgArgs&, const CudaContext&) { missing(); }
void pcfg_marginals(const PcfgArgs&, const CudaContext&) { missing(); }
void pcfg_hvp(const PcfgArgs&, const CudaContext&) { missing(); }
void pcfg_max_marginals(const PcfgArgs&, const CudaContext&) { missing(); }
void pcfg_best(const PcfgTreeArgs&, const CudaContext&) { missing(); }
void pcfg_sample(const PcfgTreeArgs&, const CudaContext&) { missing(); }
void factored_logz(const FactoredArgs&, const CudaContext&) { missing(); }
void factored_marginals(const FactoredArgs&, const CudaContext&) { missing(); }
void factored_hvp(const FactoredArgs&, const CudaContext&) { missing(); }
void chain_logz(const ChainArgs&, const CudaContext&) { missing(); }
void chain_marginals(const ChainArgs&, const CudaContext&) { missing(); }
void chain_hvp(const ChainArgs&, const CudaContext&) { missing(); }
void chain_best(const ChainPathArgs&, const CudaContext&) { missing(); }
void chain_sample(const ChainPathArgs&, const CudaContext&) { missing(); }
void chain_max_marginals(const ChainMaxArgs&, const CudaContext&) { missing(); }
void matrix_tree_logz(const MatrixTreeArgs&, const CudaContext&) { missing(); }
void matrix_tree_marginals(const MatrixTreeArgs&, const CudaContext&) { missing(); }
void matrix_tree_hvp(const MatrixTreeArgs&, const CudaContext&) { missing(); }
void matrix_tree_sample(const MatrixTreeSampleArgs&, const CudaContext&) { missing(); }
void arborescence(const ArborescenceArgs&, const CudaContext&) { missing(); }
void arborescence_kbest(const ArborescenceKbestArgs&, const CudaContext&) { missing(); }
void arborescence_max_marginals(const ArborescenceMaxArgs&, const CudaContext&) { missing(); }
void tree_check(const TreeCheckArgs&, const CudaContext&) { missing(); }

}  // namespace structops::cuda
