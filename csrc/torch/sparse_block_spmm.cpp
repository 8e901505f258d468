// Registration of the block-sparse products: check, allocate, launch.
#include "sparse/cuda.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

// The checked structure of N rows and E edges; reading the ends of rowptr is free on the CPU only.
template <class Args>
void set_structure(const char* op, Args& a, const Tensor& rowptr, const OptTensor& col, const OptTensor& eid, int64_t E) {
  STRUCTOPS_CHECK(rowptr.dim() == 1 && rowptr.size(0) >= 1, op, ": rowptr must be [N + 1]");
  STRUCTOPS_CHECK((!col || (col->dim() == 1 && col->size(0) == E)) && (!eid || (eid->dim() == 1 && eid->size(0) == E)), op,
                  ": col and eid must be [E]");
  a.rowptr = index_of(rowptr);
  a.col = index_of(col);
  a.eid = index_of(eid);
  STRUCTOPS_CHECK((!a.col || a.col.wide == a.rowptr.wide) && (!a.eid || a.eid.wide == a.rowptr.wide), op, ": mixed index dtypes");
  a.N = rowptr.size(0) - 1;
  a.E = E;
  if (rowptr.is_cpu()) STRUCTOPS_CHECK(a.rowptr[0] == 0 && a.rowptr[a.N] == E, op, ": rowptr must run from 0 to the number of edges, ", E);
}

const void* block_data(const char* op, const Tensor& t, const Tensor& like) {
  STRUCTOPS_CHECK(t.dim() == 3 && t.is_contiguous(), op, ": operands are contiguous [rows, ., .]");
  STRUCTOPS_CHECK(t.scalar_type() == like.scalar_type() && is_floating(dtype_of(t)), op, ": operands of one floating dtype");
  return t.const_data_ptr();
}

template <bool cuda>
Tensor block_spmm(Tensor x, Tensor blocks, OptTensor diag, Tensor rowptr, OptTensor col, OptTensor eid, OptTensor, OptTensor, OptTensor,
                  double alpha, bool transpose, bool batch_first) {
  BlockSpmmArgs a{};
  a.x = block_data("block_spmm", x, x);
  a.blocks = block_data("block_spmm", blocks, x);
  a.dtype = dtype_of(x);
  a.transpose = transpose;
  a.alpha = alpha;
  a.p = blocks.size(transpose ? 2 : 1);
  a.q = blocks.size(transpose ? 1 : 2);
  a.batch_first = batch_first;
  a.f = x.size(batch_first ? 0 : 2);
  a.Nu = x.size(batch_first ? 1 : 0);
  STRUCTOPS_CHECK(x.size(batch_first ? 2 : 1) == a.q, "block_spmm: x must have ", a.q, " numbers for the columns of a block");
  set_structure("block_spmm", a, rowptr, col, eid, blocks.size(0));
  if (diag) {
    a.diag = block_data("block_spmm", *diag, x);
    STRUCTOPS_CHECK(diag->size(0) == a.N && a.Nu == a.N && diag->size(1) == blocks.size(1) && diag->size(2) == blocks.size(2),
                    "block_spmm: diag must be [N, ., .] with the blocks' sizes, and x have N rows");
  }
  STRUCTOPS_CHECK(col || a.Nu == a.E, "block_spmm: x must have a row for every edge");
  Tensor out = batch_first ? new_empty(x, {a.f, a.N, a.p}, x.scalar_type()) : new_empty(x, {a.N, a.p, a.f}, x.scalar_type());
  a.out = out.mutable_data_ptr();
  launch<cuda>(x, a, [](auto& s, auto pf) { block_spmm_fwd(s, pf); }, [](auto& s, auto ctx) { cuda::block_spmm_fwd(s, ctx); });
  return out;
}

template <bool cuda>
Tensor block_sddmm(Tensor lhs, Tensor rhs, Tensor rowptr, OptTensor col, OptTensor eid, OptTensor, OptTensor, OptTensor,
                   int64_t num_edges, double alpha, bool transpose, bool batch_first) {
  BlockSddmmArgs a{};
  STRUCTOPS_CHECK(num_edges >= 0, "block_sddmm: num_edges must not be negative");
  a.lhs = block_data("block_sddmm", lhs, lhs);
  a.rhs = block_data("block_sddmm", rhs, lhs);
  a.dtype = dtype_of(lhs);
  a.transpose = transpose;
  a.alpha = alpha;
  a.batch_first = batch_first;
  const int rows = batch_first ? 1 : 0, batch = batch_first ? 0 : 2;
  a.p = lhs.size(rows + 1);
  a.q = rhs.size(rows + 1);
  a.f = lhs.size(batch);
  a.Nu = rhs.size(rows);
  STRUCTOPS_CHECK(rhs.size(batch) == a.f, "block_sddmm: lhs and rhs differ in features");
  set_structure("block_sddmm", a, rowptr, col, eid, num_edges);
  STRUCTOPS_CHECK(lhs.size(rows) == a.N && (col || a.Nu == a.E), "block_sddmm: lhs must have N rows, rhs one for every edge");
  Tensor out = new_empty(lhs, {a.E, transpose ? a.q : a.p, transpose ? a.p : a.q}, lhs.scalar_type());
  a.out = out.mutable_data_ptr();
  launch<cuda>(lhs, a, [](auto& s, auto pf) { block_sddmm_fwd(s, pf); }, [](auto& s, auto ctx) { cuda::block_sddmm_fwd(s, ctx); });
  return out;
}

template <bool cuda>
Tensor block_matmul(Tensor x, Tensor y, OptTensor pair, bool pair_a, bool pair_b, bool transpose_a, bool transpose_b) {
  BlockMatmulArgs a{};
  a.a = block_data("block_matmul", x, x);
  a.b = block_data("block_matmul", y, x);
  a.dtype = dtype_of(x);
  a.pair_a = pair_a;
  a.pair_b = pair_b;
  a.transpose_a = transpose_a;
  a.transpose_b = transpose_b;
  a.E = x.size(0);
  a.p = x.size(transpose_a ? 2 : 1);
  a.r = x.size(transpose_a ? 1 : 2);
  a.q = y.size(transpose_b ? 1 : 2);
  a.pair = index_of(pair);
  STRUCTOPS_CHECK(y.size(0) == a.E && y.size(transpose_b ? 2 : 1) == a.r, "block_matmul: sizes of a and b do not match");
  STRUCTOPS_CHECK(pair ? pair->dim() == 1 && pair->size(0) == a.E : !pair_a && !pair_b, "block_matmul: pair must be [E]");
  Tensor out = new_empty(x, {a.E, a.p, a.q}, x.scalar_type());
  a.out = out.mutable_data_ptr();
  launch<cuda>(x, a, [](auto& s, auto pf) { block_matmul_fwd(s, pf); }, [](auto& s, auto ctx) { cuda::block_matmul_fwd(s, ctx); });
  return out;
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("block_spmm", TORCH_BOX(&block_spmm<cuda>));
  m.impl("block_sddmm", TORCH_BOX(&block_sddmm<cuda>));
  m.impl("block_matmul", TORCH_BOX(&block_matmul<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
