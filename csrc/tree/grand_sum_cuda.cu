// Sums and posteriors of grandparent charts.
#include "tree/grand_launch.cuh"

namespace structops::cuda {

void grand_logz(const GrandArgs& a, const CudaContext& ctx) { sum<false>("grand_logz", a, ctx); }
void grand_marginals(const GrandArgs& a, const CudaContext& ctx) { sum<false>("grand_marginals", a, ctx); }

}  // namespace structops::cuda
