// Vector exp and log for float and double, within 2 units in the last place of the exact value over the normal range.
// exp: x = n ln2 + r, |r| <= ln2/2, Taylor series of e^r, scaled by 2^n in two steps so that subnormal results are right. Arguments
// are clamped to where the result has become infinite or 0; the clamp keeps NaN, which the products then spread.
// log: x = 2^n m, m in [sqrt(1/2), sqrt(2)), log m = 2 artanh((m-1)/(m+1)).
#pragma once
#include "core/simd.h"

namespace structops::STRUCTOPS_ISA {

template <class A> struct MathConst;
template <> struct MathConst<float> {
  static constexpr float magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to the nearest integer
  static constexpr float log2e = 1.44269504088896341f, ln2_hi = 0.693359375f, ln2_lo = -2.12194440e-4f;
  static constexpr float exp_hi = 89.f, exp_lo = -104.f, exp_normal = -87.3f;
  static constexpr int exp_terms = 7, log_terms = 6, mantissa = 23, bias = 127;
};
template <> struct MathConst<double> {
  static constexpr double magic = 6755399441055744.0;
  static constexpr double log2e = 1.44269504088896340736, ln2_hi = 6.93145751953125e-1, ln2_lo = 1.42860682030941723212e-6;
  static constexpr double exp_hi = 710.0, exp_lo = -746.0, exp_normal = -708.3;
  static constexpr int exp_terms = 13, log_terms = 13, mantissa = 52, bias = 1023;
};

// e^r for |r| <= ln2/2.
template <class A> STRUCTOPS_INLINE Vec<A> exp_series(Vec<A> r) {
  using C = MathConst<A>;
  A inv[C::exp_terms + 1];
  inv[0] = 1;
#pragma GCC unroll 16
  for (int i = 1; i <= C::exp_terms; ++i) inv[i] = inv[i - 1] / A(i);
  Vec<A> p = splat(inv[C::exp_terms]);
#pragma GCC unroll 16
  for (int i = C::exp_terms - 1; i >= 0; --i) p = p * r + inv[i];
  return p;
}

// x = n ln2 + r as e^r and the bits of n + magic, for x clamped to [low, exp_hi].
template <class A> struct ExpParts { Vec<A> p, n; };

template <class A> STRUCTOPS_INLINE ExpParts<A> exp_parts(Vec<A> x, A low) {
  using C = MathConst<A>;
  x = x > C::exp_hi ? splat(C::exp_hi) : x;
  x = x < low ? splat(low) : x;
  const Vec<A> shifted = x * C::log2e + C::magic;
  const Vec<A> n = shifted - C::magic;
  return {exp_series<A>((x - n * C::ln2_hi) - n * C::ln2_lo), shifted};
}

template <class A> STRUCTOPS_INLINE Vec<A> vexp(Vec<A> x) {
  using C = MathConst<A>;
  using I = Int<A>;
  using VI = Vec<I>;
  const ExpParts<A> e = exp_parts<A>(x, C::exp_lo);
  const VI n = bitcast<VI>(e.n) - bitcast<I>(C::magic), half = n >> 1;
  const Vec<A> p = x < C::exp_lo ? Vec<A>{} : e.p;  // exp(-inf) by underflow would cost more than all else here
  return p * bitcast<Vec<A>>((half + I(C::bias)) << C::mantissa) * bitcast<Vec<A>>((n - half + I(C::bias)) << C::mantissa);
}

// 1 / (1 + e^-z): one scaling is enough beside 1. Subnormal results are 0.
template <class A> STRUCTOPS_INLINE Vec<A> vsigmoid(Vec<A> z) {
  using C = MathConst<A>;
  using I = Int<A>;
  using VI = Vec<I>;
  const ExpParts<A> e = exp_parts<A>(-z, C::exp_normal);
  return A(1) / (A(1) + e.p * bitcast<Vec<A>>((bitcast<VI>(e.n) + (I(C::bias) - bitcast<I>(C::magic))) << C::mantissa));
}

// For x in the normal range, +inf, 0 (gives -inf); NaN otherwise.
template <class A> STRUCTOPS_INLINE Vec<A> vlog(Vec<A> x) {
  using C = MathConst<A>;
  using I = Int<A>;
  using VI = Vec<I>;
  const VI bits = bitcast<VI>(x);
  const I frac_mask = (I(1) << C::mantissa) - 1;
  VI e = (bits >> C::mantissa) - I(C::bias);
  Vec<A> m = bitcast<Vec<A>>((bits & frac_mask) | (I(C::bias) << C::mantissa));
  const VI high = m > A(1.41421356237309504880);
  m = high ? m * A(0.5) : m;
  e = high ? e + I(1) : e;
  const Vec<A> s = (m - A(1)) / (m + A(1)), s2 = s * s;
  Vec<A> p = splat(A(1) / A(2 * C::log_terms - 1));
#pragma GCC unroll 16
  for (int i = C::log_terms - 2; i >= 1; --i) p = p * s2 + A(1) / A(2 * i + 1);
  const Vec<A> en = __builtin_convertvector(e, Vec<A>);
  const Vec<A> two_s = s + s;
  Vec<A> y = en * C::ln2_hi + (two_s + (two_s * s2 * p + en * C::ln2_lo));
  y = x == A(INFINITY) ? x : y;
  y = x == A(0) ? splat(A(-INFINITY)) : y;
  return (x < A(0)) | (x != x) ? splat(A(NAN)) : y;
}

}  // namespace structops::STRUCTOPS_ISA
