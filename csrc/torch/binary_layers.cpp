// Registration of the masks and fast feed-forward networks: check, allocate, launch. One body serves both devices.
#include "binary/quantize_cuda.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

std::vector<int64_t> sizes_of(const Tensor& t) {
  std::vector<int64_t> s(size_t(t.dim()));
  for (size_t i = 0; i < s.size(); ++i) s[i] = t.size(int64_t(i));
  return s;
}

void check_dense(const char* op, const Tensor& t) {
  STRUCTOPS_CHECK(t.is_contiguous() && is_floating(dtype_of(t)), op, ": operands must be contiguous and floating");
}
void check_like(const char* op, const char* name, const Tensor& t, const Tensor& like, std::initializer_list<int64_t> shape) {
  STRUCTOPS_CHECK(t.is_contiguous() && t.scalar_type() == like.scalar_type() && t.dim() == int64_t(shape.size()), op, ": ", name,
                  " has a wrong dtype, rank or layout");
  int64_t d = 0;
  for (const int64_t n : shape) STRUCTOPS_CHECK(t.size(d++) == n, op, ": ", name, " has a wrong shape");
}

template <bool cuda> Tensor topk_mask(Tensor score, int64_t keep, bool magnitude) {
  check_dense("topk_mask", score);
  TopkMaskArgs a{};
  a.dtype = dtype_of(score);
  a.n = score.numel();
  STRUCTOPS_CHECK(keep >= 0 && keep <= a.n, "topk_mask: keep must be within 0 and the number of scores");
  a.keep = keep;
  a.magnitude = magnitude;
  a.score = score.const_data_ptr();
  Tensor bits = new_empty(score, {(a.n + 7) / 8}, ScalarType::Byte);
  a.bits = static_cast<uint8_t*>(bits.mutable_data_ptr());
  launch<cuda>(score, a, [](auto& s, auto pf) { structops::topk_mask(s, pf); }, [](auto& s, auto ctx) { cuda::topk_mask(s, ctx); });
  return bits;
}

template <bool cuda> Tensor mask_apply(Tensor x, Tensor bits) {
  check_dense("mask_apply", x);
  MaskApplyArgs a{};
  a.dtype = dtype_of(x);
  a.n = x.numel();
  STRUCTOPS_CHECK(bits.dim() == 1 && bits.is_contiguous() && bits.scalar_type() == ScalarType::Byte && bits.size(0) == (a.n + 7) / 8,
                  "mask_apply: bits must be uint8 [ceil(numel / 8)]");
  a.x = x.const_data_ptr();
  a.bits = static_cast<const uint8_t*>(bits.const_data_ptr());
  Tensor out = new_empty(x, sizes_of(x), x.scalar_type());
  a.out = out.mutable_data_ptr();
  launch<cuda>(x, a, [](auto& s, auto pf) { structops::mask_apply(s, pf); }, [](auto& s, auto ctx) { cuda::mask_apply(s, ctx); });
  return out;
}

template <bool cuda>
std::tuple<Tensor, Tensor> fff_descend(Tensor x, Tensor node_weight, OptTensor node_bias, int64_t depth, bool strict) {
  const char* op = "fff_descend";
  check_dense(op, x);
  STRUCTOPS_CHECK(x.dim() == 2 && depth >= 0 && depth <= 30, op, ": x must be [B, I] and depth within 0 and 30");
  DescendArgs a{};
  a.dtype = dtype_of(x);
  a.B = x.size(0); a.I = x.size(1);
  a.depth = int(depth);
  a.strict = strict;
  const int64_t nodes = (int64_t(1) << depth) - 1;
  check_like(op, "node_weight", node_weight, x, {nodes, a.I});
  if (node_bias) check_like(op, "node_bias", *node_bias, x, {nodes});
  a.x = x.const_data_ptr();
  a.node_weight = node_weight.const_data_ptr();
  a.node_bias = node_bias ? node_bias->const_data_ptr() : nullptr;
  Tensor leaf = new_empty(x, {a.B}, ScalarType::Long), logit = new_empty(x, {a.B, depth}, x.scalar_type());
  a.leaf = static_cast<int64_t*>(leaf.mutable_data_ptr());
  a.logit = logit.mutable_data_ptr();
  launch<cuda>(x, a, [](auto& s, auto pf) { structops::fff_descend(s, pf); }, [](auto& s, auto ctx) { cuda::fff_descend(s, ctx); });
  return {leaf, logit};
}

