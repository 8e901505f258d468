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
  STRUCTOPS_CHECK(x.dim() == 3 && y.dim() == 3 && x.size(axis) == a.A && y.size(axis) == a.B && x.size(3 - axis) == y.size(3 - axis) &&
                    x.is_contiguous() && y.is_contiguous() && x.scalar_type() == y.scalar_type(),
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

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("sparse_bilinear", TORCH_BOX(&sparse_bilinear<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
