// The CPU launchers: each picks the instruction set's own copy of the kernel.
#include <cmath>

#include "core/isa.h"
#include "so2/bilinear.h"
#include "so2/edge_block.h"
#include "so2/eigh_small.h"
#include "so2/so2_conv.h"
#include "so2/wigner.h"
#include "so2/sph.h"
#include "so2/symmetric_contraction.h"
#include "so2/tp.h"

namespace structops {

// tensor products, spherical harmonics
STRUCTOPS_DISPATCH(void, spherical_harmonics, (const SphArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, spherical_harmonics_bwd, (const SphArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, spherical_harmonics_jet, (const SphArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, tp_conv, (const TpArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, tp_conv_edge, (const TpArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, sparse_bilinear, (const BilinearArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, symmetric_contraction, (const SymmetricArgs& a, const ParallelFor& pf), (a, pf))

SphTables sph_tables(SphNorm norm) {
  SphTables t{};
  const double pi = 3.14159265358979323846;
  auto at = [](int l, int m) { return l * (l + 1) / 2 + m; };
  for (int l = 0; l <= kSphMax; ++l) {
    t.f[l] = norm == SphNorm::integral ? 1 : norm == SphNorm::component ? std::sqrt(4 * pi) : std::sqrt(4 * pi / (2 * l + 1));
    const double k = std::sqrt((2.0 * l + 3) / (2.0 * l + 1));  // of degree l + 1
    for (int m = 0; m <= l; ++m) {
      const int i = at(l, m);
      if (m == l) {
        t.a[i] = l == 0 ? std::sqrt(1 / (4 * pi)) : l == 1 ? std::sqrt(3.0) : std::sqrt((2.0 * l + 1) / (2.0 * l));
      } else {
        t.a[i] = std::sqrt((4.0 * l * l - 1) / (double(l) * l - double(m) * m));
        if (l - m > 1) t.b[i] = std::sqrt((double(l - 1) * (l - 1) - m * m) * (2 * l + 1) / ((double(l) * l - m * m) * (2 * l - 3)));
      }
      t.z[i] = k * std::sqrt(double(l + 1) * (l + 1) - m * m);
      t.up[i] = (m == 0 ? std::sqrt(2.0) : 1.0) * k / 2 * std::sqrt(double(l + m + 2) * (l + m + 1));
      if (m > 0) t.dn[i] = (m == 1 ? std::sqrt(2.0) : 1.0) * k / 2 * std::sqrt(double(l - m + 2) * (l - m + 1));
    }
  }
  return t;
}

// frames, Wigner matrices, SO(2) convolutions
STRUCTOPS_DISPATCH(void, wigner_fwd, (const WignerArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, rotate_fwd, (const WignerArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, rotate_back, (const WignerArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, rotate_outer, (const WignerArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, so3_turn, (const WignerArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, so3_torque, (const WignerArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, so2_conv_fwd, (const So2ConvArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, so2_conv_wgrad, (const So2ConvArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, edge_block_fwd, (const EdgeBlockArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, edge_block_bwd, (const EdgeBlockArgs& a, const ParallelFor& pf), (a, pf))

// eigen-decompositions
STRUCTOPS_DISPATCH(void, eigh_small, (const EighSmallArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH(void, eigh_small_bwd, (const EighSmallBwdArgs& a, const ParallelFor& pf), (a, pf))

}  // namespace structops
