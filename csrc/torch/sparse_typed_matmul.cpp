// Registration of typed and edge-conditioned products: check, allocate, launch. On CUDA the operators are Triton kernels, which
// kernels/backends.py chooses before it comes here.
#include "sparse/edge_matmul.h"
#include "sparse/typed_matmul.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

template <bool cuda, class Args, class Fn>
void run(const char* op, const Args& args, Fn fn) {
  STRUCTOPS_CHECK(!cuda, op, ": no compiled CUDA kernel; install triton, which is its GPU path");
  launch_cpu(args, fn);
}

const void* matrix(const char* op, const char* name, const Tensor& t, const Tensor& like, std::initializer_list<int64_t> sizes) {
  bool ok = t.dim() == int64_t(sizes.size()) && t.scalar_type() == like.scalar_type() && t.is_contiguous();
  int64_t d = 0;
  for (const int64_t n : sizes) ok = ok && t.size(d++) == n;
  STRUCTOPS_CHECK(ok, op, ": ", name, " does not match the other operands in shape or dtype, or is not contiguous");
  return t.const_data_ptr();
}

Index list(const char* op, const char* name, const OptTensor& t, int64_t n) {
  if (!t) return {};
  STRUCTOPS_CHECK(t->dim() == 1 && t->size(0) == n, op, ": ", name, " must have ", n, " entries");
  return index_of(*t);
}

TypedArgs typed(const char* op, const Tensor& x, const OptTensor& scale, const Tensor& ptr, const OptTensor& types, const OptTensor& blocks,
                const OptTensor& block_rows, const OptTensor& gptr, const OptTensor& gather, const OptTensor& scatter, int64_t rows) {
  TypedArgs a{};
  a.dtype = dtype_of(x);
  STRUCTOPS_CHECK(is_floating(a.dtype) && x.dim() == 2 && x.is_contiguous(), op, ": x must be a contiguous floating [M, K]");
  STRUCTOPS_CHECK(ptr.dim() == 1 && ptr.size(0) >= 1 && rows >= 0, op, ": ptr must be [S + 1]");
  a.x_rows = x.size(0);
  a.K = x.size(1);
  a.x = x.const_data_ptr();
  a.S = ptr.size(0) - 1;
  a.rows = rows;
  a.ptr = index_of(ptr);
  a.types = list(op, "types", types, a.S);
  a.P = gptr ? gptr->size(0) - 1 : gather ? gather->size(0) : scatter ? scatter->size(0) : a.x_rows;
  STRUCTOPS_CHECK(a.P >= 0, op, ": gptr must be [P + 1]");
  if (ptr.is_cpu()) STRUCTOPS_CHECK(a.ptr[0] == 0 && a.ptr[a.S] == a.P, op, ": ptr must run from 0 to the number of rows, ", a.P);
  a.gptr = list(op, "gptr", gptr, a.P + 1);
  STRUCTOPS_CHECK(!gptr || gather || scale, op, ": gptr needs gather or scale");
  const int64_t n = gather ? gather->size(0) : gptr ? scale->size(0) : a.P;
  a.gather = list(op, "gather", gather, n);
  if (gptr && ptr.is_cpu()) STRUCTOPS_CHECK(a.gptr[0] == 0 && a.gptr[a.P] == n, op, ": gptr must run from 0 to the length of gather");
  a.scatter = list(op, "scatter", scatter, a.P);
  STRUCTOPS_CHECK(bool(blocks) == bool(block_rows), op, ": blocks and block_rows come together");
  if (blocks) {
    a.B = blocks->size(0) - 1;
    a.blocks = list(op, "blocks", blocks, a.B + 1);
    a.block_rows = list(op, "block_rows", block_rows, a.B + 1);
    if (ptr.is_cpu())
      STRUCTOPS_CHECK(a.B >= 0 && a.blocks[0] == 0 && a.blocks[a.B] == a.S && a.block_rows[0] == 0 && a.block_rows[a.B] == rows, op,
                      ": blocks must cover the segments and block_rows the rows");
  } else {
    STRUCTOPS_CHECK(a.P == rows, op, ": without blocks every row has one product: ", a.P, " rows given, ", rows, " wanted");
  }
  if (scale) {
    STRUCTOPS_CHECK(scale->dim() == 1 && scale->size(0) == n && scale->is_contiguous() &&
                        scale->scalar_type() == (a.dtype == Dtype::f64 ? ScalarType::Double : ScalarType::Float),
                    op, ": scale must be one number of the accumulator's dtype for every gathered row");
    a.scale = scale->const_data_ptr();
  }
  return a;
}

