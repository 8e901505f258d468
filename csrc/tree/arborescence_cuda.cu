// CUDA arborescence and tree_check: launch. The contract is arborescence.h.
#include "tree/arborescence_max.cuh"
#include "tree/cuda.h"

namespace structops::cuda {
namespace {

constexpr int64_t kTreeWarps = 4096;  // each has scratch for the longest sentence
int64_t warps_for(int64_t B) { return B < kTreeWarps ? B : kTreeWarps; }

}  // namespace

void arborescence(const ArborescenceArgs& a, const CudaContext& ctx) {
  constexpr const char* op = "arborescence";
  if (a.B == 0) return;
  if (a.N > 32768) throw std::runtime_error(std::string(op) + ": CUDA kernels take at most 32767 words");
  const int64_t blocks = warps_for(a.B), N = a.N;
  ArborescenceParams p{a.multiroot, a.B, N, a.score, a.lengths, a.value, a.heads, scratch<double>(ctx, blocks * (N * N + N)),
                       scratch<int>(ctx, blocks * (2 * N * N + 15 * N))};
  with_float(op, a.dtype, [&](auto* t) {
    launch(op, ctx, arborescence_kernel<Pointee<decltype(t)>>, dim3(unsigned(blocks)), 32, p);
  });
}

void arborescence_kbest(const ArborescenceKbestArgs& k, const CudaContext& ctx) {
  constexpr const char* op = "arborescence_kbest";
  const ArborescenceArgs& a = k.in;
  if (a.B == 0) return;
  if (a.N > 32768) throw std::runtime_error(std::string(op) + ": CUDA kernels take at most 32767 words");
  const int64_t blocks = warps_for(a.B), N = a.N, K = k.K;
  KbestParams p{{a.multiroot, a.B, N, a.score, a.lengths, a.value, a.heads, scratch<double>(ctx, blocks * (N * N + N)),
                 scratch<int>(ctx, blocks * (2 * N * N + 15 * N))},
                K,
                scratch<double>(ctx, blocks * (N * N + N + 1 + K)),
                scratch<int64_t>(ctx, blocks * ((K + 2) * N + K)),
                scratch<unsigned>(ctx, blocks * (K + 1) * ((N + 31) / 32))};
  with_float(op, a.dtype, [&](auto* t) {
    launch(op, ctx, arborescence_kbest_kernel<Pointee<decltype(t)>>, dim3(unsigned(blocks)), 32, p);
  });
}

void arborescence_max_marginals(const ArborescenceMaxArgs& m, const CudaContext& ctx) {
  constexpr const char* op = "arborescence_max_marginals";
  const ArborescenceArgs& a = m.in;
  if (a.B == 0) return;
  if (a.N > 32768) throw std::runtime_error(std::string(op) + ": CUDA kernels take at most 32767 words");
  const int64_t N = a.N, each = 8 * (N * N + 2 * N) + 4 * (2 * N * N + 15 * N), most = (int64_t(1) << 30) / each;
  int64_t blocks = warps_for(a.B * N);
  if (blocks > most) blocks = most > 1 ? most : 1;
  MaxTreeParams p{{a.multiroot, a.B, N, a.score, a.lengths, nullptr, nullptr, scratch<double>(ctx, blocks * (N * N + N)),
                   scratch<int>(ctx, blocks * (2 * N * N + 15 * N))},
                  m.through,
                  scratch<double>(ctx, blocks * N)};
  with_float(op, a.dtype, [&](auto* t) {
    launch(op, ctx, arborescence_max_kernel<Pointee<decltype(t)>>, dim3(unsigned(blocks)), 32, p);
  });
}

void tree_check(const TreeCheckArgs& a, const CudaContext& ctx) {
  if (a.B == 0) return;
  const int64_t blocks = warps_for(a.B);
  TreeCheckParams p{a.B, a.N, a.heads, a.lengths, a.flags, scratch<int>(ctx, blocks * 2 * a.N)};
  launch("tree_check", ctx, tree_check_kernel, dim3(unsigned(blocks)), 32, p);
}

}  // namespace structops::cuda
