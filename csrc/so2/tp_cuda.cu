// CUDA tensor products along edges: launch. The contract is tp.h.
#include "so2/cuda.h"
#include "so2/tp.cuh"

namespace structops::cuda {
namespace {

TpParams params(const TpArgs& a) {
  TpParams p{};
  p.transpose = a.transpose ? 1 : 0;
  p.E = a.E;
  p.N = a.N;
  p.nx = int(a.nx);
  p.no = int(a.no);
  p.paths = int(a.paths);
  p.pairs = int(a.pairs);
  p.xdim = int(a.xdim);
  p.ydim = int(a.ydim);
  p.odim = int(a.odim);
  p.wdim = int(a.wdim);
  p.plan = a.plan;
  p.cg = a.cg;
  p.x = a.x;
  p.y = a.y;
  p.w = a.w;
  p.g = a.g;
  p.rowptr = ref(a.rowptr);
  p.col = ref(a.col);
  p.eid = ref(a.eid);
  p.out = a.out;
  p.gy = a.gy;
  p.gw = a.gw;
  return p;
}

}  // namespace

void tp_conv(const TpArgs& a, const CudaContext& ctx) {
  constexpr const char* op = "tp_conv";
  const int64_t jobs = a.N * (a.transpose ? a.nx : a.no);
  with_float(op, a.dtype, [&](auto* t) {
    launch(op, ctx, tp_conv_kernel<Pointee<decltype(t)>>, dim3(blocks_for(jobs, kTpWarps)), kTpThreads, params(a));
  });
}

void tp_conv_edge(const TpArgs& a, const CudaContext& ctx) {
  constexpr const char* op = "tp_conv_edge";
  constexpr int64_t kMostBlocks = 4096;  // each has accumulators in scratch
  if (a.E == 0 || (!a.gy && !a.gw)) return;
  const int64_t wanted = div_up(a.E, kTpWarps), blocks = wanted < kMostBlocks ? wanted : kMostBlocks;
  TpParams p = params(a);
  p.sums = scratch<double>(ctx, blocks * kTpWarps * a.ydim);
  with_float(op, a.dtype, [&](auto* t) {
    launch(op, ctx, tp_conv_edge_kernel<Pointee<decltype(t)>>, dim3(unsigned(blocks)), kTpThreads, p);
  });
}

}  // namespace structops::cuda
