// CUDA sddmm: choice of kernel and launch. The contract is sddmm.h, the algorithm is in sddmm.cuh.
#include "sparse/cuda.h"
#include "sparse/sddmm.cuh"

namespace structops::cuda {
namespace {

static_assert(int(EdgeOp::div) == edge_div && int(EdgeOp::mul) == edge_mul && int(EdgeOp::copy) == edge_copy);
static_assert(int(Target::u) == target_u && int(Target::e) == target_e);

template <class T> void run(const SddmmArgs& a, SddmmParams p, const CudaContext& ctx) {
  constexpr int V = wide_lanes<T>;
  constexpr unsigned size = sizeof(T), pack = V * size;
  const auto packs = [&](const void* data, int64_t F, int64_t batch, const int32_t* off) {
    return !off && F % V == 0 && batch % V == 0 && aligned(data, pack);
  };
  p.lhs_stride *= size;
  p.rhs_stride *= size;
  const bool l = packs(a.lhs, a.Fl, a.lhs_batch, a.l_off);
  const bool r = a.op != EdgeOp::copy && packs(a.rhs, a.Fr, a.rhs_batch, a.r_off);

  p.batches = sddmm_batches(a.E, a.Fo * a.R);
  const dim3 grid(unsigned(div_up(a.E, int64_t(p.batches) * kSddmmThreads)), grid_y(a.B));
  if (a.R == 1) {
    const bool l_ok = l || (p.l_one && !a.l_off), r_ok = a.op == EdgeOp::copy || r || (p.r_one && !a.r_off);
    const bool wide = a.Fo % V == 0 && aligned(a.out, pack) && l_ok && r_ok;
    launch("sddmm_fwd", ctx, wide ? sddmm_map<T, V> : sddmm_map<T, 1>, grid, kSddmmThreads, p);
    return;
  }
  const bool wide = a.op == EdgeOp::mul && l && r && a.R % V == 0 && !p.l_one && !p.r_one;
  const int64_t chunks = div_up(a.R, wide ? 2 * V : 2);  // two loads of each operand a lane
  p.lanes = chunks < 32 ? pow2_above(chunks) : 32;
  launch("sddmm_fwd", ctx, wide ? sddmm_dot<T, V> : sddmm_dot<T, 1>, grid, kSddmmThreads, p);
}

}  // namespace

void sddmm_fwd(const SddmmArgs& a, const CudaContext& ctx) {
  if (a.B == 0 || a.E == 0 || a.Fo == 0) return;
  // Edges and operand rows are 32-bit numbers on the device; offsets of elements are 64 bits wide.
  if (a.E >> 32 || a.N >> 32 || a.B >> 32 || a.Fo * a.R >> 29 || a.Fl >> 29 || a.Fr >> 29)
    throw std::runtime_error("sddmm_fwd: CUDA kernels take fewer than 2^32 edges and rows, and 2^29 features");
  SddmmParams p{};
  const bool copy = a.op == EdgeOp::copy;
  p.lhs = a.lhs;
  p.rhs = copy ? a.lhs : a.rhs;
  p.out = a.out;
  p.rowptr = ref(a.rowptr);
  p.col = ref(a.col);
  p.eid = ref(a.eid);
  p.l_off = a.l_off;
  p.r_off = a.r_off;
  p.N = a.N;
  p.E = a.E;
  p.lhs_batch = a.lhs_batch;
  p.rhs_batch = copy ? 0 : a.rhs_batch;
  p.B = unsigned(a.B);
  p.Fo = unsigned(a.Fo);
  p.R = unsigned(a.R);
  p.lhs_stride = unsigned(a.Fl);
  p.rhs_stride = copy ? 0 : unsigned(a.Fr);
  p.op = int(a.op);
  p.lhs_target = int(a.lhs_target);
  p.rhs_target = copy ? p.lhs_target : int(a.rhs_target);
  p.l_one = a.Fl == 1;
  p.r_one = a.Fr == 1;
  with_dtype(a.dtype, [&](auto* t) { run<typename DeviceOf<Pointee<decltype(t)>>::type>(a, p, ctx); });
}

}  // namespace structops::cuda
