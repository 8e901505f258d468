// Grammar charts: the best parse and max-marginals, samples. The contract is pcfg.h. For one instruction set, and for nvcc.
// In charts of best values m is the value and e the pair of parts, B S + C.
#pragma once
#include "tree/pcfg_inside.h"

namespace structops::STRUCTOPS_ISA {

// The best splits of the pairs of the spans at i of width w.
template <class A> STRUCTOPS_INLINE void best_pairs(const PcfgCharts<A>& c, const PcfgShape& s, int w, int i) {
  each_row(s, w, [&](int B, int c0, int c1) {
    for (int C = c0; C < c1; ++C) {
      Vec<A> best = splat(A(-INFINITY));
      for (int k = first_width(s, w, B, C), last = last_width(s, w, B, C); k <= last; ++k) {
        const Vec<A> x = load(c.m + s.cell(k, B, i)) + load(c.m + s.cell(w - k, C, i + k));
        best = x > best ? x : best;
      }
      store(c.pm + (int64_t(B) * s.S + C) * W<A>, best);
    }
  });
}

// The chart of single words; looks at the rules for what is wrong with them.
template <class T, class A>
STRUCTOPS_INLINE void best_words(const PcfgCharts<A>& c, const PcfgShape& s, const PcfgInput<T>& in, Found<A>& found) {
  for (int symbol = 0; symbol < s.T; ++symbol)
    for (int i = 0; i < s.n; i += W<A>) {
      Vec<A> x = splat(A(-INFINITY));
      each_lane<A>(s.n - i, [&](int l) { lane_set(x, l, A(widen(in.term[int64_t(i + l) * s.T + symbol]))); });
      store(c.m + s.cell(1, s.NT + symbol, i), checked_score<A>(x, found));
    }
  lane_fence();
  for (int64_t k = 0; s.n > 1 && k < s.NT * s.pairs(); k += W<A>) {
    const int64_t left = s.NT * s.pairs() - k;
    checked_score<A>(load_as<A>(in.rule + k, int(left < W<A> ? left : W<A>)), found);
  }
}

template <class T, class A>
STRUCTOPS_INLINE Found<A> best_parses(const PcfgCharts<A>& c, const PcfgShape& s, const PcfgInput<T>& in) {
  Found<A> found;
  best_words(c, s, in, found);
  for (int w = 2; w <= s.n; ++w)
    for (int i = 0; i <= s.n - w; i += W<A>) {
      const Vec<Int<A>> valid = lane_numbers<A>() + Int<A>(i + w) <= Int<A>(s.n);
      best_pairs(c, s, w, i);
      for (int a = 0; a < s.NT; ++a) {
        Vec<A> best = splat(A(-INFINITY));
        Vec<Int<A>> at{};
        each_row(s, w, [&](int B, int c0, int c1) {
          for (int64_t pair = int64_t(B) * s.S + c0; pair < int64_t(B) * s.S + c1; ++pair) {
            const Vec<A> x = load(c.pm + pair * W<A>) + A(widen(in.rule[a * s.pairs() + pair]));
            const Vec<Int<A>> better = x > best;
            best = better ? x : best;
            at = better ? splat(Int<A>(pair)) : at;
          }
        });
        if (in.span) best += checked_score<A>(load_spans<A>(in.span, s, in.posts, a, w, i, A(-INFINITY)), found);
        store(c.m + s.cell(w, a, i), valid ? best : splat(A(-INFINITY)));
        store(c.e + s.cell(w, a, i), at);
      }
      lane_fence();
    }
  return found;
}

struct PcfgVisit {
  int i, w, symbol, rank;
};
struct PcfgSplit {
  int pair, k, left, right;  // B S + C, the width of the left part, the ranks of the derivations of both
};

// Writes the rows of a parse of n > 1 words below a derivation of `symbol`: choose(visit) -> PcfgSplit.
template <class F>
STRUCTOPS_INLINE void write_parse(const PcfgShape& s, int symbol, int rank, PcfgVisit* stack, int64_t* rows, F choose) {
  int top = 0;
  int64_t row = 0;
  stack[top++] = {0, s.n, symbol, rank};
  while (top > 0) {
    const PcfgVisit v = stack[--top];
    rows[3 * row] = v.i;
    rows[3 * row + 1] = v.i + v.w;
    rows[3 * row++ + 2] = v.symbol;
    if (v.w == 1) continue;
    const PcfgSplit d = choose(v);
    stack[top++] = {v.i + d.k, v.w - d.k, d.pair % s.S, d.right};
    stack[top++] = {v.i, d.k, d.pair / s.S, d.left};
  }
}

// The parse of a chart of best values. Its value; -inf without one.
template <class T, class A>
STRUCTOPS_INLINE A best_parse(const PcfgCharts<A>& c, const PcfgShape& s, const PcfgInput<T>& in, PcfgVisit* stack, int64_t* rows,
                              Found<A>& found) {
  A best = A(-INFINITY);
  int symbol = 0;
  for (int a = 0; s.n > 1 && a < s.NT; ++a) {
    const A x = c.m[s.cell(s.n, a, 0)] + lane_zero(checked_score<A>(splat(A(widen(in.root[a]))), found));
    if (x > best) { best = x; symbol = a; }
  }
  if (!(best > A(-INFINITY)) || any<A>(found.invalid)) return s.n ? best : A(0);
  write_parse(s, symbol, 0, stack, rows, [&](const PcfgVisit& v) {
    const int pair = int(c.e[s.cell(v.w, v.symbol, v.i)]), B = pair / s.S, C = pair % s.S;
    A top = A(-INFINITY);
    int k = first_width(s, v.w, B, C);
    for (int m = k, last = last_width(s, v.w, B, C); m <= last; ++m) {
      const A x = c.m[s.cell(m, B, v.i)] + c.m[s.cell(v.w - m, C, v.i + m)];
      if (x > top) { top = x; k = m; }
    }
    return PcfgSplit{pair, k, 0, 0};
  });
  return best;
}

// What the parts of the spans at i of width w score outside themselves at best, from what the spans do (c.a); into c.count the best
// parse of every rule.
template <class T, class A>
STRUCTOPS_INLINE void max_spread(const PcfgCharts<A>& c, const PcfgShape& s, const PcfgInput<T>& in, int w, int i) {
  const Vec<Int<A>> valid = lane_numbers<A>() + Int<A>(i + w) <= Int<A>(s.n);
  best_pairs(c, s, w, i);
  each_row(s, w, [&](int B, int c0, int c1) {
    for (int64_t pair = int64_t(B) * s.S + c0; pair < int64_t(B) * s.S + c1; ++pair) store(c.P + pair * W<A>, splat(A(-INFINITY)));
  });
  Found<A> known;
  for (int a = 0; a < s.NT; ++a) {
    Vec<A> outer = load(c.a + s.cell(w, a, i));
    if (in.span) outer += checked_score<A>(load_spans<A>(in.span, s, in.posts, a, w, i, A(-INFINITY)), known);
    outer = valid ? outer : splat(A(-INFINITY));
    each_row(s, w, [&](int B, int c0, int c1) {
      for (int64_t pair = int64_t(B) * s.S + c0; pair < int64_t(B) * s.S + c1; ++pair) {
        const Vec<A> x = outer + A(widen(in.rule[a * s.pairs() + pair]));
        max_to<A>(c.P + pair * W<A>, x);
        const A best = hmax<A>(valid ? x + load(c.pm + pair * W<A>) : splat(A(-INFINITY)));
        A* const count = c.count + a * s.pairs() + pair;
        if (first_lane() && best > *count) *count = best;
      }
    });
  }
  each_row(s, w, [&](int B, int c0, int c1) {
    for (int C = c0; C < c1; ++C) {
      const Vec<A> p = load(c.P + (int64_t(B) * s.S + C) * W<A>);
      for (int k = first_width(s, w, B, C), last = last_width(s, w, B, C); k <= last; ++k) {
        const int64_t l = s.cell(k, B, i), r = s.cell(w - k, C, i + k);
        const Vec<A> left = load(c.m + l), right = load(c.m + r);
        max_to<A>(c.a + l, p + right);
        lane_fence();
        max_to<A>(c.a + r, p + left);
        lane_fence();
      }
    }
  });
}

// The best parse through every part of one sentence.
template <class T, class A> STRUCTOPS_INLINE void max_sentence(const PcfgArgs& x, int64_t b, const PcfgCharts<A>& c) {
  const int n = int(x.lengths[b]);
  const PcfgShape s = pcfg_shape(x, n, W<A>);
  const PcfgInput<T> in = pcfg_input<T>(x, b);
  Found<A> found = best_parses(c, s, in);
  const int64_t N = x.N, rules = int64_t(s.NT) * s.pairs();
  A* const term = static_cast<A*>(x.post_term) + b * N * s.T;
  A* const rule = static_cast<A*>(x.post_rule) + b * rules;
  A* const root = static_cast<A*>(x.post_root) + b * s.NT;
  A* const span = static_cast<A*>(x.post_span) + b * (N + 1) * (N + 1) * s.NT;
  auto fill = [](A* p, int64_t count, A value) {
    for (int64_t k = first_of_lanes(); k < count; k += step_of_lanes()) p[k] = value;
  };
  fill(term, N * s.T, A(-INFINITY));
  fill(rule, rules, A(-INFINITY));
  fill(root, s.NT, A(-INFINITY));
  fill(span, (N + 1) * (N + 1) * s.NT, A(-INFINITY));
  fill(c.a, s.numbers(), A(-INFINITY));
  fill(c.count, rules, A(-INFINITY));
  lane_fence();
  for (int a = 0; n > 1 && a < s.NT; ++a) {
    const A score = lane_zero(checked_score<A>(splat(A(widen(in.root[a]))), found));
    if (!first_lane()) continue;
    c.a[s.cell(n, a, 0)] = score;
    root[a] = score + c.m[s.cell(n, a, 0)];
  }
  lane_fence();
  if (any_lane<A>(found.invalid)) {
    const A nan = A(__builtin_nan(""));
    fill(term, int64_t(n) * s.T, nan);
    if (n < 2) return;
    fill(rule, rules, nan);
    fill(root, s.NT, nan);
    for (int i = 0; i < n; ++i)
      for (int j = i + 2; j <= n; ++j) fill(span + (i * (N + 1) + j) * s.NT, s.NT, nan);
    return;
  }
  for (int w = n; w >= 2; --w)
    for (int i = 0; i <= n - w; i += W<A>) max_spread(c, s, in, w, i);
  if (n < 2) return;
  const auto through = [&](int64_t o) { return c.m[o] + c.a[o]; };
  for (int64_t k = first_of_lanes(); k < int64_t(n) * s.T; k += step_of_lanes())
    term[k] = through(s.cell(1, s.NT + int(k % s.T), int(k / s.T)));
  for (int64_t k = first_of_lanes(); k < rules; k += step_of_lanes()) rule[k] = c.count[k];
  for (int w = 2; w <= n; ++w)
    for (int i = 0; i + w <= n; ++i)
      for (int a = first_of_lanes(); a < s.NT; a += step_of_lanes()) span[(i * (N + 1) + i + w) * s.NT + a] = through(s.cell(w, a, i));
  lane_fence();
}

// The first alternative of positive weight m 2^e whose cumulative weight reaches u times the total: weight(k, &m, &e).
template <class F> STRUCTOPS_INLINE int64_t pick_weight(int64_t count, double u, F weight) {
  double m, total = 0, sum = 0;
  int64_t e, top = 0, last = 0;
  bool seen = false;
  for (int64_t k = 0; k < count; ++k) {
    weight(k, &m, &e);
    if (m > 0 && (!seen || e > top)) { top = e; seen = true; }
  }
  const auto plain = [&](int64_t k) {
    weight(k, &m, &e);
    return m > 0 && e - top > -1000 ? m * bitcast<double>((e - top + 1023) << 52) : 0.0;
  };
  for (int64_t k = 0; k < count; ++k) total += plain(k);
  for (int64_t k = 0; k < count; ++k) {
    const double x = plain(k);
    if (!(x > 0)) continue;
    last = k;
    sum += x;
    if (sum >= u * total) break;
  }
  return last;
}

// One parse from the inside charts of a sentence that has one. lin and pe serve as this lane's memory of weights.
template <class T, class A>
STRUCTOPS_INLINE void sample_parse(const PcfgCharts<A>& c, const PcfgShape& s, const PcfgInput<T>& in, PcfgVisit* stack, const double* u,
                                   int64_t* rows) {
  const int own = own_lane();
  Found<A> known;
  const int64_t symbol = pick_weight(s.NT, *u++, [&](int64_t a, double* m, int64_t* e) {
    A t;
    const Scaled<A> x = rooted<false>(c, s, in, int(a), &t, known);
    *m = double(lane_zero(x.m));
    *e = int64_t(lane_zero(x.e));
  });
  const auto split = [&](const PcfgVisit& v, int B, int C, int k, double* m, int64_t* e) {
    const int64_t l = s.cell(k, B, v.i), r = s.cell(v.w - k, C, v.i + k);
    *m = double(c.m[l]) * double(c.m[r]);
    *e = int64_t(c.e[l]) + int64_t(c.e[r]);
  };
  write_parse(s, int(symbol), 0, stack, rows, [&](const PcfgVisit& v) {
    for (int64_t p = 0; p < s.pairs(); ++p) c.lin[p * W<A> + own] = 0;
    each_row(s, v.w, [&](int B, int c0, int c1) {
      for (int C = c0; C < c1; ++C) {
        const int64_t p = int64_t(B) * s.S + C, at = v.symbol * s.pairs() + p;
        Scaled<A> r{splat(c.rule[at]), splat(c.top[v.symbol])};
        if (!(c.rule[at] >= PcfgConst<A>::tiny)) r = exp_scaled<A>(sanitise<A>(splat(A(widen(in.rule[at]))), known));
        const double rm = double(lane_zero(r.m));
        if (!(rm > 0)) continue;
        double m, sum = 0;
        int64_t e, top = 0;
        for (int q = first_width(s, v.w, B, C), last = last_width(s, v.w, B, C); q <= last; ++q) {
          split(v, B, C, q, &m, &e);
          if (!(m > 0)) continue;
          if (sum > 0 && e > top) sum = top - e > -1000 ? sum * bitcast<double>((top - e + 1023) << 52) : 0;
          if (!(sum > 0) || e > top) top = e;
          sum += e - top > -1000 ? m * bitcast<double>((e - top + 1023) << 52) : 0;
        }
        if (!(sum > 0)) continue;
        const Scaled<A> x = normalise<A>({splat(A(sum * rm)), splat(Int<A>(top)) + r.e});
        c.lin[p * W<A> + own] = lane_zero(x.m);
        c.pe[p * W<A> + own] = lane_zero(x.e);
      }
    });
    const double first = *u++, second = *u++;
    const int pair = int(pick_weight(s.pairs(), first, [&](int64_t p, double* m, int64_t* e) {
      *m = double(c.lin[p * W<A> + own]);
      *e = int64_t(c.pe[p * W<A> + own]);
    }));
    const int B = pair / s.S, C = pair % s.S, low = first_width(s, v.w, B, C);
    const int64_t k = pick_weight(last_width(s, v.w, B, C) - low + 1, second,
                                  [&](int64_t q, double* m, int64_t* e) { split(v, B, C, low + int(q), m, e); });
    return PcfgSplit{pair, low + int(k), 0, 0};
  });
}

}  // namespace structops::STRUCTOPS_ISA
