// Registration of the chain operators of the tree family: check, allocate, launch. One body serves both devices.
#include "torch/common.h"
#include "tree/cuda.h"

namespace structops::torch_layer {
namespace {

using Posteriors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// Scores as the schemas list them.
struct Scores {
  Tensor emit;
  OptTensor segment, duration, trans, start, end;
};

const void* pointer(const char* op, const char* name, const OptTensor& t, const Tensor& like, std::initializer_list<int64_t> sizes) {
  if (!t) return nullptr;
  bool fits = t->dim() == int64_t(sizes.size()) && t->scalar_type() == like.scalar_type() && t->is_contiguous();
  int64_t i = 0;
  for (const int64_t n : sizes) fits = fits && t->size(i++) == n;
  STRUCTOPS_CHECK(fits, op, ": ", name, " does not fit emit");
  return t->const_data_ptr();
}

const void* trans_pointer(const char* op, const OptTensor& t, const ChainArgs& a, const Tensor& like) {
  const int64_t borders = a.N > 0 ? a.N - 1 : 0;
  switch (a.kind) {
    case Trans::shared: return pointer(op, "trans", t, like, {a.T, a.T});
    case Trans::batch: return pointer(op, "trans", t, like, {a.B, a.T, a.T});
    case Trans::position: return pointer(op, "trans", t, like, {a.B, borders, a.T, a.T});
    case Trans::full: return pointer(op, "trans", t, like, {a.B, borders, a.K, a.T, a.T});
    default: return nullptr;
  }
}

ChainScores pointers(const char* op, const Scores& s, const ChainArgs& a, const Tensor& like) {
  ChainScores p{};
  p.segment = pointer(op, "segment", s.segment, like, {a.B, a.N, a.K, a.T});
  p.duration = pointer(op, "duration", s.duration, like, {a.K, a.T});
  p.trans = trans_pointer(op, s.trans, a, like);
  p.start = pointer(op, "start", s.start, like, {a.T});
  p.end = pointer(op, "end", s.end, like, {a.T});
  return p;
}

ChainArgs chain_args(const char* op, const Scores& s, const Tensor& lengths) {
  ChainArgs a{};
  a.dtype = dtype_of(s.emit);
  STRUCTOPS_CHECK(is_floating(a.dtype), op, ": floating dtypes only");
  STRUCTOPS_CHECK(s.emit.dim() == 3 && s.emit.size(2) >= 1 && s.emit.is_contiguous(), op, ": emit must be a contiguous [B, N, T] with T >= 1");
  a.B = s.emit.size(0);
  a.N = s.emit.size(1);
  a.T = s.emit.size(2);
  const int64_t rank = s.trans ? s.trans->dim() : 1;
  STRUCTOPS_CHECK(rank >= 1 && rank <= 5 && (!s.trans || rank > 1), op, ": trans must have 2 to 5 dimensions");
  a.kind = Trans(rank - 1);
  a.K = s.segment && s.segment->dim() == 4 ? s.segment->size(2)
      : s.duration && s.duration->dim() == 2 ? s.duration->size(0)
      : a.kind == Trans::full ? s.trans->size(2) : 1;
  STRUCTOPS_CHECK(a.K >= 1, op, ": segments need a largest length of at least 1");
  a.score = pointers(op, s, a, s.emit);
  a.score.emit = s.emit.const_data_ptr();
  STRUCTOPS_CHECK(lengths.dim() == 1 && lengths.size(0) == a.B && lengths.scalar_type() == ScalarType::Long && lengths.is_contiguous(),
                  op, ": lengths must be a contiguous int64 [B]");
  a.lengths = static_cast<const int64_t*>(lengths.const_data_ptr());
  if (s.emit.is_cpu())
    for (int64_t b = 0; b < a.B; ++b)
      STRUCTOPS_CHECK(a.lengths[b] >= 0 && a.lengths[b] <= a.N, op, ": lengths must lie in 0..", a.N, ", got ", a.lengths[b]);
  return a;
}

void set_weight(const char* op, ChainArgs& a, const Tensor& emit, const OptTensor& weight) {
  if (!weight) return;
  STRUCTOPS_CHECK(weight->dim() == 1 && weight->size(0) == a.B && weight->scalar_type() == accumulator(emit) && weight->is_contiguous(),
                  op, ": weight must be a contiguous [B] in the accumulator dtype");
  a.weight = weight->const_data_ptr();
}

// logz and a posterior for each score, empty where there is none.
Posteriors posteriors(ChainArgs& a, const Scores& s) {
  const auto like = [&](const OptTensor& t, void*& p) {
    std::vector<int64_t> sizes;
    for (int64_t i = 0; t && i < t->dim(); ++i) sizes.push_back(t->size(i));
    Tensor out = new_empty(s.emit, t ? sizes : std::vector<int64_t>{0}, s.emit.scalar_type());
    p = t ? out.mutable_data_ptr() : nullptr;
    return out;
  };
  Tensor logz = new_empty(s.emit, {a.B}, accumulator(s.emit));
  a.logz = logz.mutable_data_ptr();
  Tensor emit = like(s.emit, a.post.emit), segment = like(s.segment, a.post.segment), duration = like(s.duration, a.post.duration);
  Tensor trans = like(s.trans, a.post.trans), start = like(s.start, a.post.start), end = like(s.end, a.post.end);
  return {logz, emit, segment, duration, trans, start, end};
}

template <bool cuda>
Tensor chain_logz(Tensor emit, OptTensor segment, OptTensor duration, OptTensor trans, OptTensor start, OptTensor end, Tensor lengths) {
  ChainArgs a = chain_args("chain_logz", {emit, segment, duration, trans, start, end}, lengths);
  Tensor logz = new_empty(emit, {a.B}, accumulator(emit));
  a.logz = logz.mutable_data_ptr();
  launch<cuda>(emit, a, [](auto& s, auto pf) { structops::chain_logz(s, pf); }, [](auto& s, auto ctx) { cuda::chain_logz(s, ctx); });
  return logz;
}

template <bool cuda>
Posteriors chain_marginals(Tensor emit, OptTensor segment, OptTensor duration, OptTensor trans, OptTensor start, OptTensor end,
                           Tensor lengths, OptTensor weight) {
  const Scores s{emit, segment, duration, trans, start, end};
  ChainArgs a = chain_args("chain_marginals", s, lengths);
  set_weight("chain_marginals", a, emit, weight);
  Posteriors out = posteriors(a, s);
  launch<cuda>(emit, a, [](auto& s, auto pf) { structops::chain_marginals(s, pf); },
               [](auto& s, auto ctx) { cuda::chain_marginals(s, ctx); });
  return out;
}

template <bool cuda>
Posteriors chain_hvp(Tensor emit, OptTensor segment, OptTensor duration, OptTensor trans, OptTensor start, OptTensor end,
                     Tensor lengths, OptTensor weight, OptTensor v_emit, OptTensor v_segment, OptTensor v_duration,
                     OptTensor v_trans, OptTensor v_start, OptTensor v_end) {
  const Scores s{emit, segment, duration, trans, start, end};
  ChainArgs a = chain_args("chain_hvp", s, lengths);
  set_weight("chain_hvp", a, emit, weight);
  STRUCTOPS_CHECK((!v_segment || segment) && (!v_duration || duration) && (!v_trans || trans) && (!v_start || start) && (!v_end || end),
                  "chain_hvp: a direction goes with its score");
  a.v = pointers("chain_hvp", {emit, v_segment, v_duration, v_trans, v_start, v_end}, a, emit);
  a.v.emit = pointer("chain_hvp", "v_emit", v_emit, emit, {a.B, a.N, a.T});
  Posteriors out = posteriors(a, s);
  launch<cuda>(emit, a, [](auto& s, auto pf) { structops::chain_hvp(s, pf); }, [](auto& s, auto ctx) { cuda::chain_hvp(s, ctx); });
  return out;
}

template <bool cuda>
std::tuple<Tensor, Tensor> chain_best(Tensor emit, OptTensor segment, OptTensor duration, OptTensor trans, OptTensor start,
                                      OptTensor end, Tensor lengths, int64_t k) {
  STRUCTOPS_CHECK(k >= 1, "chain_best: k must be at least 1, got ", k);
  ChainPathArgs a{};
  a.in = chain_args("chain_best", {emit, segment, duration, trans, start, end}, lengths);
  a.M = k;
  Tensor value = new_empty(emit, {a.in.B, k}, accumulator(emit));
  Tensor tags = new_empty(emit, {a.in.B, k, a.in.N}, ScalarType::Long);
  a.value = value.mutable_data_ptr();
  a.tags = static_cast<int64_t*>(tags.mutable_data_ptr());
  launch<cuda>(emit, a, [](auto& s, auto pf) { structops::chain_best(s, pf); }, [](auto& s, auto ctx) { cuda::chain_best(s, ctx); });
  return {value, tags};
}

template <bool cuda>
Tensor chain_sample(Tensor emit, OptTensor segment, OptTensor duration, OptTensor trans, OptTensor start, OptTensor end,
                    Tensor lengths, Tensor uniform) {
  ChainPathArgs a{};
  a.in = chain_args("chain_sample", {emit, segment, duration, trans, start, end}, lengths);
  STRUCTOPS_CHECK(uniform.dim() == 3 && uniform.size(1) == a.in.B && uniform.size(2) == (a.in.K == 1 ? a.in.N : 2 * a.in.N) &&
                    uniform.scalar_type() == ScalarType::Double && uniform.is_contiguous(),
                  "chain_sample: uniform must be a contiguous float64 [S, B, N], for segments [S, B, 2N]");
  a.M = uniform.size(0);
  a.uniform = static_cast<const double*>(uniform.const_data_ptr());
  Tensor tags = new_empty(emit, {a.M, a.in.B, a.in.N}, ScalarType::Long);
  a.tags = static_cast<int64_t*>(tags.mutable_data_ptr());
  launch<cuda>(emit, a, [](auto& s, auto pf) { structops::chain_sample(s, pf); }, [](auto& s, auto ctx) { cuda::chain_sample(s, ctx); });
  return tags;
}

template <bool cuda>
Tensor chain_max_marginals(Tensor emit, OptTensor segment, OptTensor duration, OptTensor trans, OptTensor start, OptTensor end,
                           Tensor lengths) {
  ChainMaxArgs a{};
  a.in = chain_args("chain_max_marginals", {emit, segment, duration, trans, start, end}, lengths);
  Tensor through = new_empty(emit, {a.in.B, a.in.N, a.in.K, a.in.T}, accumulator(emit));
  a.through = through.mutable_data_ptr();
  launch<cuda>(emit, a, [](auto& s, auto pf) { structops::chain_max_marginals(s, pf); },
               [](auto& s, auto ctx) { cuda::chain_max_marginals(s, ctx); });
  return through;
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("chain_logz", TORCH_BOX(&chain_logz<cuda>));
  m.impl("chain_marginals", TORCH_BOX(&chain_marginals<cuda>));
  m.impl("chain_hvp", TORCH_BOX(&chain_hvp<cuda>));
  m.impl("chain_best", TORCH_BOX(&chain_best<cuda>));
  m.impl("chain_sample", TORCH_BOX(&chain_sample<cuda>));
  m.impl("chain_max_marginals", TORCH_BOX(&chain_max_marginals<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
