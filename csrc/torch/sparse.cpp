// Registration of the sparse family: check, allocate, launch. One body serves both devices.
#include <limits>
#include <utility>

#include "sparse/cuda.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

using Pair = std::tuple<Tensor, Tensor>;

// The offset tables [2, n] of a broadcast, int32.
const int32_t* table(const OptTensor& t, int64_t row) {
  if (!t) return nullptr;
  STRUCTOPS_CHECK(t->dim() == 2 && t->size(0) == 2 && t->scalar_type() == ScalarType::Int && t->is_contiguous(),
                  "bcast must be a contiguous int32 tensor [2, F]");
  return static_cast<const int32_t*>(t->const_data_ptr()) + row * t->size(1);
}

// The shape of rowptr and, where reading it is free, its two ends. Its order is the caller's promise.
void check_rowptr(const char* op, const Tensor& rowptr, int64_t E) {
  STRUCTOPS_CHECK(rowptr.dim() == 1 && rowptr.size(0) >= 1, op, ": rowptr must be [N + 1]");
  if (!rowptr.is_cpu()) return;
  const Index ptr = index_of(rowptr);
  STRUCTOPS_CHECK(ptr[0] == 0 && ptr[rowptr.size(0) - 1] == E, op, ": rowptr must run from 0 to the number of edges, ", E);
}

// Fills in what is not given in `a`; returns the values and, where asked for, their winners.
template <bool cuda>
std::pair<Tensor, OptTensor> run_spmm(SpmmArgs& a, const OptTensor& x, const OptTensor& e, const Tensor& rowptr, const OptTensor& col,
                                      const OptTensor& eid, const OptTensor& bcast, int64_t message, int64_t reduce, int64_t arg) {
  STRUCTOPS_CHECK(message >= 0 && message <= 5 && reduce >= 0 && reduce <= 7 && arg >= 0 && arg <= 3, "spmm: unknown code");
  a.message = Message(message);
  a.reduce = Reduce(reduce);
  a.arg_kind = ArgKind(arg);
  const bool needs_x = a.message != Message::copy_e, needs_e = a.message != Message::copy_u;
  STRUCTOPS_CHECK((!needs_x || x) && (!needs_e || e), "spmm: the message needs an operand that is missing");
  const Tensor& like = needs_x ? *x : *e;
  const Operand xo = needs_x ? operand(x) : Operand{}, eo = needs_e ? operand(e) : Operand{};
  a.dtype = dtype_of(like);
  STRUCTOPS_CHECK(!needs_x || !needs_e || e->scalar_type() == x->scalar_type(), "spmm: x and e differ in dtype");
  STRUCTOPS_CHECK(is_floating(a.dtype) || ((!needs_x || !needs_e) && (a.reduce == Reduce::sum || (a.reduce >= Reduce::min && a.reduce <= Reduce::prod))),
                  "spmm: integer dtypes take copy messages with sum, min, max, prod");
  a.rowptr = index_of(rowptr);
  a.col = index_of(col);
  a.eid = index_of(eid);
  STRUCTOPS_CHECK((!a.col || a.col.wide == a.rowptr.wide) && (!a.eid || a.eid.wide == a.rowptr.wide), "spmm: mixed index dtypes");
  STRUCTOPS_CHECK(rowptr.dim() == 1 && rowptr.size(0) >= 1, "spmm: rowptr must be [N + 1]");
  a.N = rowptr.size(0) - 1;
  a.E = col ? col->size(0) : eid ? eid->size(0) : needs_e ? eo.rows : xo.rows;
  check_rowptr("spmm", rowptr, a.E);
  a.B = !needs_e ? xo.B : !needs_x ? eo.B : xo.B == 1 ? eo.B : xo.B;
  STRUCTOPS_CHECK((!needs_x || xo.B == a.B || xo.B == 1) && (!needs_e || eo.B == a.B || eo.B == 1), "spmm: batch sizes differ");
  a.gathered = needs_x ? xo.rows : eo.rows;
  a.x = xo.data; a.Fx = xo.F; a.x_batch = xo.batch_stride();
  a.e = eo.data; a.Fe = eo.F; a.e_batch = eo.batch_stride();
  a.x_off = table(bcast, 0);
  a.e_off = table(bcast, 1);
  if (bcast) {
    a.F = bcast->size(1);
  } else if (needs_x && needs_e) {
    STRUCTOPS_CHECK(a.Fx == a.Fe || a.Fx == 1 || a.Fe == 1, "spmm: features of x and e do not broadcast");
    a.F = a.Fx == 1 ? a.Fe : a.Fx;
  } else {
    a.F = needs_x ? a.Fx : a.Fe;
  }
  const int64_t rank = xo.rank > eo.rank ? xo.rank : eo.rank;
  const std::vector<int64_t> out_shape = shape(rank, a.B, a.N, a.F);
  Tensor out = new_empty(like, out_shape, like.scalar_type());
  a.out = out.mutable_data_ptr();
  OptTensor winners;
  if (arg) {
    winners = new_empty(like, out_shape, rowptr.scalar_type());
    a.arg = winners->mutable_data_ptr();
  }
  launch<cuda>(like, a, [](auto& s, auto pf) { spmm_fwd(s, pf); }, [](auto& s, auto ctx) { cuda::spmm_fwd(s, ctx); });
  return {std::move(out), std::move(winners)};
}

