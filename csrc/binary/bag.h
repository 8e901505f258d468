// Bags of rows of a packed table, reduced straight from the bits.
//
//   n = offsets[v + 1] - offsets[v],  count[v, k] = sum over e in [offsets[v], offsets[v + 1]) of bit k of table[index[e]]
//   sum   out[v, k] = zero * n + (one - zero) * count
//   mean  the sum, rounded to float32, divided by n
//   max   the larger of the values in the bag
//
// zero and one are what the bits stand for: -1 and 1, 1 and -1 (polarity -1), 0 and 1. An empty bag gives 0. Counts are int32 and
// exact, and so are sums below 2^24; the mean is one rounded division. The result is the same on every instruction set and device.
//
// The caller guarantees offsets from 0 to E that do not decrease, index within the table and padding bits 0.
// Source: torch.nn.functional.embedding_bag for the modes; carry-save counters of Harley and Seal (Hacker's Delight, 5-1).
#pragma once
#include "binary/bits.h"

namespace structops {

enum class BagReduce : int { sum, mean, max };

struct BitsBagArgs {
  BagReduce reduce;
  int32_t zero, one;
  int64_t B, E, K;
  Index offsets, index;   // [B + 1], [E]
  const uint64_t* table;  // [N, ceil(K / 64)]
  float* out;             // [B, K]
};

void bits_bag(const BitsBagArgs& a, const ParallelFor& pf);

}  // namespace structops
