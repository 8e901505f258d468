// Derivatives of the posteriors of grandparent charts.
#include "tree/grand_launch.cuh"

namespace structops::cuda {

void grand_hvp(const GrandArgs& a, const CudaContext& ctx) { sum<true>("grand_hvp", a, ctx); }

}  // namespace structops::cuda
