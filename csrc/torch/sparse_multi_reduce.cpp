// Registration of multi_reduce: check, allocate, launch. One body serves both devices.
#include "sparse/cuda.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

using Codes = std::vector<int64_t>;

ScalarType accumulator(const Tensor& t) { return dtype_of(t) == Dtype::f64 ? ScalarType::Double : ScalarType::Float; }

const void* matrix(const char* name, const OptTensor& t, int64_t rows, int64_t F, ScalarType dtype) {
  if (!t) return nullptr;
  STRUCTOPS_CHECK(t->dim() == 2 && t->size(0) == rows && t->size(1) == F && t->is_contiguous() && t->scalar_type() == dtype,
                  "multi_reduce: ", name, " must be contiguous, [", rows, ", ", F, "] and of the dtype of the messages");
  return t->const_data_ptr();
}

MultiReduceArgs arguments(const OptTensor& x, const OptTensor& edge, const Tensor& rowptr, const OptTensor& col, const OptTensor& eid,
                          const OptTensor& scale, const Codes& reduces, double eps) {
  MultiReduceArgs a{};
  STRUCTOPS_CHECK(x || edge, "multi_reduce: x or edge must be given");
  const Tensor& like = x ? *x : *edge;
  a.dtype = dtype_of(like);
  STRUCTOPS_CHECK(is_floating(a.dtype) && like.dim() == 2, "multi_reduce: messages must be floats [rows, F]");
  STRUCTOPS_CHECK(!reduces.empty() && reduces.size() <= size_t(kMultiReductions), "multi_reduce: 1 to ", kMultiReductions, " reductions");
  for (const int64_t r : reduces) {
    STRUCTOPS_CHECK(r == int(Reduce::sum) || r == int(Reduce::mean) || r == int(Reduce::min) || r == int(Reduce::max) ||
                        r == int(Reduce::var) || r == int(Reduce::std), "multi_reduce: reductions are sum, mean, min, max, var, std");
    a.list.push(Reduce(r));
  }
  STRUCTOPS_CHECK(rowptr.dim() == 1 && rowptr.size(0) >= 1 && (!x || col), "multi_reduce: rowptr must be [N + 1]; x needs col [E]");
  a.N = rowptr.size(0) - 1;
  a.M = x ? x->size(0) : 0;
  a.E = col ? col->size(0) : edge->size(0);
  a.F = like.size(1);
  a.S = 1;
  a.eps = eps;
  a.rowptr = index_of(rowptr); a.col = index_of(col); a.eid = index_of(eid);
  STRUCTOPS_CHECK((!a.col || a.col.wide == a.rowptr.wide) && (!a.eid || a.eid.wide == a.rowptr.wide), "multi_reduce: mixed index dtypes");
  STRUCTOPS_CHECK(!eid || eid->size(0) == a.E, "multi_reduce: eid must be [E]");
  if (rowptr.is_cpu()) STRUCTOPS_CHECK(a.rowptr[0] == 0 && a.rowptr[a.N] == a.E, "multi_reduce: rowptr must run from 0 to ", a.E);
  a.x = matrix("x", x, a.M, a.F, like.scalar_type());
  a.edge = matrix("edge", edge, a.E, a.F, like.scalar_type());
  if (scale) {
    STRUCTOPS_CHECK(scale->dim() == 2, "multi_reduce: scale must be [S, N]");
    a.S = scale->size(0);
    a.scale = matrix("scale", scale, a.S, a.N, accumulator(like));
  }
  return a;
}

template <bool cuda>
std::tuple<Tensor, Tensor, Tensor> multi_reduce(OptTensor x, OptTensor edge, OptTensor y, Tensor rowptr, OptTensor col, OptTensor eid,
                                                OptTensor, OptTensor, OptTensor, OptTensor scale, Codes reduces, double eps, bool keep) {
  MultiReduceArgs a = arguments(x, edge, rowptr, col, eid, scale, reduces, eps);
  const Tensor& like = x ? *x : *edge;
  a.y = matrix("y", y, a.N, a.F, like.scalar_type());
  const int64_t stats = keep && moments(a.list) ? 1 + has(a.list, Reduce::std) : 0, winners = keep ? extremes(a.list) : 0;
  Tensor out = new_empty(like, {a.N, a.S * a.list.size, a.F}, like.scalar_type());
  Tensor stat = new_empty(like, {stats, a.N, a.F}, accumulator(like));
  Tensor arg = new_empty(like, {winners, a.N, a.F}, rowptr.scalar_type());
  a.out = out.mutable_data_ptr();
  if (stats) a.stat = stat.mutable_data_ptr();
  if (winners) a.arg = arg.mutable_data_ptr();
  launch<cuda>(like, a, [](auto& s, auto pf) { multi_reduce_fwd(s, pf); }, [](auto& s, auto ctx) { cuda::multi_reduce_fwd(s, ctx); });
  return {out, stat, arg};
}

