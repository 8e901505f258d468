// CUDA segment_order: launch. The contract is segment_order.h.
#include "sparse/cuda.h"
#include "sparse/segment_order.cuh"

namespace structops::cuda {
namespace {

template <class T, class O> void run(const SegmentOrderArgs& a, const CudaContext& ctx) {
  constexpr int threads = 128;
  launch("segment_order", ctx, segment_order_rows<T, O>, blocks_for(a.B * a.N * a.K * a.F, threads / 32), threads, static_cast<const T*>(a.src),
         ref(a.rowptr), ref(a.rank), static_cast<O*>(a.out), a.B, a.N, a.E, a.F, a.K, int(a.largest));
}

template <class T> void run(const SegmentOrderArgs& a, const CudaContext& ctx) {
  a.rowptr.wide ? run<T, int64_t>(a, ctx) : run<T, int32_t>(a, ctx);
}

}  // namespace

void segment_order_fwd(const SegmentOrderArgs& a, const CudaContext& ctx) {
  if (a.B == 0 || a.N == 0 || a.F == 0 || a.K == 0) return;
  switch (a.dtype) {
    case Dtype::f32: return run<float>(a, ctx);
    case Dtype::f64: return run<double>(a, ctx);
    case Dtype::bf16: return run<bf16>(a, ctx);
    case Dtype::f16: return run<f16>(a, ctx);
    case Dtype::i32: return run<int32_t>(a, ctx);
    case Dtype::i64: return run<int64_t>(a, ctx);
  }
}

}  // namespace structops::cuda
