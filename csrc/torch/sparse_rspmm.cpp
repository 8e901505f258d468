// Registration of relational_spmm: check, allocate, launch.
#include "sparse/cuda.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

Index edges_of(const OptTensor& t, const RspmmArgs& a, const char* name) {
  const Index i = index_of(t);
  STRUCTOPS_CHECK(!t || (t->dim() == 1 && t->size(0) == a.E && i.wide == a.rowptr.wide), "relational_spmm: ", name,
                  " must be [E] in the dtype of rowptr");
  return i;
}

Index pointers(const Tensor& t, int64_t E, const char* name) {
  STRUCTOPS_CHECK(t.dim() == 1 && t.size(0) >= 1, "relational_spmm: ", name, " must be [N + 1]");
  const Index ptr = index_of(t);
  if (t.is_cpu()) STRUCTOPS_CHECK(ptr[0] == 0 && ptr[t.size(0) - 1] == E, "relational_spmm: ", name, " must run from 0 to ", E);
  return ptr;
}

RspmmArgs make(const Tensor& x, const OptTensor& rel, const OptTensor& weight, const OptTensor& mask, const Tensor& rowptr,
               const Tensor& col, const OptTensor& eid, const Tensor& type, int64_t mul, int64_t reduce) {
  RspmmArgs a{};
  STRUCTOPS_CHECK(mul >= 0 && mul <= 4 && reduce >= 0 && reduce <= 5, "relational_spmm: unknown code");
  a.mul = RelMul(mul);
  a.reduce = RelReduce(reduce);
  a.dtype = dtype_of(x);
  STRUCTOPS_CHECK(is_floating(a.dtype), "relational_spmm: floating dtypes only");
  const Operand xo = operand(x), ro = operand(rel);
  STRUCTOPS_CHECK(xo.rank >= 2, "relational_spmm: x must be [N, F] or [B, N, F]");
  STRUCTOPS_CHECK(a.mul == RelMul::copy || rel, "relational_spmm: rel is missing");
  STRUCTOPS_CHECK(!rel || (ro.rank == xo.rank && ro.B == xo.B && ro.F == xo.F && rel->scalar_type() == x.scalar_type()),
                  "relational_spmm: rel must match x in batch, features and dtype");
  STRUCTOPS_CHECK(a.mul != RelMul::rotate || xo.F % 2 == 0, "relational_spmm: rotate takes an even number of features");
  a.B = xo.B; a.M = xo.rows; a.F = xo.F; a.R = rel ? ro.rows : 0; a.E = col.size(0);
  a.x = xo.data;
  a.rel = a.mul == RelMul::copy ? nullptr : ro.data;
  a.rowptr = pointers(rowptr, a.E, "rowptr");
  a.N = rowptr.size(0) - 1;
  a.col = edges_of(col, a, "col");
  a.eid = edges_of(eid, a, "eid");
  a.type = edges_of(type, a, "type");
  if (weight) {
    STRUCTOPS_CHECK(weight->dim() == 1 && weight->size(0) == a.E && weight->is_contiguous() && weight->scalar_type() == x.scalar_type(),
                    "relational_spmm: weight must be [E] in the dtype of x");
    a.weight = weight->const_data_ptr();
  }
  if (mask) {
    STRUCTOPS_CHECK(mask->dim() == 1 && mask->size(0) == a.E && mask->is_contiguous() && mask->scalar_type() == ScalarType::Bool,
                    "relational_spmm: mask must be bool [E]");
    a.mask = static_cast<const uint8_t*>(mask->const_data_ptr());
  }
  return a;
}

std::vector<int64_t> planes(int64_t count, const Tensor& x, const RspmmArgs& a) {
  std::vector<int64_t> s = shape(x.dim(), a.B, a.N, a.F);
  if (count > 1) s.insert(s.begin(), count);
  return s;
}

template <bool cuda>
std::tuple<Tensor, Tensor, Tensor> relational_spmm(Tensor x, OptTensor rel, OptTensor weight, OptTensor mask, Tensor rowptr, Tensor col,
                                           OptTensor eid, Tensor type, OptTensor, OptTensor, OptTensor, OptTensor, int64_t mul,
                                           int64_t reduce, double fill) {
  RspmmArgs a = make(x, rel, weight, mask, rowptr, col, eid, type, mul, reduce);
  a.fill = fill;
  const bool pna = a.reduce == RelReduce::pna, winners = pna || rspmm_extreme(a.reduce);
  Tensor out = new_empty(x, planes(pna ? 4 : 1, x, a), x.scalar_type());
  Tensor arg = new_empty(x, winners ? planes(pna ? 2 : 1, x, a) : std::vector<int64_t>{0}, rowptr.scalar_type());
  Tensor rest = new_empty(x, pna ? planes(1, x, a) : std::vector<int64_t>{0}, x.scalar_type());
  a.out = out.mutable_data_ptr();
  a.arg = winners ? arg.mutable_data_ptr() : nullptr;
  a.rest = pna ? rest.mutable_data_ptr() : nullptr;
  launch<cuda>(x, a, [](auto& s, auto pf) { rspmm_fwd(s, pf); }, [](auto& s, auto ctx) { cuda::rspmm_fwd(s, ctx); });
  return {out, arg, rest};
}

