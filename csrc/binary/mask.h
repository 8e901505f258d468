// Masks of the largest scores, in bits, and their use.
//
// topk_mask    bits[i] = 1 for the `keep` largest scores (of magnitudes, where asked); of equal scores the first are kept; NaN counts
//              as smaller than every number. Exactly `keep` bits are set. Radix select: no sort.
// mask_apply   y[i] = bits[i] ? x[i] : 0; its own gradient in x.
// Bits are bytes, least significant first, the last one padded with 0. Sources: arXiv:1911.13299, arXiv:2103.09377, arXiv:2303.15953.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

struct TopkMaskArgs {
  Dtype dtype;  // floating
  bool magnitude;
  int64_t n, keep;
  const void* score;  // [n]
  uint8_t* bits;      // [ceil(n / 8)]
};

struct MaskApplyArgs {
  Dtype dtype;  // floating
  int64_t n;
  const void* x;        // [n]
  const uint8_t* bits;  // [ceil(n / 8)]
  void* out;            // [n]
};

void topk_mask(const TopkMaskArgs& a, const ParallelFor& pf);
void mask_apply(const MaskApplyArgs& a, const ParallelFor& pf);

}  // namespace structops
