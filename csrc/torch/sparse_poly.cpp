// Registration of poly_filter: check, allocate, launch. One body serves both devices.
#include "sparse/poly_cuda.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

void check_pointer(const char* name, const Tensor& ptr, int64_t N, int64_t E) {
  STRUCTOPS_CHECK(ptr.dim() == 1 && ptr.size(0) == N + 1, "poly_filter: ", name, " must be [N + 1] of a square graph");
  if (!ptr.is_cpu()) return;
  const Index p = index_of(ptr);
  STRUCTOPS_CHECK(p[0] == 0 && p[N] == E, "poly_filter: ", name, " must run from 0 to the number of edges, ", E);
}

Index edges_of(const char* name, const OptTensor& t, int64_t E, bool wide) {
  if (!t) return {};
  const Index i = index_of(*t);
  STRUCTOPS_CHECK(t->dim() == 1 && t->size(0) == E && i.wide == wide, "poly_filter: ", name, " must be [E] in the type of rowptr");
  return i;
}

const void* matrix(const char* name, const OptTensor& t, const Tensor& like, int64_t rows, int64_t cols) {
  if (!t) return nullptr;
  STRUCTOPS_CHECK(t->dim() == 2 && t->size(0) == rows && t->size(1) == cols && t->scalar_type() == like.scalar_type() && t->is_contiguous(),
                  "poly_filter: ", name, " must be contiguous, [N, C] in the dtype of x");
  return t->const_data_ptr();
}


PolyArgs arguments(const Tensor& x, const OptTensor& weight, const Tensor& rowptr, const Tensor& col, const OptTensor& eid,
                   const Tensor& alpha, const Tensor& recur, const OptTensor& gate) {
  PolyArgs a{};
  a.dtype = dtype_of(x);
  STRUCTOPS_CHECK(is_floating(a.dtype) && x.dim() == 2 && x.is_contiguous(), "poly_filter: x must be contiguous, [N, C], floating");
  a.N = x.size(0);
  a.C = x.size(1);
  a.E = col.size(0);
  STRUCTOPS_CHECK(a.N < (int64_t(1) << 32), "poly_filter: fewer than 2^32 nodes");
  check_pointer("rowptr", rowptr, a.N, a.E);
  a.x = x.const_data_ptr();
  a.rowptr = index_of(rowptr);
  a.col = edges_of("col", col, a.E, a.rowptr.wide);
  a.eid = edges_of("eid", eid, a.E, a.rowptr.wide);
  if (weight) {
    STRUCTOPS_CHECK(weight->dim() == 1 && weight->size(0) == a.E && weight->scalar_type() == x.scalar_type() && weight->is_contiguous(),
                    "poly_filter: weight must be contiguous, [E] in the dtype of x");
    a.weight = weight->const_data_ptr();
  }
  const ScalarType acc = accumulator(x);
  STRUCTOPS_CHECK(alpha.dim() == 2 && alpha.size(0) >= 1 && alpha.scalar_type() == acc && alpha.is_contiguous(),
                  "poly_filter: alpha must be contiguous, [K + 1, C or 1] in the accumulator's dtype");
  a.K = alpha.size(0) - 1;
  a.Ca = alpha.size(1);
  STRUCTOPS_CHECK(recur.dim() == 3 && recur.size(0) == 3 && recur.size(1) == a.K && recur.scalar_type() == acc && recur.is_contiguous(),
                  "poly_filter: recur must be contiguous, [3, K, C or 1] in the accumulator's dtype");
  a.Cr = recur.size(2);
  STRUCTOPS_CHECK((a.Ca == 1 || a.Ca == a.C) && (a.Cr == 1 || a.Cr == a.C), "poly_filter: coefficients for 1 or C channels");
  a.alpha = alpha.const_data_ptr();
  a.recur = recur.const_data_ptr();
  if (gate) {
    STRUCTOPS_CHECK(gate->dim() == 1 && gate->size(0) == a.C + 1 && gate->scalar_type() == acc && gate->is_contiguous(),
                    "poly_filter: gate must be contiguous, [C + 1] in the accumulator's dtype");
    a.gate = gate->const_data_ptr();
  }
  return a;
}

template <bool cuda>
std::tuple<Tensor, Tensor> poly_filter(Tensor x, OptTensor weight, Tensor rowptr, Tensor col, OptTensor eid, OptTensor, OptTensor,
                                       OptTensor, Tensor alpha, Tensor recur, OptTensor dot, OptTensor gate) {
  PolyArgs a = arguments(x, weight, rowptr, col, eid, alpha, recur, gate);
  a.dot = matrix("dot", dot, x, a.N, a.C);
  Tensor out = new_empty(x, {a.N, a.C}, x.scalar_type());
  Tensor dots = new_empty(x, {dot ? a.K + 1 : 0, a.C}, accumulator(x));
  a.out = out.mutable_data_ptr();
  a.dots = dot ? dots.mutable_data_ptr() : nullptr;
  launch<cuda>(x, a, [](auto& s, auto pf) { poly_fwd(s, pf); }, [](auto& s, auto ctx) { cuda::poly_fwd(s, ctx); });
  return {out, dots};
}

template <bool cuda>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>
poly_filter_bwd(Tensor grad, Tensor x, OptTensor weight, Tensor rowptr, Tensor col, OptTensor eid, Tensor colptr, Tensor row_t,
                OptTensor eid_t, Tensor alpha, Tensor recur, OptTensor gate, bool wants_weight) {
  PolyArgs a = arguments(x, weight, rowptr, col, eid, alpha, recur, gate);
  check_pointer("colptr", colptr, a.N, a.E);
  a.colptr = index_of(colptr);
  a.row_t = edges_of("row_t", row_t, a.E, a.colptr.wide);
  a.eid_t = edges_of("eid_t", eid_t, a.E, a.colptr.wide);
  a.grad = matrix("grad", grad, x, a.N, a.C);
  STRUCTOPS_CHECK(!wants_weight || weight, "poly_filter_bwd: there is no weight");
  const ScalarType acc = accumulator(x);
  Tensor dx = new_empty(x, {a.N, a.C}, x.scalar_type()), d_alpha = new_empty(x, {a.K + 1, a.C}, acc);
  Tensor d_recur = new_empty(x, {3, a.K, a.C}, acc), d_weight = new_empty(x, {wants_weight ? a.E : 0}, x.scalar_type());
  Tensor d_gate = new_empty(x, {gate ? a.C + 1 : 0}, acc);
  a.out = dx.mutable_data_ptr();
  a.dots = d_alpha.mutable_data_ptr();
  a.d_recur = d_recur.mutable_data_ptr();
  a.d_weight = wants_weight ? d_weight.mutable_data_ptr() : nullptr;
  a.d_gate = gate ? d_gate.mutable_data_ptr() : nullptr;
  launch<cuda>(x, a, [](auto& s, auto pf) { poly_bwd(s, pf); }, [](auto& s, auto ctx) { cuda::poly_bwd(s, ctx); });
  return {dx, d_alpha, d_recur, d_weight, d_gate};
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("poly_filter", TORCH_BOX(&poly_filter<cuda>));
  m.impl("poly_filter_bwd", TORCH_BOX(&poly_filter_bwd<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
