// CUDA spmm: choice of kernel and launch. The contract is spmm.h, the algorithm is in spmm.cuh.
#include "sparse/cuda.h"
#include "sparse/spmm.cuh"

namespace structops::cuda {
namespace {

static_assert(int(Message::div) == msg_div && int(Message::copy_e) == msg_copy_e && int(Message::mul) == msg_mul);
static_assert(int(ArgKind::source) == arg_source && int(ArgKind::edge) == arg_edge);

constexpr const char* kOp = "spmm_fwd";

template <class T, class Op, bool binary, int V> void run_rows(SpmmParams p, int64_t B, const CudaContext& ctx) {
  const int64_t packs = p.F / V;
  p.lanes = packs < 32 ? pow2_above(packs) : 32;
  p.tiles = unsigned(div_up(packs, p.lanes));
  p.planes = unsigned(p.tiles * B);
  const dim3 grid(unsigned(div_up(p.items, kSpmmThreads / 32)), grid_y(p.planes));
  launch(kOp, ctx, spmm_rows<T, Op, binary, V>, grid, kSpmmThreads, p);
}

template <class T, class Op> void run(const SpmmArgs& a, SpmmParams p, bool binary, const CudaContext& ctx) {
  constexpr int V = wide_lanes<T>;
  constexpr unsigned size = sizeof(T), pack = V * size;
  p.x_stride *= size;
  p.e_stride *= size;
  p.x_packs = p.x_stride % pack == 0 && p.x_batch % V == 0 && aligned(p.x, pack);
  p.e_packs = p.e_stride % pack == 0 && p.e_batch % V == 0 && aligned(p.e, pack);
  // An operand with a value per feature that cannot be read in packs makes the narrow kernel the better one.
  const bool x_ok = p.x_packs || p.x_stride == size, e_ok = !binary || p.e_packs || p.e_stride == size || p.e_off;
  const bool wide = a.F % V == 0 && aligned(p.out, pack) && x_ok && e_ok;

  p.chunk = spmm_item_size(a.N, a.E);
  p.items = div_up(a.N + a.E, p.chunk);
  const bool cuts = a.E > p.chunk;  // only then can a row be longer than an item
  if (cuts) {
    p.cut_row = scratch<int64_t>(ctx, p.items);
    p.states = scratch<typename Op::State>(ctx, a.B * p.items * a.F);
  }
  if (binary) {
    if constexpr (is_float<T>) {
      if (wide) run_rows<T, Op, true, V>(p, a.B, ctx);
      else run_rows<T, Op, true, 1>(p, a.B, ctx);
    } else {
      throw std::runtime_error("spmm_fwd: integer dtypes take copy messages only");
    }
  } else if (wide) {
    run_rows<T, Op, false, V>(p, a.B, ctx);
  } else {
    run_rows<T, Op, false, 1>(p, a.B, ctx);
  }
  if (cuts) {
    p.tiles = unsigned(div_up(a.F, 32));
    p.planes = unsigned(p.tiles * a.B);
    const dim3 grid(unsigned(div_up(p.items, kMergeThreads)), grid_y(p.planes));
    launch(kOp, ctx, spmm_merge<T, Op>, grid, kMergeThreads, p);
  }
}

template <class T> void dispatch(const SpmmArgs& a, SpmmParams p, bool binary, const CudaContext& ctx) {
  using A = Acc<T>;
  switch (a.reduce) {
    case Reduce::sum: return run<T, SumOp<A>>(a, p, binary, ctx);
    case Reduce::prod: return run<T, ProdOp<A>>(a, p, binary, ctx);
    case Reduce::max: p.flag = 1; return run<T, ExtremeOp<A>>(a, p, binary, ctx);
    case Reduce::min: return run<T, ExtremeOp<A>>(a, p, binary, ctx);
    default: break;
  }
  if constexpr (is_float<T>) {
    switch (a.reduce) {
      case Reduce::mean: p.flag = 1; return run<T, SumOp<A>>(a, p, binary, ctx);
      case Reduce::std: p.flag = 1; return run<T, MomentOp<A>>(a, p, binary, ctx);
      case Reduce::var: return run<T, MomentOp<A>>(a, p, binary, ctx);
      default: return run<T, LseOp<A>>(a, p, binary, ctx);
    }
  } else {
    throw std::runtime_error("spmm_fwd: integer dtypes take sum, min, max and prod only");
  }
}

}  // namespace

bool compiled() { return true; }

void spmm_fwd(const SpmmArgs& a, const CudaContext& ctx) {
  if (a.B == 0 || a.N == 0 || a.F == 0) return;
  // Edges and operand rows are 32-bit numbers on the device; offsets of elements are 64 bits wide.
  if (a.E >= (int64_t(1) << 32) - 4096) throw std::runtime_error("spmm_fwd: CUDA kernels take fewer than 2^32 - 4096 edges");
  if (a.F >> 29 || a.Fx >> 29 || a.Fe >> 29 || div_up(a.F, 32) * a.B >> 32)
    throw std::runtime_error("spmm_fwd: CUDA kernels take fewer than 2^29 features and 2^32 tiles of 32 features");
  const bool from_e = a.message == Message::copy_e, binary = !from_e && a.message != Message::copy_u;
  SpmmParams p{};
  p.x = from_e ? a.e : a.x;
  p.x_stride = unsigned(from_e ? a.Fe : a.Fx);
  p.x_batch = from_e ? a.e_batch : a.x_batch;
  p.x_off = from_e ? a.e_off : a.x_off;
  p.x_row = ref(from_e ? a.eid : a.col);
  if (binary) {
    p.e = a.e;
    p.e_stride = unsigned(a.Fe);
    p.e_batch = a.e_batch;
    p.e_off = a.e_off;
    p.e_row = ref(a.eid);
  }
  p.out = a.out;
  p.arg = a.arg;
  p.rowptr = ref(a.rowptr);
  p.arg_map = ref(a.arg_kind == ArgKind::edge ? a.eid : a.arg_kind == ArgKind::source ? a.col : Index{});
  p.N = a.N;
  p.E = a.E;
  p.no_arg = a.arg_kind == ArgKind::source ? -1 : a.E;
  p.F = a.F;
  p.message = int(a.message);
  p.skip_nan = a.skip_nan;
  p.unbiased = a.unbiased;
  p.fill = a.fill;
  with_dtype(a.dtype, [&](auto* t) { dispatch<typename DeviceOf<Pointee<decltype(t)>>::type>(a, p, binary, ctx); });
}

}  // namespace structops::cuda
