// Packed weights against activations that are not bits.
//
//   w1a8:   out[m, n] = base * sum_k x[m, k] + sum_p coef_p * sum_{k: bit k of b_pn} x[m, k]        int8 -> int32, exact, wraps
//   w1a16:  out[m, n] = base * sum_k x[m, k] + sum_p coef_p * sum_k (bit k of b_pn ? x : -x)[m, k]  floats -> float32
//
// With many rows of x the bits of a panel become bytes once for all of them, every plane in the same byte, and w1a8 is a product of
// bytes at the machine's rate for those, as torch._int_mm is. With few the bits are taken apart in registers: the weights read are
// an eighth.
//
// {-1, 1} weights: w1a8 coef 2, base -1; w1a16 coef 1, base 0. Ternary p - n: coef (1, -1); (1/2, -1/2). |out| < 2^31 for w1a8
// where K * 128 * (|base| + sum |coef|) is.
// w1a16 sums four neighbours at a time (one of 16 signed sums, looked up by four bits: the table of T-MAC, arXiv:2407.00088), then
// the fours in order of k. The order is the same on every instruction set.
#pragma once
#include "binary/gemm.h"

namespace structops {

struct BitsMixedArgs {
  Dtype dtype;  // w1a16: f32, bf16, f16 of x; w1a8 reads int8
  int64_t M, N, K, P;
  double coef[kMaxPlanes], base;
  const void* x;           // [M, K]
  const uint64_t* b;       // [P, N, W]
  const uint32_t* panels;  // bits_panels of b, or null
  void* out;               // [M, N] int32 or float32
};

void bits_w1a8(const BitsMixedArgs& a, const ParallelFor& pf);
void bits_w1a16(const BitsMixedArgs& a, const ParallelFor& pf);

}  // namespace structops
