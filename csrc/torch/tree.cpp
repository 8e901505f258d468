// Registration of the tree family: check, allocate, launch. One body serves both devices.
#include "torch/common.h"
#include "tree/cuda.h"

namespace structops::torch_layer {
namespace {

using Triple = std::tuple<Tensor, Tensor, Tensor>;

ChartArgs chart_args(const char* op, const Tensor& score, const OptTensor& sib, const Tensor& lengths, int64_t kind) {
  ChartArgs a{};
  STRUCTOPS_CHECK(kind >= 0 && kind <= 2, op, ": unknown kind of chart");
  a.kind = Chart(kind);
  a.dtype = dtype_of(score);
  STRUCTOPS_CHECK(is_floating(a.dtype), op, ": floating dtypes only");
  STRUCTOPS_CHECK(score.dim() == 3 && score.size(1) == score.size(2) && score.size(1) >= 1 && score.is_contiguous(),
                  op, ": score must be a contiguous [B, N, N] with N >= 1");
  a.B = score.size(0);
  a.N = score.size(1);
  a.score = score.const_data_ptr();
  if (sib) {
    STRUCTOPS_CHECK(a.kind != Chart::span && sib->dim() == 4 && sib->scalar_type() == score.scalar_type() && sib->is_contiguous(),
                    op, ": sib must be a contiguous [B, N, N, N] in the dtype of score, of dependency charts");
    STRUCTOPS_CHECK(sib->size(0) == a.B && sib->size(1) == a.N && sib->size(2) == a.N && sib->size(3) == a.N, op, ": sib must be [B, N, N, N]");
    a.sib = sib->const_data_ptr();
  }
  STRUCTOPS_CHECK(lengths.dim() == 1 && lengths.size(0) == a.B && lengths.scalar_type() == ScalarType::Long && lengths.is_contiguous(),
                  op, ": lengths must be a contiguous int64 [B]");
  a.lengths = static_cast<const int64_t*>(lengths.const_data_ptr());
  if (score.is_cpu())
    for (int64_t b = 0; b < a.B; ++b)
      STRUCTOPS_CHECK(a.lengths[b] >= 0 && a.lengths[b] < a.N, op, ": lengths must lie in 0..", a.N - 1, ", got ", a.lengths[b]);
  return a;
}

void set_weight(const char* op, ChartArgs& a, const Tensor& score, const OptTensor& weight) {
  if (!weight) return;
  STRUCTOPS_CHECK(weight->dim() == 1 && weight->size(0) == a.B && weight->scalar_type() == accumulator(score) && weight->is_contiguous(),
                  op, ": weight must be a contiguous [B] in the accumulator dtype");
  a.weight = weight->const_data_ptr();
}

// The three results of marginals and hvp; post_sib is empty in first order. (a.sib is null also for an empty batch.)
Triple posteriors(ChartArgs& a, const Tensor& score, bool second) {
  Tensor logz = new_empty(score, {a.B}, accumulator(score));
  Tensor post = new_empty(score, {a.B, a.N, a.N}, score.scalar_type());
  Tensor post_sib = second ? new_empty(score, {a.B, a.N, a.N, a.N}, score.scalar_type()) : new_empty(score, {0}, score.scalar_type());
  a.logz = logz.mutable_data_ptr();
  a.post = post.mutable_data_ptr();
  a.post_sib = second ? post_sib.mutable_data_ptr() : nullptr;
  return {logz, post, post_sib};
}

std::vector<int64_t> tree_shape(const ChartArgs& a, int64_t first, int64_t second) {
  if (a.kind != Chart::span) return {first, second, a.N};
  return {first, second, 2 * a.N > 3 ? 2 * a.N - 3 : 0, 2};
}

template <bool cuda> Tensor chart_logz(Tensor score, OptTensor sib, Tensor lengths, int64_t kind) {
  ChartArgs a = chart_args("chart_logz", score, sib, lengths, kind);
  Tensor logz = new_empty(score, {a.B}, accumulator(score));
  a.logz = logz.mutable_data_ptr();
  launch<cuda>(score, a, [](auto& s, auto pf) { structops::chart_logz(s, pf); }, [](auto& s, auto ctx) { cuda::chart_logz(s, ctx); });
  return logz;
}

template <bool cuda> Triple chart_marginals(Tensor score, OptTensor sib, Tensor lengths, OptTensor weight, int64_t kind) {
  ChartArgs a = chart_args("chart_marginals", score, sib, lengths, kind);
  set_weight("chart_marginals", a, score, weight);
  Triple out = posteriors(a, score, bool(sib));
  launch<cuda>(score, a, [](auto& s, auto pf) { structops::chart_marginals(s, pf); },
               [](auto& s, auto ctx) { cuda::chart_marginals(s, ctx); });
  return out;
}

template <bool cuda>
Triple chart_hvp(Tensor score, OptTensor sib, Tensor lengths, OptTensor weight, Tensor v, OptTensor v_sib, int64_t kind) {
  ChartArgs a = chart_args("chart_hvp", score, sib, lengths, kind);
  set_weight("chart_hvp", a, score, weight);
  STRUCTOPS_CHECK(v.dim() == 3 && v.size(0) == a.B && v.size(1) == a.N && v.size(2) == a.N && v.scalar_type() == score.scalar_type() &&
                    v.is_contiguous(), "chart_hvp: v must be like score");
  STRUCTOPS_CHECK(!sib == !v_sib, "chart_hvp: v_sib goes with sib");
  a.v = v.const_data_ptr();
  if (v_sib) {
    STRUCTOPS_CHECK(v_sib->dim() == 4 && v_sib->numel() == sib->numel() && v_sib->size(1) == a.N && v_sib->size(2) == a.N &&
                      v_sib->scalar_type() == score.scalar_type() && v_sib->is_contiguous(), "chart_hvp: v_sib must be like sib");
    a.v_sib = v_sib->const_data_ptr();
  }
  Triple out = posteriors(a, score, bool(sib));
  launch<cuda>(score, a, [](auto& s, auto pf) { structops::chart_hvp(s, pf); }, [](auto& s, auto ctx) { cuda::chart_hvp(s, ctx); });
  return out;
}

template <bool cuda> std::tuple<Tensor, Tensor> chart_best(Tensor score, OptTensor sib, Tensor lengths, int64_t kind, int64_t k) {
  STRUCTOPS_CHECK(k >= 1, "chart_best: k must be at least 1, got ", k);
  ChartTreeArgs a{};
  a.in = chart_args("chart_best", score, sib, lengths, kind);
  a.K = k;
  Tensor value = new_empty(score, {a.in.B, k}, accumulator(score));
  Tensor tree = new_empty(score, tree_shape(a.in, a.in.B, k), ScalarType::Long);
  a.value = value.mutable_data_ptr();
  a.tree = static_cast<int64_t*>(tree.mutable_data_ptr());
  launch<cuda>(score, a, [](auto& s, auto pf) { structops::chart_best(s, pf); }, [](auto& s, auto ctx) { cuda::chart_best(s, ctx); });
  return {value, tree};
}

template <bool cuda> Tensor chart_sample(Tensor score, OptTensor sib, Tensor lengths, Tensor uniform, int64_t kind) {
  ChartTreeArgs a{};
  a.in = chart_args("chart_sample", score, sib, lengths, kind);
  STRUCTOPS_CHECK(uniform.dim() == 3 && uniform.size(1) == a.in.B && uniform.size(2) == 3 * a.in.N &&
                    uniform.scalar_type() == ScalarType::Double && uniform.is_contiguous(),
                  "chart_sample: uniform must be a contiguous float64 [S, B, 3N]");
  a.K = uniform.size(0);
  a.uniform = static_cast<const double*>(uniform.const_data_ptr());
  Tensor tree = new_empty(score, tree_shape(a.in, a.K, a.in.B), ScalarType::Long);
  a.tree = static_cast<int64_t*>(tree.mutable_data_ptr());
  launch<cuda>(score, a, [](auto& s, auto pf) { structops::chart_sample(s, pf); }, [](auto& s, auto ctx) { cuda::chart_sample(s, ctx); });
  return tree;
}

template <bool cuda> Tensor chart_max_marginals(Tensor score, OptTensor sib, Tensor lengths, int64_t kind) {
  ChartMaxArgs a{};
  a.in = chart_args("chart_max_marginals", score, sib, lengths, kind);
  Tensor through = new_empty(score, {a.in.B, a.in.N, a.in.N}, accumulator(score));
  a.through = through.mutable_data_ptr();
  launch<cuda>(score, a, [](auto& s, auto pf) { structops::chart_max_marginals(s, pf); },
               [](auto& s, auto ctx) { cuda::chart_max_marginals(s, ctx); });
  return through;
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("chart_logz", TORCH_BOX(&chart_logz<cuda>));
  m.impl("chart_marginals", TORCH_BOX(&chart_marginals<cuda>));
  m.impl("chart_hvp", TORCH_BOX(&chart_hvp<cuda>));
  m.impl("chart_best", TORCH_BOX(&chart_best<cuda>));
  m.impl("chart_max_marginals", TORCH_BOX(&chart_max_marginals<cuda>));
  m.impl("chart_sample", TORCH_BOX(&chart_sample<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
