// CPU spherical harmonics. The contract is sph.h. Points are the lanes; tiles of W points are turned into rows at the end.
#include "core/simd.h"
#include "core/transpose.h"
#include "so2/sph.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kS = (kSphMax + 1) * (kSphMax + 1);

// The tables in the accumulator type.
template <class A> struct Tables {
  A a[SphTables::size], b[SphTables::size], z[SphTables::size], up[SphTables::size], dn[SphTables::size], f[kSphMax + 1];
  explicit Tables(SphNorm norm) {
    const SphTables t = sph_tables(norm);
    for (int i = 0; i < SphTables::size; ++i) {
      a[i] = A(t.a[i]);
      b[i] = A(t.b[i]);
      z[i] = A(t.z[i]);
      up[i] = A(t.up[i]);
      dn[i] = A(t.dn[i]);
    }
    for (int l = 0; l <= kSphMax; ++l) f[l] = A(t.f[l]);
  }
};

inline int tri(int l, int m) { return l * (l + 1) / 2 + m; }
inline int at(int l, int m) { return l * l + l + m; }

template <class A> struct Points {
  Vec<A> X, Y, Z, r2, inverse;  // standard axes; 1 / |x|, or 0 at the origin
};

template <class T> inline Points<Acc<T>> load_points(const T* x, int n, bool normalize) {
  using A = Acc<T>;
  A c[3][W<A>] = {};
  transpose(x, 3, n, 3, c[0], W<A>);
  Points<A> p{load(c[2]), load(c[0]), load(c[1]), {}, splat(A(1))};
  p.r2 = p.X * p.X + p.Y * p.Y + p.Z * p.Z;
  if (normalize) {
    // The largest component is divided out first: squares of tiny and of huge vectors leave the range.
    const Vec<A> ax = p.X < 0 ? -p.X : p.X, ay = p.Y < 0 ? -p.Y : p.Y, az = p.Z < 0 ? -p.Z : p.Z;
    const Vec<A> xy = ax > ay ? ax : ay;
    const Vec<A> big = xy > az ? xy : az;
    const Vec<A> scale = 1 / (big == 0 ? splat(A(1)) : big);
    p.X *= scale;
    p.Y *= scale;
    p.Z *= scale;
    const Vec<A> s = p.X * p.X + p.Y * p.Y + p.Z * p.Z;
    Vec<A> root;
    for (int i = 0; i < W<A>; ++i) root[i] = sizeof(A) == 4 ? A(__builtin_sqrtf(float(s[i]))) : A(__builtin_sqrt(double(s[i])));
    const Vec<A> unit = 1 / (s == 0 ? splat(A(1)) : root);
    p.X *= unit;
    p.Y *= unit;
    p.Z *= unit;
    p.inverse = s == 0 ? Vec<A>{} : scale * unit;
    p.r2 = s == 0 ? Vec<A>{} : p.X * p.X + p.Y * p.Y + p.Z * p.Z;
  }
  return p;
}

// visit(l, m, P_lm * Re, P_lm * Im) for all 0 <= m <= l <= lmax, m by m; without f.
template <class A, class F> STRUCTOPS_INLINE void visit(const Points<A>& p, const Tables<A>& t, int lmax, F f) {
  Vec<A> c = splat(A(1)), s{}, top = splat(t.a[0]);
  for (int m = 0; m <= lmax; ++m) {
    if (m > 0) {
      const Vec<A> next = c * p.X - s * p.Y;
      s = c * p.Y + s * p.X;
      c = next;
      top *= splat(t.a[tri(m, m)]);
    }
    Vec<A> two{}, one = top;
    f(m, m, one * c, one * s);
    for (int l = m + 1; l <= lmax; ++l) {
      const int i = tri(l, m);
      const Vec<A> next = splat(t.a[i]) * p.Z * one - splat(t.b[i]) * p.r2 * two;
      two = one;
      one = next;
      f(l, m, one * c, one * s);
    }
  }
}

