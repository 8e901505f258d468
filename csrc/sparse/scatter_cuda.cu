// CUDA scatter: a stable sort of the index, then spmm with copy_e over the sorted positions. The contract is scatter.h.
// Edges of a group keep the order of e, so sums and the winners of ties do not depend on the device.
#include "sparse/csr.cuh"
#include "sparse/cuda.h"

namespace structops::cuda {
namespace {

__global__ void widen_index(const int32_t* index, int64_t E, int64_t* out) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < E; i += int64_t(gridDim.x) * blockDim.x) out[i] = index[i];
}

}  // namespace

bool scatter_fwd(const ScatterArgs& a, const CudaContext& ctx) {
  constexpr const char* op = "scatter_fwd";
  if (!csr_in_range(op, a.index, a.E, a.N, ctx)) return false;
  if (a.B == 0 || a.N == 0 || a.F == 0) return true;
  Index index = a.index;
  if (!index.wide && (a.arg || a.E >> 31)) {  // arg is int64, and spmm writes it in the type of rowptr
    int64_t* const wide = scratch<int64_t>(ctx, a.E);
    if (a.E) launch(op, ctx, widen_index, blocks_for(a.E, 256), 256, static_cast<const int32_t*>(a.index.data), a.E, wide);
    index = {wide, true};
  }
  const int64_t item = index.wide ? 8 : 4;
  void* const rowptr = scratch<char>(ctx, (a.N + 1) * item);
  void* const perm = scratch<char>(ctx, a.E * item);
  csr_sort(op, csr_args(index, a.E, a.N, rowptr, perm), ctx);

  SpmmArgs s{};
  s.dtype = a.dtype;
  s.message = Message::copy_e;
  s.reduce = a.reduce;
  s.arg_kind = a.arg ? ArgKind::edge : ArgKind::none;
  s.skip_nan = a.skip_nan;
  s.fill = a.fill;
  s.B = a.B;
  s.N = a.N;
  s.E = a.E;
  s.F = a.F;
  s.e = a.src;
  s.Fe = a.F;
  s.e_batch = a.E * a.F;
  s.rowptr = {rowptr, index.wide};
  s.eid = {perm, index.wide};
  s.out = a.out;
  s.arg = a.arg;
  spmm_fwd(s, ctx);
  return true;
}

}  // namespace structops::cuda
