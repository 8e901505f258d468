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
  const int64_t cols = n + 1, whole = cols / L * L;
  const VI64 inside = first_lanes(int(cols - whole)), words = one ? ~first_lanes(1) : VI64{} - 1;
  VI64 wrong{};
  for (int64_t r = 0; r < n; ++r) {
    double* const x = w.at(r, 0);
    s.read(s.a.score, r + 1, x);
    x[r + 1] = -INFINITY;
    VD high = splat<double>(-INFINITY);
    for (int64_t c = 0; c < cols; c += L) {
      VD y = load(x + c);
      if (c == whole) y = inside ? y : splat<double>(-INFINITY);
      wrong |= (y < INFINITY) == 0;
      if (c == 0) y = words ? y : splat<double>(-INFINITY);
      high = y > high ? y : high;
    }
    double top = high[0];
    for (int i = 1; i < L; ++i) top = high[i] > top ? high[i] : top;
    if (one) {
      if (top == -INFINITY) top = x[0];  // this word can only be the root's
      x[0] = top == -INFINITY ? top : x[0] - top;
      root_top = x[0] > root_top ? x[0] : root_top;
    }
    stranded |= top == -INFINITY;
    row[r] = top;
    s.shift += top;
  }
  for (int i = 0; i < L; ++i) bad |= wrong[i] != 0;
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
      VD total{};
      for (int64_t c = 0; c < cols; c += L) {
        VD y = load(w.at(r, c));
        if (c == whole) y = inside ? y : VD{};
        if (c == 0) y = words ? y : VD{};
        total += y;
      }
      const Num<false, false> sum{splat(hsum<double>(total)), {}, {}};
      if (sum.m[0] > 0) s.rows.times(sum);
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
  static constexpr int kPivots = N::ext ? 1 : L == 8 ? 4 : 2;
  Mat E, last;      // e[h,d] as [n, n]; w[last,0](d) as [1, n]
  bool root_in_sum;  // whether D counts the root
  bool keep_columns = false;  // whether row d is to keep w[d,k] as it was when k left, in column k + 1
  bool failed = false;
  Product z{};

  // Words m - 1 .. keep leave, kPivots at a time. Their rows become p.
  void eliminate(const Mat& a, int64_t m, int64_t keep, bool first) {
    int64_t k = m - 1;
    for (; k - keep >= kPivots - 1 && !failed; k -= kPivots) leave<kPivots>(a, k, first);
    for (; k >= keep && !failed; --k) leave<1>(a, k, first);
  }

  // row d += sum_i w[i] (row k - i), columns 0 .. cols - 1
  template <int R> void update(const Mat& a, int64_t d, int64_t k, int64_t cols, const N (&w)[R]) {
    const int64_t whole = cols / L * L;
    const auto at = [&](int64_t c) __attribute__((always_inline)) {
      N x = get<N>(a, d, c);
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) x = fma(x, w[i], get<N>(a, k - i, c));
      return x;
    };
    for (int64_t c = 0; c < whole; c += L) put(a, d, c, at(c));
    if (whole == cols) return;
    if (keep_columns) put_n(a, d, whole, at(whole), int(cols - whole)); else put(a, d, whole, at(whole));
  }

  void normalise(const Mat& a, int64_t k, bool first) {
    const VI64 words = root_in_sum ? VI64{} - 1 : ~first_lanes(1);
    const int64_t cols = k + 1, whole = cols / L * L;
    const int tail = int(cols - whole);
    const VI64 inside = first_lanes(tail);
    N sum = zero<N>();
    for (int64_t c = 0; c < cols; c += L) {
      N x = get<N>(a, k, c);
      if (c == whole) x = keep_lanes(x, inside);
      if (c == 0) x = keep_lanes(x, words);
      sum = c ? add(sum, x) : x;
    }
    const N D = sum_lanes(sum);
    if (!(D.m[0] > 0)) failed = true;
    if (first && !failed) z.times(D);
    const N inv = reciprocal(D);
    for (int64_t c = 0; c < whole; c += L) put(a, k, c, mul(get<N>(a, k, c), inv));
    if (tail) put_n(a, k, whole, mul(get<N>(a, k, whole), inv), tail);
  }

  template <int R> void leave(const Mat& a, int64_t k, bool first) {
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i) {
      normalise(a, k - i, first);
      if (failed) return;
#pragma GCC unroll 4
      for (int j = i + 1; j < R; ++j) {
        const N w[1] = {get_one<N>(a, k - j, k - i + 1)};
        update<1>(a, k - j, k - i, k - i + 1, w);
      }
    }
    N p[R][R];
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < i; ++j) p[i][j] = get_one<N>(a, k - j, k - i + 1);
    for (int64_t d = 0; d <= k - R; ++d) {
      N w[R];
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) {
        w[i] = get_one<N>(a, d, k - i + 1);
#pragma GCC unroll 4
        for (int j = 0; j < i; ++j) w[i] = fma(w[i], w[j], p[i][j]);
        if (i && keep_columns) put_n(a, d, k - i + 1, w[i], 1);
      }
      update<R>(a, d, k, k - R + 2, w);
    }
  }

  // e[k + i, d], i < R, of words that left, for C vectors of columns d from c on (the last with `tail` numbers), given the words
  // before k. Local word j < keep is word stay + j, the others are left + j - keep.
  template <int R, int C> void substitute_block(const Mat& a, int64_t k, int64_t keep, int64_t stay, int64_t left, int64_t c, int tail) {
    N acc[R][C];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int i = 0; i < C; ++i) acc[r][i] = get_one<N>(a, k + r, 0);
    const auto take = [&](int64_t row, int64_t j) __attribute__((always_inline)) {
      N e[C];
#pragma GCC unroll 4
      for (int i = 0; i < C; ++i) e[i] = get<N>(E, row, c + i * L);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const N p = get_one<N>(a, k + r, j + 1);
#pragma GCC unroll 4
        for (int i = 0; i < C; ++i) acc[r][i] = fma(acc[r][i], p, e[i]);
      }
    };
    for (int64_t j = 0; j < keep; ++j) take(stay + j, j);
    for (int64_t j = keep; j < k; ++j) take(left + j - keep, j);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int q = 0; q < r; ++q) {
        const N p = get_one<N>(a, k + r, k + q + 1);
#pragma GCC unroll 4
        for (int i = 0; i < C; ++i) acc[r][i] = fma(acc[r][i], p, acc[q][i]);
      }
      const int64_t row = left + k + r - keep;
