// Sums and posteriors of grammar charts.
#include "tree/pcfg_launch.cuh"

namespace structops::cuda {

void pcfg_logz(const PcfgArgs& a, const CudaContext& ctx) { sum<false>("pcfg_logz", a, ctx); }
void pcfg_marginals(const PcfgArgs& a, const CudaContext& ctx) { sum<false>("pcfg_marginals", a, ctx); }

}  // namespace structops::cuda
