// One kernel family for every quantizer: a forward function and a surrogate slope, chosen by enums, per element.
//
//   u = (x + shift[c]) gain[c]        y = scale[c] F(u)        dx = g S(u) gain[c] (scaled ? scale[c] : 1)
//
// x [outer, C, inner]; absent vectors are 0, 1, 1, the scale of prelu 0. Two forwards use their vectors otherwise:
//   prelu        y = (u > 0 ? u : scale[c] u) + extra[c]
//   tanh_levels  y = 2 round((tanh(u) scale[c] / 2 + 1/2) n) / n - 1
// ternary takes its threshold, and sign the limit of the slope clip, from extra[c] where given. round is to the nearest even integer.
//
//   F(u)   sign: +1, -1, zero at 0     heaviside: 1[u > 0], zero at 0     ternary: sign where |u| >= t (zero = 0: > t), else 0
//          levels: round(clamp(u, 0, 1) n) / n     hardtanh: clamp(u, -1, 1)     sine: sin(t u)     square: sign(sin(t u))
//   S(u)   identity: 1     clip: 1[|u| <= p]     clip_strict: 1[|u| < p]     box: 1[0 <= u <= p]     poly: max(0, 2 - 2 |u|)
//          swish: p (2 - p u tanh(p u / 2)) / (1 + cosh(p u))     bell: q p (1 - tanh(p u)^2)
//          fourier: 1[|u| <= 1] (4 p / pi) sum_{i = 0}^{terms} cos((2 i + 1) p u), in closed form     cosine: p cos(p u)
//          prelu: u > 0 ? 1 : scale[c]
// NaN: y is NaN; slopes that compare are 0, the others NaN.
//
// For backward a caller keeps x, or `codes`: code_bits in {1, 2, 4, 8} bits of the slope of every element, then, with
// save_sign, one bit 1[F(u) > 0]; element i is at bit i * code_bits (least significant first), either plane padded to bytes.
// A code is round(S / top * L): L = 2^bits - 1, or, for swish, fourier and cosine, which change sign, an offset code with
// L = 2^(bits - 1) - 1. One bit is exact for clip, clip_strict and box and is refused for slopes that
// change sign. The code of prelu is 1[u > 0] in any number of bits.
//
// bwd also gives, where wanted: d_shift[c] = sum dx, d_scale[c] = sum g F(u) (prelu: sum g min(u, 0); learned_step:
// sum g (F(u) - u S(u)), which needs x), d_extra[c] = sum g (prelu). The scale of tanh_levels is a constant. Sums of a fixed number of elements are added in order, in double.
// Sources: binary and low-bit networks as listed in pyops/binary/_quantizers.py.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

enum class Forward : int { identity, sign, heaviside, ternary, levels, hardtanh, sine, square, prelu, tanh_levels, count };
enum class Slope : int { identity, clip, clip_strict, box, poly, swish, bell, fourier, cosine, prelu, count };

struct QuantizeArgs {
  Dtype dtype;                // floating; vectors are of the accumulator's dtype
  Forward forward;
  Slope slope;
  int64_t numel, C, inner;    // numel = outer * C * inner
  double zero, t, p, q;
  int64_t terms;
  int code_bits;              // 0: no codes
  bool save_sign;
  bool scaled, learned_step;  // bwd
  const void* x;              // [outer, C, inner]; bwd: null where codes serve
  const void* grad;           // [outer, C, inner], bwd
  const void *shift, *gain, *scale, *extra;  // [C] or null
  const uint8_t* codes_in;    // bwd
  void* out;                  // [outer, C, inner]: y, or dx
  uint8_t* codes;             // [code_bytes], fwd
  void *d_shift, *d_scale, *d_extra;  // [C] or null, bwd, of the accumulator's dtype
};

constexpr bool changes_sign(Slope s) { return s == Slope::swish || s == Slope::fourier || s == Slope::cosine; }

inline double slope_top(const QuantizeArgs& a) {
  switch (a.slope) {
    case Slope::poly: return 2;
    case Slope::swish: return a.p;
    case Slope::bell: return a.q * a.p;
    case Slope::fourier: return 4 * a.p / 3.14159265358979323846 * double(a.terms + 1);
    case Slope::cosine: return a.p;
    default: return 1;
  }
}

inline int64_t code_bytes(int64_t numel, int bits) { return (numel * bits + 7) / 8; }

// out [5, C] of the accumulator's dtype, with v = x + shift[c]: sum v, sum |v|, sum v^2, max |v|, sum v y (0 without y).
struct ChannelStatsArgs {
  Dtype dtype;
  int64_t numel, C, inner;
  const void *x, *y;   // [outer, C, inner]; y may be null
  const void* shift;   // [C] or null
  void* out;           // [5, C]
};

void quantize_fwd(const QuantizeArgs& a, const ParallelFor& pf);
void quantize_bwd(const QuantizeArgs& a, const ParallelFor& pf);
void channel_stats(const ChannelStatsArgs& a, const ParallelFor& pf);

}  // namespace structops