template <bool cuda>
Pair spmm(OptTensor x, OptTensor e, Tensor rowptr, OptTensor col, OptTensor eid, OptTensor, OptTensor, OptTensor,
          OptTensor bcast, int64_t message, int64_t reduce, int64_t arg, double fill, bool skip_nan, bool unbiased) {
  SpmmArgs a{};
  a.skip_nan = skip_nan;
  a.unbiased = unbiased;
  a.fill = fill;
  auto [out, winners] = run_spmm<cuda>(a, x, e, rowptr, col, eid, bcast, message, reduce, arg);
  return {out, winners ? *winners : new_empty(rowptr, {0}, rowptr.scalar_type())};
}

template <bool cuda> Tensor copy_reduce(Tensor x, Tensor rowptr, OptTensor index, int64_t reduce) {
  SpmmArgs a{};
  a.unbiased = true;
  a.fill = reduce == int64_t(Reduce::prod) ? 1 : reduce == int64_t(Reduce::logsumexp) ? -std::numeric_limits<double>::infinity() : 0;
  const OptTensor rows = std::move(x);
  // The rows themselves are edges, rows gathered sources.
  if (!index) return run_spmm<cuda>(a, {}, rows, rowptr, {}, {}, {}, int64_t(Message::copy_e), reduce, 0).first;
  return run_spmm<cuda>(a, rows, {}, rowptr, index, {}, {}, int64_t(Message::copy_u), reduce, 0).first;
}

