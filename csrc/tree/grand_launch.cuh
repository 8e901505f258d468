// CUDA grandparent charts: one block for each sentence, a warp for each span of a width, a thread for each grandparent. The contract is
// grand.h; the passes are those of the CPU, in grand_sum.h and grand_tree.h. Charts lie in global memory. What the kernels of
// grand_cuda.cu, grand_sum_cuda.cu and grand_hvp_cuda.cu share; three files, because each takes long to compile.
#pragma once
#include "tree/cuda.h"
#include "tree/grand_tree.h"
#include "tree/widened.cuh"

namespace structops::cuda {
namespace {

constexpr int kGrandThreads = 256;
constexpr int64_t kGrandScratch = int64_t(1) << 30;  // bytes of charts, if one block needs no more

struct GrandLaunch {
  char* memory;      // [gridDim.x, stride]
  int64_t stride;
  int64_t first;     // bytes of the charts of the accumulator; those of double follow
  char* stacks;      // [gridDim.x, blockDim.x, visits] of the trees
};

template <class A> __host__ __device__ GrandRoom room_of(int64_t lanes_numbers, int lanes, bool posts, bool dual) {
  return {lanes_numbers, lanes, posts, dual, kGrandThreads / 32};
}
template <class A> STRUCTOPS_DEVICE GrandCharts<A> block_charts(char* memory, const GrandShape& s, bool posts, bool dual) {
  return grand_charts<A>(memory, room_of<A>(s.numbers(), s.lanes, posts, dual), threadIdx.x >> 5);
}

template <class T, bool dual> __global__ void __launch_bounds__(kGrandThreads, 1) grand_sum(const GrandArgs a, const GrandLaunch q) {
  const Team team;
  char* const memory = q.memory + blockIdx.x * q.stride;
  for (int64_t b = blockIdx.x; b < a.B; b += gridDim.x) {
    using A = Acc<T>;
    const GrandShape s = grand_shape(a, a.lengths[b], 32);
    const bool done = grand_sentence<dual, T>(team, a, b, block_charts<A>(memory, s, a.post != nullptr, dual));
    if constexpr (sizeof(A) == 4) {
      team.sync();
      if (!done) grand_sentence<dual, T>(team, a, b, block_charts<double>(memory + q.first, s, a.post != nullptr, dual));
    }
    team.sync();
  }
}

// Launches kernel(args, GrandLaunch) with `first` + `second` bytes for each block, and stacks for the trees if wanted.
template <class Args> void launch_grand(const char* op, const CudaContext& ctx, const GrandArgs& a, void (*kernel)(Args, GrandLaunch),
                                        const Args& args, size_t first, size_t second, bool stacks) {
  GrandLaunch q{};
  q.first = int64_t(first + 63) / 64 * 64;
  q.stride = (q.first + int64_t(second) + 63) / 64 * 64;
  const int64_t stack = stacks ? kGrandThreads * grand_visits(a.N) * int64_t(sizeof(GrandVisit)) : 0;
  int64_t grid = a.B < 1024 ? a.B : 1024;
  const int64_t most = kGrandScratch / (q.stride + stack);
  if (grid > most) grid = most > 1 ? most : 1;
  q.memory = scratch<char>(ctx, grid * q.stride);
  q.stacks = stacks ? scratch<char>(ctx, grid * stack) : nullptr;
  launch(op, ctx, kernel, dim3(unsigned(grid)), kGrandThreads, args, q);
}

// Bytes of the charts of A, and of the charts of double that scores too large for float take.
template <class A> void chart_bytes(const GrandArgs& a, bool posts, bool dual, size_t* first, size_t* second) {
  const int64_t n = a.N - 1;
  const int lanes = int((n + 32) / 32 * 32);
  const int64_t numbers = (n + 1) * (n + 2) / 2 * lanes;
  const GrandRoom room = room_of<A>(numbers, lanes, posts, dual);
  *first = room.template bytes<A>();
  *second = sizeof(A) == 4 ? room.template bytes<double>() : 0;
}

template <bool dual> void sum(const char* op, GrandArgs a, const CudaContext& ctx) {
  if (a.B == 0) return;
  const Widened w = widened(op, ctx, a);
  with_wide(a.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    size_t first, second;
    chart_bytes<T>(a, a.post != nullptr, dual, &first, &second);
    launch_grand(op, ctx, a, grand_sum<T, dual>, a, first, second, false);
  });
  w.narrow();
}

}  // namespace
}  // namespace structops::cuda
