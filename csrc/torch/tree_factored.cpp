// Registration of the charts with factored sibling scores: check, allocate, launch. One body serves both devices.
#include "torch/common.h"
#include "tree/cuda.h"

namespace structops::torch_layer {
namespace {

using Five = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

void like_score(const char* op, const Tensor& score, const Tensor& t, int64_t last) {
  STRUCTOPS_CHECK(t.dim() == 3 && t.size(0) == score.size(0) && t.size(1) == score.size(1) && t.size(2) == last &&
                      t.scalar_type() == score.scalar_type() && t.is_contiguous(),
                  op, ": factors and directions must be contiguous [B, N, ..] in the dtype of score");
}

FactoredArgs factored_args(const char* op, const Tensor& score, const Tensor& x, const Tensor& y, const Tensor& z,
                           const Tensor& lengths, int64_t kind) {
  FactoredArgs a{};
  STRUCTOPS_CHECK(kind == 0 || kind == 1, op, ": dependency charts only");
  a.in.kind = Chart(kind);
  a.in.dtype = dtype_of(score);
  STRUCTOPS_CHECK(a.in.dtype == Dtype::f32 || a.in.dtype == Dtype::f64, op, ": float32 or float64 only");
  STRUCTOPS_CHECK(score.dim() == 3 && score.size(1) == score.size(2) && score.size(1) >= 1 && score.is_contiguous(), op,
                  ": score must be a contiguous [B, N, N] with N >= 1");
  a.in.B = score.size(0);
  a.in.N = score.size(1);
  STRUCTOPS_CHECK(x.dim() == 3, op, ": factors must be [B, N, D]");
  a.D = x.size(2);
  for (const Tensor* t : {&x, &y, &z}) like_score(op, score, *t, a.D);
  a.in.score = score.const_data_ptr();
  a.x = x.const_data_ptr();
  a.y = y.const_data_ptr();
  a.z = z.const_data_ptr();
  STRUCTOPS_CHECK(
      lengths.dim() == 1 && lengths.size(0) == a.in.B && lengths.scalar_type() == ScalarType::Long && lengths.is_contiguous(),
      op, ": lengths must be a contiguous int64 [B]");
  a.in.lengths = static_cast<const int64_t*>(lengths.const_data_ptr());
  if (score.is_cpu())
    for (int64_t b = 0; b < a.in.B; ++b)
      STRUCTOPS_CHECK(a.in.lengths[b] >= 0 && a.in.lengths[b] < a.in.N, op, ": lengths must lie in 0..", a.in.N - 1, ", got ",
                      a.in.lengths[b]);
  return a;
}

void set_weight(const char* op, FactoredArgs& a, const Tensor& score, const OptTensor& weight) {
  if (!weight) return;
  STRUCTOPS_CHECK(weight->dim() == 1 && weight->size(0) == a.in.B && weight->scalar_type() == score.scalar_type() &&
                      weight->is_contiguous(),
                  op, ": weight must be a contiguous [B] in the dtype of score");
  a.in.weight = weight->const_data_ptr();
}

Five posteriors(FactoredArgs& a, const Tensor& score) {
  const int64_t B = a.in.B, N = a.in.N;
  Tensor logz = new_empty(score, {B}, score.scalar_type()), post = new_empty(score, {B, N, N}, score.scalar_type());
  auto factor = [&] { return new_empty(score, {B, N, a.D}, score.scalar_type()); };
  Tensor x = factor(), y = factor(), z = factor();
  a.in.logz = logz.mutable_data_ptr();
  a.in.post = post.mutable_data_ptr();
  a.post_x = x.mutable_data_ptr();
  a.post_y = y.mutable_data_ptr();
  a.post_z = z.mutable_data_ptr();
  return {logz, post, x, y, z};
}

template <bool cuda>
Tensor factored_logz(Tensor score, Tensor x, Tensor y, Tensor z, Tensor lengths, int64_t kind) {
  FactoredArgs a = factored_args("factored_logz", score, x, y, z, lengths, kind);
  Tensor logz = new_empty(score, {a.in.B}, score.scalar_type());
  a.in.logz = logz.mutable_data_ptr();
  launch<cuda>(
      score, a, [](auto& s, auto pf) { structops::factored_logz(s, pf); },
      [](auto& s, auto ctx) { cuda::factored_logz(s, ctx); });
  return logz;
}

template <bool cuda>
Five factored_marginals(Tensor score, Tensor x, Tensor y, Tensor z, Tensor lengths, OptTensor weight, int64_t kind) {
  FactoredArgs a = factored_args("factored_marginals", score, x, y, z, lengths, kind);
  set_weight("factored_marginals", a, score, weight);
  Five out = posteriors(a, score);
  launch<cuda>(
      score, a, [](auto& s, auto pf) { structops::factored_marginals(s, pf); },
      [](auto& s, auto ctx) { cuda::factored_marginals(s, ctx); });
  return out;
}

template <bool cuda>
Five factored_hvp(Tensor score, Tensor x, Tensor y, Tensor z, Tensor lengths, OptTensor weight, Tensor v, Tensor v_x,
                  Tensor v_y, Tensor v_z, int64_t kind) {
  FactoredArgs a = factored_args("factored_hvp", score, x, y, z, lengths, kind);
  set_weight("factored_hvp", a, score, weight);
  like_score("factored_hvp", score, v, a.in.N);
  for (const Tensor* t : {&v_x, &v_y, &v_z}) like_score("factored_hvp", score, *t, a.D);
  a.in.v = v.const_data_ptr();
  a.v_x = v_x.const_data_ptr();
  a.v_y = v_y.const_data_ptr();
  a.v_z = v_z.const_data_ptr();
  Five out = posteriors(a, score);
  launch<cuda>(
      score, a, [](auto& s, auto pf) { structops::factored_hvp(s, pf); },
      [](auto& s, auto ctx) { cuda::factored_hvp(s, ctx); });
  return out;
}

template <bool cuda>
void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("factored_logz", TORCH_BOX(&factored_logz<cuda>));
  m.impl("factored_marginals", TORCH_BOX(&factored_marginals<cuda>));
  m.impl("factored_hvp", TORCH_BOX(&factored_hvp<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