template <bool cuda>
Tensor sddmm(Tensor lhs, OptTensor rhs, Tensor rowptr, OptTensor col, OptTensor eid, OptTensor, OptTensor, OptTensor,
             OptTensor bcast, int64_t op, int64_t lhs_target, int64_t rhs_target, int64_t num_edges, int64_t out_features, int64_t reduce_features) {
  SddmmArgs a{};
  STRUCTOPS_CHECK(op >= 0 && op <= 4 && lhs_target >= 0 && lhs_target <= 2 && rhs_target >= 0 && rhs_target <= 2, "sddmm: unknown code");
  a.op = EdgeOp(op);
  STRUCTOPS_CHECK(a.op == EdgeOp::copy || rhs, "sddmm: rhs is missing");
  if (a.op == EdgeOp::copy) rhs.reset();
  const Operand l = operand(lhs), r = operand(rhs);
  a.dtype = dtype_of(lhs);
  STRUCTOPS_CHECK(!rhs || rhs->scalar_type() == lhs.scalar_type(), "sddmm: lhs and rhs differ in dtype");
  a.lhs_target = Target(lhs_target);
  a.rhs_target = Target(rhs_target);
  a.B = rhs && l.B == 1 ? r.B : l.B;
  STRUCTOPS_CHECK(!rhs || r.B == a.B || r.B == 1, "sddmm: batch sizes differ");
  check_rowptr("sddmm", rowptr, num_edges);
  STRUCTOPS_CHECK((!col || col->size(0) == num_edges) && (!eid || eid->size(0) == num_edges), "sddmm: col and eid must be [num_edges]");
  STRUCTOPS_CHECK(num_edges >= 0 && out_features >= 0 && reduce_features >= 0, "sddmm: sizes must not be negative");
  a.N = rowptr.size(0) - 1;
  a.E = num_edges;
  a.Fo = out_features;
  a.R = reduce_features;
  const int64_t F = a.Fo * a.R;
  STRUCTOPS_CHECK(bcast ? bcast->size(1) == F : (l.F == F || l.F == 1) && (!rhs || r.F == F || r.F == 1), "sddmm: feature sizes do not match");
  a.lhs = l.data; a.Fl = l.F; a.lhs_batch = l.batch_stride();
  a.rhs = r.data; a.Fr = r.F; a.rhs_batch = r.batch_stride();
  a.rowptr = index_of(rowptr);
  a.col = index_of(col);
  a.eid = index_of(eid);
  STRUCTOPS_CHECK((!a.col || a.col.wide == a.rowptr.wide) && (!a.eid || a.eid.wide == a.rowptr.wide), "sddmm: mixed index dtypes");
  a.l_off = table(bcast, 0);
  a.r_off = table(bcast, 1);
  const int64_t rank = l.rank > r.rank ? l.rank : r.rank;
  Tensor out = new_empty(lhs, shape(rank, a.B, a.E, a.Fo), lhs.scalar_type());
  a.out = out.mutable_data_ptr();
  launch<cuda>(lhs, a, [](auto& s, auto pf) { sddmm_fwd(s, pf); }, [](auto& s, auto ctx) { cuda::sddmm_fwd(s, ctx); });
  return out;
}

SoftmaxArgs softmax_args(const Tensor& src, const Tensor& rowptr, const OptTensor& eid, bool log, Tensor* out) {
  const Operand s = operand(src);
  check_rowptr("segment_softmax", rowptr, s.rows);
  SoftmaxArgs a{};
  a.dtype = dtype_of(src);
  STRUCTOPS_CHECK(is_floating(a.dtype), "segment_softmax: floating dtypes only");
  a.log = log;
  a.B = s.B; a.N = rowptr.size(0) - 1; a.E = s.rows; a.F = s.F;
  a.rowptr = index_of(rowptr);
  a.eid = index_of(eid);
  STRUCTOPS_CHECK(!a.eid || a.eid.wide == a.rowptr.wide, "segment_softmax: mixed index dtypes");
  a.src = s.data;
  *out = new_empty(src, shape(s.rank, a.B, a.E, a.F), src.scalar_type());
  a.out = out->mutable_data_ptr();
  return a;
}

template <bool cuda> Tensor segment_softmax(Tensor src, Tensor rowptr, OptTensor eid, bool log) {
  Tensor out;
  const SoftmaxArgs a = softmax_args(src, rowptr, eid, log, &out);
  launch<cuda>(src, a, [](auto& s, auto pf) { softmax_fwd(s, pf); }, [](auto& s, auto ctx) { cuda::softmax_fwd(s, ctx); });
  return out;
}

template <bool cuda> Tensor segment_softmax_bwd(Tensor result, Tensor grad, Tensor rowptr, OptTensor eid, bool log) {
  Tensor out;
  SoftmaxArgs a = softmax_args(result, rowptr, eid, log, &out);
  const Operand g = operand(grad);
  STRUCTOPS_CHECK(grad.scalar_type() == result.scalar_type() && g.B == a.B && g.rows == a.E && g.F == a.F,
                  "segment_softmax_bwd: grad must match out in shape and dtype");
  a.grad = g.data;
  launch<cuda>(grad, a, [](auto& s, auto pf) { softmax_bwd(s, pf); }, [](auto& s, auto ctx) { cuda::softmax_bwd(s, ctx); });
  return out;
}

