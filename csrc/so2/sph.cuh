// CUDA spherical harmonics: a thread per point. The contract is sph.h.
#pragma once
#include "core/cuda/device.cuh"
#include "so2/sph.h"

namespace structops::cuda {

struct SphParams {
  int lmax, normalize;
  int64_t N;
  const void *x, *g;
  void *y, *dy, *d2y;
  SphTables t;
};

constexpr int kSphThreads = 128;

STRUCTOPS_DEVICE int sph_tri(int l, int m) { return l * (l + 1) / 2 + m; }
STRUCTOPS_DEVICE int sph_at(int l, int m) { return l * l + l + m; }
STRUCTOPS_DEVICE float sph_root(float v) { return sqrtf(v); }
STRUCTOPS_DEVICE double sph_root(double v) { return sqrt(v); }

template <class A> struct SphPoint {
  A X, Y, Z, r2, inverse;  // standard axes; 1 / |x|, or 0 at the origin
};

template <class T> STRUCTOPS_DEVICE SphPoint<Acc<T>> sph_point(const SphParams& p, int64_t n) {
  using A = Acc<T>;
  const T* const x = static_cast<const T*>(p.x) + 3 * n;
  SphPoint<A> q{widen(x[2]), widen(x[0]), widen(x[1]), A(0), A(1)};
  q.r2 = q.X * q.X + q.Y * q.Y + q.Z * q.Z;
  if (p.normalize) {
    const A ax = q.X < 0 ? -q.X : q.X, ay = q.Y < 0 ? -q.Y : q.Y, az = q.Z < 0 ? -q.Z : q.Z;
    const A xy = ax > ay ? ax : ay, big = xy > az ? xy : az;
    const A scale = A(1) / (big == 0 ? A(1) : big);
    q.X *= scale;
    q.Y *= scale;
    q.Z *= scale;
    const A s = q.X * q.X + q.Y * q.Y + q.Z * q.Z;
    const A unit = A(1) / (s == 0 ? A(1) : sph_root(s));
    q.X *= unit;
    q.Y *= unit;
    q.Z *= unit;
    q.inverse = s == 0 ? A(0) : scale * unit;
    q.r2 = s == 0 ? A(0) : q.X * q.X + q.Y * q.Y + q.Z * q.Z;
  }
  return q;
}

// f(l, m, P_lm * Re, P_lm * Im) for all 0 <= m <= l <= lmax, m by m; without the scale of the degree.
template <class A, class F> STRUCTOPS_DEVICE void sph_visit(const SphPoint<A>& q, const SphTables& t, int lmax, F f) {
  A c = 1, s = 0, top = A(t.a[0]);
  for (int m = 0; m <= lmax; ++m) {
    if (m > 0) {
      const A next = c * q.X - s * q.Y;
      s = c * q.Y + s * q.X;
      c = next;
      top *= A(t.a[sph_tri(m, m)]);
    }
    A two = 0, one = top;
    f(m, m, one * c, one * s);
    for (int l = m + 1; l <= lmax; ++l) {
      const int i = sph_tri(l, m);
      const A next = A(t.a[i]) * q.Z * one - A(t.b[i]) * q.r2 * two;
      two = one;
      one = next;
      f(l, m, one * c, one * s);
    }
  }
}

template <class T> __global__ void __launch_bounds__(kSphThreads) sph_kernel(const SphParams p) {
  using A = Acc<T>;
  const int S = (p.lmax + 1) * (p.lmax + 1);
  for (int64_t n = blockIdx.x * int64_t(kSphThreads) + threadIdx.x; n < p.N; n += int64_t(gridDim.x) * kSphThreads) {
    T* const y = static_cast<T*>(p.y) + n * S;
    sph_visit(sph_point<T>(p, n), p.t, p.lmax, [&](int l, int m, A c, A s) {
      y[sph_at(l, m)] = Narrow<T>::to(c * A(p.t.f[l]));
      if (m) y[sph_at(l, -m)] = Narrow<T>::to(s * A(p.t.f[l]));
    });
  }
}

template <class T> __global__ void __launch_bounds__(kSphThreads) sph_bwd_kernel(const SphParams p) {
  using A = Acc<T>;
  const int S = (p.lmax + 1) * (p.lmax + 1);
  for (int64_t n = blockIdx.x * int64_t(kSphThreads) + threadIdx.x; n < p.N; n += int64_t(gridDim.x) * kSphThreads) {
    const T* const g = static_cast<const T*>(p.g) + n * S;
    const SphPoint<A> q = sph_point<T>(p, n);
    A gX = 0, gY = 0, gZ = 0;
    sph_visit(q, p.t, p.lmax - 1, [&](int low, int m, A c, A s) {
      const int l = low + 1, i = sph_tri(low, m);
      auto grad = [&](int k) { return widen(g[sph_at(l, k)]); };
      const A f = A(p.t.f[l]), cf = c * f, sf = s * f, up = A(p.t.up[i]), dn = A(p.t.dn[i]), z = A(p.t.z[i]);
      gZ += z * cf * grad(m);
      gX += up * cf * grad(m + 1);
      gY += up * cf * grad(-m - 1);
      if (m == 0) return;
      gZ += z * sf * grad(-m);
      gX += up * sf * grad(-m - 1) - dn * cf * grad(m - 1);
      gY -= up * sf * grad(m + 1) + dn * sf * grad(m - 1);
      if (m == 1) return;
      gX -= dn * sf * grad(1 - m);
      gY += dn * cf * grad(1 - m);
    });
    if (p.normalize) {
      const A along = q.X * gX + q.Y * gY + q.Z * gZ;
      gX = (gX - q.X * along) * q.inverse;
      gY = (gY - q.Y * along) * q.inverse;
      gZ = (gZ - q.Z * along) * q.inverse;
    }
    T* const out = static_cast<T*>(p.y) + 3 * n;
    out[0] = Narrow<T>::to(gY);
    out[1] = Narrow<T>::to(gZ);
    out[2] = Narrow<T>::to(gX);
  }
}

// d / d(axis) of component (l, m) of either sign, from the values `get(l, m)` of the degree below. Axes x, y, z of e3nn.
template <class A, class G> STRUCTOPS_DEVICE A sph_derivative(const SphTables& t, int axis, int l, int signed_m, G get) {
  const int low = l - 1, m = signed_m < 0 ? -signed_m : signed_m;
  const bool sine = signed_m < 0;
  if (l == 0) return A(0);
  if (axis == 1) return m <= low ? A(t.z[sph_tri(low, m)]) * get(low, signed_m) : A(0);
  A sum = 0;
  // The cosine's X and the sine's Y read cosines, the other two sines; X of both subtracts what comes from m + 1.
  const bool X = axis == 2, from_sine = X == sine;
  const A up_sign = !X && !sine ? A(-1) : A(1), dn_sign = !X && sine ? A(1) : A(-1);
  if (m >= 1 && !(from_sine && m == 1)) sum += up_sign * A(t.up[sph_tri(low, m - 1)]) * get(low, from_sine ? 1 - m : m - 1);
  if (m + 1 <= low) sum += dn_sign * A(t.dn[sph_tri(low, m + 1)]) * get(low, from_sine ? -m - 1 : m + 1);
  return sum;
}

template <class T> __global__ void __launch_bounds__(kSphThreads) sph_jet_kernel(const SphParams p) {
  using A = Acc<T>;
  constexpr int kS = (kSphMax + 1) * (kSphMax + 1);
  const int S = (p.lmax + 1) * (p.lmax + 1);
  for (int64_t n = blockIdx.x * int64_t(kSphThreads) + threadIdx.x; n < p.N; n += int64_t(gridDim.x) * kSphThreads) {
    const SphPoint<A> q = sph_point<T>(p, n);
    const A u[3] = {q.Y, q.Z, q.X};
    A R[kS];
    sph_visit(q, p.t, p.lmax, [&](int l, int m, A c, A s) {
      R[sph_at(l, m)] = c;
      if (m) R[sph_at(l, -m)] = s;
    });
    auto value = [&](int l, int m) { return R[sph_at(l, m)]; };
    T *const y = static_cast<T*>(p.y) + n * S, *const dy = static_cast<T*>(p.dy) + n * 3 * S;
    for (int l = 0; l <= p.lmax; ++l) {
      const A f = A(p.t.f[l]);
      for (int m = -l; m <= l; ++m) {
        const int s = sph_at(l, m);
        y[s] = Narrow<T>::to(f * R[s]);
        A G[3];
        for (int a = 0; a < 3; ++a) {
          G[a] = sph_derivative<A>(p.t, a, l, m, value);
          const A d = p.normalize ? (G[a] - A(l) * u[a] * R[s]) * q.inverse : G[a];
          dy[a * S + s] = Narrow<T>::to(f * d);
        }
        if (!p.d2y) continue;
        T* const d2y = static_cast<T*>(p.d2y) + n * 9 * S;
        for (int a = 0; a < 3; ++a)
          for (int b = 0; b < 3; ++b) {
            A h = sph_derivative<A>(p.t, b, l, m, [&](int k, int j) { return sph_derivative<A>(p.t, a, k, j, value); });
            if (p.normalize) {
              const A cross = A(l) * (u[a] * G[b] + u[b] * G[a]);
              const A self = A(l) * R[s] * (A(l + 2) * u[a] * u[b] - A(a == b));
              h = (h - cross + self) * q.inverse * q.inverse;
            }
            d2y[(a * 3 + b) * S + s] = Narrow<T>::to(f * h);
          }
      }
    }
  }
}

}  // namespace structops::cuda
