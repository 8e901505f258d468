// CUDA attention: launch. The contract is attention.h, the algorithm is in attention.cuh.
#include "sparse/attention.cuh"
#include "sparse/cuda.h"

namespace structops::cuda {
namespace {

// Null where [H, width] is in order as it is.
const int* places(const char* op, const CudaContext& ctx, const HeadBlocks& b, int64_t H, int64_t width) {
  if (H * width == 0 || (b.count == 1 && b.repeat[0] == 1)) return nullptr;
  int* const table = scratch<int>(ctx, H * width);
  launch(op, ctx, attention_places, dim3(blocks_for(H * width, 128)), 128, b, H, width, table);
  return table;
}

template <class T, Score score> Attention<T, score> arguments(const char* op, const CudaContext& ctx, const AttentionArgs& a) {
  using A = Acc<T>;
  Attention<T, score> d{};
  d.rowptr = ref(a.rowptr); d.col = ref(a.col); d.eid = ref(a.eid);
  d.colptr = ref(a.colptr); d.row_t = ref(a.row_t); d.eid_t = ref(a.eid_t);
  d.N = a.N; d.M = a.M; d.H = a.H; d.K = a.K; d.D = a.D;
  d.slope = A(a.slope); d.scale = A(a.scale);
  const auto in = [](const void* p) { return static_cast<const T*>(p); };
  d.key = in(a.key); d.query = in(a.query); d.value = in(a.value); d.edge = in(a.edge); d.att = in(a.att);
  d.forward_out = in(a.forward_out); d.grad = in(a.grad);
  const auto to = [](void* p) { return static_cast<T*>(p); };
  d.out = to(a.out); d.d_key = to(a.d_key); d.d_query = to(a.d_query); d.d_value = to(a.d_value); d.d_edge = to(a.d_edge);
  d.key_moved = places(op, ctx, a.key_blocks, a.H, a.K);
  d.value_moved = places(op, ctx, a.value_blocks, a.H, a.D);
  d.lse = static_cast<A*>(a.lse);
  d.delta = static_cast<A*>(a.delta);
  return d;
}

template <class F> void with_score(const char* op, const CudaContext& ctx, const AttentionArgs& a, F f) {
  with_float(op, a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if (a.score == Score::additive) f(t, arguments<T, Score::additive>(op, ctx, a));
    else if (a.score == Score::gatv2) f(t, arguments<T, Score::gatv2>(op, ctx, a));
    else f(t, arguments<T, Score::dot>(op, ctx, a));
  });
}

template <AttentionPass pass, class T, Score score>
void run(const char* op, const CudaContext& ctx, const Attention<T, score>& d, int64_t items) {
  launch(op, ctx, attention_pass<T, score, pass>, dim3(unsigned(d.H), grid_y(div_up(items, 4))), 128, d, items);
}

}  // namespace

void attention_fwd(const AttentionArgs& a, const CudaContext& ctx) {
  with_score("attention", ctx, a, [&](auto*, const auto& d) { run<AttentionPass::forward>("attention", ctx, d, a.N); });
}

void attention_bwd(const AttentionArgs& a, const CudaContext& ctx) {
  with_score("attention_bwd", ctx, a, [&](auto* t, auto d) {
    using T = Pointee<decltype(t)>;
    // Rows share a piece only where their gradients of att must be added up.
    d.chunk = a.score == Score::gatv2 ? (a.N < 1024 ? 1 : div_up(a.N, 1024)) : 1;
    const int64_t pieces = div_up(a.N, d.chunk), HK = a.H * a.K;
    if (a.score == Score::gatv2) d.d_att = scratch<Acc<T>>(ctx, pieces * HK);
    run<AttentionPass::rows>("attention_bwd", ctx, d, pieces);
    if (a.score == Score::gatv2)
      launch("attention_bwd", ctx, attention_att<T>, dim3(blocks_for(HK, 128)), 128, static_cast<const Acc<T>*>(d.d_att),
             static_cast<T*>(a.d_att), pieces, HK);
    run<AttentionPass::sources>("attention_bwd", ctx, d, a.M);
  });
}

}  // namespace structops::cuda
