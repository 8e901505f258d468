// Grammar charts: where they lie, and their sums. The contract is pcfg.h. For one instruction set, and for nvcc, where one
// warp works on a sentence. The lanes of a vector are neighbouring spans of one width.
#pragma once
#include "tree/lanes.h"
#include "tree/pcfg.h"

namespace structops::STRUCTOPS_ISA {

struct PcfgShape {
  int n, NT, T, S, stride;  // stride: lanes of one symbol of one width, and a vector more that reads run into

  STRUCTOPS_MEMBER int64_t cell(int w, int symbol, int i) const {
    return int64_t(w == 1 ? symbol - NT : T + (w - 2) * NT + symbol) * stride + i;
  }
  STRUCTOPS_MEMBER int64_t numbers() const { return int64_t(T + (n > 1 ? n - 1 : 0) * NT) * stride; }
  STRUCTOPS_MEMBER int64_t pairs() const { return int64_t(S) * S; }
};

STRUCTOPS_INLINE PcfgShape pcfg_shape(const PcfgArgs& a, int64_t n, int width) {
  return {int(n), int(a.NT), int(a.T), int(a.NT + a.T), int((n + 2 * width - 1) / width * width)};
}

template <class A> struct PcfgCharts {
  A *m, *t, *a, *d;                    // of the cells
  Int<A>* e;
  A *pm, *pt, *lin, *lint, *P, *D;     // of the pairs of one vector of spans: M, then relative to the largest pair; their posteriors
  Int<A>* pe;
  A *q, *dq;                           // [NT] vectors: posterior over value
  A* rule;                             // [NT, S, S] relative to 2^top
  Int<A>* top;                         // [NT]
  A* count;                            // [NT, S, S]: posteriors of the rules, not yet weighted
};

struct PcfgRoom {
  int64_t numbers, pairs, NT;
  int width;
  bool posts, dual;

