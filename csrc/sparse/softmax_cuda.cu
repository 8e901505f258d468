// CUDA segment softmax: launch. The contract is softmax.h, the algorithm is in softmax.cuh.
#include "sparse/cuda.h"
#include "sparse/softmax.cuh"

namespace structops::cuda {
namespace {

template <class T, bool backward> void run(const char* op, const SoftmaxArgs& a, const CudaContext& ctx) {
  constexpr int V = wide_lanes<T>;
  constexpr int64_t pack = V * sizeof(T);
  const bool wide = a.F % V == 0 && aligned(a.src, pack) && aligned(a.out, pack) && (!backward || aligned(a.grad, pack));
  const int64_t packs = wide ? a.F / V : a.F;
  SoftmaxParams p{};
  p.src = a.src;
  p.grad = a.grad;
  p.out = a.out;
  p.rowptr = ref(a.rowptr);
  p.eid = ref(a.eid);
  p.N = a.N;
  p.E = a.E;
  p.F = a.F;
  p.log = a.log;
  p.lanes = packs < 32 ? pow2_above(packs) : 32;
  p.tiles = unsigned(div_up(packs, p.lanes));
  p.planes = unsigned(p.tiles * a.B);
  p.slots = softmax_slots(a.N, a.E, p.lanes);
  const int64_t rows = kSoftmaxThreads / (p.lanes * p.slots);
  const dim3 grid(unsigned(div_up(a.N, rows)), grid_y(p.planes));
  launch(op, ctx, wide ? softmax_rows<T, backward, V> : softmax_rows<T, backward, 1>, grid, kSoftmaxThreads, p);
}

template <bool backward> void softmax(const char* op, const SoftmaxArgs& a, const CudaContext& ctx) {
  if (a.B == 0 || a.N == 0 || a.E == 0 || a.F == 0) return;
  // Edges are 32-bit numbers on the device; offsets of elements are 64 bits wide.
  if (a.E >= (int64_t(1) << 32) - 4096 || a.F >> 29 || div_up(a.F, 32) * a.B >> 32 || a.N >> 32)
    throw std::runtime_error(std::string(op) + ": CUDA kernels take fewer than 2^32 - 4096 edges, 2^32 rows and 2^29 features");
  with_float(op, a.dtype, [&](auto* t) { run<Pointee<decltype(t)>, backward>(op, a, ctx); });
}

}  // namespace

void softmax_fwd(const SoftmaxArgs& a, const CudaContext& ctx) { softmax<false>("softmax_fwd", a, ctx); }
void softmax_bwd(const SoftmaxArgs& a, const CudaContext& ctx) { softmax<true>("softmax_bwd", a, ctx); }

}  // namespace structops::cuda
