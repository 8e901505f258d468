// CUDA block-sparse products: launch. The contract is block_spmm.h, the kernels are in block_spmm.cuh.
#include "sparse/block_spmm.cuh"
#include "sparse/cuda.h"

namespace structops::cuda {

void block_spmm_fwd(const BlockSpmmArgs& a, const CudaContext& ctx) {
  BlockParams p{};
  p.a = a.x; p.b = a.blocks; p.diag = a.diag; p.out = a.out;
  p.rowptr = ref(a.rowptr); p.col = ref(a.col); p.eid = ref(a.eid);
  p.N = a.N; p.Nu = a.Nu; p.E = a.E; p.p = a.p; p.q = a.q; p.r = a.f;
  p.alpha = a.alpha;
  p.transpose = a.transpose;
  p.batch_first = a.batch_first;
  const int64_t total = a.N * a.p * a.f;
  if (total == 0) return;
  with_float("block_spmm", a.dtype, [&](auto* t) {
    launch("block_spmm", ctx, block_product<Pointee<decltype(t)>>, dim3(blocks_for(total, kBlockThreads)), kBlockThreads, p);
  });
}

void block_sddmm_fwd(const BlockSddmmArgs& a, const CudaContext& ctx) {
  BlockParams p{};
  p.a = a.lhs; p.b = a.rhs; p.out = a.out;
  p.rowptr = ref(a.rowptr); p.col = ref(a.col); p.eid = ref(a.eid);
  p.N = a.N; p.Nu = a.Nu; p.E = a.E; p.p = a.p; p.q = a.q; p.r = a.f;
  p.alpha = a.alpha;
  p.transpose = a.transpose;
  p.batch_first = a.batch_first;
  const int64_t total = a.E * a.p * a.q;
  if (total == 0) return;
  with_float("block_sddmm", a.dtype, [&](auto* t) {
    launch("block_sddmm", ctx, block_outer<Pointee<decltype(t)>>, dim3(blocks_for(total, kBlockThreads)), kBlockThreads, p);
  });
}

void block_matmul_fwd(const BlockMatmulArgs& a, const CudaContext& ctx) {
  BlockParams p{};
  p.a = a.a; p.b = a.b; p.out = a.out;
  p.pair = ref(a.pair);
  p.E = a.E; p.p = a.p; p.q = a.q; p.r = a.r;
  p.pair_a = a.pair_a; p.pair_b = a.pair_b;
  p.transpose_a = a.transpose_a; p.transpose_b = a.transpose_b;
  const int64_t total = a.E * a.p * a.q;
  if (total == 0) return;
  with_float("block_matmul", a.dtype, [&](auto* t) {
    launch("block_matmul", ctx, block_small<Pointee<decltype(t)>>, dim3(blocks_for(total, kBlockThreads)), kBlockThreads, p);
  });
}

}  // namespace structops::cuda
