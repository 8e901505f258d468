// Registration of the powers of differences: check, allocate, launch.
#include "sparse/cuda.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

const void* rows_data(const Tensor& t, const Tensor& like, int64_t rows, int64_t F, const char* what) {
  STRUCTOPS_CHECK(t.dim() == 2 && t.is_contiguous() && t.size(0) == rows && t.size(1) == F, "difference: ", what,
                  " must be contiguous [", rows, ", ", F, "]");
  STRUCTOPS_CHECK(t.scalar_type() == like.scalar_type(), "difference: operands differ in dtype");
  return t.const_data_ptr();
}

DifferenceArgs arguments(const Tensor& x, const Tensor& y, const OptTensor& hu, const Tensor& rowptr, const OptTensor& col, const OptTensor& eid,
                         int64_t E, double power, bool odd) {
  DifferenceArgs a{};
  STRUCTOPS_CHECK(x.dim() == 2 && rowptr.dim() == 1 && rowptr.size(0) >= 1, "difference: x must be [rows, F], rowptr [N + 1]");
  STRUCTOPS_CHECK((!col || (col->dim() == 1 && col->size(0) == E)) && (!eid || (eid->dim() == 1 && eid->size(0) == E)),
                  "difference: col and eid must be [E]");
  a.dtype = dtype_of(x);
  STRUCTOPS_CHECK(is_floating(a.dtype), "difference: floating dtypes only");
  a.power = power;
  a.odd = odd;
  a.N = rowptr.size(0) - 1;
  a.E = E;
  a.F = x.size(1);
  a.rowptr = index_of(rowptr);
  a.col = index_of(col);
  a.eid = index_of(eid);
  STRUCTOPS_CHECK((!a.col || a.col.wide == a.rowptr.wide) && (!a.eid || a.eid.wide == a.rowptr.wide), "difference: mixed index dtypes");
  if (rowptr.is_cpu()) STRUCTOPS_CHECK(a.rowptr[0] == 0 && a.rowptr[a.N] == E, "difference: rowptr must run from 0 to the number of edges, ", E);
  STRUCTOPS_CHECK(col || x.size(0) == E, "difference: x must have a row for every edge");
  a.x = rows_data(x, x, x.size(0), a.F, "x");
  a.y = rows_data(y, x, a.N, a.F, "y");
  if (hu) a.hu = rows_data(*hu, x, x.size(0), a.F, "hu");
  return a;
}

template <bool cuda>
Tensor difference_rows(Tensor x, Tensor y, OptTensor weight, OptTensor h, Tensor rowptr, OptTensor col, OptTensor eid, OptTensor, OptTensor,
                       OptTensor, double power, bool odd) {
  const int64_t E = col ? col->size(0) : x.size(0);
  DifferenceArgs a = arguments(x, y, h, rowptr, col, eid, E, power, odd);
  if (weight) {
    STRUCTOPS_CHECK(weight->dim() == 1 && weight->size(0) == E && weight->is_contiguous() && weight->scalar_type() == x.scalar_type(),
                    "difference_rows: weight must be contiguous [E] of the operands' dtype");
    a.weight = weight->const_data_ptr();
  }
  Tensor out = new_empty(x, {a.N, a.F}, x.scalar_type());
  a.out = out.mutable_data_ptr();
  launch<cuda>(x, a, [](auto& s, auto pf) { difference_rows_fwd(s, pf); }, [](auto& s, auto ctx) { cuda::difference_rows_fwd(s, ctx); });
  return out;
}

template <bool cuda>
Tensor difference_edges(Tensor x, Tensor y, OptTensor hv, OptTensor hu, Tensor rowptr, OptTensor col, OptTensor eid, OptTensor, OptTensor,
                        OptTensor, int64_t num_edges, double power, bool odd) {
  STRUCTOPS_CHECK(num_edges >= 0, "difference_edges: num_edges must not be negative");
  DifferenceArgs a = arguments(x, y, hu, rowptr, col, eid, num_edges, power, odd);
  if (hv) a.hv = rows_data(*hv, x, a.N, a.F, "hv");
  Tensor out = new_empty(x, {a.E}, x.scalar_type());
  a.out = out.mutable_data_ptr();
  launch<cuda>(x, a, [](auto& s, auto pf) { difference_edges_fwd(s, pf); }, [](auto& s, auto ctx) { cuda::difference_edges_fwd(s, ctx); });
  return out;
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("difference_rows", TORCH_BOX(&difference_rows<cuda>));
  m.impl("difference_edges", TORCH_BOX(&difference_edges<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