template <bool cuda>
Pair scatter(Tensor src, Tensor index, int64_t dim_size, int64_t reduce, bool return_arg, double fill, bool skip_nan) {
  const Operand s = operand(src);
  ScatterArgs a{};
  a.dtype = dtype_of(src);
  STRUCTOPS_CHECK(reduce >= 0 && reduce <= 4, "scatter: reduce must be sum, mean, min, max or prod");
  a.reduce = Reduce(reduce);
  STRUCTOPS_CHECK(is_floating(a.dtype) || a.reduce != Reduce::mean, "scatter: mean takes floating dtypes");
  STRUCTOPS_CHECK(index.dim() == 1 && index.size(0) == s.rows && dim_size >= 0, "scatter: index must be [E]");
  STRUCTOPS_CHECK(s.rows < (int64_t(1) << 31) || !return_arg, "scatter: winners of 2^31 or more edges need a plan");
  a.skip_nan = skip_nan;
  a.fill = fill;
  a.B = s.B; a.N = dim_size; a.E = s.rows; a.F = s.F;
  a.src = s.data;
  a.index = index_of(index);
  const std::vector<int64_t> out_shape = shape(s.rank, a.B, a.N, a.F);
  Tensor out = new_empty(src, out_shape, src.scalar_type());
  Tensor winners = new_empty(src, return_arg ? out_shape : std::vector<int64_t>{0}, ScalarType::Long);
  a.out = out.mutable_data_ptr();
  a.arg = return_arg ? static_cast<int64_t*>(winners.mutable_data_ptr()) : nullptr;
  bool ok = false;
  launch<cuda>(src, a, [&](auto& s, auto pf) { ok = scatter_fwd(s, pf); }, [&](auto& s, auto ctx) { ok = cuda::scatter_fwd(s, ctx); });
  STRUCTOPS_CHECK(ok, "scatter: index out of range");
  return {out, winners};
}

SelectArgs select_args(const Tensor& data, const Tensor& idx, int64_t M, bool backward, Tensor* out) {
  const Operand s = operand(data), i = operand(idx);
  SelectArgs a{};
  a.dtype = dtype_of(data);
  STRUCTOPS_CHECK(s.rank == i.rank && s.B == i.B && s.F == i.F && (!backward || s.rows == i.rows), "select: shapes of data and idx do not match");
  a.B = s.B; a.N = i.rows; a.M = backward ? M : s.rows; a.F = s.F;
  a.src = s.data;
  a.idx = index_of(idx);
  *out = new_empty(data, shape(s.rank, a.B, backward ? a.M : a.N, a.F), data.scalar_type());
  a.out = out->mutable_data_ptr();
  return a;
}

template <bool cuda> Tensor select(Tensor src, Tensor idx) {
  Tensor out;
  const SelectArgs a = select_args(src, idx, 0, false, &out);
  launch<cuda>(src, a, [](auto& s, auto pf) { select_fwd(s, pf); }, [](auto& s, auto ctx) { cuda::select_fwd(s, ctx); });
  return out;
}

template <bool cuda> Tensor select_bwd(Tensor grad, Tensor idx, int64_t rows) {
  Tensor out;
  STRUCTOPS_CHECK(rows >= 0, "select_bwd: rows must not be negative");
  const SelectArgs a = select_args(grad, idx, rows, true, &out);
  launch<cuda>(grad, a, [](auto& s, auto pf) { structops::select_bwd(s, pf); }, [](auto& s, auto ctx) { cuda::select_bwd(s, ctx); });
  return out;
}

// Allocates the results, [N + 1] and [E], and carried [E] where something is carried.
template <bool cuda> std::tuple<Tensor, Tensor, Tensor> build_csr(const char* op, const Tensor& key, CsrArgs a, bool wide) {
  a.key = index_of(key);
  a.E = key.size(0);
  a.wide = wide;
  const ScalarType dtype = wide ? ScalarType::Long : ScalarType::Int;
  const bool carries = a.other || a.rowptr;
  Tensor ptr = new_empty(key, {a.N + 1}, dtype), perm = new_empty(key, {a.E}, dtype), carried = new_empty(key, {carries ? a.E : 0}, dtype);
  a.ptr = ptr.mutable_data_ptr();
  a.perm = perm.mutable_data_ptr();
  a.carried = carried.mutable_data_ptr();
  bool ok = false;
  launch<cuda>(key, a, [&](auto& s, auto pf) { ok = structops::csr_build(s, pf); }, [&](auto& s, auto ctx) { ok = cuda::csr_build(s, ctx); });
  STRUCTOPS_CHECK(ok, op, ": index out of range");
  return {ptr, carried, perm};
}

