// The rotations of eigh_small.h and the derivative, with one source for the CPU and for CUDA: V is a vector of numbers, one of each
// matrix, there and one number here.
#pragma once
#if defined(__CUDACC__) || defined(STRUCTOPS_CUDA_SOURCE)
#include "core/cuda/device.cuh"
#define STRUCTOPS_ISA cuda
#define STRUCTOPS_INLINE STRUCTOPS_DEVICE
#else
#include "core/simd.h"
#endif

namespace structops::STRUCTOPS_ISA {

#if defined(__CUDACC__) || defined(STRUCTOPS_CUDA_SOURCE)
STRUCTOPS_DEVICE float root(float x) { return sqrtf(x); }
STRUCTOPS_DEVICE double root(double x) { return sqrt(x); }
STRUCTOPS_DEVICE bool any_lane(bool mask) { return mask; }
template <class V> using Lane = V;
#else
template <class V> STRUCTOPS_INLINE V root(V x) {
  for (unsigned i = 0; i < sizeof x / sizeof x[0]; ++i) x[i] = sizeof x[0] == 4 ? __builtin_sqrtf(x[i]) : __builtin_sqrt(x[i]);
  return x;
}
template <class M> STRUCTOPS_INLINE bool any_lane(M mask) {
  decltype(mask[0] | mask[0]) all = 0;
  for (unsigned i = 0; i < sizeof mask / sizeof mask[0]; ++i) all |= mask[i];
  return all != 0;
}
template <class V> using Lane = decltype(V{}[0] + V{}[0]);
#endif

template <class V> STRUCTOPS_INLINE V magnitude(V x) { return x < 0 ? -x : x; }

template <class A> struct EighConst;
template <> struct EighConst<float> {
  static constexpr float eps = 0x1p-23f, least = 0x1p-126f, low = 0x1p-40f, high = 0x1p40f;
};
template <> struct EighConst<double> {
  static constexpr double eps = 0x1p-52, least = 0x1p-1022, low = 0x1p-400, high = 0x1p400;
};

// Zeroes a[p][q], where `live`. a: upper triangle.
template <int n, class V, class M> STRUCTOPS_INLINE void jacobi_turn(V (&a)[n][n], V (&v)[n][n], M live, int p, int q) {
  const V b = a[p][q], d = a[q][q] - a[p][p];
  const V size = magnitude(d) + root(d * d + 4 * b * b);
  const V t = live & (size > 0) ? (d < 0 ? -2 * b : 2 * b) / size : V{};
  const V c = 1 / root(1 + t * t), s = t * c;
  a[p][p] -= t * b;
  a[q][q] += t * b;
  a[p][q] = live ? V{} : b;
  for (int r = 0; r < n; ++r) {
    if (r == p || r == q) continue;
    V &x = a[r < p ? r : p][r < p ? p : r], &y = a[r < q ? r : q][r < q ? q : r];
    const V old = x;
    x = c * x - s * y;
    y = s * old + c * y;
  }
  for (int i = 0; i < n; ++i) {
    const V old = v[i][p];
    v[i][p] = c * old - s * v[i][q];
    v[i][q] = s * old + c * v[i][q];
  }
}

// A turn for every pair from (p, q) on. Of small matrices each is compiled with its indices, so that all stay in registers.
template <int n, int p = 0, int q = 1, class V, class M> STRUCTOPS_INLINE void jacobi_sweep(V (&a)[n][n], V (&v)[n][n], M live) {
  if constexpr (n > 4) {
    for (int i = 0; i < n; ++i)
      for (int j = i + 1; j < n; ++j) jacobi_turn<n>(a, v, live, i, j);
  } else {
    jacobi_turn<n>(a, v, live, p, q);
    if constexpr (q + 1 < n) jacobi_sweep<n, p, q + 1>(a, v, live);
    else if constexpr (p + 2 < n) jacobi_sweep<n, p + 1, p + 2>(a, v, live);
  }
}

// Whether columns j and k were exchanged.
template <int n, class V> STRUCTOPS_INLINE auto order_columns(V (&w)[n], V (&v)[n][n], int j, int k) {
  const auto swap = w[j] > w[k];
  auto exchange = [&](V& x, V& y) {
    const V old = x;
    x = swap ? y : x;
    y = swap ? old : y;
  };
  exchange(w[j], w[k]);
  for (int i = 0; i < n; ++i) exchange(v[i][j], v[i][k]);
  return swap;
}

// a: upper triangle, destroyed.
template <int n, class V> STRUCTOPS_INLINE void eigh_small(V (&a)[n][n], V (&w)[n], V (&v)[n][n]) {
  using C = EighConst<Lane<V>>;
  V most{}, sum{};
  for (int i = 0; i < n; ++i)
    for (int j = i; j < n; ++j) {
      const V x = magnitude(a[i][j]);
      most = x > most ? x : most;
      sum += x - x;  // NaN for what is not finite
    }
  const V unit = (most < C::low) | (most > C::high) ? (most < C::least ? V{} + C::least : most) : V{} + 1;
  for (int i = 0; i < n; ++i)
    for (int j = i; j < n; ++j) a[i][j] /= unit;
  const V small = most / unit * (C::eps / 8);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) v[i][j] = i == j ? V{} + 1 : V{};
  for (int sweep = 0; sweep < 12; ++sweep) {
    auto live = magnitude(a[0][1]) > small;
    for (int i = 0; i < n; ++i)
      for (int j = i + 1; j < n; ++j) live = live | (magnitude(a[i][j]) > small);
    if (!any_lane(live)) break;
    jacobi_sweep<n>(a, v, live);
  }
  for (int i = 0; i < n; ++i) w[i] = a[i][i] * unit + sum;
  V sign = V{} + 1;  // of the determinant: a turn keeps it, an exchange of columns and a change of sign do not
  for (int i = n - 1; i > 0; --i)
    for (int j = 0; j < i; ++j) sign = order_columns<n>(w, v, j, j + 1) ? -sign : sign;
  for (int k = 0; k < n; ++k) {
    V top = v[0][k];
    for (int i = 1; i < n; ++i) top = magnitude(v[i][k]) > magnitude(top) ? v[i][k] : top;
    const auto flip = k < n - 1 ? top < 0 : sign < 0;
    sign = flip ? -sign : sign;
    for (int i = 0; i < n; ++i) v[i][k] = (flip ? -v[i][k] : v[i][k]) + sum;
  }
}

// The gradient of a; upper triangle. gv counts where `vectors`.
template <int n, class V>
STRUCTOPS_INLINE void eigh_gradient(const V (&w)[n], const V (&v)[n][n], const V (&gw)[n], const V (&gv)[n][n], bool vectors,
                                    V (&ga)[n][n]) {
  V m[n][n], t[n][n];
  for (int i = 0; i < n; ++i) {
    m[i][i] = gw[i];
    for (int j = i + 1; j < n; ++j) {
      V twist{};
      for (int k = 0; k < n; ++k) twist += v[k][i] * gv[k][j] - v[k][j] * gv[k][i];
      m[i][j] = m[j][i] = vectors ? twist / (2 * (w[j] - w[i])) : V{};
    }
  }
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) {
      t[i][j] = V{};
      for (int k = 0; k < n; ++k) t[i][j] += v[i][k] * m[k][j];
    }
  for (int i = 0; i < n; ++i)
    for (int j = i; j < n; ++j) {
      ga[i][j] = V{};
      for (int k = 0; k < n; ++k) ga[i][j] += t[i][k] * v[j][k];
    }
}

}  // namespace structops::STRUCTOPS_ISA
