// Device numbers of the elimination kernels: the scalar counterpart of extended.h.
#pragma once
#include "core/cuda/device.cuh"

namespace structops::cuda {

constexpr double kZeroExponent = -0x1p60;

template <bool ext_, bool dual_> struct Num {
  static constexpr bool ext = ext_, dual = dual_;
  static constexpr int planes = 1 + dual + ext;
  double m, d, e;  // value or mantissa in [1, 2), tangent, exponent
};

STRUCTOPS_DEVICE double infinity() { return __longlong_as_double(0x7ff0000000000000ll); }
STRUCTOPS_DEVICE double not_a_number() { return __longlong_as_double(0x7ff8000000000000ll); }
STRUCTOPS_DEVICE long long bits_of(double x) {
  long long i;
  memcpy(&i, &x, sizeof i);
  return i;
}

// 2^x of integers x <= 0; 0 below the normal range.
STRUCTOPS_DEVICE double pow2(double x) { return x < -1022.0 ? 0.0 : __longlong_as_double((static_cast<long long>(x) + 1023) << 52); }

template <class N> STRUCTOPS_DEVICE N zero() { return N{0, 0, kZeroExponent}; }

template <class N> STRUCTOPS_DEVICE N normalised(N a) {
  if constexpr (N::ext) {
    if (a.m == 0) return zero<N>();
    const long long field = bits_of(a.m) >> 52;
    const double scale = __longlong_as_double((2046 - field) << 52);
    a.e += double(field - 1023);
    a.m *= scale;
    if constexpr (N::dual) a.d *= scale;
  }
  return a;
}

template <class N> STRUCTOPS_DEVICE N mul(const N& a, const N& b) {
  N r{a.m * b.m, 0, 0};
  if constexpr (N::dual) r.d = a.m * b.d + a.d * b.m;
  if constexpr (N::ext) r.e = a.e + b.e;
  return normalised(r);
}

// c + a b
template <class N> STRUCTOPS_DEVICE N fma(const N& c, const N& a, const N& b) {
  N r{0, 0, 0};
  if constexpr (N::ext) {
    const double pe = a.e + b.e;
    r.e = c.e > pe ? c.e : pe;
    const double sc = pow2(c.e - r.e), sp = pow2(pe - r.e);
    r.m = c.m * sc + a.m * b.m * sp;
    if constexpr (N::dual) r.d = c.d * sc + (a.m * b.d + a.d * b.m) * sp;
    return normalised(r);
  } else {
    r.m = c.m + a.m * b.m;
    if constexpr (N::dual) r.d = c.d + (a.m * b.d + a.d * b.m);
    return r;
  }
}

template <class N> STRUCTOPS_DEVICE N add(const N& a, const N& b) { return fma(a, b, N{1, 0, 0}); }

template <class N> STRUCTOPS_DEVICE N reciprocal(const N& a) {  // a > 0
  N r{1.0 / a.m, 0, 0};
  if constexpr (N::dual) r.d = -(a.d * r.m) * r.m;
  if constexpr (N::ext) r.e = -a.e;
  return normalised(r);
}

template <class N> STRUCTOPS_DEVICE N warp_sum(N a) {  // in every lane, in a fixed order
#pragma unroll
  for (int w = 16; w >= 1; w /= 2) {
    N other{__shfl_xor_sync(kFull, a.m, w), 0, 0};
    if constexpr (N::dual) other.d = __shfl_xor_sync(kFull, a.d, w);
    if constexpr (N::ext) other.e = __shfl_xor_sync(kFull, a.e, w);
    a = add(a, other);
  }
  return a;
}

// A matrix of Num, plane by plane, with rows of ld numbers.
struct Mat {
  double* p;
  int64_t ld, plane;
};

template <class N> STRUCTOPS_DEVICE N get(const Mat& a, int64_t r, int64_t c) {
  const double* const q = a.p + r * a.ld + c;
  N x{q[0], 0, 0};
  if constexpr (N::dual) x.d = q[a.plane];
  if constexpr (N::ext) x.e = q[(N::planes - 1) * a.plane];
  return x;
}

template <class N> STRUCTOPS_DEVICE void put(const Mat& a, int64_t r, int64_t c, const N& x) {
  double* const q = a.p + r * a.ld + c;
  q[0] = x.m;
  if constexpr (N::dual) q[a.plane] = x.d;
  if constexpr (N::ext) q[(N::planes - 1) * a.plane] = x.e;
}

// A running product of positive numbers, with the relative tangent.
struct Product {
  double m, e, t;
  template <class N> STRUCTOPS_DEVICE void times(const N& a) {
    const double x = m * a.m;
    if (x == 0) { m = 0; return; }
    const long long field = bits_of(x) >> 52;
    m = x * __longlong_as_double((2046 - field) << 52);
    e += double(field - 1023);
    if constexpr (N::dual) t += a.d / a.m;
    if constexpr (N::ext) e += a.e;
  }
};

}  // namespace structops::cuda
