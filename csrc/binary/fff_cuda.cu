// CUDA fast feed-forward networks: launch. The contract is fff.h, the algorithm is in fff.cuh.
#include "binary/fff.cuh"
#include "binary/quantize_cuda.h"

namespace structops::cuda {

void fff_descend(const DescendArgs& a, const CudaContext& ctx) {
  if (a.B == 0) return;
  with_float("fff_descend", a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    launch("fff_descend", ctx, fff_descend_rows<T>, blocks_for(a.B, kFffThreads / 32), kFffThreads, a);
  });
}

void fff_leaf(const LeafArgs& a, const CudaContext& ctx) {
  if (a.B == 0 || a.L == 0) return;
  with_float("fff_leaf", a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    const unsigned blocks = unsigned(a.B < 4096 ? a.B : 4096);
    launch("fff_leaf", ctx, fff_leaf_rows<T>, blocks, kFffThreads, a, scratch<Acc<T>>(ctx, blocks * (a.H ? a.H : 1)));
  });
}

void fff_leaf_bwd(const LeafArgs& a, const CudaContext& ctx) {
  if (a.L == 0) return;
  with_float("fff_leaf_bwd", a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    Acc<T>* const act = scratch<Acc<T>>(ctx, a.B * a.H);
    Acc<T>* const dh = scratch<Acc<T>>(ctx, a.B * a.H);
    launch("fff_leaf_bwd", ctx, fff_leaf_backward<T>, unsigned(a.L < 65536 ? a.L : 65536), kFffThreads, a, act, dh);
  });
}

}  // namespace structops::cuda
