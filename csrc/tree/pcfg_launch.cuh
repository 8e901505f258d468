// CUDA grammar charts: one warp for each sentence, a thread for each of 32 neighbouring spans. The contract is pcfg.h; the passes are
// those of the CPU, in pcfg_inside.h, pcfg_outside.h, pcfg_tree.h and pcfg_kbest.h. Charts lie in global memory. What the kernels of
// pcfg_cuda.cu, pcfg_sum_cuda.cu and pcfg_hvp_cuda.cu share; three files, because each takes long to compile.
#pragma once
#include "tree/cuda.h"
#include "tree/pcfg_kbest.h"
#include "tree/pcfg_outside.h"
#include "tree/widened.cuh"

namespace structops::cuda {
namespace {

constexpr int64_t kPcfgScratch = int64_t(1) << 30;  // bytes of charts, if one block needs no more

struct PcfgLaunch {
  char* memory;   // [gridDim.x, stride]: charts of the accumulator, then of double
  int64_t stride, first;
  char* stacks;   // [gridDim.x, 32, N + 2] visits
};

template <class A> STRUCTOPS_DEVICE PcfgCharts<A> charts_of(const PcfgArgs& a, char* memory, bool posts, bool dual) {
  const PcfgShape s = pcfg_shape(a, a.N, 32);
  PcfgCharts<A> c{};
  const PcfgRoom room{s.numbers(), s.pairs(), s.NT, 32, posts, dual};
  room.template lay_out<A>(memory, &c);
  return c;
}
STRUCTOPS_DEVICE PcfgVisit* stack_of(const PcfgArgs& a, const PcfgLaunch& q) {
  return reinterpret_cast<PcfgVisit*>(q.stacks) + (int64_t(blockIdx.x) * 32 + lane_id()) * (a.N + 2);
}
STRUCTOPS_DEVICE int64_t row_numbers(const PcfgArgs& a) { return a.N > 0 ? 3 * (2 * a.N - 1) : 0; }

template <class T, bool dual> __global__ void __launch_bounds__(32, 1) pcfg_sum(const PcfgArgs a, const PcfgLaunch q) {
  using A = Acc<T>;
  char* const memory = q.memory + blockIdx.x * q.stride;
  const bool posts = a.post_term != nullptr;
  for (int64_t b = blockIdx.x; b < a.B; b += gridDim.x) {
    const bool done = pcfg_sentence<dual, T>(a, b, charts_of<A>(a, memory, posts, dual));
    if constexpr (sizeof(A) == 4)
      if (!done) pcfg_sentence<dual, T>(a, b, charts_of<double>(a, memory + q.first, posts, dual));
    __syncwarp();
  }
}

// Bytes of the charts of A: those of PcfgRoom::lay_out, or a little more.
template <class A> int64_t chart_bytes(const PcfgArgs& a, bool posts, bool dual) {
  const int64_t S = a.NT + a.T, n = a.N, stride = (n + 63) / 32 * 32, numbers = (a.T + (n > 1 ? n - 1 : 0) * a.NT) * stride;
  const int64_t vectors = S * S * 32, rules = a.NT * S * S + 32;
  const int64_t arrays = numbers * (1 + 2 * dual + posts) + vectors * (2 + 3 * dual + posts) + a.NT * 32 * (posts + dual) + rules * (1 + posts);
  return arrays * int64_t(sizeof(A)) + (numbers + vectors + a.NT) * int64_t(sizeof(Int<A>)) + 20 * 64;
}

template <class Args> void launch_in(const char* op, const CudaContext& ctx, const PcfgArgs& a, void (*kernel)(Args, PcfgLaunch),
                                     const Args& args, PcfgLaunch q, bool stacks) {
  const int64_t stack = stacks ? 32 * (a.N + 2) * int64_t(sizeof(PcfgVisit)) : 0;
  int64_t grid = a.B < 4096 ? a.B : 4096;
  const int64_t most = kPcfgScratch / (q.stride + stack);
  if (grid > most) grid = most > 1 ? most : 1;
  q.memory = scratch<char>(ctx, grid * q.stride);
  q.stacks = stacks ? scratch<char>(ctx, grid * stack) : nullptr;
  launch(op, ctx, kernel, dim3(unsigned(grid)), 32, args, q);
}

template <class T, class Args> void launch_pcfg(const char* op, const CudaContext& ctx, const PcfgArgs& a, void (*kernel)(Args, PcfgLaunch),
                                                const Args& args, bool posts, bool dual, bool wide, bool stacks) {
  using A = Acc<T>;
  PcfgLaunch q{};
  q.first = (chart_bytes<A>(a, posts, dual) + 63) / 64 * 64;
  q.stride = q.first + (wide && sizeof(A) == 4 ? (chart_bytes<double>(a, posts, dual) + 63) / 64 * 64 : 0);
  launch_in(op, ctx, a, kernel, args, q, stacks);
}

template <bool dual> void sum(const char* op, PcfgArgs a, const CudaContext& ctx) {
  if (a.B == 0) return;
  const Widened w = widened(op, ctx, a);
  with_wide(a.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    launch_pcfg<T>(op, ctx, a, pcfg_sum<T, dual>, a, a.post_term != nullptr, dual, true, false);
  });
  w.narrow();
}

}  // namespace
}  // namespace structops::cuda
