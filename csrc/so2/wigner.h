// Real Wigner matrices of the rotation that turns an edge onto the y axis, and what acts on them.
//
// Basis: e3nn's real spherical harmonics, index l^2 + l + m, polar axis y; for l = 1 the components are (x, y, z), so D^1 = R.
// A packed matrix D [R] holds, for l = 0..L one after another, the rows m = -min(l, M)..min(l, M) of D^l, 2l + 1 columns each.
//
//   frame    R(e) e = (0, 1, 0), e = vec / |vec|. For e_y >= kSeam the smallest rotation, else that of (e_x, -e_y, -e_z) after
//            diag(1, -1, -1): rational in e, exact at +y and -y; its only discontinuity is the seam e_y = kSeam.
//            gamma: a further turn about y in the edge frame. vec = 0 has no direction: NaN.
//   wigner   D^l(R) by the recursion of Ivanic and Ruedenberg (J. Phys. Chem. 1996, 100, 6342; 1998, 102, 9099), in double.
//   rotate        z[e, r, c] = sum_s D[e, r, s] x[e, s, c], rows r in m-primary order: m = 0 (l = 0..L), then for m = 1..M
//                 +m (l = m..L), -m (l = m..L)
//   rotate_back   x[e, s, c] = sum_r D[e, r, s] z[e, r, c]
//   rotate_outer  D[e, r, s] = sum_c z[e, r, c] x[e, s, c]
//   turn          y = (v . G) x for features [E, S, C];  D (v . G) for packed matrices (M >= 0)
//   torque        t_j = <g, G_j x>;                       <g, D G_j>
// G_j are the generators: D(exp(t [j]x)) = 1 + t G_j + O(t^2). Sums run in the order of s, r, c. Edges are independent.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

constexpr int kMaxL = 8;
constexpr double kSeam = -0.85;

struct WignerArgs {
  Dtype dtype;  // f32 or f64
  int64_t E;
  int lmax, mmax;     // wigner, rotate*: 0 <= mmax <= lmax <= kMaxL. turn, torque: mmax < 0 means features
  int64_t C;          // channels of features
  const void* vec;    // wigner: [E, 3]; turn: v [E, 3]
  const void* gamma;  // wigner: [E] or null
  const void* d;      // rotate, rotate_back: [E, R]
  const void* x;      // [E, S, C], S = (lmax + 1)^2; turn, torque with mmax >= 0: [E, R]
  const void* z;      // rotate_back, rotate_outer: [E, n, C]; torque: g, like x
  void* out;
};

void wigner_fwd(const WignerArgs& a, const ParallelFor& pf);
void rotate_fwd(const WignerArgs& a, const ParallelFor& pf);
void rotate_back(const WignerArgs& a, const ParallelFor& pf);
void rotate_outer(const WignerArgs& a, const ParallelFor& pf);
void so3_turn(const WignerArgs& a, const ParallelFor& pf);
void so3_torque(const WignerArgs& a, const ParallelFor& pf);

// Rows of D^l that |m| <= M keeps, numbers of a packed matrix, rows of the edge frame.
inline int kept_rows(int l, int M) { return 2 * (l < M ? l : M) + 1; }
inline int packed_size(int L, int M) {
  int n = 0;
  for (int l = 0; l <= L; ++l) n += kept_rows(l, M) * (2 * l + 1);
  return n;
}
inline int frame_rows(int L, int M) {
  int n = 0;
  for (int l = 0; l <= L; ++l) n += kept_rows(l, M);
  return n;
}
// Row of (l, m) in m-primary order.
inline int frame_row(int L, int l, int m) {
  const int k = m < 0 ? -m : m;
  if (k == 0) return l;
  int row = L + 1;
  for (int i = 1; i < k; ++i) row += 2 * (L + 1 - i);
  return row + (m < 0 ? L + 1 - k : 0) + l - k;
}

}  // namespace structops
