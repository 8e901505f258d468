// Registration of attention within segments: check, allocate, launch. One body serves both devices.
#include "sparse/cuda.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

void check_heads(const char* name, const Tensor& t, const Tensor& like, int64_t rows, int64_t H, int64_t width) {
  STRUCTOPS_CHECK(t.dim() == 3 && t.is_contiguous() && t.scalar_type() == like.scalar_type() && t.size(0) == rows && t.size(1) == H &&
                      t.size(2) == width,
                  "segment_attention: ", name, " must be contiguous, [", rows, ", ", H, ", ", width, "] and of the dtype of query");
}

SegmentAttentionArgs arguments(const Tensor& query, const Tensor& key, const Tensor& value, const OptTensor& bias, const Tensor& qptr,
                               const Tensor& kptr, const OptTensor& offset, double scale) {
  SegmentAttentionArgs a{};
  a.dtype = dtype_of(query);
  STRUCTOPS_CHECK(is_floating(a.dtype), "segment_attention: floating dtypes only");
  STRUCTOPS_CHECK(query.dim() == 3 && key.dim() == 3 && value.dim() == 3, "segment_attention: query, key and value must be [rows, H, width]");
  a.Nq = query.size(0); a.Nk = key.size(0);
  a.H = query.size(1); a.K = query.size(2); a.D = value.size(2);
  check_heads("query", query, query, a.Nq, a.H, a.K);
  check_heads("key", key, query, a.Nk, a.H, a.K);
  check_heads("value", value, query, a.Nk, a.H, a.D);
  STRUCTOPS_CHECK(qptr.dim() == 1 && kptr.dim() == 1 && qptr.size(0) >= 1 && kptr.size(0) == qptr.size(0),
                  "segment_attention: qptr and kptr must be [S + 1]");
  a.S = qptr.size(0) - 1;
  a.qptr = index_of(qptr); a.kptr = index_of(kptr); a.offset = index_of(offset);
  STRUCTOPS_CHECK(bias.has_value() == offset.has_value() && (!offset || offset->numel() == a.S + 1),
                  "segment_attention: offset, [S + 1], goes with bias");
  if (bias) {
    STRUCTOPS_CHECK(bias->dim() == 2 && bias->size(1) == a.H && bias->is_contiguous() && bias->scalar_type() == query.scalar_type(),
                    "segment_attention: bias must be contiguous, [pairs, H] and of the dtype of query");
    a.bias = bias->const_data_ptr();
  }
  if (qptr.is_cpu()) {
    STRUCTOPS_CHECK(a.qptr[0] == 0 && a.qptr[a.S] == a.Nq, "segment_attention: qptr must run from 0 to ", a.Nq);
    STRUCTOPS_CHECK(a.kptr[0] == 0 && a.kptr[a.S] == a.Nk, "segment_attention: kptr must run from 0 to ", a.Nk);
    STRUCTOPS_CHECK(!bias || a.offset[a.S] == bias->size(0), "segment_attention: offset must run to the pairs of bias");
  }
  a.scale = scale;
  a.query = query.const_data_ptr(); a.key = key.const_data_ptr(); a.value = value.const_data_ptr();
  return a;
}

template <bool cuda>
std::tuple<Tensor, Tensor> segment_attention(Tensor query, Tensor key, Tensor value, OptTensor bias, Tensor qptr, Tensor kptr,
                                             OptTensor offset, double scale) {
  SegmentAttentionArgs a = arguments(query, key, value, bias, qptr, kptr, offset, scale);
  Tensor out = new_empty(query, {a.Nq, a.H, a.D}, query.scalar_type());
  Tensor lse = new_empty(query, {a.Nq, a.H}, accumulator(query));
  a.out = out.mutable_data_ptr();
  a.lse = lse.mutable_data_ptr();
  launch<cuda>(query, a, [](auto& s, auto pf) { segment_attention_fwd(s, pf); },
               [](auto& s, auto ctx) { cuda::segment_attention_fwd(s, ctx); });
  return {out, lse};
}

template <bool cuda>
std::tuple<Tensor, Tensor, Tensor, Tensor> segment_attention_bwd(Tensor query, Tensor key, Tensor value, OptTensor bias, Tensor out,
                                                                 Tensor lse, Tensor grad, Tensor qptr, Tensor kptr, OptTensor offset,
                                                                 double scale) {
  SegmentAttentionArgs a = arguments(query, key, value, bias, qptr, kptr, offset, scale);
  check_heads("out", out, query, a.Nq, a.H, a.D);
  check_heads("grad", grad, query, a.Nq, a.H, a.D);
  STRUCTOPS_CHECK(lse.numel() == a.Nq * a.H && lse.scalar_type() == accumulator(query) && lse.is_contiguous(),
                  "segment_attention_bwd: lse must be [Nq, H] in the accumulator's dtype");
  a.lse = const_cast<void*>(lse.const_data_ptr());
  a.forward_out = out.const_data_ptr();
  a.grad = grad.const_data_ptr();
  const ScalarType type = query.scalar_type();
  Tensor delta = new_empty(query, {a.Nq, a.H}, accumulator(query));
  Tensor d_query = new_empty(query, {a.Nq, a.H, a.K}, type), d_key = new_empty(query, {a.Nk, a.H, a.K}, type);
  Tensor d_value = new_empty(query, {a.Nk, a.H, a.D}, type);
  Tensor d_bias = new_empty(query, bias ? std::vector<int64_t>{bias->size(0), a.H} : std::vector<int64_t>{0}, type);
  a.delta = delta.mutable_data_ptr();
  a.d_query = d_query.mutable_data_ptr(); a.d_key = d_key.mutable_data_ptr(); a.d_value = d_value.mutable_data_ptr();
  a.d_bias = bias ? d_bias.mutable_data_ptr() : nullptr;
  launch<cuda>(query, a, [](auto& s, auto pf) { segment_attention_bwd(s, pf); },
               [](auto& s, auto ctx) { cuda::segment_attention_bwd(s, ctx); });
  return {d_query, d_key, d_value, d_bias};
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("segment_attention", TORCH_BOX(&segment_attention<cuda>));
  m.impl("segment_attention_bwd", TORCH_BOX(&segment_attention_bwd<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
