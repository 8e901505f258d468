// One sentence of a linear chain without logarithms: exponentials of the scores, rows rescaled by powers of two.
//
// With E = exp(trans - max) and x_t = exp(emit_t - max):  f_t = x_t * (f_{t-1} E),  w_t = x_t * g_t,  g_{t-1} = E w_t.
// A row's posterior is f g over its sum, a border's f_{t-1}[i] E[i, j] w_t[j] over the same, so no scale is kept but logz's.
//
// When this may be trusted. A transition without -inf of range R carries every number of a row to every number of the next with a
// weight of at least e^-R: what underflows was negligible. With -inf, numbers far below the largest of their row may become
// all that is left; then no positive number may fall below e^-`least`, which keeps every product in range. A sentence
// that fails is left to LogChain.
#pragma once
#include "tree/chain_rows.h"

namespace structops::STRUCTOPS_ISA {
namespace {

template <class A> struct LinearLimit;
template <> struct LinearLimit<float> { static constexpr float range = 40, least = 28, sum = 1e-15f; };
template <> struct LinearLimit<double> { static constexpr double range = 300, least = 230, sum = 1e-200; };

template <class A> STRUCTOPS_INLINE A exp_of(double x) { return vexp<A>(splat(A(x)))[0]; }

// exp(trans - top), padded with 0, and its transpose.
template <class A> struct LinearMatrix {
  A *E, *ET;  // [T, Tp]
  double top = 0;
  bool ok = false, dense = false;  // ok: without NaN and +inf, and in range
  static size_t bytes(const ChainArgs& a) { return 2 * (size_t(a.T) * size_t(padded<A>(a.T)) * sizeof(A) + 64); }

  LinearMatrix(const ChainArgs& a, Carver& c) : E(c.take<A>(a.T * padded<A>(a.T))), ET(c.take<A>(a.T * padded<A>(a.T))) {
    fill(ET, a.T * padded<A>(a.T), A(0));
  }

  void load_matrix(const ChainArgs& a, int64_t at) {
    const int T = int(a.T), Tp = padded<A>(T);
    bool bad = false;
    A high = -INFINITY, low = INFINITY;
    dense = true;
    for (int s = 0; s < T; ++s) {
      A* const row = E + s * Tp;
      fill(row, Tp, A(-INFINITY));
      if (a.kind == Trans::none) fill(row, T, A(0));
      else bad |= read_row<A, false>(a.dtype, a.score.trans, at * T + s, T, row);
      for (int t = 0; t < T; ++t) {
        const A x = row[t];
        high = x > high ? x : high;
        low = x > A(-INFINITY) && x < low ? x : low;
        dense &= x > A(-INFINITY);
      }
    }
    ok = !bad && high >= low && high - low <= (dense ? LinearLimit<A>::range : LinearLimit<A>::least);
    if (!ok) return;
    top = double(high);
    for (int s = 0; s < T; ++s) {
      A* const row = E + s * Tp;
      for (int c = 0; c < Tp; c += W<A>) store(row + c, vexp<A>(load(row + c) - high));
      for (int t = 0; t < T; ++t) ET[t * Tp + s] = row[t];
    }
  }
};

// to[c..] = sum_s v[s] M[s, c..] for C vectors.
template <class A, int C> STRUCTOPS_INLINE void multiply_some(const A* v, const A* M, int T, int Tp, A* to) {
  constexpr int L = W<A>;
  Vec<A> even[C] = {}, odd[C] = {};
  int s = 0;
  for (; s + 2 <= T; s += 2)
    for (int k = 0; k < C; ++k) {
      even[k] += v[s] * load(M + s * Tp + k * L);
      odd[k] += v[s + 1] * load(M + (s + 1) * Tp + k * L);
    }
  if (s < T) for (int k = 0; k < C; ++k) even[k] += v[s] * load(M + s * Tp + k * L);
  for (int k = 0; k < C; ++k) store(to + k * L, even[k] + odd[k]);
}
template <class A> STRUCTOPS_INLINE void multiply(const A* v, const A* M, int T, int Tp, A* to) {
  constexpr int L = W<A>;
  int c = 0;
  for (; c + 4 * L <= Tp; c += 4 * L) multiply_some<A, 4>(v, M + c, T, Tp, to + c);
  switch ((Tp - c) / L) {
    case 3: multiply_some<A, 3>(v, M + c, T, Tp, to + c); break;
    case 2: multiply_some<A, 2>(v, M + c, T, Tp, to + c); break;
    case 1: multiply_some<A, 1>(v, M + c, T, Tp, to + c); break;
    default: break;
  }
}

template <class A> struct LinearChain {
  const ChainArgs& a;
  const int T, Tp;
  const SharedSums* shared;
  const LinearMatrix<A>* matrix_now;  // of all sentences, or own
  LinearMatrix<A> own;
  A *f, *x, *st, *en, *g, *row, *acc;  // f, x: [N, Tp]; acc: [T, Tp]
  double st_top = 0, en_top = 0;
  bool edges_ok = true, dense = true;  // dense: the sentence's transitions have no -inf
  int64_t b = 0, n = 0;

  static size_t bytes(const ChainArgs& a) {
    const size_t row = size_t(padded<A>(a.T)) * sizeof(A);
    return (2 * size_t(a.N + 1) + size_t(a.T) + 4) * row + 7 * 64 + LinearMatrix<A>::bytes(a) + 64;
  }

  LinearChain(const ChainArgs& a_, Carver& c, const SharedSums* shared_, const LinearMatrix<A>* common)
      : a(a_), T(int(a_.T)), Tp(padded<A>(a_.T)), shared(shared_), matrix_now(common), own(a_, c) {
    f = c.take<A>((a.N + 1) * Tp);
    x = c.take<A>((a.N + 1) * Tp);
    st = c.take<A>(Tp); en = c.take<A>(Tp); g = c.take<A>(Tp); row = c.take<A>(Tp);
    acc = c.take<A>(T * Tp);
    st_top = edge(a.score.start, st);
    en_top = edge(a.score.end, en);
  }

  double edge(const void* p, A* to) {
    fill(to, Tp, A(-INFINITY));
    if (p) edges_ok &= !read_row<A, false>(a.dtype, p, 0, T, to);
    else fill(to, T, A(0));
    return exponentiate(to, &edges_ok);
  }
  // to = exp(to - its largest number); returns that. *ok = false where all are -inf.
  double exponentiate(A* to, bool* ok) {
    const A top = row_max(to, Tp);
    if (top == A(-INFINITY)) { *ok = false; return 0; }
    for (int c = 0; c < Tp; c += W<A>) {
      const Vec<A> y = load(to + c) - top;
      smallest_log = (y > A(-INFINITY)) & (y < smallest_log) ? y : smallest_log;
      store(to + c, vexp<A>(y));
    }
    return double(top);
  }
  Vec<A> smallest_log{};  // of the exponents so far
  Vec<A> smallest{};      // of the positive numbers of scaled rows

  // Makes the largest number of a row at least 1 and less than 2; returns the exponent taken out, or stops at a row of zeros.
  bool rescale_row(A* to, int64_t* exponent) {
    constexpr int bias = MathConst<A>::bias, mantissa = MathConst<A>::mantissa;
    const A top = row_max(to, Tp);
    if (!(top > A(0)) || !(top < A(INFINITY))) return false;
    const Int<A> e = Int<A>(bitcast<Int<A>>(top) >> mantissa) - bias;
    if (e <= -bias + 1 || e >= bias - 1) return false;
    const A factor = bitcast<A>(Int<A>(bias - e) << mantissa);
    for (int c = 0; c < Tp; c += W<A>) {
      const Vec<A> y = load(to + c) * factor;
      smallest = (y > A(0)) & (y < smallest) ? y : smallest;
      store(to + c, y);
    }
    *exponent += e;
    return true;
  }

  bool use_matrix(int64_t t) {  // of the border into t
    if (a.kind == Trans::position || (a.kind == Trans::batch && t == 1)) own.load_matrix(a, matrix(a, b, t, 1));
    return matrix_now->ok;
  }

  // Rows f and logz; false: use logarithms.
  bool forward(int64_t b_, double* logz) {
    b = b_;
    n = a.lengths[b];
    if (n == 0) { *logz = 0; return true; }
    if (a.kind == Trans::position || a.kind == Trans::batch) matrix_now = &own;
    if (!edges_ok) return false;
    bool ok = true;
    dense = true;
    double total = st_top + en_top;
    int64_t exponent = 0;
    smallest_log = Vec<A>{};
    exponents_of_edges();
    smallest = splat(A(1));
    for (int64_t t = 0; t < n; ++t) {
      A *const xt = x + t * Tp, *const ft = f + t * Tp;
      for (int c = T; c < Tp; ++c) xt[c] = A(-INFINITY);
      if (read_row<A, false>(a.dtype, a.score.emit, b * a.N + t, T, xt)) return false;
      total += exponentiate(xt, &ok);
      if (!ok) return false;
      if (t > 0) {
        if (!use_matrix(t)) return false;
        dense &= matrix_now->dense;
        total += matrix_now->top;
        multiply(ft - Tp, matrix_now->E, T, Tp, ft);
      } else {
        __builtin_memcpy(ft, st, Tp * sizeof(A));
      }
      for (int c = 0; c < Tp; c += W<A>) store(ft + c, load(ft + c) * load(xt + c));
      if (!rescale_row(ft, &exponent)) return false;
    }
    const A sum = dot(f + (n - 1) * Tp, en);
    if (!(sum > LinearLimit<A>::sum)) return false;
    if (!dense && !in_range()) return false;
    *logz = total + double(exponent) * 0.693147180559945309417 + __builtin_log(double(sum));
    return true;
  }
  void exponents_of_edges() {  // start and end count among the exponents of every sentence
    for (int c = 0; c < Tp; c += W<A>)
      for (int side = 0; side < 2; ++side) {
        const Vec<A> y = load((side ? en : st) + c);
        smallest_edge = (y > A(0)) & (y < smallest_edge) ? y : smallest_edge;
      }
  }
  Vec<A> smallest_edge = splat(A(1));
  bool in_range() const {
    const A low = exp_of<A>(-LinearLimit<A>::least);
    for (int i = 0; i < W<A>; ++i)
      if (smallest[i] < low || smallest_edge[i] < low || smallest_log[i] < -LinearLimit<A>::least) return false;
    return true;
  }
  A dot(const A* p, const A* q) const {
    Vec<A> s{};
    for (int c = 0; c < Tp; c += W<A>) s += load(p + c) * load(q + c);
    return hsum<A>(s);
  }

  // Posteriors of the sentence whose rows forward left; false: use logarithms, which write everything again.
  bool backward(double w, int64_t group) {
    if (n > 0 && !fold(A(w))) return false;
    double* const sums = shared->of(group);
    const int64_t bytes = dtype_size(a.dtype) * T;
    if (n < a.N) __builtin_memset(static_cast<char*>(a.post.emit) + (b * a.N + n) * bytes, 0, size_t((a.N - n) * bytes));
    if (a.kind == Trans::position && a.N > 1) {
      const int64_t used = n > 0 ? n - 1 : 0;
      __builtin_memset(static_cast<char*>(a.post.trans) + (b * (a.N - 1) + used) * T * bytes, 0, size_t((a.N - 1 - used) * T * bytes));
    }
    auto add = [&](int64_t at, const A* from) { for (int t = 0; t < T; ++t) sums[at + t] += double(from[t]); };
    if (n > 0 && a.post.start) add(shared->start, first);
    if (n > 0 && a.post.end) add(shared->end, last);
    if (a.kind == Trans::shared && n > 1) {
      accumulate();
      for (int s = 0; s < T; ++s) add(shared->trans + s * T, acc + s * Tp);
    } else if (a.kind == Trans::batch) {
      if (n > 1) accumulate();
      else fill(acc, T * Tp, A(0));
      for (int s = 0; s < T; ++s) write_row(a.dtype, a.post.trans, b * T + s, T, acc + s * Tp, A(1));
    }
    return true;
  }
  A *first = nullptr, *last = nullptr;  // weighted posteriors at the ends

  // From the right: emission posteriors; then f[t] = f[t] weight / norm and x[t + 1] = w[t + 1] are the factors of the borders.
  bool fold(A weight) {
    int64_t ignored = 0;
    __builtin_memcpy(g, en, Tp * sizeof(A));
    for (int64_t t = n - 1; t >= 0; --t) {
      A *const ft = f + t * Tp, *const xt = x + t * Tp;
      const A sum = dot(ft, g);
      if (!(sum > LinearLimit<A>::sum)) return false;
      const A inv = A(1) / sum;
      A* const post = t == n - 1 && a.post.end ? last_row() : t == 0 && a.post.start ? first_row() : row;
      for (int c = 0; c < Tp; c += W<A>) {
        const Vec<A> scaled = load(ft + c) * inv * weight;
        store(post + c, scaled * load(g + c));
        store(ft + c, scaled);
        store(xt + c, load(xt + c) * load(g + c));
      }
      if (n == 1) first = last = post;
      write_row(a.dtype, a.post.emit, b * a.N + t, T, post, A(1));
      if (t == 0) break;
      if (!rescale_row(xt, &ignored)) return false;
      A* const before = ft - Tp;
      if (a.kind == Trans::position) {
        if (!use_matrix(t)) return false;
        multiply(xt, own.ET, T, Tp, g);
        border(t, weight / dot(before, g));
      } else {
        multiply(xt, matrix_now->ET, T, Tp, g);
      }
    }
    return dense || in_range();
  }
  A* last_row() { return last = f + a.N * Tp; }
  A* first_row() { return first = x + a.N * Tp; }

  void border(int64_t t, A factor) {
    const A *const before = f + (t - 1) * Tp, *const w = x + t * Tp;
    for (int s = 0; s < T; ++s) {
      const A v = before[s] * factor;
      for (int c = 0; c < Tp; c += W<A>) store(row + c, v * load(own.E + s * Tp + c) * load(w + c));
      write_row(a.dtype, a.post.trans, (b * (a.N - 1) + t - 1) * T + s, T, row, A(1));
    }
  }

  // acc = E * sum_t f[t]^T x[t + 1], four rows of four vectors at a time.
  void accumulate() {
    constexpr int L = W<A>;
    for (int c = 0; c < Tp; c += 4 * L)
      switch ((Tp - c) / L) {
        case 1: columns<1>(c); break;
        case 2: columns<2>(c); break;
        case 3: columns<3>(c); break;
        default: columns<4>(c); break;
      }
  }
  template <int C> void columns(int c) {
    int s = 0;
    for (; s + 4 <= T; s += 4) block<4, C>(s, c);
    for (; s < T; ++s) block<1, C>(s, c);
  }
  template <int R, int C> [[gnu::always_inline]] inline void block(int s, int c) {
    constexpr int L = W<A>;
    Vec<A> sum[R][C] = {};
    for (int64_t t = 0; t + 1 < n; ++t) {
      const A *const left = f + t * Tp + s, *const right = x + (t + 1) * Tp + c;
      for (int k = 0; k < C; ++k) {
        const Vec<A> y = load(right + k * L);
        for (int r = 0; r < R; ++r) sum[r][k] += left[r] * y;
      }
    }
    for (int r = 0; r < R; ++r)
      for (int k = 0; k < C; ++k) {
        const int at = (s + r) * Tp + c + k * L;
        store(acc + at, sum[r][k] * load(matrix_now->E + at));
      }
  }
};

}  // namespace
}  // namespace structops::STRUCTOPS_ISA