template <bool cuda>
std::tuple<Tensor, Tensor, Tensor> multi_reduce_bwd(OptTensor x, OptTensor edge, Tensor grad, Tensor stat, Tensor arg, Tensor rowptr,
                                                    OptTensor col, OptTensor eid, OptTensor colptr, OptTensor row_t, OptTensor eid_t,
                                                    OptTensor scale, Codes reduces, int64_t wanted) {
  MultiReduceArgs a = arguments(x, edge, rowptr, col, eid, scale, reduces, 0);
  const Tensor& like = x ? *x : *edge;
  const int64_t stats = moments(a.list) ? 1 + has(a.list, Reduce::std) : 0, winners = extremes(a.list);
  auto planes = [&](const Tensor& t, int64_t n, ScalarType dtype) {
    return t.dim() == 3 && t.size(0) == n && t.size(1) == a.N && t.size(2) == a.F && t.is_contiguous() && t.scalar_type() == dtype;
  };
  STRUCTOPS_CHECK(planes(stat, stats, accumulator(like)) && planes(arg, winners, rowptr.scalar_type()),
                  "multi_reduce_bwd: stat and arg must be those of the forward");
  STRUCTOPS_CHECK(grad.dim() == 3 && grad.size(0) == a.N && grad.size(1) == a.S * a.list.size && grad.size(2) == a.F &&
                      grad.is_contiguous() && grad.scalar_type() == like.scalar_type(), "multi_reduce_bwd: grad must be as out");
  a.grad = grad.const_data_ptr();
  if (stats) a.stat = const_cast<void*>(stat.const_data_ptr());
  if (winners) a.arg = const_cast<void*>(arg.const_data_ptr());
  const bool want_x = x && (wanted & 1), want_y = wanted & 2, want_edge = edge && (wanted & 4);
  if (want_x) {
    STRUCTOPS_CHECK(colptr && row_t && colptr->size(0) == a.M + 1 && row_t->size(0) == a.E && (!eid_t || eid_t->size(0) == a.E),
                    "multi_reduce_bwd: reversed edges");
    a.colptr = index_of(colptr); a.row_t = index_of(row_t); a.eid_t = index_of(eid_t);
    STRUCTOPS_CHECK(a.colptr.wide == a.rowptr.wide && a.row_t.wide == a.rowptr.wide && (!a.eid_t || a.eid_t.wide == a.rowptr.wide),
                    "multi_reduce_bwd: mixed index dtypes");
    if (rowptr.is_cpu()) STRUCTOPS_CHECK(a.colptr[0] == 0 && a.colptr[a.M] == a.E, "multi_reduce_bwd: colptr must run from 0 to ", a.E);
  }
  auto make = [&](bool want, int64_t rows, void*& to) {
    Tensor t = new_empty(like, want ? Codes{rows, a.F} : Codes{0}, like.scalar_type());
    to = want ? t.mutable_data_ptr() : nullptr;
    return t;
  };
  Tensor d_x = make(want_x, a.M, a.d_x), d_y = make(want_y, a.N, a.d_y), d_edge = make(want_edge, a.E, a.d_edge);
  launch<cuda>(like, a, [](auto& s, auto pf) { multi_reduce_bwd(s, pf); }, [](auto& s, auto ctx) { cuda::multi_reduce_bwd(s, ctx); });
  return {d_x, d_y, d_edge};
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("multi_reduce", TORCH_BOX(&multi_reduce<cuda>));
  m.impl("multi_reduce_bwd", TORCH_BOX(&multi_reduce_bwd<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