// The lists *_t are those of the derivative by x.
template <bool cuda>
Tensor typed_matmul(Tensor x, Tensor weight, OptTensor bias, OptTensor scale, OptTensor, Tensor ptr, OptTensor types, OptTensor blocks,
                    OptTensor block_rows, OptTensor gptr, OptTensor gather, OptTensor scatter, OptTensor, OptTensor, OptTensor, OptTensor,
                    OptTensor, OptTensor, OptTensor, int64_t rows) {
  const char* const op = "typed_matmul";
  TypedArgs a = typed(op, x, scale, ptr, types, blocks, block_rows, gptr, gather, scatter, rows);
  STRUCTOPS_CHECK(weight.dim() == 3, op, ": weight must be [R, K, N]");
  a.R = weight.size(0);
  a.N = weight.size(2);
  a.w = matrix(op, "weight", weight, x, {a.R, a.K, a.N});
  STRUCTOPS_CHECK(types || a.S == a.R, op, ": ", a.S, " segments for ", a.R, " types");
  STRUCTOPS_CHECK(!bias || (!blocks && !types), op, ": bias is for stored rows of segments in the order of the types");
  if (bias) a.bias = matrix(op, "bias", *bias, x, {a.R, a.N});
  Tensor out = new_empty(x, {rows, a.N}, x.scalar_type());
  a.out = out.mutable_data_ptr();
  run<cuda>(op, a, [](auto& s, auto pf) { typed_matmul_fwd(s, pf); });
  return out;
}

template <bool cuda>
Tensor typed_matmul_wgrad(Tensor x, Tensor grad, OptTensor scale, OptTensor, Tensor ptr, OptTensor types, OptTensor blocks, OptTensor block_rows,
                          OptTensor gptr, OptTensor gather, OptTensor scatter, OptTensor, OptTensor, OptTensor, OptTensor, OptTensor,
                          OptTensor, OptTensor, int64_t num_types) {
  const char* const op = "typed_matmul_wgrad";
  STRUCTOPS_CHECK(grad.dim() == 2 && num_types >= 0, op, ": grad must be [rows, N]");
  TypedArgs a = typed(op, x, scale, ptr, types, blocks, block_rows, gptr, gather, scatter, grad.size(0));
  a.R = num_types;
  a.N = grad.size(1);
  a.grad = matrix(op, "grad", grad, x, {a.rows, a.N});
  STRUCTOPS_CHECK(types || a.S == a.R, op, ": ", a.S, " segments for ", a.R, " types");
  Tensor out = new_empty(x, {a.R, a.K, a.N}, x.scalar_type());
  a.out = out.mutable_data_ptr();
  run<cuda>(op, a, [](auto& s, auto pf) { structops::typed_matmul_wgrad(s, pf); });
  return out;
}

