// Real spherical harmonics of vectors, to degree lmax, and their derivatives. Polar axis y, order m = -l..l, as in e3nn: the
// components of l = 1 are proportional to (x, y, z).
//
//   Y[n, l^2 + l + m] = f(l) R_lm(x[n])            or of x / |x| with `normalize`
//
// R_lm: the homogeneous polynomial of degree l, harmonic, orthonormal on the unit sphere. With the standard axes X = z, Y = x, Z = y,
// R_lm = P_l|m|(Z, r^2) times Re (m >= 0) or Im (m < 0) of (X + iY)^|m|, without the Condon-Shortley sign; P by the stable recursion
// in l. f: 1 (integral), sqrt(4 pi) (component), sqrt(4 pi / (2 l + 1)) (norm).
//
// A derivative of a solid harmonic is a sum of at most two of the degree below:
//   dR_lm/dZ = k sqrt(l^2 - m^2) R_{l-1,m},   (d/dX -+ i d/dY) R_lm = +-k sqrt((l +- m)(l +- m - 1)) R_{l-1,m-+1},
//   k^2 = (2 l + 1) / (2 l - 1)
// so that gradients and Hessians are exact at every point, poles included, and need no division but by |x| where `normalize`.
//
// bwd: gx[n, a] = sum_s g[n, s] dY[n, s] / dx[n, a].   jet: Y, and dY [N, 3, S], d2Y [N, 3, 3, S] where wanted.
// Zero vectors: with `normalize`, x / |x| counts as 0: Y is f(0) / sqrt(4 pi) for l = 0 and 0 beyond, derivatives are 0.
// NaN and infinities propagate to the results that read them: those of degree 1 and above of their point. Points are independent: no sums across them, deterministic.
//
// The caller guarantees: contiguous arrays, 0 <= lmax <= 12. Accumulators as everywhere: float, double for float64.
// Source: the recursion and the ladder relations of e.g. Bigi et al. 2023 (sphericart) and Varshalovich et al. 1988.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

constexpr int kSphMax = 12;
enum class SphNorm : int { integral, component, norm };

struct SphArgs {
  Dtype dtype;
  SphNorm norm;
  bool normalize;
  int lmax;
  int64_t N;
  const void* x;  // [N, 3]
  const void* g;  // bwd: [N, S], S = (lmax + 1)^2
  void* y;        // [N, S]; bwd: the gradient [N, 3]
  void* dy;       // jet: [N, 3, S]
  void* d2y;      // jet: [N, 3, 3, S] or null
};

void spherical_harmonics(const SphArgs& a, const ParallelFor& pf);
void spherical_harmonics_bwd(const SphArgs& a, const ParallelFor& pf);
void spherical_harmonics_jet(const SphArgs& a, const ParallelFor& pf);

// Coefficients by (l, m), 0 <= m <= l, at l (l + 1) / 2 + m. Host and device share these.
struct SphTables {
  static constexpr int size = (kSphMax + 1) * (kSphMax + 2) / 2;
  double a[size], b[size];           // P_lm = a Z P_{l-1,m} - b r^2 P_{l-2,m}; a at m = l: P_ll = a P_{l-1,l-1}
  double z[size], up[size], dn[size];  // of R_{l,m} in dZ of (l+1, m), in dX, dY of (l+1, m+1) and of (l+1, m-1); with the sqrt(2) at m = 0
  double f[kSphMax + 1];
};

SphTables sph_tables(SphNorm norm);

}  // namespace structops
