// Device numbers m 2^e: the scalar counterpart of scaled.h, with the same names. Vec<A> is A.
#pragma once
#include "core/cuda/device.cuh"

namespace structops::cuda {

template <class A> using Vec = A;
template <class A> struct IntOf { using type = int32_t; };
template <> struct IntOf<double> { using type = int64_t; };
template <class A> using Int = typename IntOf<A>::type;

template <class A> STRUCTOPS_DEVICE A splat(A a) { return a; }
template <class To, class From> STRUCTOPS_DEVICE To bitcast(From v) {
  static_assert(sizeof(To) == sizeof(From));
  To r;
  memcpy(&r, &v, sizeof r);
  return r;
}

template <class A> struct MathConst;
template <> struct MathConst<float> {
  static constexpr int mantissa = 23, bias = 127;
};
template <> struct MathConst<double> {
  static constexpr int mantissa = 52, bias = 1023;
};

template <class A> struct ScaledConst;
template <> struct ScaledConst<float> {
  static constexpr int32_t zero = -500000000, none = 600000000;
  static constexpr float max_score = 1e4f;
};
template <> struct ScaledConst<double> {
  static constexpr int64_t zero = -(int64_t(1) << 60), none = int64_t(1) << 61;
  static constexpr double max_score = 1e14;
};

template <class A> struct Scaled {
  A m;
  Int<A> e;
};

template <class A> STRUCTOPS_DEVICE Int<A> max_int(Int<A> a, Int<A> b) { return a > b ? a : b; }
template <class A> STRUCTOPS_DEVICE A pow2_biased(Int<A> d) { return bitcast<A>(max_int<A>(d, 0) << MathConst<A>::mantissa); }

template <class A> STRUCTOPS_DEVICE Scaled<A> normalise(Scaled<A> x) {
  using C = MathConst<A>;
  using I = Int<A>;
  if (!(x.m > A(0))) return {A(0), ScaledConst<A>::zero};
  const I bits = bitcast<I>(x.m);
  return {bitcast<A>((bits & ((I(1) << C::mantissa) - 1)) | (I(C::bias) << C::mantissa)), I(x.e + ((bits >> C::mantissa) - I(C::bias)))};
}
template <class A> STRUCTOPS_DEVICE Scaled<A> times(Scaled<A> x, Scaled<A> y) { return normalise<A>({x.m * y.m, x.e + y.e}); }

// e^x of a sanitised score. The argument of exp is reduced in double: |x| may be large.
template <class A> STRUCTOPS_DEVICE Scaled<A> exp_scaled(A x) {
  if (x < -ScaledConst<A>::max_score) return {A(0), ScaledConst<A>::zero};
  const double n = rint(double(x) * 1.44269504088896340736);
  const double r = (double(x) - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6;
  return {sizeof(A) == 4 ? A(expf(float(r))) : A(exp(r)), Int<A>(n)};
}

template <class A, bool dual> struct ScaledSum {
  A m = 0, t = 0;
  Int<A> e = ScaledConst<A>::zero;
  template <int n> STRUCTOPS_DEVICE void add(const A* tm, const Int<A>* te, const A* tt) {
    Int<A> top = e;
#pragma unroll
    for (int j = 0; j < n; ++j) top = max_int<A>(top, te[j]);
    const Int<A> zero = top - Int<A>(MathConst<A>::bias);
    const A keep = pow2_biased<A>(e - zero);
    m *= keep;
    if constexpr (dual) t *= keep;
    e = top;
#pragma unroll
    for (int j = 0; j < n; ++j) {
      const A x = tm[j] * pow2_biased<A>(te[j] - zero);
      m += x;
      if constexpr (dual) t += x * tt[j];
    }
  }
  STRUCTOPS_DEVICE Scaled<A> value() const { return normalise<A>({m, e}); }
  STRUCTOPS_DEVICE A tangent() const { return m > A(0) ? t / m : A(0); }
};

template <class A> STRUCTOPS_DEVICE double log_scaled(A m, Int<A> e) {
  return m > A(0) ? log(double(m)) + double(e) * 0.693147180559945309417 : -__longlong_as_double(0x7ff0000000000000ll);
}

}  // namespace structops::cuda
