// Elimination without subtraction of one sentence. The algorithm is in matrix_tree.h. Include only from *_cpu.cpp.
//
// A working matrix has the root in column 0 and local word j in column j + 1. Words leave from the last down, so that what is left
// is a leading block: the diagonal and the columns of words that have left are never read again, and may hold anything.
#pragma once
#include "tree/extended.h"
#include "tree/matrix_tree.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int L = W<double>;
constexpr double kLn2 = 0.693147180559945309417, kLog2e = 1.44269504088896340736;
constexpr double kForbidden = -0x1p36;   // below the best of the word: as good as -inf
constexpr double kRootShift = 0x1p50;    // one root, ext: the root column is times 2^-kRootShift
constexpr double kLeastExponent = -900;  // of the probability of a tree, for plain float64

enum class Outcome { done, none, nan, underflow };

// ---- the rows of one sentence ----------------------------------------------------------------------------------------------

struct Sentence {
  const MatrixTreeArgs& a;
  int64_t b, n;
  double shift = 0;  // logz = shift + log of the scaled sum
  Product rows{};    // of the sums of the scaled rows: the largest value that the scaled sum could have

  // The scores of word d from heads 0..n, widened.
  void read(const void* from, int64_t d, double* row) const {
    with_dtype(a.dtype, [&](auto* t) {
      using T = Pointee<decltype(t)>;
      if constexpr (is_float_storage<T>) {
        const T* const src = static_cast<const T*>(from) + (b * a.N + d) * a.N;
        for (int64_t h = 0; h <= n; ++h) row[h] = double(widen(src[h]));
      }
    });
  }
};

// Weights from log weights relative to the largest, in place: columns [from, cols) of row r less `top`.
template <class N> void exponentiate(const Mat& w, int64_t r, int64_t from, int64_t cols, double top, double factor_exponent) {
  for (int64_t c = from; c < cols; c += L) {
    VD x = load(w.at(r, c)) - top;
    x = x > kForbidden ? x : splat<double>(-INFINITY);
    N y;
    if constexpr (N::ext) {
      constexpr double magic = 6755399441055744.0;
      const VI64 any = x > -INFINITY;
      x = any ? x : VD{};
      const VD k = (x * kLog2e + magic) - magic;
      y.m = vexp<double>((x - k * 6.93145751953125e-1) - k * 1.42860682030941723212e-6);
      y.e = k + factor_exponent;
      y.d = VD{};
      y = normalised(keep_lanes(y, any));
    } else {
      y.m = vexp<double>(x);
    }
    if constexpr (N::dual) y.d = VD{};
    const int left = int(cols - c < L ? cols - c : L);
    put_n(w, r, c, y, left);
  }
}

// Fills w with the scaled weights of the sentence. Row r is word r + 1; the diagonal is 0.
template <class N> Outcome prepare(Sentence& s, const Mat& w, double* row) {
  const int64_t n = s.n;
  const bool one = !s.a.multiroot;
  double root_top = -INFINITY;
  bool bad = false, stranded = false;
  s.shift = 0;
  s.rows = Product{};
  for (int64_t r = 0; r < n; ++r) {
    double* const x = w.at(r, 0);
    s.read(s.a.score, r + 1, x);
    x[r + 1] = -INFINITY;
    double top = -INFINITY;
    for (int64_t h = 0; h <= n; ++h) {
      bad |= !(x[h] < INFINITY);
      top = (h > 0 || !one) && x[h] > top ? x[h] : top;
    }
    if (one) {
      if (top == -INFINITY) top = x[0];  // this word can only be the root's
      x[0] = top == -INFINITY ? top : x[0] - top;
      root_top = x[0] > root_top ? x[0] : root_top;
    }
    stranded |= top == -INFINITY;
    row[r] = top;
    s.shift += top;
  }
  if (bad) return Outcome::nan;
  if (stranded || (one && root_top == -INFINITY)) return Outcome::none;
  if (one) s.shift += root_top;
  N root_sum = zero<N>();
  for (int64_t r = 0; r < n; ++r) {
    if (one) {
      // The root column is relative to its own largest; it is brought to the row's scale for the shared exponentiation.
      double* const x = w.at(r, 0);
      const double root = x[0] - root_top;
      exponentiate<N>(w, r, 0, n + 1, row[r], 0);
      x[0] = root;
      exponentiate<N>(w, r, 0, 1, 0, N::ext ? -kRootShift : 0);
      root_sum = add(root_sum, get_one<N>(w, r, 0));
    } else {
      exponentiate<N>(w, r, 0, n + 1, row[r], 0);
    }
    if constexpr (!N::ext) {
      double sum = 0;
      for (int64_t h = one; h <= n; ++h) sum += *w.at(r, h);
      if (sum > 0) s.rows.times(Num<false, false>{splat(sum), {}, {}});
    }
    if constexpr (N::dual) {
      s.read(s.a.v, r + 1, row + n);
      double* const value = w.at(r, 0);
      for (int64_t h = 0; h <= n; ++h) value[w.plane + h] = value[h] == 0 ? 0 : value[h] * row[n + h];
    }
  }
  if constexpr (!N::ext)
    if (one) s.rows.times(root_sum);
  return Outcome::done;
}

// ---- elimination -----------------------------------------------------------------------------------------------------------