LeafArgs leaf_arguments(const char* op, const Tensor& x, const Tensor& rowptr, const Tensor& perm, const Tensor& w1, const OptTensor& b1,
                        const Tensor& w2, const OptTensor& b2, int64_t activation) {
  check_dense(op, x);
  STRUCTOPS_CHECK(x.dim() == 2 && w1.dim() == 3 && w2.dim() == 3, op, ": x must be [B, I], w1 [L, I, H] and w2 [L, H, O]");
  STRUCTOPS_CHECK(activation >= 0 && activation < int64_t(Activation::count), op, ": unknown activation");
  LeafArgs a{};
  a.dtype = dtype_of(x);
  a.activation = Activation(activation);
  a.B = x.size(0); a.I = x.size(1); a.L = w1.size(0); a.H = w1.size(2); a.O = w2.size(2);
  check_like(op, "w1", w1, x, {a.L, a.I, a.H});
  check_like(op, "w2", w2, x, {a.L, a.H, a.O});
  if (b1) check_like(op, "b1", *b1, x, {a.L, a.H});
  if (b2) check_like(op, "b2", *b2, x, {a.L, a.O});
  for (const Tensor* t : {&rowptr, &perm})
    STRUCTOPS_CHECK(t->dim() == 1 && t->is_contiguous() && t->scalar_type() == ScalarType::Long, op, ": rowptr and perm must be int64 vectors");
  STRUCTOPS_CHECK(rowptr.size(0) == a.L + 1 && perm.size(0) == a.B, op, ": rowptr must be [L + 1] and perm [B]");
  a.rowptr = static_cast<const int64_t*>(rowptr.const_data_ptr());
  a.perm = static_cast<const int64_t*>(perm.const_data_ptr());
  if (rowptr.is_cpu()) STRUCTOPS_CHECK(a.rowptr[0] == 0 && a.rowptr[a.L] == a.B, op, ": rowptr must run from 0 to the number of rows");
  a.x = x.const_data_ptr();
  a.w1 = w1.const_data_ptr();
  a.b1 = b1 ? b1->const_data_ptr() : nullptr;
  a.w2 = w2.const_data_ptr();
  a.b2 = b2 ? b2->const_data_ptr() : nullptr;
  return a;
}

template <bool cuda>
Tensor fff_leaf(Tensor x, Tensor rowptr, Tensor perm, Tensor w1, OptTensor b1, Tensor w2, OptTensor b2, int64_t activation) {
  LeafArgs a = leaf_arguments("fff_leaf", x, rowptr, perm, w1, b1, w2, b2, activation);
  Tensor out = new_empty(x, {a.B, a.O}, x.scalar_type());
  a.out = out.mutable_data_ptr();
  launch<cuda>(x, a, [](auto& s, auto pf) { structops::fff_leaf(s, pf); }, [](auto& s, auto ctx) { cuda::fff_leaf(s, ctx); });
  return out;
}

template <bool cuda>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>
fff_leaf_bwd(Tensor grad, Tensor x, Tensor rowptr, Tensor perm, Tensor w1, OptTensor b1, Tensor w2, OptTensor b2, int64_t activation) {
  LeafArgs a = leaf_arguments("fff_leaf_bwd", x, rowptr, perm, w1, b1, w2, b2, activation);
  check_like("fff_leaf_bwd", "grad", grad, x, {a.B, a.O});
  a.grad = grad.const_data_ptr();
  const auto like = [&](const Tensor& t) { return new_empty(t, sizes_of(t), t.scalar_type()); };
  const auto maybe = [&](const OptTensor& t) { return t ? like(*t) : new_empty(x, {0}, x.scalar_type()); };
  Tensor dx = like(x), dw1 = like(w1), db1 = maybe(b1), dw2 = like(w2), db2 = maybe(b2);
  a.d_x = dx.mutable_data_ptr();
  a.d_w1 = dw1.mutable_data_ptr();
  a.d_b1 = b1 ? db1.mutable_data_ptr() : nullptr;
  a.d_w2 = dw2.mutable_data_ptr();
  a.d_b2 = b2 ? db2.mutable_data_ptr() : nullptr;
  launch<cuda>(x, a, [](auto& s, auto pf) { structops::fff_leaf_bwd(s, pf); }, [](auto& s, auto ctx) { cuda::fff_leaf_bwd(s, ctx); });
  return {dx, dw1, db1, dw2, db2};
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("topk_mask", TORCH_BOX(&topk_mask<cuda>));
  m.impl("mask_apply", TORCH_BOX(&mask_apply<cuda>));
  m.impl("fff_descend", TORCH_BOX(&fff_descend<cuda>));
  m.impl("fff_leaf", TORCH_BOX(&fff_leaf<cuda>));
  m.impl("fff_leaf_bwd", TORCH_BOX(&fff_leaf_bwd<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
