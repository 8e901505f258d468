// CUDA eigen-decomposition: launch. The contract is eigh_small.h.
#include "so2/cuda.h"
#include "so2/eigh_small.cuh"

namespace structops::cuda {
namespace {

template <int n, class A> void run(const EighSmallArgs& g, const CudaContext& ctx) {
  launch("eigh_small", ctx, eigh_small_kernel<n, A>, dim3(blocks_for(g.B, kEighThreads)), kEighThreads, g.B, static_cast<const A*>(g.a),
         static_cast<A*>(g.w), static_cast<A*>(g.v));
}

template <int n, class A> void run_bwd(const EighSmallBwdArgs& g, const CudaContext& ctx) {
  launch("eigh_small_bwd", ctx, eigh_small_bwd_kernel<n, A>, dim3(blocks_for(g.B, kEighThreads)), kEighThreads, g.B, static_cast<const A*>(g.w),
         static_cast<const A*>(g.v), static_cast<const A*>(g.gw), static_cast<const A*>(g.gv), static_cast<A*>(g.ga));
}

}  // namespace

void eigh_small(const EighSmallArgs& g, const CudaContext& ctx) {
  with_matrix_size(g.n, [&](auto n) { g.dtype == Dtype::f64 ? run<n, double>(g, ctx) : run<n, float>(g, ctx); });
}

void eigh_small_bwd(const EighSmallBwdArgs& g, const CudaContext& ctx) {
  with_matrix_size(g.n, [&](auto n) { g.dtype == Dtype::f64 ? run_bwd<n, double>(g, ctx) : run_bwd<n, float>(g, ctx); });
}

}  // namespace structops::cuda