template <class N> void copy(const Mat& to, int64_t r, int64_t c, const Mat& from, int64_t fr, int64_t fc, int64_t cols) {
  for (int64_t j = 0; j < cols; j += L) put(to, r, c + j, get<N>(from, fr, fc + j));
}

template <class N> struct Solver {
  Mat E, last;      // e[h,d] as [n, n]; w[last,0](d) as [1, n]
  bool root_in_sum;  // whether D counts the root
  bool keep_columns = false;  // whether row d is to keep w[d,k] as it was when k left, in column k + 1
  bool failed = false;
  Product z{};

  // Words m - 1 .. keep leave. Their rows become p.
  void eliminate(const Mat& a, int64_t m, int64_t keep, bool first) {
    VI64 words = VI64{} - 1;
    if (!root_in_sum) words[0] = 0;
    for (int64_t k = m - 1; k >= keep; --k) {
      const int64_t cols = k + 1, whole = cols / L * L;
      const int tail = int(cols - whole);
      VI64 inside{};
      for (int i = 0; i < tail; ++i) inside[i] = -1;
      N sum = zero<N>();
      for (int64_t c = 0; c < cols; c += L) {
        N x = get<N>(a, k, c);
        if (c == whole) x = keep_lanes(x, inside);
        if (c == 0) x = keep_lanes(x, words);
        sum = c ? add(sum, x) : x;
      }
      const N D = sum_lanes(sum);
      if (!(D.m[0] > 0)) { failed = true; return; }
      if (first) z.times(D);
      const N inv = reciprocal(D);
      for (int64_t c = 0; c < whole; c += L) put(a, k, c, mul(get<N>(a, k, c), inv));
      if (tail) put_n(a, k, whole, mul(get<N>(a, k, whole), inv), tail);
      for (int64_t d = 0; d < k; ++d) {
        const N w = get_one<N>(a, d, k + 1);
        for (int64_t c = 0; c < whole; c += L) put(a, d, c, fma(get<N>(a, d, c), w, get<N>(a, k, c)));
        if (tail) {
          const N x = fma(get<N>(a, d, whole), w, get<N>(a, k, whole));
          if (keep_columns) put_n(a, d, whole, x, tail); else put(a, d, whole, x);
        }
      }
    }
  }

  // e[k, d] of the words k that left, for the columns d that stayed. Local word j < keep is word stay + j, the others left + j - keep.
  template <int cols> void substitute_columns(const Mat& a, int64_t m, int64_t keep, int64_t stay, int64_t left, int64_t c, int tail) {
    for (int64_t k = keep; k < m; ++k) {
      N acc[cols];
      const N root = get_one<N>(a, k, 0);
      for (int i = 0; i < cols; ++i) acc[i] = root;
      for (int64_t j = 0; j < k; ++j) {
        const N p = get_one<N>(a, k, j + 1);
        const int64_t r = j < keep ? stay + j : left + j - keep;
        for (int i = 0; i < cols; ++i) acc[i] = fma(acc[i], p, get<N>(E, r, c + i * L));
      }
      for (int i = 0; i + 1 < cols; ++i) put(E, left + k - keep, c + i * L, acc[i]);
      put_n(E, left + k - keep, c + (cols - 1) * L, acc[cols - 1], tail);
    }
  }

  void substitute(const Mat& a, int64_t m, int64_t keep, int64_t stay, int64_t left) {
    for (int64_t c = 0; c < keep; c += 4 * L) {
      const int64_t vectors = (keep - c + L - 1) / L;
      const int tail = int(keep - c - (vectors - 1) * L);
      switch (vectors) {
        case 1: substitute_columns<1>(a, m, keep, stay, left, stay + c, tail); break;
        case 2: substitute_columns<2>(a, m, keep, stay, left, stay + c, tail); break;
        case 3: substitute_columns<3>(a, m, keep, stay, left, stay + c, tail); break;
        default: substitute_columns<4>(a, m, keep, stay, left, stay + c, vectors > 4 ? L : tail);
      }
    }
  }

  // Words off .. off + m - 1 are left, in a; gives last and e among them. `free` is scratch for the levels below.
  void halves(const Mat& a, int64_t m, int64_t off, double* free, bool first) {
    if (m == 1) {
      const N w = get_one<N>(a, 0, 0);
      put_n(last, 0, off, w, 1);
      put_n(E, off, off, zero<N>(), 1);
      if (!(w.m[0] > 0)) failed = true;
      if (first) z.times(w);
      return;
    }
    const int64_t h = m / 2;
    const Mat b(free, m, m + 1);
    for (int64_t i = 0; i < m; ++i) {
      const int64_t r = i < m - h ? h + i : i - (m - h);
      copy<N>(b, i, 0, a, r, 0, 1);
      copy<N>(b, i, 1, a, r, h + 1, m - h);
      for (int64_t j = 0; j < h; j += L) put_n(b, i, 1 + m - h + j, get<N>(a, r, 1 + j), int(h - j < L ? h - j : L));
    }
    free += N::planes * b.plane;
    half(a, m, h, off, off + h, free, first);
    if (!failed) half(b, m, m - h, off + h, off, free, false);
  }

  void half(const Mat& a, int64_t m, int64_t keep, int64_t stay, int64_t left, double* free, bool first) {
    eliminate(a, m, keep, first);
    if (failed) return;
    halves(a, keep, stay, free, first);
    if (!failed) substitute(a, m, keep, stay, left);
  }
};

}  // namespace
}  // namespace structops::STRUCTOPS_ISA
