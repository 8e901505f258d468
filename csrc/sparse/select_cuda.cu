// CUDA select. The contract is select.h.
//
// bwd: a stable sort of the targets b*M*F + m*F + f, then spmm sums every target's run in order of n. No atomics, and a target
// that everything points to is cut like any hub. Cost: a radix sort of B*N*F pairs (32 bits, or 64 beyond 2^31 elements or
// targets), with scratch of six arrays of B*N*F and two of B*M*F.
#include "sparse/csr.cuh"
#include "sparse/cuda.h"
#include "sparse/select.cuh"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256;

template <class W> void gather(const SelectArgs& a, const CudaContext& ctx) {
  const int64_t total = a.B * a.N * a.F;
  launch("select_fwd", ctx, select_rows<W>, blocks_for(total, 4 * kThreads), kThreads, static_cast<const W*>(a.src), ref(a.idx),
         static_cast<W*>(a.out), total, a.N, a.M, a.F);
}

}  // namespace

void select_fwd(const SelectArgs& a, const CudaContext& ctx) {
  if (a.B == 0 || a.N == 0 || a.F == 0) return;
  switch (dtype_size(a.dtype)) {
    case 2: return gather<unsigned short>(a, ctx);
    case 4: return gather<unsigned>(a, ctx);
    default: return gather<unsigned long long>(a, ctx);
  }
}

void select_bwd(const SelectArgs& a, const CudaContext& ctx) {
  constexpr const char* op = "select_bwd";
  if (a.B == 0 || a.M == 0 || a.F == 0) return;
  const int64_t size = dtype_size(a.dtype), E = a.B * a.N * a.F, outputs = a.B * a.M * a.F;
  if (E == 0) {
    check(op, cudaMemsetAsync(a.out, 0, size_t(outputs * size), stream_of(ctx)));
    return;
  }
  const bool wide = E >> 31 || (outputs + 1) >> 31;
  const int64_t item = wide ? 8 : 4;
  void* const key = scratch<char>(ctx, E * item);
  void* const rowptr = scratch<char>(ctx, (outputs + 2) * item);
  void* const perm = scratch<char>(ctx, E * item);
  void* const sums = scratch<char>(ctx, (outputs + 1) * size);  // the last one collects what points outside
  const unsigned blocks = blocks_for(E, kThreads);
  const auto targets = [&](auto* k) {
    launch(op, ctx, select_targets<Pointee<decltype(k)>>, blocks, kThreads, ref(a.idx), k, E, a.N, a.M, a.F);
  };
  if (wide) targets(static_cast<int64_t*>(key)); else targets(static_cast<int32_t*>(key));
  csr_sort(op, csr_args({key, wide}, E, outputs + 1, rowptr, perm), ctx);

  SpmmArgs s{};
  s.dtype = a.dtype;
  s.message = Message::copy_e;
  s.reduce = Reduce::sum;
  s.B = 1;
  s.N = outputs + 1;
  s.E = E;
  s.F = 1;
  s.e = a.src;
  s.Fe = 1;
  s.rowptr = {rowptr, wide};
  s.eid = {perm, wide};
  s.out = sums;
  spmm_fwd(s, ctx);
  check(op, cudaMemcpyAsync(a.out, sums, size_t(outputs * size), cudaMemcpyDeviceToDevice, stream_of(ctx)));
}

}  // namespace structops::cuda
