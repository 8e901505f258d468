// Eigenvalues and eigenvectors of symmetric matrices of size 2 and 3.
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
// The caller guarantees: contiguous arrays of float32 or float64, n = 2 or 3.
// Source: Golub and Van Loan, Matrix Computations, 8.5.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

struct Eigh3Args {
  Dtype dtype;
  int n;
  int64_t B;
  const void* a;  // [B, n, n]
  void* w;        // [B, n]
  void* v;        // [B, n, n]
};

struct Eigh3BwdArgs {
  Dtype dtype;
  int n;
  int64_t B;
  const void* w;   // [B, n]
  const void* v;   // [B, n, n]
  const void* gw;  // [B, n] or null
  const void* gv;  // [B, n, n] or null
  void* ga;        // [B, n, n]
};

void eigh3(const Eigh3Args& a, const ParallelFor& pf);
void eigh3_bwd(const Eigh3BwdArgs& a, const ParallelFor& pf);

}  // namespace structops
