// Registration of edge activations: check, allocate, launch. One body serves both devices.
#include "sparse/cuda.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

const void* matrix(const char* name, const OptTensor& t, const Tensor& x, int64_t rows) {
  if (!t) return nullptr;
  STRUCTOPS_CHECK(t->dim() == 2 && t->size(0) == rows && t->size(1) == x.size(1) && t->is_contiguous() &&
                      t->scalar_type() == x.scalar_type(), "edge_act: ", name, " must be contiguous, [rows, F] and of the dtype of x");
  return t->const_data_ptr();
}

const void* vector(const char* name, const Tensor& t, const Tensor& x, int64_t n) {
  STRUCTOPS_CHECK(t.dim() == 1 && t.size(0) == n && t.is_contiguous() && t.scalar_type() == x.scalar_type(), "edge_act: ", name,
                  " must be contiguous, of ", n, " entries and of the dtype of x");
  return t.const_data_ptr();
}

EdgeActArgs arguments(const Tensor& x, const OptTensor& y, const OptTensor& edge, const OptTensor& value, const OptTensor& scalar,
                      const OptTensor& direction, const Tensor& rowptr, const OptTensor& col, const OptTensor& eid, int64_t act,
                      double slope) {
  EdgeActArgs a{};
  STRUCTOPS_CHECK(act >= 0 && act < kActs, "edge_act: unknown activation");
  a.act = Act(act);
  a.dtype = dtype_of(x);
  STRUCTOPS_CHECK(is_floating(a.dtype) && x.dim() == 2 && x.is_contiguous(), "edge_act: x must be contiguous floats [M, F]");
  STRUCTOPS_CHECK(rowptr.dim() == 1 && rowptr.size(0) >= 1 && col, "edge_act: rowptr must be [N + 1], col [E]");
  a.N = rowptr.size(0) - 1; a.M = x.size(0); a.E = col->size(0); a.F = x.size(1);
  a.slope = slope;
  a.rowptr = index_of(rowptr); a.col = index_of(col); a.eid = index_of(eid);
  STRUCTOPS_CHECK(a.col.wide == a.rowptr.wide && (!a.eid || a.eid.wide == a.rowptr.wide), "edge_act: mixed index dtypes");
  STRUCTOPS_CHECK(!eid || eid->size(0) == a.E, "edge_act: eid must be [E]");
  if (rowptr.is_cpu()) STRUCTOPS_CHECK(a.rowptr[0] == 0 && a.rowptr[a.N] == a.E, "edge_act: rowptr must run from 0 to ", a.E);
  a.x = x.const_data_ptr();
  a.y = matrix("y", y, x, a.N);
  a.edge = matrix("edge", edge, x, a.E);
  a.value = matrix("value", value, x, a.M);
  STRUCTOPS_CHECK(bool(scalar) == bool(direction), "edge_act: scalar and direction come together");
  if (scalar) {
    a.scalar = vector("scalar", *scalar, x, a.E);
    a.direction = vector("direction", *direction, x, a.F);
  }
  return a;
}

template <bool cuda>
std::tuple<Tensor, Tensor> edge_act(Tensor x, OptTensor y, OptTensor edge, OptTensor value, OptTensor scalar, OptTensor direction, Tensor rowptr, OptTensor col,
                OptTensor eid, OptTensor, OptTensor, OptTensor, int64_t act, double slope, bool keep) {
  EdgeActArgs a = arguments(x, y, edge, value, scalar, direction, rowptr, col, eid, act, slope);
  Tensor out = new_empty(x, {a.N, a.F}, x.scalar_type());
  Tensor slopes = new_empty(x, keep ? std::vector<int64_t>{a.N, a.F} : std::vector<int64_t>{0}, accumulator(x));
  a.out = out.mutable_data_ptr();
  a.slopes = keep ? slopes.mutable_data_ptr() : nullptr;
  launch<cuda>(x, a, [](auto& s, auto pf) { edge_act_fwd(s, pf); }, [](auto& s, auto ctx) { cuda::edge_act_fwd(s, ctx); });
  return {out, slopes};
}

template <bool cuda>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> edge_act_bwd(Tensor x, OptTensor y, OptTensor edge, OptTensor value,
                                                                        OptTensor scalar, OptTensor direction, Tensor grad, Tensor rowptr,
                                                                        OptTensor col, OptTensor eid, Tensor colptr, Tensor row_t,
                                                                        OptTensor eid_t, int64_t act, double slope,
                                                                        bool wants_y) {
  EdgeActArgs a = arguments(x, y, edge, value, scalar, direction, rowptr, col, eid, act, slope);
  a.grad = matrix("grad", grad, x, a.N);
  a.colptr = index_of(colptr); a.row_t = index_of(row_t); a.eid_t = index_of(eid_t);
  STRUCTOPS_CHECK(colptr.size(0) == a.M + 1 && row_t.size(0) == a.E && (!eid_t || eid_t->size(0) == a.E), "edge_act_bwd: reversed edges");
  STRUCTOPS_CHECK(a.colptr.wide == a.rowptr.wide && a.row_t.wide == a.rowptr.wide && (!a.eid_t || a.eid_t.wide == a.rowptr.wide),
                  "edge_act_bwd: mixed index dtypes");
  if (colptr.is_cpu()) STRUCTOPS_CHECK(a.colptr[0] == 0 && a.colptr[a.M] == a.E, "edge_act_bwd: colptr must run from 0 to ", a.E);
  auto make = [&](bool wanted, int64_t rows, void*& to) {
    Tensor t = wanted ? new_empty(x, {rows, a.F}, x.scalar_type()) : new_empty(x, {0}, x.scalar_type());
    to = wanted ? t.mutable_data_ptr() : nullptr;
    return t;
  };
  Tensor d_x = make(true, a.M, a.d_x), d_y = make(a.y && wants_y, a.N, a.d_y), d_edge = make(a.edge, a.E, a.d_edge), d_value = make(a.value, a.M, a.d_value);
  const ScalarType wide = accumulator(x);
  Tensor d_scalar = a.scalar ? new_empty(x, {a.E}, wide) : new_empty(x, {0}, wide);
  Tensor d_direction = a.scalar ? new_empty(x, {a.N, a.F}, wide) : new_empty(x, {0}, wide);
  if (a.scalar) {
    a.d_scalar = d_scalar.mutable_data_ptr();
    a.d_direction = d_direction.mutable_data_ptr();
  }
  launch<cuda>(x, a, [](auto& s, auto pf) { edge_act_bwd(s, pf); }, [](auto& s, auto ctx) { cuda::edge_act_bwd(s, ctx); });
  return {d_x, d_y, d_edge, d_value, d_scalar, d_direction};
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("edge_act", TORCH_BOX(&edge_act<cuda>));
  m.impl("edge_act_bwd", TORCH_BOX(&edge_act_bwd<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
