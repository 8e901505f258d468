// CUDA masks: launch. The contract is mask.h, the algorithm is in mask.cuh.
#include "binary/mask.cuh"
#include "binary/quantize_cuda.h"

namespace structops::cuda {

void topk_mask(const TopkMaskArgs& a, const CudaContext& ctx) {
  if (a.n == 0) return;
  with_float("topk_mask", a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    const int64_t blocks = div_up(a.n, kMaskBlock);
    if (blocks > 0x7fffffff) throw std::runtime_error("topk_mask: too many scores for one CUDA grid");
    SelectState* const state = scratch<SelectState>(ctx, 1);
    unsigned long long* const hist = scratch<unsigned long long>(ctx, 256);
    long long* const ties = scratch<long long>(ctx, blocks);
    launch("topk_mask", ctx, mask_start, 1, 32, state, (long long)(a.keep), hist);
    for (int shift = 8 * int(sizeof(Acc<T>)) - 8; shift >= 0; shift -= 8) {
      launch("topk_mask", ctx, mask_histogram<T>, blocks_for(a.n, kMaskThreads), kMaskThreads, a, state, shift, hist);
      launch("topk_mask", ctx, mask_pick, 1, 32, state, shift, hist);
    }
    launch("topk_mask", ctx, mask_ties<T>, unsigned(blocks), kMaskThreads, a, state, ties);
    launch("topk_mask", ctx, mask_scan, 1, 32, ties, blocks);
    launch("topk_mask", ctx, mask_emit<T>, unsigned(blocks), kMaskThreads, a, state, ties);
  });
}

void mask_apply(const MaskApplyArgs& a, const CudaContext& ctx) {
  if (a.n == 0) return;
  with_float("mask_apply", a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    launch("mask_apply", ctx, mask_apply_elements<T>, blocks_for(a.n, kMaskThreads), kMaskThreads, a);
  });
}

}  // namespace structops::cuda
