// Grandparent charts: best trees, samples, max-marginals. The contract is grand.h. For one instruction set, and for nvcc.
// In charts of best values m is the value and e the alternative: the terms of grand_range, those of the first range first.
#pragma once
#include "tree/grand_sum.h"

namespace structops::STRUCTOPS_ISA {

template <class F> STRUCTOPS_INLINE auto with_item(GrandItem item, F&& f) {
  switch (item) {
    case GrandItem::CR: return f(GrandConstant<GrandItem::CR>{});
    case GrandItem::CL: return f(GrandConstant<GrandItem::CL>{});
    case GrandItem::IR: return f(GrandConstant<GrandItem::IR>{});
    case GrandItem::IL: return f(GrandConstant<GrandItem::IL>{});
    default: return f(GrandConstant<GrandItem::S>{});
  }
}

template <GrandItem item, class T, class A>
STRUCTOPS_INLINE void best_fill(const GrandCharts<A>& c, const GrandShape& s, const GrandInput<T>& in, int i, int j, Found<A>& found) {
  using Term = GrandTerm<item, false, A>;
  const int ll = left_lane<item>(i, j), rl = right_lane<item>(i, j);
  for (int g0 = 0; g0 < s.lanes; g0 += W<A>) {
    Vec<A> best = splat(A(-INFINITY));
    Vec<Int<A>> at{};
    int k = 0;
    for (int which = 0; which < kGrandRanges; ++which) {
      const GrandRange q = grand_range<item>(s, i, j, which);
      for (int r = q.first; r < q.last; ++r, ++k) {
        Vec<A> x = operand<Term::left_fixed, A>(c[q.left].m, s.cell(i, r), ll, g0) +
                   operand<Term::right_fixed, A>(c[q.right].m, s.cell(r + q.gap, j), rl, g0);
        if (q.siblings) x += checked_score<A>(splat(A(widen(in.sib[arc_at<item>(in.N, i, j) * in.N + r]))), found);
        const Vec<Int<A>> better = x > best;
        best = better ? x : best;
        at = better ? splat(Int<A>(k)) : at;
      }
    }
    const Vec<Int<A>> valid = grand_valid<A>(s, item, i, j, g0);
    if constexpr (is_arc(item)) {
      const Vec<A> score = grand_score<item, A>(in.arc, in.grand, in.N, i, j, g0);
      best += checked_score<A>(valid ? score : splat(A(-INFINITY)), found);
    }
    store(c[item].m + s.cell(i, j) + g0, valid ? best : splat(A(-INFINITY)));
    store(c[item].e + s.cell(i, j) + g0, at);
  }
}

template <class T, class A>
STRUCTOPS_INLINE Found<A> best_inside(const Team& team, const GrandCharts<A>& c, const GrandShape& s, const GrandInput<T>& in) {
  using I = GrandItem;
  Found<A> found;
  each_span<I::CR, I::CL>(team, s, 0, [&](auto item, int i) {
    for (int g0 = 0; g0 < s.lanes; g0 += W<A>) {
      const Vec<Int<A>> valid = grand_valid<A>(s, item.value, i, i, g0);
      store(c[item.value].m + s.cell(i, i) + g0, valid ? Vec<A>{} : splat(A(-INFINITY)));
    }
  });
  team.sync();
  for (int w = 1; w <= s.n; ++w) {
    auto fill = [&](auto item, int i) { best_fill<decltype(item)::value>(c, s, in, i, i + w, found); };
    if (s.second) each_span<I::IR, I::IL, I::S>(team, s, w, fill);
    else each_span<I::IR, I::IL>(team, s, w, fill);
    team.sync();
    each_span<I::CR, I::CL>(team, s, w, fill);
    team.sync();
  }
  return found;
}

// ---- from choices to a tree --------------------------------------------------------------------------------------------------

struct GrandVisit {
  GrandItem item;
  int i, j, g, rank;
};
struct GrandPick {
  int k, left, right;  // the alternative, and which derivations of its parts
};

STRUCTOPS_CONSTANT int64_t grand_visits(int64_t n) { return 2 * n + 4; }  // that wait

// Writes the heads of the derivation `rank` of the sentence: choose(visit) -> GrandPick, left parts wholly before right ones.
// stack(k): the k-th waiting visit.
template <class S, class F> STRUCTOPS_INLINE void grand_write(const GrandShape& s, int rank, S stack, int64_t* heads, F choose) {
  int top = 0;
  stack(top++) = {GrandItem::CR, 0, s.n, 0, rank};
  while (top > 0) {
    const GrandVisit v = stack(--top);
    if (v.i == v.j) continue;
    if (v.item == GrandItem::IL) heads[v.i] = v.j;
    if (v.item == GrandItem::IR) heads[v.j] = v.i;
    const GrandPick p = choose(v);
    with_item(v.item, [&](auto item) {
      GrandRange q = grand_range<decltype(item)::value>(s, v.i, v.j, 0);
      int k = p.k;
      if (k >= q.last - q.first) {
        k -= q.last - q.first;
        q = grand_range<decltype(item)::value>(s, v.i, v.j, 1);
      }
      const int r = q.first + k, ll = left_lane<decltype(item)::value>(v.i, v.j), rl = right_lane<decltype(item)::value>(v.i, v.j);
      stack(top++) = {q.right, r + q.gap, v.j, rl < 0 ? v.g : rl, p.right};
      stack(top++) = {q.left, v.i, r, ll < 0 ? v.g : ll, p.left};
    });
  }
}

// The alternative of an item that the uniform number u picks.
template <class T, class A>
STRUCTOPS_INLINE int grand_choose(const GrandCharts<A>& c, const GrandShape& s, const GrandInput<T>& in, const GrandVisit& v, double u) {
  return with_item(v.item, [&](auto constant) -> int {
    constexpr GrandItem item = decltype(constant)::value;
    const int ll = left_lane<item>(v.i, v.j), rl = right_lane<item>(v.i, v.j);
    auto each = [&](auto f) {  // f(k, m, e) for the alternatives of positive weight m 2^e
      int k = 0;
      for (int which = 0; which < kGrandRanges; ++which) {
        const GrandRange q = grand_range<item>(s, v.i, v.j, which);
        for (int r = q.first; r < q.last; ++r, ++k) {
          const int64_t l = s.cell(v.i, r) + (ll < 0 ? v.g : ll), h = s.cell(r + q.gap, v.j) + (rl < 0 ? v.g : rl);
          double m = double(c[q.left].m[l]) * double(c[q.right].m[h]);
          int64_t e = int64_t(c[q.left].e[l]) + int64_t(c[q.right].e[h]);
          if (q.siblings) {
            Found<A> known;
            const Scaled<A> b = exp_scaled<A>(sanitise<A>(splat(A(widen(in.sib[arc_at<item>(in.N, v.i, v.j) * in.N + r]))), known));
            m *= double(lane_zero(b.m));
            e += int64_t(lane_zero(b.e));
          }
          if (m > 0) f(k, m, e);
        }
      }
    };
    int64_t top = 0;
    bool seen = false;
    each([&](int, double, int64_t e) { if (!seen || e > top) { top = e; seen = true; } });
    auto weight = [&](double m, int64_t e) { return e - top < -1000 ? 0.0 : m * bitcast<double>((e - top + 1023) << 52); };
    double total = 0, sum = 0;
    each([&](int, double m, int64_t e) { total += weight(m, e); });
    int last = 0;
    bool done = false;
    each([&](int k, double m, int64_t e) {
      const double x = weight(m, e);
      if (done || !(x > 0)) return;
      last = k;
      sum += x;
      done = sum >= u * total;
    });
    return last;
  });
}

// ---- the K best ----------------------------------------------------------------------------------------------------------------

template <class A> struct Derivation {
  A value;  // -inf: none
  int k, left, right;
};

template <class A> struct GrandLists {
  Derivation<A>* list;
  int64_t numbers;
  int K;
  STRUCTOPS_MEMBER Derivation<A>* at(GrandItem item, int64_t cell) const { return list + (int(item) * numbers + cell) * K; }
};

template <GrandItem item, class T, class A>
STRUCTOPS_INLINE void kbest_fill(const GrandLists<A>& lists, const GrandShape& s, const GrandInput<T>& in, int i, int j, Found<A>& found) {
  const int ll = left_lane<item>(i, j), rl = right_lane<item>(i, j), K = lists.K;
  auto read = [&](const T* p) { return lane_zero(checked_score<A>(splat(A(widen(*p))), found)); };
  for (int g = first_of_lanes(); g < s.lanes; g += step_of_lanes()) {
    Derivation<A>* const to = lists.at(item, s.cell(i, j) + g);
    for (int k = 0; k < K; ++k) to[k] = {A(-INFINITY), 0, 0, 0};
    const bool right = item == GrandItem::CR || item == GrandItem::IR, cut = item == GrandItem::CR && s.single && j < s.n;
    if (i > 0 ? (g >= i && g <= j) || g > s.n : !right || g > 0 || cut) continue;
    int k = 0;
    for (int which = 0; which < kGrandRanges; ++which) {
      const GrandRange q = grand_range<item>(s, i, j, which);
      for (int r = q.first; r < q.last; ++r, ++k) {
        const Derivation<A>* const L = lists.at(q.left, s.cell(i, r) + (ll < 0 ? g : ll));
        const Derivation<A>* const R = lists.at(q.right, s.cell(r + q.gap, j) + (rl < 0 ? g : rl));
        const A extra = q.siblings ? read(in.sib + arc_at<item>(in.N, i, j) * in.N + r) : A(0);
        // Of all pairs, those that may be among the K best: pair (l, h) has (l + 1)(h + 1) - 1 at least as good ones.
        for (int l = 0; l < K && L[l].value > A(-INFINITY); ++l)
          for (int h = 0; (l + 1) * (h + 1) <= K && R[h].value > A(-INFINITY); ++h) {
            const A value = L[l].value + R[h].value + extra;
            if (!(value > to[K - 1].value)) break;
            int place = K - 1;
            for (; place > 0 && value > to[place - 1].value; --place) to[place] = to[place - 1];
            to[place] = {value, k, l, h};
          }
      }
    }
    if constexpr (is_arc(item)) {
      const int64_t at = arc_at<item>(in.N, i, j);
      A score = A(widen(in.arc[at]));
      if (item == GrandItem::IL || i > 0) score += A(widen(in.grand[at * in.N + g]));
      score = lane_zero(checked_score<A>(splat(score), found));
      for (int k = 0; k < K; ++k) to[k].value += score;
    }
  }
}

template <class T, class A>
STRUCTOPS_INLINE Found<A> kbest_inside(const Team& team, const GrandLists<A>& lists, const GrandShape& s, const GrandInput<T>& in) {
  using I = GrandItem;
  Found<A> found;
  each_span<I::CR, I::CL>(team, s, 0, [&](auto item, int i) {
    for (int g = first_of_lanes(); g < s.lanes; g += step_of_lanes()) {
      Derivation<A>* const to = lists.at(item.value, s.cell(i, i) + g);
      for (int k = 0; k < lists.K; ++k) to[k] = {A(-INFINITY), 0, 0, 0};
      to[0].value = (i > 0 ? g != i && g <= s.n : g == 0) ? A(0) : A(-INFINITY);
    }
  });
  team.sync();
  for (int w = 1; w <= s.n; ++w) {
    auto fill = [&](auto item, int i) { kbest_fill<decltype(item)::value>(lists, s, in, i, i + w, found); };
    if (s.second) each_span<I::IR, I::IL, I::S>(team, s, w, fill);
    else each_span<I::IR, I::IL>(team, s, w, fill);
    team.sync();
    each_span<I::CR, I::CL>(team, s, w, fill);
    team.sync();
  }
  return found;
}

// ---- max-marginals -------------------------------------------------------------------------------------------------------------

// What an item scores outside itself at best (a) goes on to the factors of its terms; of arcs, the best tree through them is written.
template <GrandItem item, class T, class A>
STRUCTOPS_INLINE void max_spread(const GrandCharts<A>& c, const GrandShape& s, const GrandInput<T>& in, int i, int j, Acc<T>* through) {
  using Term = GrandTerm<item, false, A>;
  const int64_t cell = s.cell(i, j), at = is_arc(item) ? arc_at<item>(in.N, i, j) : 0;
  const int ll = left_lane<item>(i, j), rl = right_lane<item>(i, j);
  A* const outer = c.parents.q;
  Vec<A> top = splat(A(-INFINITY));
  for (int g0 = 0; g0 < s.lanes; g0 += W<A>) {
    Vec<A> o = load(c[item].a + cell + g0);
    if constexpr (is_arc(item)) {
      const Vec<A> x = o + load(c[item].m + cell + g0), score = grand_score<item, A>(in.arc, in.grand, in.N, i, j, g0);
      top = x > top ? x : top;
      o += score;
    }
    store(outer + g0, grand_valid<A>(s, item, i, j, g0) ? o : splat(A(-INFINITY)));
  }
  if constexpr (is_arc(item)) {
    const A most = hmax<A>(top);
    if (first_lane()) through[at] = Acc<T>(most);
  }
  for (int which = 0; which < kGrandRanges; ++which) {
    const GrandRange q = grand_range<item>(s, i, j, which);
    const GrandCells<A>&L = c[q.left], &R = c[q.right];
    for (int r = q.first; r < q.last; ++r) {
      const int64_t lc = s.cell(i, r), rc = s.cell(r + q.gap, j);
      const bool add_left = r > i, add_right = r + q.gap < j;
      const A sib = q.siblings ? A(widen(in.sib[at * in.N + r])) : A(0);
      Vec<A> fixed = splat(A(-INFINITY));
      for (int g0 = 0; g0 < s.lanes; g0 += W<A>) {
        const Vec<A> o = load(outer + g0) + sib;
        const Vec<A> to_left = o + operand<Term::right_fixed, A>(R.m, rc, rl, g0);
        const Vec<A> to_right = o + operand<Term::left_fixed, A>(L.m, lc, ll, g0);
        if (Term::left_fixed) fixed = to_left > fixed ? to_left : fixed;
        else if (add_left) max_to<A>(L.a + lc + g0, to_left);
        if (Term::right_fixed) fixed = to_right > fixed ? to_right : fixed;
        else if (add_right) max_to<A>(R.a + rc + g0, to_right);
      }
      if (!Term::left_fixed && !Term::right_fixed) continue;
      const A most = hmax<A>(fixed);
      A* const to = Term::left_fixed ? L.a + lc + ll : R.a + rc + rl;
      if (first_lane() && (Term::left_fixed ? add_left : add_right) && most > *to) *to = most;
    }
  }
}

template <class T, class A>
STRUCTOPS_INLINE void max_sentence(const Team& team, const GrandMaxArgs& x, int64_t b, const GrandCharts<A>& c) {
  using I = GrandItem;
  const GrandArgs& a = x.in;
  const GrandShape s = grand_shape(a, a.lengths[b], W<A>);
  const GrandInput<T> in = grand_input<T>(a, b);
  Acc<T>* const through = static_cast<Acc<T>*>(x.through) + b * a.N * a.N;
  for (int64_t o = team.thread; o < a.N * a.N; o += team.threads) through[o] = A(-INFINITY);
  for (int k = 0; k < kGrandItems; ++k)
    for (int64_t o = team.thread; o < s.numbers(); o += team.threads) c.of[k].a[o] = A(-INFINITY);
  const Found<A> found = best_inside(team, c, s, in);
  if (team.any(any<A>(found.invalid))) {
    for (int64_t o = team.thread; o < int64_t(s.n) * (s.n + 1); o += team.threads) {
      const int64_t dep = o / (s.n + 1) + 1, head = o % (s.n + 1);
      if (head != dep) through[dep * a.N + head] = A(__builtin_nan(""));
    }
    return;
  }
  if (team.thread == 0) c[I::CR].a[s.cell(0, s.n)] = 0;
  team.sync();
  for (int w = s.n; w >= 1; --w) {
    auto spread = [&](auto item, int i) { max_spread<decltype(item)::value>(c, s, in, i, i + w, through); };
    each_span<I::CR, I::CL>(team, s, w, spread);
    team.sync();
    if (s.second) each_span<I::IR, I::IL, I::S>(team, s, w, spread);
    else each_span<I::IR, I::IL>(team, s, w, spread);
    team.sync();
  }
}

}  // namespace structops::STRUCTOPS_ISA
