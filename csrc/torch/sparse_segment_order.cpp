// Registration of segment_order.
#include "sparse/cuda.h"
#include "sparse/segment_order.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

template <bool cuda> Tensor segment_order(Tensor src, Tensor rowptr, OptTensor rank, int64_t k, bool largest) {
  const Operand s = operand(src);
  SegmentOrderArgs a{};
  a.dtype = dtype_of(src);
  a.largest = largest;
  STRUCTOPS_CHECK(rowptr.dim() == 1 && rowptr.size(0) >= 1, "segment_order: rowptr must be [N + 1]");
  STRUCTOPS_CHECK(k >= 0, "segment_order: k must not be negative");
  a.B = s.B; a.N = rowptr.size(0) - 1; a.E = s.rows; a.F = s.F; a.K = k;
  a.rowptr = index_of(rowptr);
  a.rank = index_of(rank);
  STRUCTOPS_CHECK(!rank || (rank->dim() == 2 && rank->size(0) == a.N && rank->size(1) == k && a.rank.wide == a.rowptr.wide),
                  "segment_order: rank must be [N, k] in the dtype of rowptr");
  if (rowptr.is_cpu())
    STRUCTOPS_CHECK(a.rowptr[0] == 0 && a.rowptr[a.N] == a.E, "segment_order: rowptr must run from 0 to the number of rows of src");
  a.src = s.data;
  Tensor out = new_empty(src, shape(s.rank, a.B, a.N * a.K, a.F), rowptr.scalar_type());
  a.out = out.mutable_data_ptr();
  bool ok = true;
  launch<cuda>(src, a, [&](auto& s, auto pf) { ok = segment_order_fwd(s, pf); }, [](auto& s, auto ctx) { cuda::segment_order_fwd(s, ctx); });
  STRUCTOPS_CHECK(ok, "segment_order: not enough memory for scratch");
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { m.impl("segment_order", TORCH_BOX(&segment_order<false>)); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { m.impl("segment_order", TORCH_BOX(&segment_order<true>)); }

}  // namespace structops::torch_layer