#pragma GCC unroll 4
      for (int i = 0; i + 1 < C; ++i) put(E, row, c + i * L, acc[r][i]);
      put_n(E, row, c + (C - 1) * L, acc[r][C - 1], tail);
    }
  }

  template <int C> void substitute_columns(const Mat& a, int64_t m, int64_t keep, int64_t stay, int64_t left, int64_t c, int tail) {
    int64_t k = keep;
    for (; k + kPivots <= m; k += kPivots) substitute_block<kPivots, C>(a, k, keep, stay, left, c, tail);
    for (; k < m; ++k) substitute_block<1, C>(a, k, keep, stay, left, c, tail);
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

  void put_last(int64_t d, const N& w, bool first) {
    put_n(last, 0, d, w, 1);
    put_n(E, d, d, zero<N>(), 1);
    if (!(w.m[0] > 0)) failed = true;
    if (first && !failed) z.times(w);
  }

  // The two words of a, without sums over rows.
  void pair(const Mat& a, int64_t off, bool first) {
    const N r0 = get_one<N>(a, 0, 0), w01 = get_one<N>(a, 0, 2), r1 = get_one<N>(a, 1, 0), w10 = get_one<N>(a, 1, 1);
    const N D0 = root_in_sum ? add(w01, r0) : w01, D1 = root_in_sum ? add(w10, r1) : w10;
    if (!(D0.m[0] > 0) || !(D1.m[0] > 0)) { failed = true; return; }
    const N p0 = mul(r0, reciprocal(D0)), p1 = mul(r1, reciprocal(D1));
    if (first) z.times(D1);
    put_last(off, fma(r0, w01, p1), first);
    put_last(off + 1, fma(r1, w10, p0), false);
    put_n(E, off, off + 1, p0, 1);
    put_n(E, off + 1, off, p1, 1);
  }

  // Words off .. off + m - 1 are left, in a; gives last and e among them. `free` is scratch for the levels below.
  void halves(const Mat& a, int64_t m, int64_t off, double* free, bool first) {
    if (m == 1) return put_last(off, get_one<N>(a, 0, 0), first);
    if (m == 2) return pair(a, off, first);
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
