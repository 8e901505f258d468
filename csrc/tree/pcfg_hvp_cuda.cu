// Derivatives of the posteriors of grammar charts.
#include "tree/pcfg_launch.cuh"

namespace structops::cuda {

void pcfg_hvp(const PcfgArgs& a, const CudaContext& ctx) { sum<true>("pcfg_hvp", a, ctx); }

}  // namespace structops::cuda
