// One sentence of any chain with logarithms throughout: right for every finite range of scores. The recurrences are in chain.h.
//
// Every row of V, P and B is kept relative to its largest number, which goes to a float64 offset, so that long sentences lose no
// digits. dual: beside each logarithm its derivative along the direction v.
#pragma once
#include "tree/chain_rows.h"

namespace structops::STRUCTOPS_ISA {
namespace {

template <class A, bool dual> struct LogChain {
  const ChainArgs& a;
  const int T, Tp, K;
  const SharedSums* shared;  // null: no posteriors
  A *V, *P, *B, *em, *du, *st, *en, *tr, *val, *Q, *out, *acc, *one;
  A *dV, *dP, *dB, *dem, *ddu, *dst, *den, *dtr, *dval, *dQ, *dacc;
  double *offV, *offP, *offB;
  double* cover;      // [N + 1, T] sums of segment posteriors at the first position, minus those at the position after the last
  double* batch_sum;  // [T, T] sum over the positions of a sentence, for transitions of the batch
  int64_t trans_at = -1;  // what tr holds
  int64_t b = 0, n = 0;
  bool bad = false, bad_trans = false, bad_edges = false;  // found NaN or +inf

  static size_t bytes(const ChainArgs& a, bool posteriors) {
    const size_t row = size_t(padded<A>(a.T)) * sizeof(A) + 64, N = size_t(a.N + 1), K = size_t(a.K), T = size_t(a.T);
    const size_t rows = 4 * N + 2 * K + T + 10;
    return (dual ? 2 : 1) * rows * row + 3 * (N * 8 + 64) + (posteriors ? (K > 1 ? N * T : 0) * 8 + T * T * 8 : 0) + 4096;
  }

  LogChain(const ChainArgs& a_, char* scratch, const SharedSums* shared_)
      : a(a_), T(int(a_.T)), Tp(padded<A>(a_.T)), K(int(a_.K)), shared(shared_) {
    Carver c{scratch};
    const int64_t N = a.N + 1, R = Tp;
    auto rows = [&](A*& p, A*& d, int64_t count) {
      p = c.take<A>(count * R);
      fill(p, count * R, A(-INFINITY));
      d = dual ? c.take<A>(count * R) : nullptr;
      if (dual) fill(d, count * R, A(0));
    };
    A* none;
    rows(V, dV, N); rows(P, dP, N); rows(B, dB, N); rows(em, dem, N);
    rows(du, ddu, K); rows(val, dval, K); rows(tr, dtr, T);
    rows(st, dst, 1); rows(en, den, 1); rows(Q, dQ, 1); rows(acc, dacc, 1);
    rows(out, none, 1); rows(one, none, 1);
    offV = c.take<double>(N);
    offP = c.take<double>(N);
    offB = c.take<double>(N);
    cover = shared && K > 1 ? c.take<double>(N * T) : nullptr;
    batch_sum = shared && a.kind == Trans::batch ? c.take<double>(T * int64_t(T)) : nullptr;
    auto read = [&](const void* p, const void* v, int64_t rows, A* to, A* d_to) {
      bool wrong = false;
      for (int64_t r = 0; r < rows; ++r) {
        if (p) wrong |= read_row<A, false>(a.dtype, p, r, T, to + r * Tp);
        else fill(to + r * Tp, T, A(0));
        if (dual && v) read_row<A, false>(a.dtype, v, r, T, d_to + r * Tp);
      }
      return wrong;
    };
    bad_edges |= read(a.score.duration, a.v.duration, K, du, ddu);
    bad_edges |= read(a.score.start, a.v.start, 1, st, dst);
    bad_edges |= read(a.score.end, a.v.end, 1, en, den);
  }
  // tr = the transitions into position i, for full with a segment of length d.
  void load_trans(int64_t i, int64_t d) {
    const int64_t at = matrix(a, b, i, d);
    if (at != trans_at) {
      trans_at = at;
      bad_trans = false;
      for (int s = 0; s < T; ++s) {
        if (a.kind == Trans::none) { fill(tr + s * Tp, T, A(0)); continue; }
        bad_trans |= read_row<A, false>(a.dtype, a.score.trans, at * T + s, T, tr + s * Tp);
        if (dual && a.v.trans) read_row<A, false>(a.dtype, a.v.trans, at * T + s, T, dtr + s * Tp);
      }
    }
    bad |= bad_trans;
  }

  // to = log sum_s exp(V[i, s] + trans(s, .)), by the transitions in tr.
  void enter(int64_t i, A* to, A* d_to) {
    const A *v = V + i * Tp, *dv = dual ? dV + i * Tp : nullptr;
    log_sum<A, dual>(T, Tp, [&](int s, int c) __attribute__((always_inline)) { return load(tr + s * Tp + c) + v[s]; },
                     [&](int s, int c) __attribute__((always_inline)) { return load(dtr + s * Tp + c) + dv[s]; }, to, d_to);
  }

  // to = log sum_t exp(trans(., t) + q[t]).
  void leave(const A* q, const A* dq, A* to, A* d_to) {
    for (int s = 0; s < T; ++s) {
      const A *row = tr + s * Tp, *d_row = dual ? dtr + s * Tp : nullptr;
      Vec<A> m = splat(A(-INFINITY)), sum{}, d{};
      for (int c = 0; c < Tp; c += W<A>) {
        const Vec<A> x = load(row + c) + load(q + c);
        m = x > m ? x : m;
      }
      const A most = hmax<A>(m);
      if (most == A(-INFINITY)) { to[s] = most; if (dual) d_to[s] = 0; continue; }
      for (int c = 0; c < Tp; c += W<A>) {
        const Vec<A> e = vexp<A>(load(row + c) + load(q + c) - most);
        sum += e;
        if constexpr (dual) d += e == A(0) ? Vec<A>{} : e * (load(d_row + c) + load(dq + c));
      }
      const A total = hsum<A>(sum);
      to[s] = most + vlog<A>(splat(total))[0];
      if constexpr (dual) d_to[s] = hsum<A>(d) / total;
    }
  }

  // to = from + S(i, d, .) + shift; acc holds the emissions of the segment.
  void segment(const A* from, const A* d_from, int64_t i, int64_t d, A shift, A* to, A* d_to) {
    for (int t = 0; t < T; ++t) to[t] = from[t] + shift + acc[t] + du[(d - 1) * Tp + t];
    if (a.score.segment) bad |= read_row<A, true>(a.dtype, a.score.segment, (b * a.N + i) * K + d - 1, T, to);
    if constexpr (dual) {
      for (int t = 0; t < T; ++t) d_to[t] = d_from[t] + dacc[t] + ddu[(d - 1) * Tp + t];
      if (a.v.segment) read_row<A, true>(a.dtype, a.v.segment, (b * a.N + i) * K + d - 1, T, d_to);
    }
  }
  void restart() {
    fill(acc, T, A(0));
    if (dual) fill(dacc, T, A(0));
  }
  void extend(int64_t p) {
    for (int t = 0; t < T; ++t) acc[t] += em[p * Tp + t];
    if constexpr (dual) for (int t = 0; t < T; ++t) dacc[t] += dem[p * Tp + t];
  }
  int64_t longest(int64_t i, int64_t room) const { return a.kind == Trans::full && i == 0 ? (room < 1 ? room : 1) : room < K ? room : K; }

  // Charts V and P, and logz.
  double forward(int64_t b_, double* d_logz) {
    b = b_;
    n = a.lengths[b];
    bad = bad_edges;
    if (n == 0) { if (d_logz) *d_logz = 0; return 0; }
    for (int64_t i = 0; i < n; ++i) {
      bad |= read_row<A, false>(a.dtype, a.score.emit, b * a.N + i, T, em + i * Tp);
      if (dual && a.v.emit) read_row<A, false>(a.dtype, a.v.emit, b * a.N + i, T, dem + i * Tp);
    }
    const bool full = a.kind == Trans::full;
    __builtin_memcpy(P, st, Tp * sizeof(A));
    if (dual) __builtin_memcpy(dP, dst, Tp * sizeof(A));
    offP[0] = normalise(P, Tp);
    for (int64_t j = 1; j <= n; ++j) {
      if (j > 1 && !full) {
        load_trans(j - 1, 1);
        enter(j - 1, P + (j - 1) * Tp, dP + (dual ? (j - 1) * Tp : 0));
        offP[j - 1] = offV[j - 1] + normalise(P + (j - 1) * Tp, Tp);
      }
      double ref = -INFINITY;
      const int64_t first = j > K ? j - K : 0;
      auto base = [&](int64_t i) { return full && i > 0 ? offV[i] : offP[i]; };
      for (int64_t i = first; i < j; ++i) ref = base(i) > ref ? base(i) : ref;
      restart();
      for (int64_t i = j - 1; i >= first; --i) {
        const int64_t d = j - i;
        extend(i);
        A *to = val + (d - 1) * Tp, *d_to = dval + (dual ? (d - 1) * Tp : 0);
        if (d > longest(i, d)) { fill(to, Tp, A(-INFINITY)); continue; }
        const A *from = P + i * Tp, *d_from = dP + (dual ? i * Tp : 0);
        if (full && i > 0) {
          load_trans(i, d);
          enter(i, out, dQ);
          from = out;
          d_from = dQ;
        }
        segment(from, d_from, i, d, A(base(i) - ref), to, d_to);
      }
      combine(int(j - first), V + j * Tp, dV + (dual ? j * Tp : 0));
      offV[j] = ref + normalise(V + j * Tp, Tp);
    }
    for (int c = 0; c < Tp; c += W<A>) store(one + c, load(V + n * Tp + c) + load(en + c));
    const double top = normalise(one, Tp);
    Vec<A> s{}, d{};
    for (int c = 0; c < Tp; c += W<A>) {
      const Vec<A> e = vexp<A>(load(one + c));
      s += e;
      if constexpr (dual) d += e == A(0) ? Vec<A>{} : e * (load(dV + n * Tp + c) + load(den + c));
    }
    const A total = hsum<A>(s);
    if (d_logz) *d_logz = total == A(0) ? 0 : double(hsum<A>(d) / total);
    if (bad) { if (d_logz) *d_logz = NAN; return NAN; }
    if (!(total > A(0))) return -INFINITY;
    return offV[n] + top + __builtin_log(double(total));
  }

  // The log sum of the first `count` rows of val.
  void combine(int count, A* to, A* d_to) {
    if (count == 1) {
      __builtin_memcpy(to, val, Tp * sizeof(A));
      if (dual) __builtin_memcpy(d_to, dval, Tp * sizeof(A));
      return;
    }
    log_sum<A, dual>(count, Tp, [&](int r, int c) __attribute__((always_inline)) { return load(val + r * Tp + c); },
                     [&](int r, int c) __attribute__((always_inline)) { return load(dval + r * Tp + c); }, to, d_to);
  }

  // out = exp(x + y + shift), in dual passes times the derivative of its logarithm.
  void posterior(const A* x, const A* dx, const A* y, const A* dy, A shift, A d_logz, A* to) {
    for (int c = 0; c < Tp; c += W<A>) {
      Vec<A> p = vexp<A>(load(x + c) + load(y + c) + shift);
      if constexpr (dual) p = p == A(0) ? p : p * (load(dx + c) + load(dy + c) - d_logz);
      store(to + c, p);
    }
  }
  static void add_to(double* sum, const A* row, int T, double w) {
    for (int t = 0; t < T; ++t) sum[t] += w * double(row[t]);
  }
  void put_segment(int64_t i, int64_t d, const A* p, double w, double* sums) {
    if (a.post.segment) write_row(a.dtype, a.post.segment, (b * a.N + i) * K + d - 1, T, p, A(w));
    if (a.post.duration) add_to(sums + shared->duration + (d - 1) * T, p, T, w);
    if (K == 1) { write_row(a.dtype, a.post.emit, b * a.N + i, T, p, A(w)); }
    else {
      add_to(cover + i * T, p, T, 1.0);
      add_to(cover + (i + d) * T, p, T, -1.0);
    }
    if (i == 0 && a.post.start) add_to(sums + shared->start, p, T, w);
    if (i + d == n && a.post.end) add_to(sums + shared->end, p, T, w);
  }
  // Posteriors of the borders at i, by the transitions in tr; their sums over s go to `into` (if not null).
  void put_borders(int64_t i, int64_t d, const A* q, const A* dq, A shift, A d_logz, double w, double* sums, A* into) {
    if (into) fill(into, Tp, A(0));
    for (int s = 0; s < T; ++s) {
      const A v = V[i * Tp + s];
      if (v == A(-INFINITY)) continue;
      posterior(tr + s * Tp, dtr + (dual ? s * Tp : 0), q, dq, shift + v, d_logz - (dual ? dV[i * Tp + s] : A(0)), one);
      if (into) for (int c = 0; c < Tp; c += W<A>) store(into + c, load(into + c) + load(one + c));
      if (a.kind == Trans::shared) add_to(sums + shared->trans + s * T, one, T, w);
      else if (a.kind == Trans::batch) add_to(batch_sum + s * int64_t(T), one, T, w);
      else if (a.kind != Trans::none) write_row(a.dtype, a.post.trans, matrix(a, b, i, d) * T + s, T, one, A(w));
    }
  }

  // Posteriors of the sentence that forward left in the charts.
  void backward(double logz, double d_logz_, double w, int64_t group) {
    double* const sums = shared->of(group);
    clear();
    if (n == 0) return;
    if (logz != logz) return poison(sums);
    if (logz == -INFINITY) return finish_batch();
    const bool full = a.kind == Trans::full;
    const A d_logz = A(d_logz_);
    if (cover) fill(cover, (n + 1) * T, 0.0);
    __builtin_memcpy(B + n * Tp, en, Tp * sizeof(A));
    if (dual) __builtin_memcpy(dB + n * Tp, den, Tp * sizeof(A));
    offB[n] = normalise(B + n * Tp, Tp);
    for (int64_t i = n - 1; i >= 0; --i) {
      const int64_t most = longest(i, n - i);
      double ref = -INFINITY;
      for (int64_t d = 1; d <= most; ++d) ref = offB[i + d] > ref ? offB[i + d] : ref;
      restart();
      for (int64_t d = 1; d <= most; ++d) {
        extend(i + d - 1);
        segment(B + (i + d) * Tp, dB + (dual ? (i + d) * Tp : 0), i, d, A(offB[i + d] - ref), val + (d - 1) * Tp, dval + (dual ? (d - 1) * Tp : 0));
      }
      const A* const Pi = P + i * Tp;
      const A* const dPi = dP + (dual ? i * Tp : 0);
      if (!full || i == 0) {
        for (int64_t d = 1; d <= most; ++d) {
          posterior(Pi, dPi, val + (d - 1) * Tp, dval + (dual ? (d - 1) * Tp : 0), A(offP[i] + ref - logz), d_logz, out);
          put_segment(i, d, out, w, sums);
        }
        if (i == 0) break;
        combine(int(most), Q, dQ);
        load_trans(i, 1);
        put_borders(i, 1, Q, dQ, A(offV[i] + ref - logz), d_logz, w, sums, nullptr);
        leave(Q, dQ, B + i * Tp, dB + (dual ? i * Tp : 0));
      } else {
        for (int64_t d = 1; d <= most; ++d) {
          A *q = val + (d - 1) * Tp, *dq = dval + (dual ? (d - 1) * Tp : 0);
          load_trans(i, d);
          put_borders(i, d, q, dq, A(offV[i] + ref - logz), d_logz, w, sums, out);
          put_segment(i, d, out, w, sums);
          leave(q, dq, Q, dQ);
          __builtin_memcpy(q, Q, Tp * sizeof(A));
          if (dual) __builtin_memcpy(dq, dQ, Tp * sizeof(A));
        }
        combine(int(most), B + i * Tp, dB + (dual ? i * Tp : 0));
      }
      offB[i] = ref + normalise(B + i * Tp, Tp);
    }
    if (cover) finish_cover(w);
    finish_batch();
  }

  // Emission posteriors from the differences at the ends of segments; what a score of -inf forbids is exactly 0.
  void finish_cover(double w) {
    for (int64_t i = 0; i < n; ++i) {
      for (int t = 0; t < T; ++t) {
        if (i > 0) cover[i * T + t] += cover[(i - 1) * T + t];
        out[t] = em[i * Tp + t] == A(-INFINITY) ? A(0) : A(cover[i * T + t]);
      }
      write_row(a.dtype, a.post.emit, b * a.N + i, T, out, A(w));
    }
  }
  void finish_batch() {
    if (a.kind == Trans::batch)
      for (int s = 0; s < T; ++s) write_row(a.dtype, a.post.trans, b * T + s, T, batch_sum + s * int64_t(T), 1.0);
  }
  // 0 everywhere in the sentence's own posteriors.
  void clear() {
    const int64_t bytes = dtype_size(a.dtype) * T;
    auto zero = [&](void* p, int64_t rows) { if (p && rows > 0) __builtin_memset(static_cast<char*>(p) + b * rows * bytes, 0, size_t(rows * bytes)); };
    zero(a.post.emit, a.N);
    zero(a.post.segment, a.N * K);
    if (a.kind == Trans::batch) {
      zero(a.post.trans, T);
      fill(batch_sum, T * int64_t(T), 0.0);
    }
    if (a.kind == Trans::position) zero(a.post.trans, (a.N - 1) * T);
    if (a.kind == Trans::full) zero(a.post.trans, (a.N - 1) * K * T);
  }
  // NaN in all posteriors of the sentence and in the shared ones.
  void poison(double* sums) {
    fill(one, T, A(NAN));
    fill(sums, shared->size, double(NAN));
    for (int64_t i = 0; i < n; ++i) write_row(a.dtype, a.post.emit, b * a.N + i, T, one, A(1));
    for (int64_t i = 0; a.post.segment && i < n; ++i)
      for (int64_t d = 1; d <= K && i + d <= n; ++d) write_row(a.dtype, a.post.segment, (b * a.N + i) * K + d - 1, T, one, A(1));
    if (a.kind == Trans::batch)
      for (int s = 0; s < T; ++s) write_row(a.dtype, a.post.trans, b * T + s, T, one, A(1));
    for (int64_t i = 1; (a.kind == Trans::position || a.kind == Trans::full) && i < n; ++i)
      for (int64_t d = 1; d <= (a.kind == Trans::full ? K : 1) && i + d <= n; ++d)
        for (int s = 0; s < T; ++s) write_row(a.dtype, a.post.trans, matrix(a, b, i, d) * T + s, T, one, A(1));
  }
};

}  // namespace
}  // namespace structops::STRUCTOPS_ISA
