// CUDA relational_spmm: launch. The contract is rspmm.h, the algorithm is in rspmm.cuh.
#include "sparse/cuda.h"
#include "sparse/rspmm.cuh"

namespace structops::cuda {
namespace {

RspmmParams params(const RspmmArgs& a) {
  RspmmParams p{};
  p.x = a.x; p.rel = a.rel; p.weight = a.weight; p.grad = a.grad; p.mask = a.mask;
  p.rowptr = ref(a.rowptr); p.col = ref(a.col); p.eid = ref(a.eid); p.type = ref(a.type);
  p.colptr = ref(a.colptr); p.row_t = ref(a.row_t); p.eid_t = ref(a.eid_t); p.type_t = ref(a.type_t);
  p.has_eid = bool(a.eid);
  p.out = a.out; p.arg = a.arg; p.rest = a.rest; p.d_x = a.d_x; p.d_rel = a.d_rel; p.d_weight = a.d_weight;
  p.B = a.B; p.N = a.N; p.M = a.M; p.R = a.R; p.E = a.E; p.F = a.F;
  p.fill = a.fill; p.mul = int(a.mul); p.reduce = int(a.reduce);
  return p;
}

template <class K> void run(const char* op, const CudaContext& ctx, K kernel, int64_t n, const RspmmParams& p) {
  launch(op, ctx, kernel, dim3(blocks_for(n, kRelThreads)), kRelThreads, p);
}

}  // namespace

void rspmm_fwd(const RspmmArgs& a, const CudaContext& ctx) {
  const RspmmParams p = params(a);
  with_float("relational_spmm", a.dtype, [&](auto* t) { run("relational_spmm", ctx, rspmm_rows<Pointee<decltype(t)>>, a.B * a.N * a.F, p); });
}

void rspmm_bwd(const RspmmArgs& a, const CudaContext& ctx) {
  const char* const op = "relational_spmm_bwd";
  RspmmParams p = params(a);
  if (a.d_rel && a.B * a.R * a.F > 0) {
    // Edges by relation; the sort is of E numbers, beside B * E * F products.
    const int64_t width = a.type_t.wide ? 8 : 4;
    void* const relptr = scratch<char>(ctx, (a.R + 1) * width);
    void* const order = scratch<char>(ctx, (a.E > 0 ? a.E : 1) * width);
    csr_build(csr_args(a.type_t, a.E, a.R, relptr, order), ctx);
    p.relptr = {relptr, a.type_t.wide};
    p.order = {order, a.type_t.wide};
    p.partial = scratch<char>(ctx, kSplits * a.B * a.R * a.F * (a.dtype == Dtype::f64 ? 8 : 4));
  }
  with_float(op, a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if (a.d_x) run(op, ctx, rspmm_to_x<T>, a.B * a.M * a.F, p);
    if (p.partial) {
      run(op, ctx, rspmm_to_rel<T>, kSplits * a.B * a.R * a.F, p);
      run(op, ctx, rspmm_merge<T>, a.B * a.R * a.F, p);
    }
    if (a.d_weight) run(op, ctx, rspmm_to_weight<T>, 32 * a.E, p);
  });
}

}  // namespace structops::cuda
