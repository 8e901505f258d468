// Vector sin, cos and tanh for float and double, on core/vmath.h.
// sin: x = n pi + r, |r| <= pi/2, Taylor series of sin r, sign (-1)^n; cos: the same about odd multiples of pi/2. Within 4 units
// in the last place of max(|result|, eps |x|); vectors with a lane beyond the range take the C library's.
#pragma once
#include "core/vmath.h"

namespace structops::STRUCTOPS_ISA {

template <class A> struct TrigConst;
template <> struct TrigConst<float> {
  static constexpr float pi_hi = 3.140625f, pi_mid = 9.675025939941406e-4f, pi_lo = 1.5099580252808664e-07f, range = 1e4f;
  static constexpr int terms = 7;
};
template <> struct TrigConst<double> {
  static constexpr double pi_hi = 3.1415926534682512, pi_mid = 1.2154201012607932e-10, pi_lo = 4.044532497591901e-21, range = 1e5;
  static constexpr int terms = 12;
};

STRUCTOPS_INLINE float scalar_sin(float x) { return __builtin_sinf(x); }
STRUCTOPS_INLINE double scalar_sin(double x) { return __builtin_sin(x); }
STRUCTOPS_INLINE float scalar_cos(float x) { return __builtin_cosf(x); }
STRUCTOPS_INLINE double scalar_cos(double x) { return __builtin_cos(x); }

// (-1)^n sin(r), n the integer that magic rounding left in `shifted`.
template <class A> STRUCTOPS_INLINE Vec<A> signed_sine(Vec<A> r, Vec<A> shifted) {
  using C = TrigConst<A>;
  using I = Int<A>;
  A c[C::terms];
  c[0] = 1;
#pragma GCC unroll 16
  for (int i = 1; i < C::terms; ++i) c[i] = -c[i - 1] / A((2 * i) * (2 * i + 1));
  const Vec<A> r2 = r * r;
  Vec<A> p = splat(c[C::terms - 1]);
#pragma GCC unroll 16
  for (int i = C::terms - 2; i >= 1; --i) p = p * r2 + c[i];
  const Vec<A> s = r + r * (r2 * p);
  const Vec<I> odd = bitcast<Vec<I>>(shifted) << (8 * sizeof(A) - 1);
  return bitcast<Vec<A>>(bitcast<Vec<I>>(s) ^ odd);
}

template <class A> STRUCTOPS_INLINE bool out_of_range(Vec<A> x) {
  bool any = false;
  const auto far = (x > TrigConst<A>::range) | (x < -TrigConst<A>::range);
  for (int i = 0; i < W<A>; ++i) any |= far[i] != 0;
  return any;
}

template <class A> STRUCTOPS_INLINE Vec<A> vsin(Vec<A> x) {
  using C = TrigConst<A>;
  if (__builtin_expect(out_of_range<A>(x), 0)) {
    for (int i = 0; i < W<A>; ++i) x[i] = scalar_sin(x[i]);
    return x;
  }
  const Vec<A> shifted = x * A(0.31830988618379067154) + MathConst<A>::magic;
  const Vec<A> n = shifted - MathConst<A>::magic;
  return signed_sine<A>(((x - n * C::pi_hi) - n * C::pi_mid) - n * C::pi_lo, shifted);
}

template <class A> STRUCTOPS_INLINE Vec<A> vcos(Vec<A> x) {
  using C = TrigConst<A>;
  if (__builtin_expect(out_of_range<A>(x), 0)) {
    for (int i = 0; i < W<A>; ++i) x[i] = scalar_cos(x[i]);
    return x;
  }
  // cos x = sin(x + pi/2): with h = n - 1/2, x - h pi = r and cos x = (-1)^n sin r.
  const Vec<A> shifted = x * A(0.31830988618379067154) + A(0.5) + MathConst<A>::magic;
  const Vec<A> h = (shifted - MathConst<A>::magic) - A(0.5);
  return signed_sine<A>(((x - h * C::pi_hi) - h * C::pi_mid) - h * C::pi_lo, shifted);
}

// tanh x = x - x^3/3 + .. near 0, else (1 - e) / (1 + e), e = exp(-2 |x|).
template <class A> STRUCTOPS_INLINE Vec<A> vtanh(Vec<A> x) {
  const Vec<A> z = x < A(0) ? -x : x;
  const Vec<A> e = vexp<A>(z * A(-2));
  Vec<A> y = (A(1) - e) / (A(1) + e);
  const Vec<A> x2 = z * z;
  const Vec<A> series = z * (A(1) + x2 * (A(-1.0 / 3) + x2 * (A(2.0 / 15) + x2 * (A(-17.0 / 315) + x2 * (A(62.0 / 2835) + x2 * A(-1382.0 / 155925))))));
  y = z < A(0.05) ? series : y;
  return x < A(0) ? -y : y;
}

}  // namespace structops::STRUCTOPS_ISA
