// Sparse bilinear maps, channel by channel, in all three directions of their trilinear form.
//
//   T(x, y, z) = sum over n, c, t of  coef[t] * x[n, i_t, c] * y[n, j_t, c] * z[n, k_t, c]
//
// The slots x, y, z are numbered 0, 1, 2. Role s is the gradient of T in slot s, from a in slot s + 1 and b in slot s + 2 (mod 3):
// role 2 is the product of x and y; the gradients of role s are roles s + 1 and s + 2 of the same lists, at every order.
//
//   out[n, r, c] = sum over terms t of role s with result r of  coef[t] * a[n, a_t, c] * b[n, b_t, c]
//
// Products of spherical functions (Gaunt coefficients), of geometric algebras (signs) and of irreps are of this form.
//
// Operands: [N, D, C], or [N, C, D] with components_last. Each may have one row for all n. With `total` the result is a sum over n.
// Order of summation: n by n (total), a by a in increasing order, b by b within it. NaN and infinities propagate to the components
// whose terms read them. Accumulators: float for float32, bfloat16 and float16; double for float64.
//
// The caller guarantees: lists made by pyops/so2/_bilinear.py (components in range), contiguous tensors.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

// sizes: dims of the slots, terms, then for each role its pairs and where its lists begin. The lists of a role:
// row_ptr [dim + 1] of pairs, pairs {a, end of its terms} [pairs][2], b [terms].
enum BilinearSizes : int { bl_dim = 0, bl_terms = 3, bl_pairs = 4, bl_at = 7, kBilinearSizes = 10 };
struct BilinearPair { int32_t a, end; };

struct BilinearArgs {
  Dtype dtype;
  bool components_last, total;
  int64_t N, C;
  int64_t a_rows, b_rows;  // N or 1
  int64_t A, B, R, terms, pairs;  // components of a, b and the result; terms and pairs of the role
  const int32_t* lists;    // of the role
  const double* coef;      // [terms], in the order of the role
  const void* a;
  const void* b;
  void* out;               // [N or 1, R, C]
};

void sparse_bilinear(const BilinearArgs& a, const ParallelFor& pf);

}  // namespace structops
