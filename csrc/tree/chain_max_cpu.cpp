// CPU chain_max_marginals: the recurrences of chain.h with max in place of log sum exp, from the left, then from the right.
#include "tree/chain_rows.h"

namespace structops::STRUCTOPS_ISA {
namespace {

template <class A>
struct MaxChain {
  struct Matrix {  // of transitions
    A* rows;
    int64_t at;  // what it holds
    bool bad;
  };
  const ChainArgs& a;
  A* const through;
  const int T, Tp, K;
  A *V, *B, *em, *du, *st, *en, *acc, *row, *P, *Q;
  Matrix into, out;  // rows by source; by destination
  int64_t b = 0, n = 0;
  bool bad = false, bad_edges = false;

  static size_t bytes(const ChainArgs& a) {
    return size_t(3 * (a.N + 1) + a.K + 2 * a.T + 6) * (size_t(padded<A>(a.T)) * sizeof(A) + 64) + 4096;
  }

  MaxChain(const ChainMaxArgs& x, char* scratch)
      : a(x.in), through(static_cast<A*>(x.through)), T(int(a.T)), Tp(padded<A>(a.T)), K(int(a.K)) {
    Carver c{scratch};
    const auto rows = [&](int64_t count) {
      A* const p = c.take<A>(count * Tp);
      fill(p, count * Tp, A(-INFINITY));
      return p;
    };
    V = rows(a.N + 1);
    B = rows(a.N + 1);
    em = rows(a.N + 1);
    du = rows(K);
    st = rows(1);
    en = rows(1);
    acc = rows(1);
    row = rows(1);
    P = rows(1);
    Q = rows(1);
    into = {rows(T), -1, false};
    out = {rows(T), -1, false};
    const auto read = [&](const void* p, int64_t count, A* to) {
      for (int64_t r = 0; r < count; ++r)
        if (p)
          bad_edges |= read_row<A, false>(a.dtype, p, r, T, to + r * Tp);
        else
          fill(to + r * Tp, T, A(0));
    };
    read(a.score.duration, K, du);
    read(a.score.start, 1, st);
    read(a.score.end, 1, en);
  }

  // to[.] = max_s from[s] + m[s, .] by the transitions at i, for full with a segment of length d.
  void relax(Matrix& m, bool transposed, int64_t i, int64_t d, const A* from, A* to) {
    if (a.kind == Trans::none) return fill(to, T, row_max(from, Tp));
    const int64_t at = matrix(a, b, i, d);
    if (at != m.at) {
      m.at = at;
      m.bad = false;
      for (int s = 0; s < T; ++s) {
        m.bad |= read_row<A, false>(a.dtype, a.score.trans, at * T + s, T, transposed ? row : m.rows + s * Tp);
        for (int t = 0; transposed && t < T; ++t) m.rows[t * Tp + s] = row[t];
      }
    }
    bad |= m.bad;
    for (int c = 0; c < Tp; c += W<A>) {
      Vec<A> most = splat(A(-INFINITY));
      for (int s = 0; s < T; ++s) {
        const Vec<A> x = load(m.rows + s * Tp + c) + from[s];
        most = x > most ? x : most;
      }
      store(to + c, most);
    }
  }

  int64_t longest(int64_t i) const { return a.kind == Trans::full && i == 0 ? 1 : n - i < K ? n - i : K; }
  A* cell(int64_t i, int64_t d) const { return through + ((b * a.N + i) * K + d - 1) * T; }
  static void raise(A* p, const A* q, int Tp) {
    for (int c = 0; c < Tp; c += W<A>) {
      const Vec<A> x = load(p + c), y = load(q + c);
      store(p + c, y > x ? y : x);
    }
  }
  // row = S(i, d, .) + other; acc holds the emissions of [i, i + d - 1).
  void segment(int64_t i, int64_t d, const A* other) {
    const A *e = em + (i + d - 1) * Tp, *u = du + (d - 1) * Tp;
    for (int c = 0; c < Tp; c += W<A>) {
      const Vec<A> x = d > 1 ? load(acc + c) + load(e + c) : load(e + c);
      store(acc + c, x);
      store(row + c, x + load(u + c));
    }
    if (a.score.segment) bad |= read_row<A, true>(a.dtype, a.score.segment, (b * a.N + i) * K + d - 1, T, row);
    for (int c = 0; c < Tp; c += W<A>) store(row + c, load(row + c) + load(other + c));
  }

  void forward() {
    const bool full = a.kind == Trans::full;
    fill(V, (n + 1) * Tp, A(-INFINITY));
    for (int64_t i = 0; i < n; ++i) {
      if (i > 0 && !full) relax(into, false, i, 1, V + i * Tp, P);
      for (int64_t d = 1, most = longest(i); d <= most; ++d) {
        if (i > 0 && full) relax(into, false, i, d, V + i * Tp, P);
        segment(i, d, i > 0 ? P : st);
        raise(V + (i + d) * Tp, row, Tp);
        A* const to = cell(i, d);
        for (int t = 0; t < T; ++t) to[t] = row[t];
      }
    }
  }
  void backward() {
    const bool full = a.kind == Trans::full;
    fill(B, n * Tp, A(-INFINITY));
    __builtin_memcpy(B + n * Tp, en, Tp * sizeof(A));
    for (int64_t i = n - 1; i >= 0; --i) {
      fill(Q, Tp, A(-INFINITY));
      for (int64_t d = 1, most = longest(i); d <= most; ++d) {
        const A* const after = B + (i + d) * Tp;
        segment(i, d, after);
        raise(Q, row, Tp);
        A* const to = cell(i, d);
        for (int t = 0; t < T; ++t) to[t] += after[t];
        if (!full || i == 0) continue;
        __builtin_memcpy(Q, row, Tp * sizeof(A));
        relax(out, true, i, d, Q, P);
        raise(B + i * Tp, P, Tp);
      }
      if (i > 0 && !full) relax(out, true, i, 1, Q, B + i * Tp);
    }
  }

  void sentence(int64_t b_) {
    b = b_;
    n = a.lengths[b];
    bad = n > 0 && bad_edges;
    for (int64_t i = 0; i < n; ++i) bad |= read_row<A, false>(a.dtype, a.score.emit, b * a.N + i, T, em + i * Tp);
    forward();
    if (!bad) backward();
    for (int64_t i = 0; i < a.N; ++i) {
      const int64_t inside = i >= n ? 0 : n - i < K ? n - i : K, done = bad || i >= n ? 0 : longest(i);
      if (bad) fill(cell(i, 1), inside * T, A(NAN));
      fill(cell(i, 1 + (bad ? inside : done)), (K - (bad ? inside : done)) * T, A(-INFINITY));
    }
  }
};

template <class A>
void run(const ChainMaxArgs& x, const ParallelFor& pf) {
  const ChainArgs& a = x.in;
  const Dealt dealt(a, a.B);
  const Workers workers(pf, dealt.G, work_of(a), MaxChain<A>::bytes(a));
  deal(
      dealt, workers, pf, [&](char* scratch) { return MaxChain<A>(x, scratch); },
      [&](MaxChain<A>& chain, int64_t, int64_t b) { chain.sentence(b); });
}

}  // namespace

void chain_max_marginals(const ChainMaxArgs& x, const ParallelFor& pf) {
  if (x.in.dtype == Dtype::f64)
    run<double>(x, pf);
  else
    run<float>(x, pf);
}

}  // namespace structops::STRUCTOPS_ISA
