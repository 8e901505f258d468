// Frames and rotations of single edges, for instruction-set files. The mathematics is in wigner.h.
#pragma once
#include "core/simd.h"
#include "so2/wigner_table.h"

namespace structops::STRUCTOPS_ISA {
namespace {

// Packed matrices of up to W<double> edges at once, in double: the lanes are edges. vec [n, 3], out [n, R], dir (null or) [n,
// 3].
template <class A, class D>
void wigner_lanes(int n, const A* vec, const A* gamma, int lmax, int mmax, D* out, D* dir) {
  using V = Vec<double>;
  constexpr int L = W<double>;
  const WignerTable& table = wigner_table();
  V e[3];
  for (int j = 0; j < 3; ++j)
    for (int i = 0; i < L; ++i) e[j][i] = i < n ? double(vec[i * 3 + j]) : 0.0;
  V big{};  // scaled by the largest component: no overflow, and no underflow of short vectors
  for (int j = 0; j < 3; ++j) {
    const V m = e[j] < 0 ? -e[j] : e[j];
    big = m > big ? m : big;
  }
  for (int j = 0; j < 3; ++j) e[j] /= big;
  const V square = e[0] * e[0] + e[1] * e[1] + e[2] * e[2];
  V norm;
  for (int i = 0; i < L; ++i) norm[i] = __builtin_sqrt(square[i]);
  for (int j = 0; j < 3; ++j) e[j] /= norm;
  if (dir)
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < 3; ++j) dir[i * 3 + j] = D(e[j][i]);
  const auto below = e[1] < kSeam;
  const V s = below ? splat(-1.0) : splat(1.0), x = e[0], y = s * e[1], z = s * e[2], t = 1.0 / (1.0 + y);
  // The smallest rotation of (x, y, z) onto the y axis; below the seam its last two columns change sign.
  V r[9] = {1.0 - x * x * t, -x * s, -x * z * t * s, x, y * s, z * s, -x * z * t, -z * s, (1.0 - z * z * t) * s};
  if (gamma) {
    V c, g;
    for (int i = 0; i < L; ++i) {
      const double a = i < n ? double(gamma[i]) : 0.0;
      c[i] = __builtin_cos(a);
      g[i] = __builtin_sin(a);
    }
    for (int j = 0; j < 3; ++j) {
      const V top = c * r[j] + g * r[6 + j];
      r[6 + j] = c * r[6 + j] - g * r[j];
      r[j] = top;
    }
  }
  constexpr int kFull = (2 * kMaxL + 1) * (2 * kMaxL + 1);
  V a[kFull], b[kFull], *prev = a, *next = b;
  const int R = packed_size(lmax, mmax);
  int at = 0;
  for (int l = 0; l <= lmax; ++l) {
    const int size = 2 * l + 1;
    if (l == 0)
      next[0] = r[0] * 0.0 + 1.0;  // NaN without a direction
    else if (l == 1)
      for (int k = 0; k < 9; ++k) next[k] = r[k];
    else {
      for (int k = 0; k < size * size; ++k) next[k] = V{};
      for (int q = table.begin[l]; q < table.begin[l + 1]; ++q) {
        const WignerTerm& w = table.term[q];
        next[w.out] += w.c * (r[w.a] * prev[w.b]);
      }
    }
    const int keep = kept_rows(l, mmax), first = (size - keep) / 2;
    for (int k = 0; k < keep * size; ++k)
      for (int i = 0; i < n; ++i) out[int64_t(i) * R + at + k] = D(next[first * size + k][i]);
    at += keep * size;
    V* const swap = prev;
    prev = next;
    next = swap;
  }
}

template <class A>
STRUCTOPS_INLINE Vec<A> load_w(const A* p, int n) {
  return n == W<A> ? load(p) : load_n(p, n);
}
template <class A>
STRUCTOPS_INLINE void store_w(A* p, Vec<A> v, int n) {
  if (n == W<A>)
    store(p, v);
  else
    store_n(p, v, n);
}

// z[row, c] = sum_s D[row, s] x[s, c]; row stride ldz, rows in m-primary order.
template <class A>
void rotate_edge(int L, int M, int64_t C, const A* d, const A* x, A* z, int64_t ldz) {
  constexpr int V = W<A>;
  for (int l = 0; l <= L; ++l) {
    const int k = l < M ? l : M, size = 2 * l + 1;
    for (int64_t c = 0; c < C; c += V) {
      const int n = int(C - c < V ? C - c : V);
      Vec<A> in[2 * kMaxL + 1];
      for (int s = 0; s < size; ++s) in[s] = load_w(x + (l * l + s) * C + c, n);
      for (int m = -k; m <= k; ++m) {
        const A* const row = d + (m + k) * size;
        Vec<A> sum = row[0] * in[0];
        for (int s = 1; s < size; ++s) sum += row[s] * in[s];
        store_w(z + frame_row(L, l, m) * ldz + c, sum, n);
      }
    }
    d += (2 * k + 1) * size;
  }
}

// x[s, c] (+)= scale sum_row D[row, s] z[row, c].
template <class A, bool add>
void rotate_back_edge(int L, int M, int64_t C, const A* d, const A* z, int64_t ldz, A scale, A* x) {
  constexpr int V = W<A>;
  for (int l = 0; l <= L; ++l) {
    const int k = l < M ? l : M, size = 2 * l + 1;
    int row[2 * kMaxL + 1];
    for (int m = -k; m <= k; ++m) row[m + k] = frame_row(L, l, m);
    for (int64_t c = 0; c < C; c += V) {
      const int n = int(C - c < V ? C - c : V);
      Vec<A> in[2 * kMaxL + 1];
      for (int r = 0; r <= 2 * k; ++r) in[r] = scale * load_w(z + row[r] * ldz + c, n);
      for (int s = 0; s < size; ++s) {
        Vec<A> sum = d[s] * in[0];
        for (int r = 1; r <= 2 * k; ++r) sum += d[r * size + s] * in[r];
        A* const to = x + (l * l + s) * C + c;
        store_w(to, add ? load_w(to, n) + sum : sum, n);
      }
    }
    d += (2 * k + 1) * size;
  }
}

// t[j] += sum g . (G_j x) over features [S, C]; g has rows of its own stride.
template <class A>
void torque_edge(int L, int64_t C, const A* g, const A* x, A* t) {
  constexpr int V = W<A>;
  const WignerTable& table = wigner_table();
  for (int l = 1; l <= L; ++l)
    for (int q = table.gen_begin[l]; q < table.gen_begin[l + 1]; ++q) {
      const GeneratorTerm& w = table.gen[q];
      const A *const gr = g + (l * l + w.row) * C, *const xr = x + (l * l + w.col) * C;
      Vec<A> sum{};
      for (int64_t c = 0; c < C; c += V) {
        const int n = int(C - c < V ? C - c : V);
        sum += load_w(gr + c, n) * load_w(xr + c, n);
      }
      t[w.axis] += A(w.c) * hsum<A>(sum);
    }
}

}  // namespace
}  // namespace structops::STRUCTOPS_ISA
