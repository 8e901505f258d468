// CUDA powers of differences: launch. The contract is difference.h, the kernels are in difference.cuh.
#include "sparse/cuda.h"
#include "sparse/difference.cuh"

namespace structops::cuda {
namespace {

DifferenceParams params(const DifferenceArgs& a) {
  DifferenceParams p{};
  p.x = a.x; p.y = a.y; p.weight = a.weight; p.hu = a.hu; p.hv = a.hv; p.out = a.out;
  p.rowptr = ref(a.rowptr); p.col = ref(a.col); p.eid = ref(a.eid);
  p.N = a.N; p.E = a.E; p.F = a.F;
  p.power = a.power;
  p.odd = a.odd;
  return p;
}

}  // namespace

void difference_rows_fwd(const DifferenceArgs& a, const CudaContext& ctx) {
  const int64_t total = a.N * a.F;
  if (total == 0) return;
  with_float("difference_rows", a.dtype, [&](auto* t) {
    launch("difference_rows", ctx, difference_by_row<Pointee<decltype(t)>>, dim3(blocks_for(total, kDifferenceThreads)), kDifferenceThreads, params(a));
  });
}

void difference_edges_fwd(const DifferenceArgs& a, const CudaContext& ctx) {
  if (a.E == 0) return;
  with_float("difference_edges", a.dtype, [&](auto* t) {
    launch("difference_edges", ctx, difference_by_edge<Pointee<decltype(t)>>, dim3(blocks_for(a.E, kDifferenceThreads / 32)), kDifferenceThreads, params(a));
  });
}

}  // namespace structops::cuda
