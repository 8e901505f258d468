// Products of packed bits, as matrices and as convolutions, with what follows a binary layer fused to them.
//
//   dot[m, n] = (base + row * popcount(a_m) + sum_p (coef_p * popcount(a_m ^ b_pn) + col_p * popcount(b_pn))) >> halve
//
// One form serves every pair of operands (x in a, w in b; the planes of w are b_p):
//   {-1,1} x {-1,1}      base K, coef -2                    {0,1} x {-1,1}   coef -1, col 1
//   {-1,1} x {0,1}       row 1, coef -1                     {0,1} x {0,1}    row 1, coef -1, col 1, halve
//   {-1,1} x (p - n)     coef (-1, 1)                       Hamming          coef 1
//   {-1,1} x sum c_p s_p, s in {-1,1}: base K sum c_p, coef -2 c_p
// Sums are int32 and wrap, so dot is exact wherever it fits: K sum |c_p| <= 2^31 - 1 (2^30 - 1 with halve).
//
// A convolution is the product over taps: row m is an output pixel (b, oh, ow), column n a filter of group g, bit k the channel
// c of tap (i, j), k = (i * kw + j) * Cg + c, joined without gaps. One plane, row = col = halve = 0. Padding taps count as bit 0,
// as bit 1, or not at all (pad = zero: exact, the mean of the two).
//
// Then, in this order and only what is given, in float32 with every step rounded:
//   bits = (dot >= threshold[n]) ^ flip[n]                                     (an integer threshold ends it), or
//   y = dot * scale[n] + bias[n] + residual[m, n];  t = y + gamma[n];  y = (t > 0 ? t : slope[n] * t) + zeta[n]
//   stored as int32 (dot alone), float32, bfloat16, float16, or bits (y + shift[n] >= 0), packed along n.
// Sources: XNOR-Net (arXiv:1603.05279), ReActNet (arXiv:2003.03488) for shift, gamma, slope and zeta, daBNN/LCE for thresholds.
#pragma once
#include "binary/bits.h"

namespace structops {

constexpr int kMaxPlanes = 8;

enum class BitsOut : int { i32, f32, bf16, f16, bits };
enum class BitsPad : int { zero, bit0, bit1 };

struct BitsEpilogue {
  BitsOut out = BitsOut::i32;
  Dtype residual_dtype = Dtype::f32;      // f32, bf16, f16
  const float *scale = nullptr, *bias = nullptr;                              // [N] each, or null
  const void* residual = nullptr;                                             // [M, N]
  const float *gamma = nullptr, *slope = nullptr, *zeta = nullptr;            // [N]
  const float* shift = nullptr;                                               // [N]
  const int32_t *threshold = nullptr, *flip = nullptr;                        // [N]; flip is 0 or -1
  void* data = nullptr;                                                       // [M, N], or [M, ceil(N / 64)] words
};

struct BitsWindow {  // of a convolution; all 1 or 0 for a matrix
  int64_t H = 1, W = 1, OH = 1, OW = 1;
  int64_t kh = 1, kw = 1, sh = 1, sw = 1, ph = 0, pw = 0, dh = 1, dw = 1;
  BitsPad pad = BitsPad::zero;

  // Whether some window reaches beyond the image.
  bool reaches_out() const {
    return ph > 0 || pw > 0 || (OH - 1) * sh + (kh - 1) * dh >= H + ph || (OW - 1) * sw + (kw - 1) * dw >= W + pw;
  }
};

struct BitsGemmArgs {
  bool conv;
  bool batched;     // the groups are matrices of their own: a [G, M, W], result [G, M, N]; parameters [N] are shared
  int64_t M, N, K;  // N: columns of one group; K: bits of a row, taps * channels of a group
  int64_t P, G;
  int32_t coef[kMaxPlanes], col[kMaxPlanes];
  int32_t row, base;
  bool halve;
  BitsWindow win;
  const uint64_t* a;       // [M, W], or the image [B, H, W, ceil(G Cg / 64)]
  const uint64_t* b;       // [P, G N, W]
  const uint32_t* panels;  // bits_panels of b [P G, N, W]; null: made here (CUDA does not read it)
  const int32_t* taps;     // [kh kw, G N] popcounts of the taps of b; null: made here, where pad = zero needs it
  BitsEpilogue e;
};

void bits_gemm(const BitsGemmArgs& a, const ParallelFor& pf);

}  // namespace structops
