// The linear map that commutes with turns about the edge, per order m, over the edges; its transpose and its weight gradient.
//
//   m = 0:  y_0 = W_0 x_0 + b                     [extra + n_0 Cout], the extra features first
//   m > 0:  y_+ = W1 x_+ - W2 x_-,  y_- = W1 x_- + W2 x_+        with n_m = L - m + 1, x_+- [n_m Cin]: (l, c), c fastest
// A row of x holds [x_0 | x_1+ | x_1- | x_2+ ...] (m-primary, n Cin numbers), a row of y [extra | y_0 | y_1+ | y_1- ...].
// w [numel]: W_0 [extra + n_0 Cout, n_0 Cin], then for m = 1..M [W1; W2] [2 n_m Cout, n_m Cin], row-major: the layout of
// fairchem.
//
//   fwd, transpose = false: x -> y;  transpose = true: x = g (a row of y) -> its pullback (a row of x), without bias
//   wgrad:  w-shaped sum over edges of the products of g and x;  bias gradient in the caller
// three: the complex product by three multiplications, (W1 + W2)(x_+ + x_-) in place of two of the four. A quarter fewer
// operations for m > 0, about one bit less accurate.
// Sums: over the inputs in blocks of 256 in order; wgrad adds edges in order within at most 8 slices fixed by E (Triton: at
// most 16, fixed by the shapes), then the slices. Weights are packed at every call, so they are never stale.
// Source: Passaro and Zitnick, arXiv:2302.03655.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

struct So2Shape {
  int lmax, mmax;
  int64_t Cin, Cout, extra;

  int64_t rows(int m) const { return lmax - m + 1; }
  int64_t at(int m) const {
    return m == 0 ? 0 : rows(0) + 2 * ((m - 1) * (lmax + 1) - int64_t(m) * (m - 1) / 2);
  }  // first row of +m
  int64_t n() const { return at(mmax + 1); }
  int64_t K(int m) const { return rows(m) * Cin; }
  int64_t N(int m) const { return rows(m) * Cout + (m == 0 ? extra : 0); }
  int64_t in_at(int m) const { return at(m) * Cin; }
  int64_t out_at(int m) const { return m == 0 ? 0 : extra + at(m) * Cout; }
  int64_t in() const { return n() * Cin; }
  int64_t out() const { return extra + n() * Cout; }
  int64_t weight_at(int m) const {
    int64_t sum = 0;
    for (int i = 0; i < m; ++i) sum += (i ? 2 : 1) * K(i) * N(i);
    return sum;
  }
  int64_t weights() const { return weight_at(mmax + 1); }
};

struct So2ConvArgs {
  Dtype dtype;  // f32 or f64
  int64_t E;
  So2Shape shape;
  bool transpose, three;
  const void* x;     // fwd: [E, in] or, transposed, [E, out]; wgrad: [E, in]
  const void* g;     // wgrad: [E, out]
  const void* w;     // fwd: [weights]
  const void* bias;  // fwd: [N(0)] or null
  void* out;         // fwd: [E, out] or [E, in]; wgrad: [weights]
};

void so2_conv_fwd(const So2ConvArgs& a, const ParallelFor& pf);
void so2_conv_wgrad(const So2ConvArgs& a, const ParallelFor& pf);

}  // namespace structops