template <bool cuda> Pair csr_build(Tensor index, int64_t num_groups) {
  STRUCTOPS_CHECK(index.dim() == 1 && num_groups >= 0, "csr_build: index must be [E]");
  CsrArgs a{};
  a.N = num_groups;
  const auto [ptr, carried, perm] = build_csr<cuda>("csr_build", index, a, index.scalar_type() == ScalarType::Long);
  return {ptr, perm};
}

template <bool cuda> std::tuple<Tensor, Tensor, Tensor> csr_from_coo(Tensor row, Tensor col, int64_t num_rows, bool wide) {
  STRUCTOPS_CHECK(row.dim() == 1 && col.dim() == 1 && row.size(0) == col.size(0) && row.scalar_type() == col.scalar_type(),
                  "csr_from_coo: row and col must be [E] of one dtype");
  STRUCTOPS_CHECK(num_rows >= 0, "csr_from_coo: num_rows must not be negative");
  STRUCTOPS_CHECK(wide || (num_rows < INT32_MAX && row.size(0) < INT32_MAX), "csr_from_coo: too many rows or edges for int32");
  CsrArgs a{};
  a.N = num_rows;
  a.other = index_of(col);
  return build_csr<cuda>("csr_from_coo", row, a, wide);
}

template <bool cuda> std::tuple<Tensor, Tensor, Tensor> csr_transpose(Tensor rowptr, Tensor col, OptTensor eid, int64_t num_cols) {
  STRUCTOPS_CHECK(rowptr.dim() == 1 && rowptr.size(0) > 0 && col.dim() == 1 && col.scalar_type() == rowptr.scalar_type(),
                  "csr_transpose: rowptr must be [N + 1] and col [E], of one dtype");
  STRUCTOPS_CHECK(!eid || (eid->dim() == 1 && eid->size(0) == col.size(0) && eid->scalar_type() == col.scalar_type()),
                  "csr_transpose: eid must be [E] of the dtype of col");
  const bool wide = col.scalar_type() == ScalarType::Long;
  STRUCTOPS_CHECK(num_cols >= 0 && (wide || num_cols < INT32_MAX), "csr_transpose: num_cols must not be negative, and fit the dtype");
  CsrArgs a{};
  a.N = num_cols;
  a.rowptr = index_of(rowptr);
  a.rows = rowptr.size(0) - 1;
  a.number = index_of(eid);
  return build_csr<cuda>("csr_transpose", col, a, wide);
}

// (min, max, is non-decreasing); (0, -1, true) of nothing.
template <bool cuda> std::tuple<int64_t, int64_t, bool> index_range(Tensor index) {
  const Index idx = index_of(index);
  if (index.numel() == 0) return {0, -1, true};
  bool sorted = false;
  Range r{};
  launch<cuda>(index, idx, [&](auto& i, auto pf) { r = structops::index_range(i, index.numel(), &sorted, pf); },
               [&](auto& i, auto ctx) { r = cuda::index_range(i, index.numel(), &sorted, ctx); });
  return {r.min, r.max, sorted};
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("spmm", TORCH_BOX(&spmm<cuda>));
  m.impl("copy_reduce", TORCH_BOX(&copy_reduce<cuda>));
  m.impl("sddmm", TORCH_BOX(&sddmm<cuda>));
  m.impl("segment_softmax", TORCH_BOX(&segment_softmax<cuda>));
  m.impl("segment_softmax_bwd", TORCH_BOX(&segment_softmax_bwd<cuda>));
  m.impl("scatter", TORCH_BOX(&scatter<cuda>));
  m.impl("select", TORCH_BOX(&select<cuda>));
  m.impl("select_bwd", TORCH_BOX(&select_bwd<cuda>));
  m.impl("csr_build", TORCH_BOX(&csr_build<cuda>));
  m.impl("csr_from_coo", TORCH_BOX(&csr_from_coo<cuda>));
  m.impl("csr_transpose", TORCH_BOX(&csr_transpose<cuda>));
  m.impl("index_range", TORCH_BOX(&index_range<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
