// Numbers of the elimination kernels: vectors of float64, with a 64-bit exponent of their own (ext) and a tangent (dual) if asked for.
// Values are never negative. Include only from *_cpu.cpp.
//
// ext: the value is m 2^e, m in [1, 2) or 0; e is an integer held in a double, kZeroExponent for 0. The tangent shares it.
#pragma once
#include "core/vmath.h"

namespace structops::STRUCTOPS_ISA {

using VD = Vec<double>;
using VI64 = Vec<int64_t>;

constexpr double kZeroExponent = -0x1p60;

template <bool ext_, bool dual_> struct Num {
  static constexpr bool ext = ext_, dual = dual_;
  static constexpr int planes = 1 + dual + ext;
  VD m, d, e;  // value or mantissa, tangent, exponent
};

STRUCTOPS_INLINE VI64 first_lanes(int n) {
  VI64 lane;
  for (int i = 0; i < W<double>; ++i) lane[i] = i;
  return lane < int64_t(n);
}

// 2^x of integers x <= 0; 0 below the normal range.
STRUCTOPS_INLINE VD pow2(VD x) {
  constexpr double magic = 6755399441055744.0;
  const VD c = x < -1023.0 ? splat(-1023.0) : x;
  return bitcast<VD>((bitcast<VI64>(c + magic) - bitcast<VI64>(splat(magic)) + int64_t(1023)) << 52);
}

template <class N> STRUCTOPS_INLINE N normalised(N a) {
  if constexpr (N::ext) {
    const VI64 field = bitcast<VI64>(a.m) >> 52;
    const VD e = bitcast<VD>(field | int64_t(0x4330000000000000)) - (0x1p52 + 1023.0);
    const VD scale = bitcast<VD>((int64_t(2046) - field) << 52);
    const VI64 none = a.m == 0.0;
    a.e = none ? splat(kZeroExponent) : a.e + e;
    a.m = none ? VD{} : a.m * scale;
    if constexpr (N::dual) a.d = none ? VD{} : a.d * scale;
  }
  return a;
}

template <class N> STRUCTOPS_INLINE N mul(const N& a, const N& b) {
  N r;
  r.m = a.m * b.m;
  if constexpr (N::dual) r.d = a.m * b.d + a.d * b.m;
  if constexpr (N::ext) r.e = a.e + b.e;
  return normalised(r);
}

template <class N> STRUCTOPS_INLINE N add(const N& a, const N& b) {
  N r;
  if constexpr (N::ext) {
    r.e = a.e > b.e ? a.e : b.e;
    const VD sa = pow2(a.e - r.e), sb = pow2(b.e - r.e);
    r.m = a.m * sa + b.m * sb;
    if constexpr (N::dual) r.d = a.d * sa + b.d * sb;
    return normalised(r);
  } else {
    r.m = a.m + b.m;
    if constexpr (N::dual) r.d = a.d + b.d;
    return r;
  }
}

// c + a b
template <class N> STRUCTOPS_INLINE N fma(const N& c, const N& a, const N& b) {
  N r;
  if constexpr (N::ext) {
    const VD pe = a.e + b.e;
    r.e = c.e > pe ? c.e : pe;
    const VD sc = pow2(c.e - r.e), sp = pow2(pe - r.e);
    r.m = c.m * sc + a.m * b.m * sp;
    if constexpr (N::dual) r.d = c.d * sc + (a.m * b.d + a.d * b.m) * sp;
    return normalised(r);
  } else {
    r.m = c.m + a.m * b.m;
    if constexpr (N::dual) r.d = c.d + (a.m * b.d + a.d * b.m);
    return r;
  }
}

template <class N> STRUCTOPS_INLINE N reciprocal(const N& a) {  // a > 0
  N r;
  r.m = 1.0 / a.m;
  if constexpr (N::dual) r.d = -(a.d * r.m) * r.m;
  if constexpr (N::ext) r.e = -a.e;
  return normalised(r);
}

template <class N> STRUCTOPS_INLINE N zero() {
  N r{};
  if constexpr (N::ext) r.e = splat(kZeroExponent);
  return r;
}

template <class N> STRUCTOPS_INLINE N keep_lanes(N a, VI64 mask) {  // 0 in the other lanes
  a.m = mask ? a.m : VD{};
  if constexpr (N::dual) a.d = mask ? a.d : VD{};
  if constexpr (N::ext) a.e = mask ? a.e : splat(kZeroExponent);
  return a;
}

template <class N> STRUCTOPS_INLINE N sum_lanes(N a) {  // in every lane
  if constexpr (N::ext) {
    double top = a.e[0];
    for (int i = 1; i < W<double>; ++i) top = a.e[i] > top ? a.e[i] : top;
    const VD s = pow2(a.e - top);
    a.m *= s;
    if constexpr (N::dual) a.d *= s;
    a.e = splat(top);
  }
  a.m = splat(hsum<double>(a.m));
  if constexpr (N::dual) a.d = splat(hsum<double>(a.d));
  return normalised(a);
}

// A matrix of Num, plane by plane. Rows are read and written by whole vectors: ld is a multiple of W<double>, and W<double> numbers
// follow the last row.
struct Mat {
  double* p;
  int64_t ld, plane;
  static int64_t width(int64_t cols) { return (cols + W<double> - 1) / W<double> * W<double>; }
  static int64_t numbers(int64_t rows, int64_t cols) { return rows * width(cols) + W<double>; }
  Mat(double* at, int64_t rows, int64_t cols) : p(at), ld(width(cols)), plane(numbers(rows, cols)) {}
  double* at(int64_t r, int64_t c) const { return p + r * ld + c; }
};

template <class N> STRUCTOPS_INLINE N get(const Mat& a, int64_t r, int64_t c) {
  const double* const q = a.at(r, c);
  N x;
  x.m = load(q);
  if constexpr (N::dual) x.d = load(q + a.plane);
  if constexpr (N::ext) x.e = load(q + (N::planes - 1) * a.plane);
  return x;
}

template <class N> STRUCTOPS_INLINE N get_one(const Mat& a, int64_t r, int64_t c) {  // in every lane
  const double* const q = a.at(r, c);
  N x;
  x.m = splat(q[0]);
  if constexpr (N::dual) x.d = splat(q[a.plane]);
  if constexpr (N::ext) x.e = splat(q[(N::planes - 1) * a.plane]);
  return x;
}

template <class N> STRUCTOPS_INLINE void put(const Mat& a, int64_t r, int64_t c, const N& x) {
  double* const q = a.at(r, c);
  store(q, x.m);
  if constexpr (N::dual) store(q + a.plane, x.d);
  if constexpr (N::ext) store(q + (N::planes - 1) * a.plane, x.e);
}

template <class N> STRUCTOPS_INLINE void put_n(const Mat& a, int64_t r, int64_t c, const N& x, int n) {
  double* const q = a.at(r, c);
  store_n(q, x.m, n);
  if constexpr (N::dual) store_n(q + a.plane, x.d, n);
  if constexpr (N::ext) store_n(q + (N::planes - 1) * a.plane, x.e, n);
}

// A running product of positive numbers, with the relative tangent.
struct Product {
  double m = 1, e = 0, t = 0;
  template <class N> void times(const N& a) {  // lane 0
    VD x = splat(m * a.m[0]);
    if (x[0] == 0) { m = 0; return; }
    const VI64 field = bitcast<VI64>(x) >> 52;
    m = (x * bitcast<VD>((int64_t(2046) - field) << 52))[0];
    e += double(field[0] - 1023);
    if constexpr (N::dual) t += a.d[0] / a.m[0];
    if constexpr (N::ext) e += a.e[0];
  }
};

}  // namespace structops::STRUCTOPS_ISA
