// CUDA eigen-decomposition: launch. The contract is eigh3.h.
#include "so2/cuda.h"
#include "so2/eigh3.cuh"

namespace structops::cuda {
namespace {

template <int n, class A> void run(const Eigh3Args& g, const CudaContext& ctx) {
  launch("eigh3", ctx, eigh3_kernel<n, A>, dim3(blocks_for(g.B, kEighThreads)), kEighThreads, g.B, static_cast<const A*>(g.a),
         static_cast<A*>(g.w), static_cast<A*>(g.v));
}

template <int n, class A> void run_bwd(const Eigh3BwdArgs& g, const CudaContext& ctx) {
  launch("eigh3_bwd", ctx, eigh3_bwd_kernel<n, A>, dim3(blocks_for(g.B, kEighThreads)), kEighThreads, g.B, static_cast<const A*>(g.w),
         static_cast<const A*>(g.v), static_cast<const A*>(g.gw), static_cast<const A*>(g.gv), static_cast<A*>(g.ga));
}

}  // namespace

void eigh3(const Eigh3Args& g, const CudaContext& ctx) {
  if (g.dtype == Dtype::f64) return g.n == 2 ? run<2, double>(g, ctx) : run<3, double>(g, ctx);
  g.n == 2 ? run<2, float>(g, ctx) : run<3, float>(g, ctx);
}

void eigh3_bwd(const Eigh3BwdArgs& g, const CudaContext& ctx) {
  if (g.dtype == Dtype::f64) return g.n == 2 ? run_bwd<2, double>(g, ctx) : run_bwd<3, double>(g, ctx);
  g.n == 2 ? run_bwd<2, float>(g, ctx) : run_bwd<3, float>(g, ctx);
}

}  // namespace structops::cuda