  // Lays the arrays out from `memory`, numbers before exponents, and returns their size.
  template <class A> STRUCTOPS_MEMBER size_t lay_out(char* memory, PcfgCharts<A>* c) const {
    size_t at = 0;
    auto take = [&](auto** p, bool wanted, int64_t n) {
      using P = typename PointerOf<decltype(p)>::type;
      *p = wanted ? reinterpret_cast<P>(memory + at) : nullptr;
      at += wanted ? (size_t(n) * sizeof(**p) + 63) / 64 * 64 : 0;
    };
    const int64_t vectors = pairs * width;
    take(&c->m, true, numbers);
    take(&c->t, dual, numbers);
    take(&c->a, posts, numbers);
    take(&c->d, dual, numbers);
    take(&c->pm, true, vectors);
    take(&c->pt, dual, vectors);
    take(&c->lin, true, vectors);
    take(&c->lint, dual, vectors);
    take(&c->P, posts, vectors);
    take(&c->D, dual, vectors);
    take(&c->q, posts, NT * width);
    take(&c->dq, dual, NT * width);
    take(&c->rule, true, NT * pairs + width);
    take(&c->count, posts, NT * pairs + width);
    take(&c->e, true, numbers);
    take(&c->pe, true, vectors);
    take(&c->top, true, NT);
    return at;
  }
  template <class P> struct PointerOf;
  template <class P> struct PointerOf<P**> { using type = P*; };
};

template <class T> struct PcfgInput {  // of one sentence
  const T *term, *rule, *root, *v_term, *v_rule, *v_root, *span, *v_span;
  int64_t posts;  // N + 1
};

template <class T> STRUCTOPS_INLINE PcfgInput<T> pcfg_input(const PcfgArgs& a, int64_t b) {
  const int64_t S = a.NT + a.T, terms = a.N * a.T, rules = a.NT * S * S;
  auto at = [](const void* p, int64_t offset) { return p ? static_cast<const T*>(p) + offset : nullptr; };
  const int64_t r = a.shared ? 0 : b * rules;
  const int64_t posts = a.N + 1, spans = b * posts * posts * a.NT;
  return {at(a.term, b * terms), at(a.rule, r), at(a.root, b * a.NT), at(a.v_term, b * terms), at(a.v_rule, r), at(a.v_root, b * a.NT),
          at(a.span, spans), at(a.v_span, spans), posts};
}

// Of a table of spans, those of symbol a at i of width w; `otherwise` in the lanes that hold none.
template <class A, class T>
STRUCTOPS_INLINE Vec<A> load_spans(const T* table, const PcfgShape& s, int64_t posts, int a, int w, int i, A otherwise) {
  Vec<A> x = splat(otherwise);
  each_lane<A>(s.n - w - i + 1, [&](int l) { lane_set(x, l, A(widen(table[((i + l) * posts + i + l + w) * s.NT + a]))); });
  return x;
}

template <class A> struct PcfgConst;  // sums below this are taken again
template <> struct PcfgConst<float> { static constexpr float tiny = 0x1p-60f; };
template <> struct PcfgConst<double> { static constexpr double tiny = 0x1p-500; };

template <class A> STRUCTOPS_INLINE bool is_zero_exponent(Int<A> e) { return e <= ScaledConst<A>::zero / 2; }
template <class A> STRUCTOPS_INLINE Vec<A> pow2_of(Vec<Int<A>> d) { return pow2_biased<A>(d + Int<A>(MathConst<A>::bias)); }

// f(B, first C, last C) for the pairs that a span of width w has.
template <class F> STRUCTOPS_INLINE void each_row(const PcfgShape& s, int w, F f) {
  if (w > 2)
    for (int B = 0; B < s.NT; ++B) f(B, w == 3 ? s.NT : 0, s.S);
  for (int B = s.NT; B < s.S; ++B) f(B, w == 2 ? s.NT : 0, w == 2 ? s.S : s.NT);
}

// The widths of the left part of a pair: preterminals are one word wide.
STRUCTOPS_INLINE int first_width(const PcfgShape& s, int w, int B, int C) { return B >= s.NT ? 1 : C >= s.NT ? w - 1 : 2; }
STRUCTOPS_INLINE int last_width(const PcfgShape& s, int w, int B, int C) { return B >= s.NT ? 1 : C >= s.NT ? w - 1 : w - 2; }

// Rules as numbers relative to the largest of their A.
template <class T, class A>
STRUCTOPS_INLINE void load_rules(const PcfgCharts<A>& c, const PcfgShape& s, const PcfgInput<T>& in, Found<A>& found) {
  const int64_t pairs = s.pairs();
  for (int a = 0; a < s.NT; ++a) {
    Vec<A> most = splat(A(-INFINITY));
    auto each = [&](auto f) {
      for (int64_t k = 0; k < pairs; k += W<A>) {
        const int left = int(pairs - k < W<A> ? pairs - k : W<A>);
        const Vec<A> x = load_as<A>(in.rule + a * pairs + k, left);
        f(k, left, sanitise<A>(lane_numbers<A>() < Int<A>(left) ? x : splat(A(-INFINITY)), found));
      }
    };
    each([&](int64_t, int, Vec<A> x) { most = x > most ? x : most; });
    const A top = hmax<A>(most);
    const Int<A> e = top < -ScaledConst<A>::max_score ? Int<A>(ScaledConst<A>::zero) : Int<A>(__builtin_rint(double(top) * 1.44269504088896340736));
    if (first_lane()) c.top[a] = e;
    each([&](int64_t k, int left, Vec<A> x) {
      const Scaled<A> y = exp_scaled<A>(x);
      store_as<A>(c.rule + a * pairs + k, y.m * pow2_of<A>(y.e - e), left);
    });
  }
  lane_fence();
}

// The pairs of the spans at i of width w; returns the largest exponent in each lane.
template <bool dual, class A>
STRUCTOPS_INLINE Vec<Int<A>> load_pairs(const PcfgCharts<A>& c, const PcfgShape& s, int w, int i, Vec<Int<A>> valid) {
  Vec<Int<A>> top = splat(Int<A>(ScaledConst<A>::zero));
  each_row(s, w, [&](int B, int c0, int c1) {
    for (int C = c0; C < c1; ++C) {
      ScaledSum<A, dual> sum;
      for (int k = first_width(s, w, B, C), last = last_width(s, w, B, C); k <= last; ++k) {
        const int64_t l = s.cell(k, B, i), r = s.cell(w - k, C, i + k);
        const Vec<A> m = load(c.m + l) * load(c.m + r);
        const Vec<Int<A>> e = load(c.e + l) + load(c.e + r);
        Vec<A> t{};
        if constexpr (dual) t = load(c.t + l) + load(c.t + r);
        sum.template add<1>(&m, &e, &t);
      }
      const Scaled<A> x = sum.value();
      const int64_t o = (int64_t(B) * s.S + C) * W<A>;
      const Vec<Int<A>> e = valid ? x.e : splat(Int<A>(ScaledConst<A>::zero));
      store(c.pm + o, valid ? x.m : Vec<A>{});
      store(c.pe + o, e);
      if constexpr (dual) store(c.pt + o, valid ? sum.tangent() : Vec<A>{});
      top = e > top ? e : top;
    }
  });
  each_row(s, w, [&](int B, int c0, int c1) {
    for (int64_t o = (int64_t(B) * s.S + c0) * W<A>; o < (int64_t(B) * s.S + c1) * W<A>; o += W<A>) {
      const Vec<A> x = load(c.pm + o) * pow2_of<A>(load(c.pe + o) - top);
      store(c.lin + o, x);
      if constexpr (dual) store(c.lint + o, x * load(c.pt + o));
    }
  });
  return top;
}

// The sum of one A over scaled numbers.
template <bool dual, class T, class A>
STRUCTOPS_INLINE ScaledSum<A, dual> exact_sum(const PcfgCharts<A>& c, const PcfgShape& s, const PcfgInput<T>& in, int a, int w) {
  ScaledSum<A, dual> sum;
  each_row(s, w, [&](int B, int c0, int c1) {
    for (int C = c0; C < c1; ++C) {
      const int64_t pair = int64_t(B) * s.S + C, at = a * s.pairs() + pair;
      Found<A> known;
      const Scaled<A> r = exp_scaled<A>(sanitise<A>(splat(A(widen(in.rule[at]))), known));
      const Vec<A> m = r.m * load(c.pm + pair * W<A>);
      const Vec<Int<A>> e = r.e + load(c.pe + pair * W<A>);
      Vec<A> t{};
      if constexpr (dual) t = splat(A(widen(in.v_rule[at]))) + load(c.pt + pair * W<A>);
      sum.template add<1>(&m, &e, &t);
    }
  });
  return sum;
}

template <int n> struct PcfgCount { static constexpr int count = n; };

// f(A, how many, as a constant) for blocks of nonterminals that share the loads of a pair.
template <class F> STRUCTOPS_INLINE void each_block(int NT, F f) {
  int a = 0;
  for (; a + 8 <= NT; a += 8) f(a, PcfgCount<8>{});
  if (a + 4 <= NT) { f(a, PcfgCount<4>{}); a += 4; }
  for (; a < NT; ++a) f(a, PcfgCount<1>{});
}

template <bool dual, class T, class A>
STRUCTOPS_INLINE void pcfg_vector(const PcfgCharts<A>& c, const PcfgShape& s, const PcfgInput<T>& in, int w, int i, Found<A>& found) {
  const Vec<Int<A>> valid = lane_numbers<A>() + Int<A>(i + w) <= Int<A>(s.n);
  const Vec<Int<A>> top = load_pairs<dual>(c, s, w, i, valid);
  each_block(s.NT, [&](int a0, auto size) {
    constexpr int n = decltype(size)::count;
    Vec<A> sum[n]{}, tangent[n]{};
    const A* const rule = c.rule + a0 * s.pairs();
    each_row(s, w, [&](int B, int c0, int c1) {
      for (int64_t pair = int64_t(B) * s.S + c0; pair < int64_t(B) * s.S + c1; ++pair) {
        const Vec<A> x = load(c.lin + pair * W<A>);
        Vec<A> xt{};
        if constexpr (dual) xt = load(c.lint + pair * W<A>);
        STRUCTOPS_UNROLL
        for (int k = 0; k < n; ++k) {
          const A r = rule[k * s.pairs() + pair];
          sum[k] += r * x;
          if constexpr (dual) tangent[k] += r * (xt + A(widen(in.v_rule[(a0 + k) * s.pairs() + pair])) * x);
        }
      }
    });
    for (int k = 0; k < n; ++k) {
      const int a = a0 + k;
      const Int<A> e = c.top[a];
      Scaled<A> x = normalise<A>({sum[k], top + e});
      Vec<A> t = sum[k] > A(0) ? tangent[k] / (sum[k] > A(0) ? sum[k] : splat(A(1))) : Vec<A>{};
      const Vec<Int<A>> doubtful = valid & (sum[k] < PcfgConst<A>::tiny) & (top > Int<A>(ScaledConst<A>::zero));
      if (!is_zero_exponent<A>(e) && any_lane<A>(doubtful)) {
        const ScaledSum<A, dual> again = exact_sum<dual>(c, s, in, a, w);
        x = again.value();
        if constexpr (dual) t = again.tangent();
      }
      if (is_zero_exponent<A>(e)) x = {Vec<A>{}, splat(Int<A>(ScaledConst<A>::zero))};
      if (in.span) x = times<A>(x, exp_scaled<A>(sanitise<A>(load_spans<A>(in.span, s, in.posts, a, w, i, A(-INFINITY)), found)));
      if constexpr (dual)
        if (in.v_span) t += load_spans<A>(in.v_span, s, in.posts, a, w, i, A(0));
      const int64_t o = s.cell(w, a, i);
      store(c.m + o, valid ? x.m : Vec<A>{});
      store(c.e + o, valid ? x.e : splat(Int<A>(ScaledConst<A>::zero)));
      if constexpr (dual) store(c.t + o, valid & (x.m > A(0)) ? t : Vec<A>{});
    }
  });
  lane_fence();
}

template <bool dual, class T, class A>
STRUCTOPS_INLINE Found<A> pcfg_inside(const PcfgCharts<A>& c, const PcfgShape& s, const PcfgInput<T>& in) {
  Found<A> found;
  for (int symbol = 0; symbol < s.T; ++symbol)
    for (int i = 0; i < s.n; i += W<A>) {
      Vec<A> x = splat(A(-INFINITY)), t{};
      each_lane<A>(s.n - i, [&](int l) {
        lane_set(x, l, A(widen(in.term[int64_t(i + l) * s.T + symbol])));
        if constexpr (dual) lane_set(t, l, A(widen(in.v_term[int64_t(i + l) * s.T + symbol])));
      });
      const Scaled<A> y = exp_scaled<A>(sanitise<A>(x, found));
      const int64_t o = s.cell(1, s.NT + symbol, i);
      store(c.m + o, y.m);
      store(c.e + o, y.e);
      if constexpr (dual) store(c.t + o, y.m > A(0) ? t : Vec<A>{});
    }
  lane_fence();
  if (s.n < 2) return found;
  load_rules(c, s, in, found);
  for (int w = 2; w <= s.n; ++w)
    for (int i = 0; i <= s.n - w; i += W<A>) pcfg_vector<dual>(c, s, in, w, i, found);
  return found;
}

// The parses of a sentence with root A, and their tangent.
template <bool dual, class T, class A>
STRUCTOPS_INLINE Scaled<A> rooted(const PcfgCharts<A>& c, const PcfgShape& s, const PcfgInput<T>& in, int a, A* t, Found<A>& found) {
  const Scaled<A> r = exp_scaled<A>(sanitise<A>(splat(A(widen(in.root[a]))), found));
  const int64_t o = s.cell(s.n, a, 0);
  *t = dual ? A(widen(in.v_root[a])) + c.t[o] : A(0);
  return normalise<A>({r.m * c.m[o], r.e + c.e[o]});
}

template <bool dual, class T, class A>
STRUCTOPS_INLINE ScaledSum<A, dual> all_parses(const PcfgCharts<A>& c, const PcfgShape& s, const PcfgInput<T>& in, Found<A>& found) {
  ScaledSum<A, dual> sum;
  for (int a = 0; s.n > 1 && a < s.NT; ++a) {
    A t;
    const Scaled<A> x = rooted<dual>(c, s, in, a, &t, found);
    const Vec<A> tv = splat(t);
    sum.template add<1>(&x.m, &x.e, &tv);
  }
  return sum;
}

}  // namespace structops::STRUCTOPS_ISA
