// Eigenvalues and eigenvectors of symmetric matrices of size 2 to 8.
//
//   S v[:, k] = w[k] v[:, k],   S = (a + a') / 2,   w[0] <= .. <= w[n - 1],   v' v = 1
//
// v is a rotation: det v = +1. Of every column but the last the entry of largest magnitude (the first of equal ones) is positive; the
// last column makes the determinant.
//
// Cyclic Jacobi rotations until every entry off the diagonal is below an eighth of a rounding of the largest entry. Residual and
// loss of orthogonality are a few roundings of the largest entry whatever the spectrum: equal eigenvalues give some orthonormal basis
// of their space. The range is that of the dtype: squares of entries neither overflow nor underflow.
// A matrix with a NaN or an infinity gives NaN everywhere. Matrices are independent of each other, bit for bit: deterministic.
//
// bwd: the gradient of a from gw and gv, those of w and v:  v (diag(gw) + P) v',  P[i, j] = (G[i, j] - G[j, i]) / 2 (w[j] - w[i]),
// G = v' gv; a symmetric matrix. Equal eigenvalues divide by 0; without gv, P is 0.
//
// The caller guarantees: contiguous arrays of float32 or float64, 2 <= n <= 8.
// Source: Golub and Van Loan, Matrix Computations, 8.5.
#pragma once
#include <type_traits>

#include "core/parallel.h"
#include "core/types.h"

namespace structops {

struct EighSmallArgs {
  Dtype dtype;
  int n;
  int64_t B;
  const void* a;  // [B, n, n]
  void* w;        // [B, n]
  void* v;        // [B, n, n]
};

struct EighSmallBwdArgs {
  Dtype dtype;
  int n;
  int64_t B;
  const void* w;   // [B, n]
  const void* v;   // [B, n, n]
  const void* gw;  // [B, n] or null
  const void* gv;  // [B, n, n] or null
  void* ga;        // [B, n, n]
};

// f(integral constant n) for a matrix size.
template <class F> void with_matrix_size(int n, F f) {
  switch (n) {
    case 2: return f(std::integral_constant<int, 2>{});
    case 3: return f(std::integral_constant<int, 3>{});
    case 4: return f(std::integral_constant<int, 4>{});
    case 5: return f(std::integral_constant<int, 5>{});
    case 6: return f(std::integral_constant<int, 6>{});
    case 7: return f(std::integral_constant<int, 7>{});
    default: return f(std::integral_constant<int, 8>{});
  }
}

void eigh_small(const EighSmallArgs& a, const ParallelFor& pf);
void eigh_small_bwd(const EighSmallBwdArgs& a, const ParallelFor& pf);

}  // namespace structops
