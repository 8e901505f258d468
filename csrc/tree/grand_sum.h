// Grandparent charts: sums, posteriors and their derivatives. The contract is grand.h. For one instruction set, and for nvcc.
//
// Outside, every item has a posterior; each of its terms has the posterior  a[item] term / item, which is added to both factors,
// summed over g for the factor whose lane is fixed. Widths descend, and within one width completions come before links, so that every
// posterior is complete when it is read. Within one phase no two warps add to the same lane of the same cell (cells [i, i] aside, whose
// posteriors nobody reads and nobody writes).
#pragma once
#include "tree/grand_terms.h"

namespace structops::STRUCTOPS_ISA {

template <bool fixed, class A, class N> STRUCTOPS_INLINE Vec<N> operand(const N* p, int64_t cell, int lane, int g0) {
  if constexpr (fixed) return splat(p[cell + lane]);
  else return load(p + cell + g0);
}

template <GrandItem item, bool dual, class A> struct GrandTerm {
  static constexpr bool left_fixed = item == GrandItem::CL || item == GrandItem::IL;
  static constexpr bool right_fixed = item == GrandItem::CR || item == GrandItem::IR;
  Vec<A> l, r, t;
  Vec<Int<A>> e;
  STRUCTOPS_MEMBER GrandTerm(const GrandCells<A>& L, int64_t lc, int ll, const GrandCells<A>& R, int64_t rc, int rl, int g0)
      : l(operand<left_fixed, A>(L.m, lc, ll, g0)), r(operand<right_fixed, A>(R.m, rc, rl, g0)), t{},
        e(operand<left_fixed, A>(L.e, lc, ll, g0) + operand<right_fixed, A>(R.e, rc, rl, g0)) {
    if constexpr (dual) t = operand<left_fixed, A>(L.t, lc, ll, g0) + operand<right_fixed, A>(R.t, rc, rl, g0);
  }
};

// The sum of the terms of an item in the lanes g0.., without its score.
template <GrandItem item, bool dual, class T, class A>
STRUCTOPS_INLINE ScaledSum<A, dual> grand_terms(const GrandCharts<A>& c, const GrandShape& s, const GrandInput<T>& in, int i, int j, int g0,
                                                Found<A>& found) {
  const int ll = left_lane<item>(i, j), rl = right_lane<item>(i, j);
  ScaledSum<A, dual> sum;
  for (int which = 0; which < kGrandRanges; ++which) {
    const GrandRange q = grand_range<item>(s, i, j, which);
    const int64_t sib = arc_at<item>(in.N, i, j) * in.N;
    int r = q.first;
    auto block = [&](auto size) {
      constexpr int n = decltype(size)::count;
      Vec<A> m[n], t[n];
      Vec<Int<A>> e[n];
      STRUCTOPS_UNROLL
      for (int k = 0; k < n; ++k) {
        const GrandTerm<item, dual, A> x(c[q.left], s.cell(i, r + k), ll, c[q.right], s.cell(r + k + q.gap, j), rl, g0);
        m[k] = x.l * x.r;
        e[k] = x.e;
        t[k] = x.t;
        if (q.siblings) {
          const Scaled<A> b = exp_scaled<A>(sanitise<A>(splat(A(widen(in.sib[sib + r + k]))), found));
          m[k] *= b.m;
          e[k] += b.e;
          if constexpr (dual) t[k] += b.m > A(0) ? splat(A(widen(in.v_sib[sib + r + k]))) : Vec<A>{};
        }
      }
      sum.template add<n>(m, e, t);
      r += n;
    };
    while (r + 4 <= q.last) block(GrandCount<4>{});
    while (r < q.last) block(GrandCount<1>{});
  }
  return sum;
}

template <class A, bool dual>
STRUCTOPS_INLINE void grand_put(const GrandCells<A>& c, int64_t o, const Scaled<A>& x, Vec<A> t, Vec<Int<A>> valid) {
  store(c.m + o, valid ? x.m : Vec<A>{});
  store(c.e + o, valid ? x.e : splat(Int<A>(ScaledConst<A>::zero)));
  if constexpr (dual) store(c.t + o, valid ? t : Vec<A>{});
}

// e^score of the lanes g0.. of an arc, and its tangent.
template <GrandItem item, bool dual, class T, class A>
STRUCTOPS_INLINE Scaled<A> grand_factor(const GrandInput<T>& in, int i, int j, int g0, Vec<Int<A>> valid, Vec<A>* t, Found<A>& found) {
  const Vec<A> x = grand_score<item, A>(in.arc, in.grand, in.N, i, j, g0);
  const Scaled<A> y = exp_scaled<A>(sanitise<A>(valid ? x : splat(A(-INFINITY)), found));
  if constexpr (dual) *t = y.m > A(0) ? grand_score<item, A>(in.v, in.v_grand, in.N, i, j, g0) : Vec<A>{};
  return y;
}

template <GrandItem item, bool dual, class T, class A>
STRUCTOPS_INLINE void grand_fill(const GrandCharts<A>& c, const GrandShape& s, const GrandInput<T>& in, int i, int j, Found<A>& found) {
  for (int g0 = 0; g0 < s.lanes; g0 += W<A>) {
    const Vec<Int<A>> valid = grand_valid<A>(s, item, i, j, g0);
    const ScaledSum<A, dual> sum = grand_terms<item, dual>(c, s, in, i, j, g0, found);
    Scaled<A> x = sum.value();
    Vec<A> t{};
    if constexpr (dual) t = sum.tangent();
    if constexpr (is_arc(item)) {
      Vec<A> own{};
      x = times<A>(x, grand_factor<item, dual>(in, i, j, g0, valid, &own, found));
      t += own;
    }
    grand_put<A, dual>(c[item], s.cell(i, j) + g0, x, t, valid);
  }
}

// Fills the charts: the sum over the trees is CR 0[0, n].
template <bool dual, class T, class A>
STRUCTOPS_INLINE Found<A> grand_inside(const Team& team, const GrandCharts<A>& c, const GrandShape& s, const GrandInput<T>& in) {
  using I = GrandItem;
  Found<A> found;
  each_span<I::CR, I::CL>(team, s, 0, [&](auto item, int i) {
    for (int g0 = 0; g0 < s.lanes; g0 += W<A>)
      grand_put<A, dual>(c[item.value], s.cell(i, i) + g0, {splat(A(1)), Vec<Int<A>>{}}, Vec<A>{}, grand_valid<A>(s, item.value, i, i, g0));
  });
  team.sync();
  for (int w = 1; w <= s.n; ++w) {
    auto fill = [&](auto item, int i) { grand_fill<decltype(item)::value, dual>(c, s, in, i, i + w, found); };
    if (s.second) each_span<I::IR, I::IL, I::S>(team, s, w, fill);
    else each_span<I::IR, I::IL>(team, s, w, fill);
    team.sync();
    each_span<I::CR, I::CL>(team, s, w, fill);
    team.sync();
  }
  return found;
}

// Passes the posteriors of an item on to the factors of its terms. Of arcs, writes them (dual: their derivatives) times scale.
template <GrandItem item, bool dual, class T, class A>
STRUCTOPS_INLINE void grand_spread(const GrandCharts<A>& c, const GrandShape& s, const GrandInput<T>& in, int i, int j, A scale, T* post,
                                   T* post_grand, T* post_sib) {
  using Term = GrandTerm<item, dual, A>;
  const GrandCells<A>& own = c[item];
  const GrandParents<A>& p = c.parents;
  const int64_t cell = s.cell(i, j), at = is_arc(item) ? arc_at<item>(in.N, i, j) : 0;
  Vec<A> total{};
  for (int g0 = 0; g0 < s.lanes; g0 += W<A>) {
    const Vec<A> a = load(own.a + cell + g0), m = load(own.m + cell + g0);
    const Vec<Int<A>> live = m > A(0);
    const Vec<A> inverse = live ? A(1) / (live ? m : splat(A(1))) : Vec<A>{};
    Vec<A> q = a * inverse, dq{}, t{}, d{};
    Vec<Int<A>> e = live ? load(own.e + cell + g0) - Int<A>(MathConst<A>::bias) : splat(Int<A>(ScaledConst<A>::none));
    if constexpr (dual) {
      d = load(own.d + cell + g0);
      dq = d * inverse;
      t = load(own.t + cell + g0);
    }
    if constexpr (is_arc(item)) {  // the terms lack the score that the item has
      Vec<A> tangent{};
      Found<A> known;
      const Scaled<A> score = grand_factor<item, dual>(in, i, j, g0, live, &tangent, known);
      q *= score.m;
      e = live ? e - score.e : e;
      if constexpr (dual) {
        dq *= score.m;
        t -= tangent;
      }
      const Vec<A> out = (dual ? d : a) * scale;
      total += out;
      const int64_t left = s.n + 1 - g0 < W<A> ? s.n + 1 - g0 : W<A>;
      if (item == GrandItem::IL || i > 0) store_as<A>(post_grand + at * in.N + g0, out, int(left));
    }
    store(p.q + g0, q);
    store(p.e + g0, e);
    if constexpr (dual) {
      store(p.dq + g0, dq);
      store(p.t + g0, t);
    }
  }
  if constexpr (is_arc(item)) {
    const A sum = hsum<A>(total);
    if (first_lane()) narrow_to(post + at, Acc<T>(sum));
  }

  const int ll = left_lane<item>(i, j), rl = right_lane<item>(i, j);
  for (int which = 0; which < kGrandRanges; ++which) {
    const GrandRange range = grand_range<item>(s, i, j, which);
    const GrandCells<A>&L = c[range.left], &R = c[range.right];
    for (int r = range.first; r < range.last; ++r) {
      const int64_t lc = s.cell(i, r), rc = s.cell(r + range.gap, j);
      const bool add_left = r > i, add_right = r + range.gap < j;  // [i, i] and [j, j] are axioms
      Scaled<A> b{splat(A(1)), Vec<Int<A>>{}};
      Vec<A> tb{};
      if (range.siblings) {
        Found<A> known;
        b = exp_scaled<A>(sanitise<A>(splat(A(widen(in.sib[at * in.N + r]))), known));
        if constexpr (dual) tb = b.m > A(0) ? splat(A(widen(in.v_sib[at * in.N + r]))) : Vec<A>{};
      }
      Vec<A> sum{}, dsum{};
      for (int g0 = 0; g0 < s.lanes; g0 += W<A>) {
        const Term x(L, lc, ll, R, rc, rl, g0);
        const Vec<A> term = x.l * pow2_biased<A>(x.e + b.e - load(p.e + g0)) * (x.r * b.m);
        const Vec<A> a = load(p.q + g0) * term;
        if (!Term::left_fixed && add_left) add_to<A>(L.a + lc + g0, a);
        if (!Term::right_fixed && add_right) add_to<A>(R.a + rc + g0, a);
        sum += a;
        if constexpr (dual) {
          const Vec<A> d = load(p.dq + g0) * term + a * (x.t + tb - load(p.t + g0));
          if (!Term::left_fixed && add_left) add_to<A>(L.d + lc + g0, d);
          if (!Term::right_fixed && add_right) add_to<A>(R.d + rc + g0, d);
          dsum += d;
        }
      }
      if (!Term::left_fixed && !Term::right_fixed) continue;
      const A all = hsum<A>(sum), dall = dual ? hsum<A>(dsum) : A(0);
      const int64_t o = Term::left_fixed ? lc + ll : rc + rl;
      if (first_lane()) {
        if (Term::left_fixed ? add_left : add_right) {
          (Term::left_fixed ? L : R).a[o] += all;
          if constexpr (dual) (Term::left_fixed ? L : R).d[o] += dall;
        }
        if (range.siblings) narrow_to(post_sib + at * in.N + r, Acc<T>((dual ? dall : all) * scale));
      }
    }
  }
}

// After grand_inside. post, post_grand and post_sib [N, N(, N)] of the sentence hold zeros.
template <bool dual, class T, class A>
STRUCTOPS_INLINE void grand_outside(const Team& team, const GrandCharts<A>& c, const GrandShape& s, const GrandInput<T>& in, A scale,
                                    T* post, T* post_grand, T* post_sib) {
  using I = GrandItem;
  for (int k = 0; k < kGrandItems; ++k)
    for (int64_t o = team.thread; o < s.numbers(); o += team.threads) {
      c.of[k].a[o] = 0;
      if constexpr (dual) c.of[k].d[o] = 0;
    }
  team.sync();
  const int64_t goal = s.cell(0, s.n);
  if (team.thread == 0) c[I::CR].a[goal] = c[I::CR].m[goal] > 0 ? 1 : 0;
  team.sync();
  for (int w = s.n; w >= 1; --w) {
    auto spread = [&](auto item, int i) {
      grand_spread<decltype(item)::value, dual>(c, s, in, i, i + w, scale, post, post_grand, post_sib);
    };
    each_span<I::CR, I::CL>(team, s, w, spread);
    team.sync();
    if (s.second) each_span<I::IR, I::IL, I::S>(team, s, w, spread);
    else each_span<I::IR, I::IL>(team, s, w, spread);
    team.sync();
  }
}

// ---- one sentence ----------------------------------------------------------------------------------------------------------

template <class T> STRUCTOPS_INLINE void fill_shared(const Team& team, T* p, int64_t n, Acc<T> x) {
  for (int64_t i = team.thread; i < n; i += team.threads) narrow_to(p + i, x);
}

// NaN in every result of a sentence whose score was read, the rest being 0.
template <class T> STRUCTOPS_INLINE void grand_invalidate(const Team& team, const GrandArgs& a, int64_t n, T* post, T* post_grand, T* post_sib) {
  const Acc<T> nan = Acc<T>(__builtin_nan(""));
  const int64_t N = a.N;
  for (int64_t pair = team.thread; pair < n * (n + 1); pair += team.threads) {
    const int64_t dep = pair / (n + 1) + 1, head = pair % (n + 1);
    if (head == dep) continue;
    const int64_t low = dep < head ? dep : head, high = dep < head ? head : dep, at = dep * N + head;
    narrow_to(post + at, nan);
    for (int64_t g = 0; g <= n && head > 0; ++g)
      if (g < low || g > high) narrow_to(post_grand + at * N + g, nan);
    for (int64_t r = low + 1; post_sib && r < high && (head > 0 || a.multiroot); ++r) narrow_to(post_sib + at * N + r, nan);
  }
}

STRUCTOPS_INLINE GrandShape grand_shape(const GrandArgs& a, int64_t n, int width) {
  return {int(n), int((n + width) / width * width), a.sib != nullptr, !a.multiroot};
}

// False if the scores leave the charts of A. charts: room for n words.
template <bool dual, class T, class A>
STRUCTOPS_INLINE bool grand_sentence(const Team& team, const GrandArgs& a, int64_t b, const GrandCharts<A>& c) {
  using R = Acc<T>;  // the dtype of logz and weight
  const int64_t n = a.lengths[b], plane = a.N * a.N, cube = plane * a.N;
  const GrandShape s = grand_shape(a, n, W<A>);
  const GrandInput<T> in = grand_input<T>(a, b);
  const Found<A> found = grand_inside<dual>(team, c, s, in);
  const bool invalid = team.any(any<A>(found.invalid)), wide = team.any(any<A>(found.wide));
  if (sizeof(A) == sizeof(float) && wide && !invalid) return false;
  const int64_t goal = s.cell(0, s.n);
  const GrandCells<A>& root = c[GrandItem::CR];
  if (team.thread == 0) {
    double z = log_scaled<A>(root.m[goal], root.e[goal]);
    if constexpr (dual) z = root.m[goal] > 0 ? double(root.t[goal]) : 0;
    static_cast<R*>(a.logz)[b] = R(invalid ? __builtin_nan("") : z);
  }
  if (!a.post) return true;
  T* const post = static_cast<T*>(a.post) + b * plane;
  T* const post_grand = static_cast<T*>(a.post_grand) + b * cube;
  T* const post_sib = a.post_sib ? static_cast<T*>(a.post_sib) + b * cube : nullptr;
  fill_shared(team, post, plane, 0);
  fill_shared(team, post_grand, cube, 0);
  if (post_sib) fill_shared(team, post_sib, cube, 0);
  team.sync();
  if (invalid) grand_invalidate(team, a, n, post, post_grand, post_sib);
  else grand_outside<dual>(team, c, s, in, a.weight ? A(static_cast<const R*>(a.weight)[b]) : A(1), post, post_grand, post_sib);
  return true;
}

}  // namespace structops::STRUCTOPS_ISA
