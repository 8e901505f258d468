// Registration of the grammar charts: check, allocate, launch. One body serves both devices.
#include "torch/common.h"
#include "tree/cuda.h"

namespace structops::torch_layer {
namespace {

using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using Five = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

const void* checked(const char* op, const char* name, const Tensor& t, const Tensor& term, const std::vector<int64_t>& sizes) {
  bool same = t.dim() == int64_t(sizes.size()) && t.scalar_type() == term.scalar_type() && t.is_contiguous();
  for (size_t i = 0; same && i < sizes.size(); ++i) same = t.size(int64_t(i)) == sizes[i];
  STRUCTOPS_CHECK(same, op, ": ", name, " must be contiguous, in the dtype of term, and fit its shape");
  return t.const_data_ptr();
}

PcfgArgs pcfg_args(const char* op, const Tensor& term, const Tensor& rule, const Tensor& root, const OptTensor& span,
                   const Tensor& lengths) {
  PcfgArgs a{};
  a.dtype = dtype_of(term);
  STRUCTOPS_CHECK(is_floating(a.dtype), op, ": floating dtypes only");
  STRUCTOPS_CHECK(term.dim() == 3 && rule.dim() == 4 && root.dim() == 2 && term.is_contiguous(),
                  op, ": term must be a contiguous [B, N, T], rule [B, NT, S, S], root [B, NT]");
  a.B = term.size(0);
  a.N = term.size(1);
  a.T = term.size(2);
  a.NT = root.size(1);
  STRUCTOPS_CHECK(a.NT >= 1 && a.T >= 1 && a.NT + a.T <= 4096 && a.N <= 8192, op, ": at least one nonterminal and preterminal, at most 4096 symbols and 8192 words");
  a.shared = rule.size(0) == 1;
  const int64_t S = a.NT + a.T;
  a.term = term.const_data_ptr();
  a.rule = checked(op, "rule", rule, term, {a.shared ? 1 : a.B, a.NT, S, S});
  a.root = checked(op, "root", root, term, {a.B, a.NT});
  if (span) a.span = checked(op, "span", *span, term, {a.B, a.N + 1, a.N + 1, a.NT});
  STRUCTOPS_CHECK(lengths.dim() == 1 && lengths.size(0) == a.B && lengths.scalar_type() == ScalarType::Long && lengths.is_contiguous(),
                  op, ": lengths must be a contiguous int64 [B]");
  a.lengths = static_cast<const int64_t*>(lengths.const_data_ptr());
  if (term.is_cpu())
    for (int64_t b = 0; b < a.B; ++b)
      STRUCTOPS_CHECK(a.lengths[b] >= 0 && a.lengths[b] <= a.N, op, ": lengths must lie in 0..", a.N, ", got ", a.lengths[b]);
  return a;
}

void set_weight(const char* op, PcfgArgs& a, const Tensor& term, const OptTensor& weight) {
  if (!weight) return;
  STRUCTOPS_CHECK(weight->dim() == 1 && weight->size(0) == a.B && weight->scalar_type() == accumulator(term) && weight->is_contiguous(),
                  op, ": weight must be a contiguous [B] in the accumulator dtype");
  a.weight = weight->const_data_ptr();
}

Four parts(PcfgArgs& a, const Tensor& term, ScalarType t) {
  const int64_t S = a.NT + a.T;
  Tensor post = new_empty(term, {a.B, a.N, a.T}, t);
  Tensor post_rule = new_empty(term, {a.B, a.NT, S, S}, t), post_root = new_empty(term, {a.B, a.NT}, t);
  Tensor post_span = new_empty(term, {a.B, a.N + 1, a.N + 1, a.NT}, t);
  a.post_term = post.mutable_data_ptr();
  a.post_rule = post_rule.mutable_data_ptr();
  a.post_root = post_root.mutable_data_ptr();
  a.post_span = post_span.mutable_data_ptr();
  static char none;  // of a batch of empty sentences: the pointer says that counts are wanted
  if (!a.post_term) a.post_term = &none;
  return {post, post_rule, post_root, post_span};
}

Five counts(PcfgArgs& a, const Tensor& term) {
  Tensor logz = new_empty(term, {a.B}, accumulator(term));
  a.logz = logz.mutable_data_ptr();
  return std::tuple_cat(std::make_tuple(logz), parts(a, term, term.scalar_type()));
}

template <bool cuda> Tensor pcfg_logz(Tensor term, Tensor rule, Tensor root, OptTensor span, Tensor lengths) {
  PcfgArgs a = pcfg_args("pcfg_logz", term, rule, root, span, lengths);
  Tensor logz = new_empty(term, {a.B}, accumulator(term));
  a.logz = logz.mutable_data_ptr();
  launch<cuda>(term, a, [](auto& s, auto pf) { structops::pcfg_logz(s, pf); }, [](auto& s, auto ctx) { cuda::pcfg_logz(s, ctx); });
  return logz;
}

template <bool cuda> Five pcfg_marginals(Tensor term, Tensor rule, Tensor root, OptTensor span, Tensor lengths, OptTensor weight) {
  PcfgArgs a = pcfg_args("pcfg_marginals", term, rule, root, span, lengths);
  set_weight("pcfg_marginals", a, term, weight);
  Five out = counts(a, term);
  launch<cuda>(term, a, [](auto& s, auto pf) { structops::pcfg_marginals(s, pf); },
               [](auto& s, auto ctx) { cuda::pcfg_marginals(s, ctx); });
  return out;
}

template <bool cuda>
Five pcfg_hvp(Tensor term, Tensor rule, Tensor root, OptTensor span, Tensor lengths, OptTensor weight, Tensor v_term, Tensor v_rule, Tensor v_root,
              OptTensor v_span) {
  const char* const op = "pcfg_hvp";
  PcfgArgs a = pcfg_args(op, term, rule, root, span, lengths);
  set_weight(op, a, term, weight);
  const int64_t S = a.NT + a.T;
  a.v_term = checked(op, "v_term", v_term, term, {a.B, a.N, a.T});
  a.v_rule = checked(op, "v_rule", v_rule, term, {a.shared ? 1 : a.B, a.NT, S, S});
  a.v_root = checked(op, "v_root", v_root, term, {a.B, a.NT});
  if (v_span) a.v_span = checked(op, "v_span", *v_span, term, {a.B, a.N + 1, a.N + 1, a.NT});
  Five out = counts(a, term);
  launch<cuda>(term, a, [](auto& s, auto pf) { structops::pcfg_hvp(s, pf); }, [](auto& s, auto ctx) { cuda::pcfg_hvp(s, ctx); });
  return out;
}

template <bool cuda> Four pcfg_max_marginals(Tensor term, Tensor rule, Tensor root, OptTensor span, Tensor lengths) {
  PcfgArgs a = pcfg_args("pcfg_max_marginals", term, rule, root, span, lengths);
  Four out = parts(a, term, accumulator(term));
  launch<cuda>(term, a, [](auto& s, auto pf) { structops::pcfg_max_marginals(s, pf); },
               [](auto& s, auto ctx) { cuda::pcfg_max_marginals(s, ctx); });
  return out;
}

template <bool cuda>
std::tuple<Tensor, Tensor> pcfg_best(Tensor term, Tensor rule, Tensor root, OptTensor span, Tensor lengths, int64_t k) {
  PcfgTreeArgs a{};
  a.in = pcfg_args("pcfg_best", term, rule, root, span, lengths);
  STRUCTOPS_CHECK(k >= 1 && k <= 1 << 20, "pcfg_best: k must be at least 1, and at most 2^20");
  a.K = k;
  Tensor value = new_empty(term, {a.in.B, k}, accumulator(term));
  Tensor tree = new_empty(term, {a.in.B, k, a.in.N > 0 ? 2 * a.in.N - 1 : 0, 3}, ScalarType::Long);
  a.value = value.mutable_data_ptr();
  a.tree = static_cast<int64_t*>(tree.mutable_data_ptr());
  launch<cuda>(term, a, [](auto& s, auto pf) { structops::pcfg_best(s, pf); }, [](auto& s, auto ctx) { cuda::pcfg_best(s, ctx); });
  return {value, tree};
}

template <bool cuda> Tensor pcfg_sample(Tensor term, Tensor rule, Tensor root, OptTensor span, Tensor lengths, Tensor uniform) {
  PcfgTreeArgs a{};
  a.in = pcfg_args("pcfg_sample", term, rule, root, span, lengths);
  STRUCTOPS_CHECK(uniform.dim() == 3 && uniform.size(1) == a.in.B && uniform.size(2) == 2 * a.in.N &&
                    uniform.scalar_type() == ScalarType::Double && uniform.is_contiguous(),
                  "pcfg_sample: uniform must be a contiguous float64 [S, B, 2N]");
  a.K = uniform.size(0);
  a.uniform = static_cast<const double*>(uniform.const_data_ptr());
  Tensor tree = new_empty(term, {a.K, a.in.B, a.in.N > 0 ? 2 * a.in.N - 1 : 0, 3}, ScalarType::Long);
  a.tree = static_cast<int64_t*>(tree.mutable_data_ptr());
  launch<cuda>(term, a, [](auto& s, auto pf) { structops::pcfg_sample(s, pf); }, [](auto& s, auto ctx) { cuda::pcfg_sample(s, ctx); });
  return tree;
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("pcfg_logz", TORCH_BOX(&pcfg_logz<cuda>));
  m.impl("pcfg_marginals", TORCH_BOX(&pcfg_marginals<cuda>));
  m.impl("pcfg_hvp", TORCH_BOX(&pcfg_hvp<cuda>));
  m.impl("pcfg_max_marginals", TORCH_BOX(&pcfg_max_marginals<cuda>));
  m.impl("pcfg_best", TORCH_BOX(&pcfg_best<cuda>));
  m.impl("pcfg_sample", TORCH_BOX(&pcfg_sample<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
