// CUDA matrix-tree operators: launch. The contract is matrix_tree.h.
#include "tree/cuda.h"
#include "tree/matrix_tree.cuh"

namespace structops::cuda {
namespace {

constexpr int64_t kTreeBlocks = 1024;  // each has scratch for the longest sentence

TreeParams params(const char* op, const MatrixTreeArgs& a, int64_t numbers, int64_t blocks, const CudaContext& ctx) {
  if (a.N > 8192) throw std::runtime_error(std::string(op) + ": CUDA kernels take at most 8191 words");
  TreeParams p{};
  p.multiroot = a.multiroot;
  p.B = a.B;
  p.N = a.N;
  p.score = a.score;
  p.weight = a.weight;
  p.v = a.v;
  p.lengths = a.lengths;
  p.logz = a.logz;
  p.post = a.post;
  p.numbers = numbers;
  p.scratch = scratch<double>(ctx, blocks * numbers);
  return p;
}

template <bool outside, bool dual> void run(const char* op, const MatrixTreeArgs& a, const CudaContext& ctx) {
  if (a.B == 0) return;
  const int64_t blocks = a.B < kTreeBlocks ? a.B : kTreeBlocks;
  const TreeParams p = params(op, a, Engine<Num<true, dual>>::numbers(a.N - 1, outside), blocks, ctx);
  with_float(op, a.dtype, [&](auto* t) {
    launch(op, ctx, matrix_tree_kernel<Pointee<decltype(t)>, outside, dual>, dim3(unsigned(blocks)), kTreeThreads, p);
  });
}

}  // namespace

void matrix_tree_logz(const MatrixTreeArgs& a, const CudaContext& ctx) { run<false, false>("matrix_tree_logz", a, ctx); }
void matrix_tree_marginals(const MatrixTreeArgs& a, const CudaContext& ctx) { run<true, false>("matrix_tree_marginals", a, ctx); }
void matrix_tree_hvp(const MatrixTreeArgs& a, const CudaContext& ctx) { run<true, true>("matrix_tree_hvp", a, ctx); }

void matrix_tree_sample(const MatrixTreeSampleArgs& a, const CudaContext& ctx) {
  constexpr const char* op = "matrix_tree_sample";
  if (a.in.B == 0 || a.S == 0) return;
  const int64_t blocks = a.in.B < kTreeBlocks ? a.in.B : kTreeBlocks;
  TreeSampleParams p{};
  p.in = params(op, a.in, Engine<Num<true, false>>::numbers(a.in.N - 1, false), blocks, ctx);
  p.S = a.S;
  p.seed = a.seed;
  p.heads = a.heads;
  p.ints = scratch<int>(ctx, blocks * kTreeThreads * 3 * a.in.N);
  with_float(op, a.in.dtype, [&](auto* t) {
    launch(op, ctx, matrix_tree_sample_kernel<Pointee<decltype(t)>>, dim3(unsigned(blocks)), kTreeThreads, p);
  });
}

}  // namespace structops::cuda
