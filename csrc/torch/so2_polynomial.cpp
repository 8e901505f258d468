// Registration of sparse polynomial maps: check, allocate, launch. One body serves both devices.
#include "so2/cuda.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

using Sizes = std::vector<int64_t>;

// ---- bilinear maps -------------------------------------------------------------------------------------------------

template <bool cuda>
Tensor sparse_bilinear(Tensor x, Tensor y, Tensor lists, Tensor coef, Sizes sizes, int64_t role, bool components_last, bool total) {
  constexpr const char* op = "sparse_bilinear";
  BilinearArgs a{};
  a.dtype = dtype_of(x);
  STRUCTOPS_CHECK(is_floating(a.dtype), op, ": floating dtypes only");
  STRUCTOPS_CHECK(sizes.size() == kBilinearSizes && role >= 0 && role < 3, op, ": sizes must have ", int(kBilinearSizes),
                  " entries, and role be 0, 1 or 2");
  a.A = sizes[bl_dim + (role + 1) % 3];
  a.B = sizes[bl_dim + (role + 2) % 3];
  a.R = sizes[bl_dim + role];
  a.terms = sizes[bl_terms];
  a.pairs = sizes[bl_pairs + role];
  a.components_last = components_last;
  a.total = total;
  const int axis = components_last ? 2 : 1;
  STRUCTOPS_CHECK(x.dim() == 3 && y.dim() == 3 && x.size(axis) == a.A && y.size(axis) == a.B &&
                    x.size(3 - axis) == y.size(3 - axis) && x.is_contiguous() && y.is_contiguous() &&
                    x.scalar_type() == y.scalar_type(),
                  op, ": a and b must be contiguous, of one dtype and equal channels, with ", a.A, " and ", a.B, " components");
  a.C = x.size(3 - axis);
  a.a_rows = x.size(0);
  a.b_rows = y.size(0);
  a.N = a.a_rows == 1 ? a.b_rows : a.a_rows;
  STRUCTOPS_CHECK(a.b_rows == a.N || a.b_rows == 1, op, ": rows that broadcast, got ", a.a_rows, " and ", a.b_rows);
  const int64_t at = sizes[bl_at + role];
  STRUCTOPS_CHECK(lists.dim() == 1 && lists.scalar_type() == ScalarType::Int && lists.is_contiguous() && at >= 0 && a.R >= 0 &&
                    lists.size(0) >= at + a.R + 1 + 2 * a.pairs + a.terms && coef.scalar_type() == ScalarType::Double &&
                    coef.is_contiguous() && coef.dim() == 2 && coef.size(0) == 3 && coef.size(1) == a.terms,
                  op, ": lists must be int32 and coef float64 [3, terms], as sizes say");
  a.lists = static_cast<const int32_t*>(lists.const_data_ptr()) + at;
  a.coef = static_cast<const double*>(coef.const_data_ptr()) + role * a.terms;
  const int64_t rows = total ? 1 : a.N;
  Tensor out = new_empty(x, components_last ? Sizes{rows, a.C, a.R} : Sizes{rows, a.R, a.C}, x.scalar_type());
  a.a = x.const_data_ptr();
  a.b = y.const_data_ptr();
  a.out = out.mutable_data_ptr();
  launch<cuda>(x, a, [](auto& s, auto pf) { structops::sparse_bilinear(s, pf); },
               [](auto& s, auto ctx) { cuda::sparse_bilinear(s, ctx); });
  return out;
}

// ---- symmetric contractions ----------------------------------------------------------------------------------------

