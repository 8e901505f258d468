// CUDA symmetric contractions: launch. The contract is symmetric_contraction.h.
#include "so2/cuda.h"
#include "so2/symmetric_contraction.cuh"

namespace structops::cuda {
namespace {

constexpr const char* op = "symmetric_contraction";

template <class T, int K> void passes(const SymmetricArgs& a, const CudaContext& ctx, const SymmetricParams& p) {
  constexpr int threads = 128;
  const int64_t sums = a.Z * a.plan.terms * a.C;
  if (a.gx || a.gg) {
    launch(op, ctx, symmetric_u_kernel<T>, dim3(blocks_for(sums, threads)), threads, p);
    launch(op, ctx, symmetric_nodes_kernel<T, K>, dim3(blocks_for(a.N * a.C, threads)), threads, p);
  }
  if (a.gw) {
    launch(op, ctx, symmetric_gu_kernel<T, K>, dim3(blocks_for(sums, threads)), threads, p);
    launch(op, ctx, symmetric_gw_kernel<T>, dim3(blocks_for(a.Z * a.plan.P * a.C, threads)), threads, p);
  }
}

}  // namespace

void symmetric_contraction(const SymmetricArgs& a, const CudaContext& ctx) {
  SymmetricParams p{};
  p.N = a.N;
  p.C = a.C;
  p.Z = a.Z;
  p.plan = a.plan;
  p.coefs = a.order > 1 && a.w[2] ? 3 : a.order > 0 && a.w[1] ? 2 : 1;
  for (int i = 0; i <= a.order; ++i) p.x[i] = a.x[i], p.w[i] = a.w[i], p.g[i] = a.g[i];
  p.ptr = ref(a.ptr);
  p.nodes = ref(a.nodes);
  p.x_row = a.plan.D * a.C;
  p.o_row = a.plan.O * a.C;
  p.x_channel = a.components_last ? a.plan.D : 1;
  p.o_channel = a.components_last ? a.plan.O : 1;
  p.x_component = p.o_component = a.components_last ? 1 : a.C;
  p.gx = a.gx;
  p.gw = a.gw;
  p.gg = a.gg;
  const int64_t sums = a.Z * a.plan.terms * a.C;
  if (a.gx || a.gg) p.u = scratch<double>(ctx, sums * p.coefs);
  if (a.gw) p.gu = scratch<double>(ctx, sums);
  with_float(op, a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if (a.order == 0) passes<T, 0>(a, ctx, p);
    else if (a.order == 1) passes<T, 1>(a, ctx, p);
    else passes<T, 2>(a, ctx, p);
  });
}

}  // namespace structops::cuda
