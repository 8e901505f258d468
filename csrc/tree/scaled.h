// Scaled numbers m 2^e, m in [1, 2) or 0, e an integer beside it: the precision of A over an exponent range that no score
// leaves. Sums of products of exponentials need no exp and no log, and lose no digits to a large logarithm.
#pragma once
#include "core/vmath.h"

namespace structops::STRUCTOPS_ISA {

template <class A> struct ScaledConst;
// zero: the exponent of 0, so low that 0 times any number of a chart still counts for less than every other number.
// none: above every exponent a sum of three may have. max_score: larger scores leave the range (float: go to double; double: are clamped).
template <> struct ScaledConst<float> {
  static constexpr int32_t zero = -500000000, none = 600000000;
  static constexpr float max_score = 1e4f;
};
template <> struct ScaledConst<double> {
  static constexpr int64_t zero = -(int64_t(1) << 60), none = int64_t(1) << 61;
  static constexpr double max_score = 1e14;
};

template <class A> struct Scaled {
  Vec<A> m;
  Vec<Int<A>> e;
};

template <class A> STRUCTOPS_INLINE Vec<Int<A>> max_int(Vec<Int<A>> a, Vec<Int<A>> b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(A) == 4) return (Vec<Int<A>>)_mm512_max_epi32((__m512i)a, (__m512i)b);
  else return (Vec<Int<A>>)_mm512_max_epi64((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  if constexpr (sizeof(A) == 4) return (Vec<Int<A>>)_mm256_max_epi32((__m256i)a, (__m256i)b);
#endif
  return a > b ? a : b;
}

// 2^(d - bias), d at most a little above the bias; 0 for d <= 0. Callers take the bias off once, outside their loop.
template <class A> STRUCTOPS_INLINE Vec<A> pow2_biased(Vec<Int<A>> d) {
  return bitcast<Vec<A>>(max_int<A>(d, Vec<Int<A>>{}) << MathConst<A>::mantissa);
}

template <class A> STRUCTOPS_INLINE Scaled<A> scaled_zero() { return {Vec<A>{}, splat(ScaledConst<A>::zero)}; }

// Of a finite m >= 0.
template <class A> STRUCTOPS_INLINE Scaled<A> normalise(Scaled<A> x) {
  using C = MathConst<A>;
  using I = Int<A>;
  const Vec<I> bits = bitcast<Vec<I>>(x.m);
  const Vec<I> nonzero = x.m > A(0);
  const Vec<I> e = x.e + ((bits >> C::mantissa) - I(C::bias));
  const Vec<A> m = bitcast<Vec<A>>((bits & ((I(1) << C::mantissa) - 1)) | (I(C::bias) << C::mantissa));
  return {nonzero ? m : Vec<A>{}, nonzero ? e : splat(ScaledConst<A>::zero)};
}

template <class A> STRUCTOPS_INLINE Scaled<A> times(Scaled<A> x, Scaled<A> y) { return normalise<A>({x.m * y.m, x.e + y.e}); }

// e^x of a sanitised score: -inf or |x| <= max_score. Its m lies in [sqrt(1/2), sqrt(2)].
template <class A> STRUCTOPS_INLINE Scaled<A> exp_scaled(Vec<A> x) {
  using C = MathConst<A>;
  using I = Int<A>;
  const Vec<I> zero = x < -ScaledConst<A>::max_score;
  const Vec<A> safe = zero ? Vec<A>{} : x;
  const Vec<A> shifted = safe * C::log2e + C::magic;
  const Vec<A> n = shifted - C::magic;
  const Vec<A> p = exp_series<A>((safe - n * C::ln2_hi) - n * C::ln2_lo);
  const Vec<I> e = bitcast<Vec<I>>(shifted) - bitcast<Vec<I>>(splat(C::magic));
  return {zero ? Vec<A>{} : p, zero ? splat(ScaledConst<A>::zero) : e};
}

// A running sum of scaled numbers; with dual, also of their tangents (t: derivatives of logarithms) weighted by them.
template <class A, bool dual> struct ScaledSum {
  Vec<A> m{};
  Vec<Int<A>> e = splat(ScaledConst<A>::zero);
  Vec<A> t{};

  // term j: m[j] 2^e[j], tangent t[j].
  template <int n> [[gnu::always_inline]] void add(const Vec<A>* tm, const Vec<Int<A>>* te, const Vec<A>* tt) {
    Vec<Int<A>> top = e;
#pragma GCC unroll 4
    for (int j = 0; j < n; ++j) top = max_int<A>(top, te[j]);
    const Vec<Int<A>> zero = top - Int<A>(MathConst<A>::bias);
    const Vec<A> keep = pow2_biased<A>(e - zero);
    m *= keep;
    if constexpr (dual) t *= keep;
    e = top;
#pragma GCC unroll 4
    for (int j = 0; j < n; ++j) {
      const Vec<A> x = tm[j] * pow2_biased<A>(te[j] - zero);
      m += x;
      if constexpr (dual) t += x * tt[j];
    }
  }
  Scaled<A> value() const { return normalise<A>({m, e}); }
  Vec<A> tangent() const { return m > A(0) ? t / m : Vec<A>{}; }
};

// ln(m 2^e), of one lane.
template <class A> STRUCTOPS_INLINE double log_scaled(A m, Int<A> e) {
  return m > A(0) ? __builtin_log(double(m)) + double(e) * 0.693147180559945309417 : -__builtin_inf();
}

}  // namespace structops::STRUCTOPS_ISA
