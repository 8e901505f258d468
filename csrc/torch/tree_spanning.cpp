// Registration of the non-projective tree operators: check, allocate, launch. One body serves both devices.
#include "torch/common.h"
#include "tree/cuda.h"

namespace structops::torch_layer {
namespace {

using Pair = std::tuple<Tensor, Tensor>;

const int64_t* checked_lengths(const char* op, const Tensor& lengths, const Tensor& like, int64_t B, int64_t N) {
  STRUCTOPS_CHECK(lengths.dim() == 1 && lengths.size(0) == B && lengths.scalar_type() == ScalarType::Long && lengths.is_contiguous(),
                  op, ": lengths must be a contiguous int64 [B]");
  const int64_t* const n = static_cast<const int64_t*>(lengths.const_data_ptr());
  if (like.is_cpu())
    for (int64_t b = 0; b < B; ++b) STRUCTOPS_CHECK(n[b] >= 0 && n[b] < N, op, ": lengths must lie in 0..", N - 1, ", got ", n[b]);
  return n;
}

// dtype, multiroot, B, N, score and lengths of any Args struct that has them.
template <class Args> Args score_args(const char* op, const Tensor& score, const Tensor& lengths, bool multiroot) {
  Args a{};
  a.dtype = dtype_of(score);
  STRUCTOPS_CHECK(is_floating(a.dtype), op, ": floating dtypes only");
  STRUCTOPS_CHECK(score.dim() == 3 && score.size(1) == score.size(2) && score.size(1) >= 1 && score.is_contiguous(),
                  op, ": score must be a contiguous [B, N, N] with N >= 1");
  a.multiroot = multiroot;
  a.B = score.size(0);
  a.N = score.size(1);
  a.score = score.const_data_ptr();
  a.lengths = checked_lengths(op, lengths, score, a.B, a.N);
  return a;
}

void set_weight(const char* op, MatrixTreeArgs& a, const Tensor& score, const OptTensor& weight) {
  if (!weight) return;
  STRUCTOPS_CHECK(weight->dim() == 1 && weight->size(0) == a.B && weight->scalar_type() == accumulator(score) && weight->is_contiguous(),
                  op, ": weight must be a contiguous [B] in the accumulator dtype");
  a.weight = weight->const_data_ptr();
}

Pair posteriors(MatrixTreeArgs& a, const Tensor& score) {
  Tensor logz = new_empty(score, {a.B}, accumulator(score));
  Tensor post = new_empty(score, {a.B, a.N, a.N}, score.scalar_type());
  a.logz = logz.mutable_data_ptr();
  a.post = post.mutable_data_ptr();
  return {logz, post};
}

template <bool cuda> Tensor matrix_tree_logz(Tensor score, Tensor lengths, bool multiroot) {
  auto a = score_args<MatrixTreeArgs>("matrix_tree_logz", score, lengths, multiroot);
  Tensor logz = new_empty(score, {a.B}, accumulator(score));
  a.logz = logz.mutable_data_ptr();
  launch<cuda>(score, a, [](auto& s, auto pf) { structops::matrix_tree_logz(s, pf); },
               [](auto& s, auto ctx) { cuda::matrix_tree_logz(s, ctx); });
  return logz;
}

template <bool cuda> Pair matrix_tree_marginals(Tensor score, Tensor lengths, OptTensor weight, bool multiroot) {
  auto a = score_args<MatrixTreeArgs>("matrix_tree_marginals", score, lengths, multiroot);
  set_weight("matrix_tree_marginals", a, score, weight);
  Pair out = posteriors(a, score);
  launch<cuda>(score, a, [](auto& s, auto pf) { structops::matrix_tree_marginals(s, pf); },
               [](auto& s, auto ctx) { cuda::matrix_tree_marginals(s, ctx); });
  return out;
}

template <bool cuda> Pair matrix_tree_hvp(Tensor score, Tensor lengths, OptTensor weight, Tensor v, bool multiroot) {
  auto a = score_args<MatrixTreeArgs>("matrix_tree_hvp", score, lengths, multiroot);
  set_weight("matrix_tree_hvp", a, score, weight);
  STRUCTOPS_CHECK(v.dim() == 3 && v.size(0) == a.B && v.size(1) == a.N && v.size(2) == a.N && v.scalar_type() == score.scalar_type() &&
                    v.is_contiguous(), "matrix_tree_hvp: v must be like score");
  a.v = v.const_data_ptr();
  Pair out = posteriors(a, score);
  launch<cuda>(score, a, [](auto& s, auto pf) { structops::matrix_tree_hvp(s, pf); },
               [](auto& s, auto ctx) { cuda::matrix_tree_hvp(s, ctx); });
  return out;
}

template <bool cuda> Tensor matrix_tree_sample(Tensor score, Tensor lengths, Tensor seed, bool multiroot) {
  MatrixTreeSampleArgs a{};
  a.in = score_args<MatrixTreeArgs>("matrix_tree_sample", score, lengths, multiroot);
  STRUCTOPS_CHECK(seed.dim() == 2 && seed.size(1) == a.in.B && seed.scalar_type() == ScalarType::Long && seed.is_contiguous(),
                  "matrix_tree_sample: seed must be a contiguous int64 [S, B]");
  a.S = seed.size(0);
  a.seed = static_cast<const int64_t*>(seed.const_data_ptr());
  Tensor heads = new_empty(score, {a.S, a.in.B, a.in.N}, ScalarType::Long);
  a.heads = static_cast<int64_t*>(heads.mutable_data_ptr());
  launch<cuda>(score, a, [](auto& s, auto pf) { structops::matrix_tree_sample(s, pf); },
               [](auto& s, auto ctx) { cuda::matrix_tree_sample(s, ctx); });
  return heads;
}

template <bool cuda> Pair arborescence(Tensor score, Tensor lengths, bool multiroot) {
  auto a = score_args<ArborescenceArgs>("arborescence", score, lengths, multiroot);
  Tensor value = new_empty(score, {a.B}, accumulator(score));
  Tensor heads = new_empty(score, {a.B, a.N}, ScalarType::Long);
  a.value = value.mutable_data_ptr();
  a.heads = static_cast<int64_t*>(heads.mutable_data_ptr());
  launch<cuda>(score, a, [](auto& s, auto pf) { structops::arborescence(s, pf); },
               [](auto& s, auto ctx) { cuda::arborescence(s, ctx); });
  return {value, heads};
}

template <bool cuda> Pair arborescence_kbest(Tensor score, Tensor lengths, bool multiroot, int64_t k) {
  STRUCTOPS_CHECK(k >= 1, "arborescence_kbest: k must be at least 1, got ", k);
  ArborescenceKbestArgs a{};
  a.in = score_args<ArborescenceArgs>("arborescence_kbest", score, lengths, multiroot);
  a.K = k;
  Tensor value = new_empty(score, {a.in.B, k}, accumulator(score));
  Tensor heads = new_empty(score, {a.in.B, k, a.in.N}, ScalarType::Long);
  a.in.value = value.mutable_data_ptr();
  a.in.heads = static_cast<int64_t*>(heads.mutable_data_ptr());
  launch<cuda>(score, a, [](auto& s, auto pf) { structops::arborescence_kbest(s, pf); },
               [](auto& s, auto ctx) { cuda::arborescence_kbest(s, ctx); });
  return {value, heads};
}

template <bool cuda> Tensor arborescence_max_marginals(Tensor score, Tensor lengths, bool multiroot) {
  ArborescenceMaxArgs a{};
  a.in = score_args<ArborescenceArgs>("arborescence_max_marginals", score, lengths, multiroot);
  Tensor through = new_empty(score, {a.in.B, a.in.N, a.in.N}, accumulator(score));
  a.through = through.mutable_data_ptr();
  launch<cuda>(score, a, [](auto& s, auto pf) { structops::arborescence_max_marginals(s, pf); },
               [](auto& s, auto ctx) { cuda::arborescence_max_marginals(s, ctx); });
  return through;
}

template <bool cuda> Tensor tree_check(Tensor heads, Tensor lengths) {
  TreeCheckArgs a{};
  STRUCTOPS_CHECK(heads.dim() == 2 && heads.size(1) >= 1 && heads.scalar_type() == ScalarType::Long && heads.is_contiguous(),
                  "tree_check: heads must be a contiguous int64 [B, N] with N >= 1");
  a.B = heads.size(0);
  a.N = heads.size(1);
  a.heads = static_cast<const int64_t*>(heads.const_data_ptr());
  a.lengths = checked_lengths("tree_check", lengths, heads, a.B, a.N);
  Tensor flags = new_empty(heads, {a.B}, ScalarType::Long);
  a.flags = static_cast<int64_t*>(flags.mutable_data_ptr());
  launch<cuda>(heads, a, [](auto& s, auto pf) { structops::tree_check(s, pf); },
               [](auto& s, auto ctx) { cuda::tree_check(s, ctx); });
  return flags;
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("matrix_tree_logz", TORCH_BOX(&matrix_tree_logz<cuda>));
  m.impl("matrix_tree_marginals", TORCH_BOX(&matrix_tree_marginals<cuda>));
  m.impl("matrix_tree_hvp", TORCH_BOX(&matrix_tree_hvp<cuda>));
  m.impl("matrix_tree_sample", TORCH_BOX(&matrix_tree_sample<cuda>));
  m.impl("arborescence", TORCH_BOX(&arborescence<cuda>));
  m.impl("arborescence_kbest", TORCH_BOX(&arborescence_kbest<cuda>));
  m.impl("arborescence_max_marginals", TORCH_BOX(&arborescence_max_marginals<cuda>));
  m.impl("tree_check", TORCH_BOX(&tree_check<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