EdgeMatmulArgs edges(const char* op, const Tensor& x, const Tensor& rowptr, const Tensor& col, const OptTensor& eid) {
  EdgeMatmulArgs a{};
  a.dtype = dtype_of(x);
  STRUCTOPS_CHECK(is_floating(a.dtype) && x.dim() == 2 && x.is_contiguous(), op, ": x must be a contiguous floating [M, I]");
  STRUCTOPS_CHECK(rowptr.dim() == 1 && rowptr.size(0) >= 1 && col.dim() == 1, op, ": rowptr must be [N + 1] and col [E]");
  a.M = x.size(0);
  a.I = x.size(1);
  a.x = x.const_data_ptr();
  a.N = rowptr.size(0) - 1;
  a.E = col.size(0);
  a.rowptr = index_of(rowptr);
  a.col = index_of(col);
  a.eid = list(op, "eid", eid, a.E);
  if (rowptr.is_cpu()) STRUCTOPS_CHECK(a.rowptr[0] == 0 && a.rowptr[a.N] == a.E, op, ": rowptr must run from 0 to the number of edges, ", a.E);
  return a;
}

void set_weight(const char* op, const Tensor& weight, const Tensor& x, EdgeMatmulArgs& a) {
  STRUCTOPS_CHECK(weight.dim() == 3, op, ": weight must be [K, I, O]");
  a.K = weight.size(0);
  a.O = weight.size(2);
  a.w = matrix(op, "weight", weight, x, {a.K, a.I, a.O});
}

template <bool cuda>
Tensor edge_matmul(Tensor x, Tensor h, Tensor weight, Tensor rowptr, Tensor col, OptTensor eid, OptTensor, OptTensor, OptTensor) {
  const char* const op = "edge_matmul";
  EdgeMatmulArgs a = edges(op, x, rowptr, col, eid);
  set_weight(op, weight, x, a);
  a.h = matrix(op, "h", h, x, {a.E, a.K});
  Tensor out = new_empty(x, {a.N, a.O}, x.scalar_type());
  a.out = out.mutable_data_ptr();
  run<cuda>(op, a, [](auto& s, auto pf) { edge_matmul_fwd(s, pf); });
  return out;
}

template <bool cuda>
Tensor edge_matmul_hgrad(Tensor x, Tensor y, Tensor weight, Tensor rowptr, Tensor col, OptTensor eid, OptTensor, OptTensor, OptTensor) {
  const char* const op = "edge_matmul_hgrad";
  EdgeMatmulArgs a = edges(op, x, rowptr, col, eid);
  set_weight(op, weight, x, a);
  a.y = matrix(op, "y", y, x, {a.N, a.O});
  Tensor out = new_empty(x, {a.E, a.K}, x.scalar_type());
  a.out = out.mutable_data_ptr();
  run<cuda>(op, a, [](auto& s, auto pf) { structops::edge_matmul_hgrad(s, pf); });
  return out;
}

template <bool cuda>
Tensor edge_matmul_wgrad(Tensor x, Tensor h, Tensor y, Tensor rowptr, Tensor col, OptTensor eid, OptTensor, OptTensor, OptTensor) {
  const char* const op = "edge_matmul_wgrad";
  EdgeMatmulArgs a = edges(op, x, rowptr, col, eid);
  STRUCTOPS_CHECK(h.dim() == 2 && y.dim() == 2, op, ": h must be [E, K] and y [N, O]");
  a.K = h.size(1);
  a.O = y.size(1);
  a.h = matrix(op, "h", h, x, {a.E, a.K});
  a.y = matrix(op, "y", y, x, {a.N, a.O});
  Tensor out = new_empty(x, {a.K, a.I, a.O}, x.scalar_type());
  a.out = out.mutable_data_ptr();
  run<cuda>(op, a, [](auto& s, auto pf) { structops::edge_matmul_wgrad(s, pf); });
  return out;
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("typed_matmul", TORCH_BOX(&typed_matmul<cuda>));
  m.impl("typed_matmul_wgrad", TORCH_BOX(&typed_matmul_wgrad<cuda>));
  m.impl("edge_matmul", TORCH_BOX(&edge_matmul<cuda>));
  m.impl("edge_matmul_hgrad", TORCH_BOX(&edge_matmul_hgrad<cuda>));
  m.impl("edge_matmul_wgrad", TORCH_BOX(&edge_matmul_wgrad<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