template <class T> void values(const SphArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  const Tables<A> t(a.norm);
  const int S = (a.lmax + 1) * (a.lmax + 1);
  auto body = [&](int64_t begin, int64_t end) {
    alignas(64) A tile[kS * W<A>];
    for (int64_t b = begin; b < end; ++b) {
      const int64_t n0 = b * W<A>;
      const int n = a.N - n0 < W<A> ? int(a.N - n0) : W<A>;
      const Points<A> p = load_points(static_cast<const T*>(a.x) + n0 * 3, n, a.normalize);
      visit(p, t, a.lmax, [&](int l, int m, Vec<A> c, Vec<A> s) {
        store(tile + at(l, m) * W<A>, c * splat(t.f[l]));
        if (m) store(tile + at(l, -m) * W<A>, s * splat(t.f[l]));
      });
      transpose(tile, W<A>, S, n, static_cast<T*>(a.y) + n0 * S, S);
    }
  };
  parallel_for(pf, (a.N + W<A> - 1) / W<A>, 64, body);
}

template <class T> void backward(const SphArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  const Tables<A> t(a.norm);
  const int S = (a.lmax + 1) * (a.lmax + 1);
  auto body = [&](int64_t begin, int64_t end) {
    alignas(64) A g[kS * W<A>] = {};
    for (int64_t b = begin; b < end; ++b) {
      const int64_t n0 = b * W<A>;
      const int n = a.N - n0 < W<A> ? int(a.N - n0) : W<A>;
      const Points<A> p = load_points(static_cast<const T*>(a.x) + n0 * 3, n, a.normalize);
      transpose(static_cast<const T*>(a.g) + n0 * S, S, n, S, g, W<A>);
      Vec<A> gX{}, gY{}, gZ{};
      // R of degree l - 1 meets the gradients of degree l.
      visit(p, t, a.lmax - 1, [&](int low, int m, Vec<A> c, Vec<A> s) {
        const int l = low + 1, i = tri(low, m);
        auto grad = [&](int k) { return load(g + at(l, k) * W<A>); };
        const Vec<A> f = splat(t.f[l]), cf = c * f, sf = s * f, up = splat(t.up[i]), dn = splat(t.dn[i]), z = splat(t.z[i]);
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
      if (a.normalize) {
        const Vec<A> along = p.X * gX + p.Y * gY + p.Z * gZ;
        gX = (gX - p.X * along) * p.inverse;
        gY = (gY - p.Y * along) * p.inverse;
        gZ = (gZ - p.Z * along) * p.inverse;
      }
      A d[3][W<A>];
      store(d[0], gY);
      store(d[1], gZ);
      store(d[2], gX);
      transpose(d[0], W<A>, 3, n, static_cast<T*>(a.y) + n0 * 3, 3);
    }
  };
  parallel_for(pf, (a.N + W<A> - 1) / W<A>, 64, body);
}

// to[a] = d from / d(axis a) of e3nn's axes x, y, z; `from` and to[a] are [S][W], without f.
template <class A> inline void differentiate(const A* from, A* const to[3], const Tables<A>& t, int lmax) {
  auto get = [&](int l, int m) { return load(from + at(l, m) * W<A>); };
  for (int a = 0; a < 3; ++a) store(to[a], Vec<A>{});
  for (int l = 1; l <= lmax; ++l)
    for (int m = 0; m <= l; ++m) {
      const int low = l - 1;
      Vec<A> cX{}, cY{}, cZ{}, sX{}, sY{}, sZ{};
      if (m <= low) {
        cZ = splat(t.z[tri(low, m)]) * get(low, m);
        sZ = splat(t.z[tri(low, m)]) * get(low, -m);
      }
      if (m >= 1) {  // from m - 1
        const Vec<A> up = splat(t.up[tri(low, m - 1)]);
        cX += up * get(low, m - 1);
        sY += up * get(low, m - 1);
        if (m > 1) {
          sX += up * get(low, 1 - m);
          cY -= up * get(low, 1 - m);
        }
      }
      if (m + 1 <= low) {  // from m + 1
        const Vec<A> dn = splat(t.dn[tri(low, m + 1)]);
        cX -= dn * get(low, m + 1);
        cY -= dn * get(low, -m - 1);
        sX -= dn * get(low, -m - 1);
        sY += dn * get(low, m + 1);
      }
      const int i = at(l, m) * W<A>, j = at(l, -m) * W<A>;
      if (m) {
        store(to[0] + j, sY);
        store(to[1] + j, sZ);
        store(to[2] + j, sX);
      }
      store(to[0] + i, cY);
      store(to[1] + i, cZ);
      store(to[2] + i, cX);
    }
}

template <class T> void jet(const SphArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  const Tables<A> t(a.norm);
  const int S = (a.lmax + 1) * (a.lmax + 1);
  auto body = [&](int64_t begin, int64_t end) {
    // R, its gradient, the second derivatives along one axis, and a plane of results.
    alignas(64) A memory[8][kS * W<A>];
    A* const R = memory[0];
    A* const G[3] = {memory[1], memory[2], memory[3]};
    A* const H[3] = {memory[4], memory[5], memory[6]};
    A* const tile = memory[7];
    for (int64_t b = begin; b < end; ++b) {
      const int64_t n0 = b * W<A>;
      const int n = a.N - n0 < W<A> ? int(a.N - n0) : W<A>;
      const Points<A> p = load_points(static_cast<const T*>(a.x) + n0 * 3, n, a.normalize);
      const Vec<A> u[3] = {p.Y, p.Z, p.X};
      visit(p, t, a.lmax, [&](int l, int m, Vec<A> c, Vec<A> s) {
        store(R + at(l, m) * W<A>, c);
        if (m) store(R + at(l, -m) * W<A>, s);
      });
      differentiate<A>(R, G, t, a.lmax);
      auto plane = [&](T* out, int64_t stride, auto value) {
        for (int l = 0; l <= a.lmax; ++l)
          for (int s = l * l; s < (l + 1) * (l + 1); ++s) store(tile + s * W<A>, splat(t.f[l]) * value(l, s * W<A>));
        transpose(tile, W<A>, S, n, out, stride);
      };
      plane(static_cast<T*>(a.y) + n0 * S, S, [&](int, int s) { return load(R + s); });
      for (int c = 0; c < 3; ++c)
        plane(static_cast<T*>(a.dy) + (n0 * 3 + c) * S, 3 * S, [&](int l, int s) {
          const Vec<A> d = load(G[c] + s);
          return a.normalize ? (d - splat(A(l)) * u[c] * load(R + s)) * p.inverse : d;
        });
      if (!a.d2y) continue;
      for (int c = 0; c < 3; ++c) {
        differentiate<A>(G[c], H, t, a.lmax);
        for (int d = 0; d < 3; ++d)
          plane(static_cast<T*>(a.d2y) + ((n0 * 3 + c) * 3 + d) * S, 9 * S, [&](int l, int s) {
            const Vec<A> h = load(H[d] + s);
            if (!a.normalize) return h;
            const Vec<A> r = load(R + s) * splat(A(l)), cross = splat(A(l)) * (u[c] * load(G[d] + s) + u[d] * load(G[c] + s));
            const Vec<A> self = r * (splat(A(l + 2)) * u[c] * u[d] - (c == d ? splat(A(1)) : Vec<A>{}));
            return (h - cross + self) * p.inverse * p.inverse;
          });
      }
    }
  };
  parallel_for(pf, (a.N + W<A> - 1) / W<A>, 16, body);
}

}  // namespace

void spherical_harmonics(const SphArgs& a, const ParallelFor& pf) {
  with_dtype(a.dtype, [&](auto* p) {
    if constexpr (is_float_storage<Pointee<decltype(p)>>) values<Pointee<decltype(p)>>(a, pf);
  });
}

void spherical_harmonics_bwd(const SphArgs& a, const ParallelFor& pf) {
  with_dtype(a.dtype, [&](auto* p) {
    if constexpr (is_float_storage<Pointee<decltype(p)>>) backward<Pointee<decltype(p)>>(a, pf);
  });
}

void spherical_harmonics_jet(const SphArgs& a, const ParallelFor& pf) {
  with_dtype(a.dtype, [&](auto* p) {
    if constexpr (is_float_storage<Pointee<decltype(p)>>) jet<Pointee<decltype(p)>>(a, pf);
  });
}

}  // namespace structops::STRUCTOPS_ISA
