// Registration of the grandparent charts: check, allocate, launch. One body serves both devices.
#include "torch/common.h"
#include "tree/cuda.h"

namespace structops::torch_layer {
namespace {

using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;

const void* cube(const char* op, const char* name, const Tensor& t, const Tensor& arc) {
  const int64_t N = arc.size(1);
  STRUCTOPS_CHECK(t.dim() == 4 && t.size(0) == arc.size(0) && t.size(1) == N && t.size(2) == N && t.size(3) == N &&
                    t.scalar_type() == arc.scalar_type() && t.is_contiguous(),
                  op, ": ", name, " must be a contiguous [B, N, N, N] in the dtype of arc");
  return t.const_data_ptr();
}

GrandArgs grand_args(const char* op, const Tensor& arc, const Tensor& grand, const OptTensor& sib, const Tensor& lengths, bool multiroot) {
  GrandArgs a{};
  a.dtype = dtype_of(arc);
  a.multiroot = multiroot;
  STRUCTOPS_CHECK(is_floating(a.dtype), op, ": floating dtypes only");
  STRUCTOPS_CHECK(arc.dim() == 3 && arc.size(1) == arc.size(2) && arc.size(1) >= 1 && arc.is_contiguous(),
                  op, ": arc must be a contiguous [B, N, N] with N >= 1");
  a.B = arc.size(0);
  a.N = arc.size(1);
  STRUCTOPS_CHECK(a.N <= 4096, op, ": N must be at most 4096, got ", a.N);
  a.arc = arc.const_data_ptr();
  a.grand = cube(op, "grand", grand, arc);
  if (sib) a.sib = cube(op, "sib", *sib, arc);
  STRUCTOPS_CHECK(lengths.dim() == 1 && lengths.size(0) == a.B && lengths.scalar_type() == ScalarType::Long && lengths.is_contiguous(),
                  op, ": lengths must be a contiguous int64 [B]");
  a.lengths = static_cast<const int64_t*>(lengths.const_data_ptr());
  if (arc.is_cpu())
    for (int64_t b = 0; b < a.B; ++b)
      STRUCTOPS_CHECK(a.lengths[b] >= 0 && a.lengths[b] < a.N, op, ": lengths must lie in 0..", a.N - 1, ", got ", a.lengths[b]);
  return a;
}

void set_weight(const char* op, GrandArgs& a, const Tensor& arc, const OptTensor& weight) {
  if (!weight) return;
  STRUCTOPS_CHECK(weight->dim() == 1 && weight->size(0) == a.B && weight->scalar_type() == accumulator(arc) && weight->is_contiguous(),
                  op, ": weight must be a contiguous [B] in the accumulator dtype");
  a.weight = weight->const_data_ptr();
}

Four posteriors(GrandArgs& a, const Tensor& arc, bool second) {
  Tensor logz = new_empty(arc, {a.B}, accumulator(arc)), post = new_empty(arc, {a.B, a.N, a.N}, arc.scalar_type());
  Tensor post_grand = new_empty(arc, {a.B, a.N, a.N, a.N}, arc.scalar_type());
  Tensor post_sib = second ? new_empty(arc, {a.B, a.N, a.N, a.N}, arc.scalar_type()) : new_empty(arc, {0}, arc.scalar_type());
  a.logz = logz.mutable_data_ptr();
  a.post = post.mutable_data_ptr();
  a.post_grand = post_grand.mutable_data_ptr();
  a.post_sib = second ? post_sib.mutable_data_ptr() : nullptr;
  return {logz, post, post_grand, post_sib};
}

template <bool cuda> Tensor grand_logz(Tensor arc, Tensor grand, OptTensor sib, Tensor lengths, bool multiroot) {
  GrandArgs a = grand_args("grand_logz", arc, grand, sib, lengths, multiroot);
  Tensor logz = new_empty(arc, {a.B}, accumulator(arc));
  a.logz = logz.mutable_data_ptr();
  launch<cuda>(arc, a, [](auto& s, auto pf) { structops::grand_logz(s, pf); }, [](auto& s, auto ctx) { cuda::grand_logz(s, ctx); });
  return logz;
}

template <bool cuda> Four grand_marginals(Tensor arc, Tensor grand, OptTensor sib, Tensor lengths, OptTensor weight, bool multiroot) {
  GrandArgs a = grand_args("grand_marginals", arc, grand, sib, lengths, multiroot);
  set_weight("grand_marginals", a, arc, weight);
  Four out = posteriors(a, arc, bool(sib));
  launch<cuda>(arc, a, [](auto& s, auto pf) { structops::grand_marginals(s, pf); },
               [](auto& s, auto ctx) { cuda::grand_marginals(s, ctx); });
  return out;
}

template <bool cuda>
Four grand_hvp(Tensor arc, Tensor grand, OptTensor sib, Tensor lengths, OptTensor weight, Tensor v, Tensor v_grand, OptTensor v_sib,
               bool multiroot) {
  const char* const op = "grand_hvp";
  GrandArgs a = grand_args(op, arc, grand, sib, lengths, multiroot);
  set_weight(op, a, arc, weight);
  STRUCTOPS_CHECK(v.dim() == 3 && v.size(0) == a.B && v.size(1) == a.N && v.size(2) == a.N && v.scalar_type() == arc.scalar_type() &&
                    v.is_contiguous(), op, ": v must be like arc");
  STRUCTOPS_CHECK(!sib == !v_sib, op, ": v_sib goes with sib");
  a.v = v.const_data_ptr();
  a.v_grand = cube(op, "v_grand", v_grand, arc);
  if (v_sib) a.v_sib = cube(op, "v_sib", *v_sib, arc);
  Four out = posteriors(a, arc, bool(sib));
  launch<cuda>(arc, a, [](auto& s, auto pf) { structops::grand_hvp(s, pf); }, [](auto& s, auto ctx) { cuda::grand_hvp(s, ctx); });
  return out;
}

template <bool cuda>
std::tuple<Tensor, Tensor> grand_best(Tensor arc, Tensor grand, OptTensor sib, Tensor lengths, bool multiroot, int64_t k) {
  STRUCTOPS_CHECK(k >= 1 && k < int64_t(1) << 24, "grand_best: k must lie in 1..2^24 - 1, got ", k);
  GrandTreeArgs a{};
  a.in = grand_args("grand_best", arc, grand, sib, lengths, multiroot);
  a.K = k;
  Tensor value = new_empty(arc, {a.in.B, k}, accumulator(arc)), tree = new_empty(arc, {a.in.B, k, a.in.N}, ScalarType::Long);
  a.value = value.mutable_data_ptr();
  a.tree = static_cast<int64_t*>(tree.mutable_data_ptr());
  launch<cuda>(arc, a, [](auto& s, auto pf) { structops::grand_best(s, pf); }, [](auto& s, auto ctx) { cuda::grand_best(s, ctx); });
  return {value, tree};
}

template <bool cuda> Tensor grand_sample(Tensor arc, Tensor grand, OptTensor sib, Tensor lengths, Tensor uniform, bool multiroot) {
  GrandTreeArgs a{};
  a.in = grand_args("grand_sample", arc, grand, sib, lengths, multiroot);
  STRUCTOPS_CHECK(uniform.dim() == 3 && uniform.size(1) == a.in.B && uniform.size(2) == 3 * a.in.N &&
                    uniform.scalar_type() == ScalarType::Double && uniform.is_contiguous(),
                  "grand_sample: uniform must be a contiguous float64 [S, B, 3N]");
  a.K = uniform.size(0);
  a.uniform = static_cast<const double*>(uniform.const_data_ptr());
  Tensor tree = new_empty(arc, {a.K, a.in.B, a.in.N}, ScalarType::Long);
  a.tree = static_cast<int64_t*>(tree.mutable_data_ptr());
  launch<cuda>(arc, a, [](auto& s, auto pf) { structops::grand_sample(s, pf); }, [](auto& s, auto ctx) { cuda::grand_sample(s, ctx); });
  return tree;
}

template <bool cuda> Tensor grand_max_marginals(Tensor arc, Tensor grand, OptTensor sib, Tensor lengths, bool multiroot) {
  GrandMaxArgs a{};
  a.in = grand_args("grand_max_marginals", arc, grand, sib, lengths, multiroot);
  Tensor through = new_empty(arc, {a.in.B, a.in.N, a.in.N}, accumulator(arc));
  a.through = through.mutable_data_ptr();
  launch<cuda>(arc, a, [](auto& s, auto pf) { structops::grand_max_marginals(s, pf); },
               [](auto& s, auto ctx) { cuda::grand_max_marginals(s, ctx); });
  return through;
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("grand_logz", TORCH_BOX(&grand_logz<cuda>));
  m.impl("grand_marginals", TORCH_BOX(&grand_marginals<cuda>));
  m.impl("grand_hvp", TORCH_BOX(&grand_hvp<cuda>));
  m.impl("grand_best", TORCH_BOX(&grand_best<cuda>));
  m.impl("grand_sample", TORCH_BOX(&grand_sample<cuda>));
  m.impl("grand_max_marginals", TORCH_BOX(&grand_max_marginals<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