template <bool cuda>
std::tuple<Tensor, Tensor, Tensor> symmetric_contraction(Tensor x, Tensor w, OptTensor g, OptTensor x1, OptTensor w1, OptTensor g1,
                                                         OptTensor x2, OptTensor w2, OptTensor g2, Tensor ptr, Tensor nodes,
                                                         Tensor lists, Tensor coef, Sizes sizes, int64_t order,
                                                         bool components_last, bool want_x, bool want_w, bool want_g) {
  constexpr const char* op = "symmetric_contraction";
  SymmetricArgs a{};
  a.dtype = dtype_of(x);
  STRUCTOPS_CHECK(is_floating(a.dtype), op, ": floating dtypes only");
  STRUCTOPS_CHECK(order >= 0 && order <= kSymmetricOrder, op, ": order must lie in 0..", kSymmetricOrder, ", got ", order);
  STRUCTOPS_CHECK(sizes.size() == kSymmetricSizes, op, ": sizes must have ", int(kSymmetricSizes), " entries");
  STRUCTOPS_CHECK(lists.dim() == 1 && lists.scalar_type() == ScalarType::Int && lists.is_contiguous() &&
                    lists.size(0) == SymmetricPlan::numbers(sizes.data()) && coef.scalar_type() == ScalarType::Double &&
                    coef.is_contiguous() && coef.numel() == 2 * sizes[sc_entries],
                  op, ": lists must be int32 and coef float64 [2, entries], as sizes say");
  a.plan = SymmetricPlan::make(sizes.data(), static_cast<const int32_t*>(lists.const_data_ptr()),
                               static_cast<const double*>(coef.const_data_ptr()));
  a.order = int(order);
  a.components_last = components_last;
  STRUCTOPS_CHECK(x.dim() == 3 && w.dim() == 3, op, ": x and w must have three dimensions");
  a.N = x.size(0);
  a.C = x.size(components_last ? 1 : 2);
  a.Z = w.size(0);
  auto shaped = [&](int64_t d) { return components_last ? Sizes{a.N, a.C, d} : Sizes{a.N, d, a.C}; };
  const Sizes xs = shaped(a.plan.D), ws{a.Z, a.plan.P, a.C}, gs = shaped(a.plan.O);
  auto read = [&](const char* name, const OptTensor& t, const Sizes& s) -> const void* {
    if (!t) return nullptr;
    STRUCTOPS_CHECK(t->dim() == 3 && t->size(0) == s[0] && t->size(1) == s[1] && t->size(2) == s[2] && t->is_contiguous() &&
                      t->scalar_type() == x.scalar_type(),
                    op, ": ", name, " must be contiguous, of the dtype of x and of shape [", s[0], ", ", s[1], ", ", s[2], "]");
    return t->const_data_ptr();
  };
  const OptTensor *const x_parts[] = {nullptr, &x1, &x2}, *const w_parts[] = {nullptr, &w1, &w2}, *const g_parts[] = {&g, &g1, &g2};
  a.x[0] = read("x", x, xs);
  a.w[0] = read("w", w, ws);
  a.g[0] = read("g", g, gs);
  for (int64_t j = 1; j <= order; ++j) {
    a.x[j] = read("a direction of x", *x_parts[j], xs);
    a.w[j] = read("a direction of w", *w_parts[j], ws);
    a.g[j] = read("a direction of g", *g_parts[j], gs);
  }
  STRUCTOPS_CHECK(ptr.dim() == 1 && ptr.size(0) == a.Z + 1 && nodes.dim() == 1 && nodes.size(0) == a.N, op,
                  ": ptr must be [Z + 1] and nodes [N]");
  a.ptr = index_of(ptr);
  a.nodes = index_of(nodes);
  auto result = [&](bool want, const Sizes& s, void*& to) {
    Tensor t = new_empty(x, want ? s : Sizes{0}, x.scalar_type());
    if (want) to = t.mutable_data_ptr();
    return t;
  };
  Tensor gx = result(want_x, xs, a.gx), gw = result(want_w, ws, a.gw), gg = result(want_g, gs, a.gg);
  launch<cuda>(x, a, [](auto& s, auto pf) { structops::symmetric_contraction(s, pf); },
               [](auto& s, auto ctx) { cuda::symmetric_contraction(s, ctx); });
  return {gx, gw, gg};
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("sparse_bilinear", TORCH_BOX(&sparse_bilinear<cuda>));
  m.impl("symmetric_contraction", TORCH_BOX(&symmetric_contraction<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
