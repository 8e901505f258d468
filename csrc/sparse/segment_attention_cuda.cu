// CUDA attention within segments: launch. The contract is segment_attention.h, the algorithm is in segment_attention.cuh.
#include "sparse/cuda.h"
#include "sparse/segment_attention.cuh"

namespace structops::cuda {
namespace {

template <class T> SegmentAttention<T> arguments(const SegmentAttentionArgs& a) {
  using A = Acc<T>;
  SegmentAttention<T> d{};
  d.qptr = ref(a.qptr); d.kptr = ref(a.kptr); d.offset = ref(a.offset);
  d.S = a.S; d.Nq = a.Nq; d.Nk = a.Nk; d.H = a.H; d.K = a.K; d.D = a.D;
  d.scale = A(a.scale);
  const auto in = [](const void* p) { return static_cast<const T*>(p); };
  d.query = in(a.query); d.key = in(a.key); d.value = in(a.value); d.bias = in(a.bias);
  d.forward_out = in(a.forward_out); d.grad = in(a.grad);
  const auto to = [](void* p) { return static_cast<T*>(p); };
  d.out = to(a.out); d.d_query = to(a.d_query); d.d_key = to(a.d_key); d.d_value = to(a.d_value); d.d_bias = to(a.d_bias);
  d.lse = static_cast<A*>(a.lse);
  d.delta = static_cast<A*>(a.delta);
  return d;
}

template <SegmentPass pass, class T> void run(const char* op, const CudaContext& ctx, const SegmentAttention<T>& d, int64_t rows) {
  launch(op, ctx, segment_attention_pass<T, pass>, dim3(blocks_for(rows * d.H, 4)), 128, d, rows);
}

}  // namespace

void segment_attention_fwd(const SegmentAttentionArgs& a, const CudaContext& ctx) {
  with_float("segment_attention", a.dtype, [&](auto* t) {
    run<SegmentPass::forward>("segment_attention", ctx, arguments<Pointee<decltype(t)>>(a), a.Nq);
  });
}

void segment_attention_bwd(const SegmentAttentionArgs& a, const CudaContext& ctx) {
  with_float("segment_attention_bwd", a.dtype, [&](auto* t) {
    const auto d = arguments<Pointee<decltype(t)>>(a);
    run<SegmentPass::queries>("segment_attention_bwd", ctx, d, a.Nq);
    run<SegmentPass::keys>("segment_attention_bwd", ctx, d, a.Nk);
  });
}

}  // namespace structops::cuda
