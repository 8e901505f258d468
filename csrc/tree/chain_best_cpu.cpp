// CPU chain_best: the M best paths. The contract is chain.h.
//
// M = 1: a row of tags is a few vectors. M > 1: every tag of every position keeps a list of its M best prefixes, in descending
// order, and lists are merged by insertion.
#include "tree/chain_rows.h"

namespace structops::STRUCTOPS_ISA {
namespace {

template <class A> struct BestChain {
  const ChainPathArgs& p;
  const ChainArgs& a;
  const int T, Tp, K, M;
  const bool lists;
  // V [N + 1], P [N] rows of tags, or of lists with M entries to a tag; from_*: what a best number came from.
  A *V, *P, *em, *du, *st, *en, *tr, *S;
  Int<A> *fromV, *fromP;  // length - 1 and rank (times K); source tag and rank (times T)
  int64_t trans_at = -1, b = 0, n = 0;
  bool bad = false, bad_trans = false, bad_edges = false;

  static size_t bytes(const ChainPathArgs& p) {
    const size_t row = size_t(padded<A>(p.in.T)) * sizeof(A), list = p.M > 1 ? size_t(p.in.T * p.M) * sizeof(A) : row;
    return size_t(p.in.N + 1) * (4 * list + row) + size_t(p.in.T + p.in.K + 4) * row + (p.M > 1 ? size_t(p.M) * 64 : 0) + 4096;
  }

  BestChain(const ChainPathArgs& p_, char* scratch)
      : p(p_), a(p_.in), T(int(a.T)), Tp(padded<A>(a.T)), K(int(a.K)), M(int(p_.M)), lists(p_.M > 1) {
    Carver c{scratch};
    const int64_t N = a.N + 1, R = Tp, L = lists ? int64_t(T) * M : R;
    auto rows = [&](A*& q, int64_t n) { q = c.take<A>(n); fill(q, n, A(-INFINITY)); };
    rows(V, N * L); rows(P, N * L); rows(em, N * R); rows(du, K * R); rows(st, R); rows(en, R); rows(tr, T * R); rows(S, R);
    fromV = c.take<Int<A>>(N * L);
    fromP = c.take<Int<A>>(N * L);
    auto read = [&](const void* q, int64_t count, A* to) {
      for (int64_t r = 0; r < count; ++r)
        if (q) bad_edges |= read_row<A, false>(a.dtype, q, r, T, to + r * Tp);
        else fill(to + r * Tp, T, A(0));
    };
    read(a.score.duration, K, du);
    read(a.score.start, 1, st);
    read(a.score.end, 1, en);
  }

  void load_trans(int64_t i, int64_t d) {
    const int64_t at = matrix(a, b, i, d);
    if (at != trans_at) {
      trans_at = at;
      bad_trans = false;
      for (int s = 0; s < T; ++s)
        if (a.kind == Trans::none) fill(tr + s * Tp, T, A(0));
        else bad_trans |= read_row<A, false>(a.dtype, a.score.trans, at * T + s, T, tr + s * Tp);
    }
    bad |= bad_trans;
  }
  // S = the score of the segment [i, i + d); S holds that of the emissions of [i + 1, i + d).
  void extend(int64_t i) { for (int t = 0; t < T; ++t) S[t] += em[i * Tp + t]; }
  void segment(int64_t i, int64_t d, A* to) {
    for (int t = 0; t < T; ++t) to[t] = S[t] + du[(d - 1) * Tp + t];
    if (a.score.segment) bad |= read_row<A, true>(a.dtype, a.score.segment, (b * a.N + i) * K + d - 1, T, to);
  }
  bool allowed(int64_t i, int64_t d) const { return a.kind != Trans::full || i > 0 || d == 1; }

  // best[t] = max_s V[i, s] + trans(s, t); ties to the smaller s.
  void enter(int64_t i, A* best, Int<A>* from) {
    const A* const v = V + i * Tp;
    for (int c = 0; c < Tp; c += W<A>) {
      Vec<A> m = splat(A(-INFINITY));
      Vec<Int<A>> at{};
      for (int s = 0; s < T; ++s) {
        const Vec<A> x = load(tr + s * Tp + c) + v[s];
        const Vec<Int<A>> more = x > m;
        m = more ? x : m;
        at = more ? Vec<Int<A>>{} + Int<A>(s) : at;
      }
      store(best + c, m);
      __builtin_memcpy(from + c, &at, sizeof at);
    }
  }

  void one_best(A* row, Int<A>* source) {  // row, source: scratch for full
    const bool full = a.kind == Trans::full;
    __builtin_memcpy(P, st, Tp * sizeof(A));
    for (int64_t j = 1; j <= n; ++j) {
      if (j > 1 && !full) {
        load_trans(j - 1, 1);
        enter(j - 1, P + (j - 1) * Tp, fromP + (j - 1) * Tp);
      }
      A* const v = V + j * Tp;
      Int<A>* const from = fromV + j * Tp;
      fill(v, Tp, A(-INFINITY));
      fill(from, Tp, Int<A>(0));
      fill(S, T, A(0));
      for (int64_t d = 1; d <= K && d <= j; ++d) {
        const int64_t i = j - d;
        extend(i);
        if (!allowed(i, d)) continue;
        const A* before = P + i * Tp;
        if (full && i > 0) {
          load_trans(i, d);
          enter(i, row, source);
          before = row;
        }
        A* const whole = row + Tp;
        segment(i, d, whole);
        for (int t = 0; t < T; ++t) {
          const A x = before[t] + whole[t];
          if (x > v[t]) {
            v[t] = x;
            from[t] = Int<A>(d - 1) + (full && i > 0 ? Int<A>(K) * source[t] : 0);
          }
        }
      }
    }
    A best = -INFINITY;
    int tag = 0;
    for (int t = 0; t < T; ++t) {
      const A x = V[n * Tp + t] + en[t];
      if (x > best) { best = x; tag = t; }
    }
    write_one(a.dtype, p.value, b, bad ? double(NAN) : double(best));
    if (bad || best == A(-INFINITY)) return;
    int64_t* const tags = p.tags + b * a.N;
    for (int64_t j = n; j > 0;) {
      const Int<A> from = fromV[j * Tp + tag];
      const int64_t i = j - 1 - from % K;
      tags[i] = tag;
      tag = int(full ? from / K : i > 0 ? fromP[i * Tp + tag] : 0);
      j = i;
    }
  }

  // Inserts x into a descending list of at most M numbers, after equal ones.
  bool insert(A* list, Int<A>* from, A x, Int<A> source) const {
    if (!(x > list[M - 1])) return false;
    int k = M - 1;
    for (; k > 0 && x > list[k - 1]; --k) {
      list[k] = list[k - 1];
      from[k] = from[k - 1];
    }
    list[k] = x;
    from[k] = source;
    return true;
  }

  // The lists [T, M] of the best V[i, s] + trans(s, t) with the sources s + T * rank.
  void enter_lists(int64_t i, A* best, Int<A>* from) {
    fill(best, int64_t(T) * M, A(-INFINITY));
    for (int s = 0; s < T; ++s) {
      const A* const v = V + (i * T + s) * M;
      for (int t = 0; t < T; ++t)
        for (int k = 0; k < M; ++k)
          if (!insert(best + t * M, from + t * M, v[k] + tr[s * Tp + t], Int<A>(s + T * k))) break;
    }
  }

  void many_best(A* row, A* final, Int<A>* final_from) {
    const bool full = a.kind == Trans::full;
    const int64_t L = int64_t(T) * M;
    fill(P, L, A(-INFINITY));
    for (int t = 0; t < T; ++t) P[t * M] = st[t];
    for (int64_t j = 1; j <= n; ++j) {
      if (j > 1 && !full) {
        load_trans(j - 1, 1);
        enter_lists(j - 1, P + (j - 1) * L, fromP + (j - 1) * L);
      }
      A* const v = V + j * L;
      Int<A>* const from = fromV + j * L;
      fill(v, L, A(-INFINITY));
      fill(S, T, A(0));
      for (int64_t d = 1; d <= K && d <= j; ++d) {
        const int64_t i = j - d;
        extend(i);
        if (!allowed(i, d)) continue;
        segment(i, d, row);
        if (full && i > 0) {
          load_trans(i, d);
          for (int s = 0; s < T; ++s)
            for (int t = 0; t < T; ++t)
              for (int k = 0; k < M; ++k)
                if (!insert(v + t * M, from + t * M, V[(i * T + s) * M + k] + tr[s * Tp + t] + row[t], Int<A>(d - 1 + K * (s + T * k)))) break;
        } else {
          for (int t = 0; t < T; ++t)
            for (int k = 0; k < M; ++k)
              if (!insert(v + t * M, from + t * M, P[i * L + t * M + k] + row[t], Int<A>(d - 1 + K * k))) break;
        }
      }
    }
    fill(final, M, A(-INFINITY));
    for (int t = 0; t < T; ++t)
      for (int k = 0; k < M; ++k)
        if (!insert(final, final_from, V[n * L + t * M + k] + en[t], Int<A>(t + T * k))) break;
    for (int m = 0; m < M; ++m) {
      write_one(a.dtype, p.value, b * M + m, bad ? double(NAN) : double(final[m]));
      if (bad || final[m] == A(-INFINITY)) continue;
      int64_t* const tags = p.tags + (b * M + m) * a.N;
      int tag = int(final_from[m] % T), rank = int(final_from[m] / T);
      for (int64_t j = n; j > 0;) {
        const Int<A> from = fromV[j * L + tag * M + rank];
        const int64_t i = j - 1 - from % K;
        tags[i] = tag;
        Int<A> source = from / K;
        if (!full) source = i > 0 ? fromP[i * L + tag * M + source] : 0;
        tag = int(source % T);
        rank = int(source / T);
        j = i;
      }
    }
  }

  void sentence(int64_t b_, char* extra) {
    b = b_;
    n = a.lengths[b];
    bad = n > 0 && bad_edges;
    fill(p.tags + b * M * a.N, M * a.N, int64_t(-1));
    if (n == 0) {
      for (int m = 0; m < M; ++m) write_one(a.dtype, p.value, b * M + m, m == 0 ? 0.0 : -INFINITY);
      return;
    }
    for (int64_t i = 0; i < n; ++i) bad |= read_row<A, false>(a.dtype, a.score.emit, b * a.N + i, T, em + i * Tp);
    Carver c{extra};
    A* const row = c.take<A>(2 * Tp);
    if (lists) { A* const final = c.take<A>(M); many_best(row, final, c.take<Int<A>>(M)); }
    else one_best(row, c.take<Int<A>>(Tp));
  }
};

template <class A> void run(const ChainPathArgs& p, const ParallelFor& pf) {
  const ChainArgs& a = p.in;
  const size_t chart = BestChain<A>::bytes(p), extra = size_t(padded<A>(a.T)) * 3 * sizeof(A) + size_t(p.M) * 2 * sizeof(A) + 512;
  const Dealt dealt(a, a.B);
  const Workers workers(pf, dealt.G, work_of(a) * double(p.M), chart + extra);
  deal(dealt, workers, pf, [&](char* scratch) { return BestChain<A>(p, scratch + (extra + 63) / 64 * 64); },
       [&](BestChain<A>& chain, int64_t, int64_t b) { chain.sentence(b, reinterpret_cast<char*>(chain.V) - (extra + 63) / 64 * 64); });
}

}  // namespace

void chain_best(const ChainPathArgs& p, const ParallelFor& pf) {
  const bool wide = p.in.dtype == Dtype::f64 || double(p.in.T) * double(p.M) * double(p.in.K) > 2e9;  // lanes hold the sources
  if (wide) run<double>(p, pf);
  else run<float>(p, pf);
}

}  // namespace structops::STRUCTOPS_ISA