template <bool cuda>
std::tuple<Tensor, Tensor, Tensor> relational_spmm_bwd(Tensor grad, Tensor x, OptTensor rel, OptTensor weight, OptTensor mask,
                                                       OptTensor out, OptTensor arg, OptTensor rest, Tensor rowptr, Tensor col,
                                                       OptTensor eid, Tensor type, Tensor colptr, Tensor row_t, Tensor eid_t, Tensor type_t,
                                                       int64_t mul, int64_t reduce, int64_t wanted) {
  RspmmArgs a = make(x, rel, weight, mask, rowptr, col, eid, type, mul, reduce);
  const bool pna = a.reduce == RelReduce::pna, reads_out = pna || a.reduce == RelReduce::logsumexp;
  const bool winners = pna || rspmm_extreme(a.reduce);
  const int64_t plane = a.B * a.N * a.F, size = (pna ? 4 : 1) * plane;
  auto fits = [&](const Tensor& t, int64_t n) { return t.numel() == n && t.is_contiguous(); };
  STRUCTOPS_CHECK(fits(grad, size) && grad.scalar_type() == x.scalar_type(), "relational_spmm_bwd: grad must match the result");
  STRUCTOPS_CHECK(!reads_out || (out && fits(*out, size) && out->scalar_type() == x.scalar_type()), "relational_spmm_bwd: out must be the result");
  STRUCTOPS_CHECK(!winners || (arg && fits(*arg, (pna ? 2 : 1) * plane) && arg->scalar_type() == rowptr.scalar_type()),
                  "relational_spmm_bwd: arg must be the winners");
  STRUCTOPS_CHECK(!pna || (rest && fits(*rest, plane) && rest->scalar_type() == x.scalar_type()),
                  "relational_spmm_bwd: rest must be what the rounding of the mean left");
  a.colptr = pointers(colptr, a.E, "colptr");
  STRUCTOPS_CHECK(colptr.size(0) == a.M + 1 && a.colptr.wide == a.rowptr.wide, "relational_spmm_bwd: colptr must be [M + 1]");
  a.row_t = edges_of(row_t, a, "row_t");
  a.eid_t = edges_of(eid_t, a, "eid_t");
  a.type_t = edges_of(type_t, a, "type_t");
  a.grad = grad.const_data_ptr();
  a.out = reads_out ? const_cast<void*>(out->const_data_ptr()) : nullptr;
  a.arg = winners ? const_cast<void*>(arg->const_data_ptr()) : nullptr;
  a.rest = pna ? const_cast<void*>(rest->const_data_ptr()) : nullptr;
  const std::vector<int64_t> none{0};
  const bool want_rel = (wanted & 2) && rel && a.mul != RelMul::copy, want_weight = (wanted & 4) && weight;
  Tensor d_x = new_empty(x, wanted & 1 ? shape(x.dim(), a.B, a.M, a.F) : none, x.scalar_type());
  Tensor d_rel = new_empty(x, want_rel ? shape(x.dim(), a.B, a.R, a.F) : none, x.scalar_type());
  Tensor d_weight = new_empty(x, want_weight ? std::vector<int64_t>{a.E} : none, x.scalar_type());
  a.d_x = wanted & 1 ? d_x.mutable_data_ptr() : nullptr;
  a.d_rel = want_rel ? d_rel.mutable_data_ptr() : nullptr;
  a.d_weight = want_weight ? d_weight.mutable_data_ptr() : nullptr;
  launch<cuda>(x, a, [](auto& s, auto pf) { rspmm_bwd(s, pf); }, [](auto& s, auto ctx) { cuda::rspmm_bwd(s, ctx); });
  return {d_x, d_rel, d_weight};
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("relational_spmm", TORCH_BOX(&relational_spmm<cuda>));
  m.impl("relational_spmm_bwd", TORCH_BOX(&relational_spmm_bwd<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
