// Grammar charts: expected counts and their derivatives, after pcfg_inside.h. For one instruction set, and for nvcc.
#pragma once
#include "tree/pcfg_inside.h"

namespace structops::STRUCTOPS_ISA {

// Posteriors of the pairs of one A over scaled numbers, in the lanes where its sum was doubtful.
template <bool dual, class T, class A>
STRUCTOPS_INLINE void exact_spread(const PcfgCharts<A>& c, const PcfgShape& s, const PcfgInput<T>& in, int a, int w, int64_t o,
                                   Vec<Int<A>> lanes) {
  const Vec<A> m = load(c.m + o), inverse = A(1) / (lanes ? m : splat(A(1)));
  const Vec<A> q = lanes ? load(c.a + o) * inverse : Vec<A>{};
  const Vec<Int<A>> e = load(c.e + o) - Int<A>(MathConst<A>::bias);
  each_row(s, w, [&](int B, int c0, int c1) {
    for (int C = c0; C < c1; ++C) {
      const int64_t pair = int64_t(B) * s.S + C, at = a * s.pairs() + pair;
      Found<A> known;
      const Scaled<A> r = exp_scaled<A>(sanitise<A>(splat(A(widen(in.rule[at]))), known));
      const Vec<A> term = r.m * pow2_biased<A>(lanes ? r.e + load(c.pe + pair * W<A>) - e : Vec<Int<A>>{}) * load(c.pm + pair * W<A>);
      const Vec<A> p = q * term;
      store(c.P + pair * W<A>, load(c.P + pair * W<A>) + p);
      Vec<A> out = p;
      if constexpr (dual) {
        const Vec<A> t = splat(A(widen(in.v_rule[at]))) + load(c.pt + pair * W<A>) - load(c.t + o);
        const Vec<A> d = (lanes ? load(c.d + o) * inverse : Vec<A>{}) * term + p * t;
        store(c.D + pair * W<A>, load(c.D + pair * W<A>) + d);
        out = d;
      }
      const A sum = hsum<A>(out);
      if (first_lane()) c.count[at] += sum;
    }
  });
}

// Adds the posteriors of the rules that the spans of a vector use (q times rule times pair, summed over the lanes).
template <bool dual, class T, class A>
STRUCTOPS_INLINE void count_rules(const PcfgCharts<A>& c, const PcfgShape& s, const PcfgInput<T>& in, int w) {
#if defined(__CUDACC__) || defined(STRUCTOPS_CUDA_SOURCE)
  each_row(s, w, [&](int B, int c0, int c1) {
    for (int64_t pair = int64_t(B) * s.S + c0; pair < int64_t(B) * s.S + c1; ++pair)
      for (int a = 0; a < s.NT; ++a) {
        const int64_t at = a * s.pairs() + pair;
        const A q = load(c.q + a * W<A>), x = load(c.lin + pair * W<A>);
        A y = q * x;
        if constexpr (dual) y = load(c.dq + a * W<A>) * x + q * (load(c.lint + pair * W<A>) + A(widen(in.v_rule[at])) * x);
        const A sum = hsum<A>(y);
        if (first_lane()) c.count[at] += c.rule[at] * sum;
      }
  });
#else
  each_row(s, w, [&](int B, int c0, int c1) {
    for (int C = c0; C < c1; C += W<A>) {  // lanes become pairs
      const int left = c1 - C < W<A> ? c1 - C : W<A>;
      const int64_t pair = int64_t(B) * s.S + C;
      Vec<A> x[W<A>], xt[dual ? W<A> : 1];
      for (int k = 0; k < W<A>; ++k) {
        x[k] = k < left ? load(c.lin + (pair + k) * W<A>) : Vec<A>{};
        if constexpr (dual) xt[k] = k < left ? load(c.lint + (pair + k) * W<A>) : Vec<A>{};
      }
      transpose<A>(x);
      if constexpr (dual) transpose<A>(xt);
      for (int a = 0; a < s.NT; ++a) {
        const int64_t at = a * s.pairs() + pair;
        const A* const q = c.q + a * W<A>;
        Vec<A> sum{}, more{};
        for (int l = 0; l < W<A>; ++l) {
          sum += q[l] * x[l];
          if constexpr (dual) more += c.dq[a * W<A> + l] * x[l] + q[l] * xt[l];
        }
        if constexpr (dual) sum = more + load_as<A>(in.v_rule + at, left) * sum;
        store_n(c.count + at, load_n(c.count + at, left) + load_n(c.rule + at, left) * sum, left);
      }
    }
  });
#endif
}

// Takes the scores of the spans of a vector off their values again: no wider span is left that reads them.
template <bool dual, class T, class A>
STRUCTOPS_INLINE void remove_spans(const PcfgCharts<A>& c, const PcfgShape& s, const PcfgInput<T>& in, int w, int i) {
  for (int a = 0; a < s.NT; ++a) {
    const int64_t o = s.cell(w, a, i);
    const Vec<A> m = load(c.m + o);
    const Vec<Int<A>> there = m > A(0);
    if (in.span) {
      Found<A> known;
      const Scaled<A> f = exp_scaled<A>(sanitise<A>(load_spans<A>(in.span, s, in.posts, a, w, i, A(-INFINITY)), known));
      const Scaled<A> x = normalise<A>({there ? m / (there ? f.m : splat(A(1))) : Vec<A>{}, load(c.e + o) - (there ? f.e : Vec<Int<A>>{})});
      store(c.m + o, x.m);
      store(c.e + o, x.e);
    }
    if constexpr (dual)
      if (in.v_span) store(c.t + o, there ? load(c.t + o) - load_spans<A>(in.v_span, s, in.posts, a, w, i, A(0)) : Vec<A>{});
  }
  lane_fence();
}

template <bool dual, class T, class A>
STRUCTOPS_INLINE void spread_vector(const PcfgCharts<A>& c, const PcfgShape& s, const PcfgInput<T>& in, int w, int i) {
  const Vec<Int<A>> valid = lane_numbers<A>() + Int<A>(i + w) <= Int<A>(s.n);
  if (in.span || in.v_span) remove_spans<dual>(c, s, in, w, i);
  const Vec<Int<A>> top = load_pairs<dual>(c, s, w, i, valid);
  // The posterior of every A over its plain sum; 0 where that was doubtful.
  for (int a = 0; a < s.NT; ++a) {
    const int64_t o = s.cell(w, a, i);
    const Vec<A> m = load(c.m + o), plain = m * pow2_of<A>(load(c.e + o) - top - c.top[a]);
    const Vec<Int<A>> good = valid & (m > A(0)) & (plain >= PcfgConst<A>::tiny);
    const Vec<A> inverse = A(1) / (good ? plain : splat(A(1)));
    const Vec<A> q = good ? load(c.a + o) * inverse : Vec<A>{};
    store(c.q + a * W<A>, q);
    if constexpr (dual) store(c.dq + a * W<A>, good ? load(c.d + o) * inverse - q * load(c.t + o) : Vec<A>{});
  }
  each_row(s, w, [&](int B, int c0, int c1) {
    for (int64_t o = (int64_t(B) * s.S + c0) * W<A>; o < (int64_t(B) * s.S + c1) * W<A>; o += W<A>) {
      store(c.P + o, Vec<A>{});
      if constexpr (dual) store(c.D + o, Vec<A>{});
    }
  });
  each_block(s.NT, [&](int a0, auto size) {
    constexpr int n = decltype(size)::count;
    const A* const rule = c.rule + a0 * s.pairs();
    Vec<A> q[n], dq[n];
    for (int k = 0; k < n; ++k) {
      q[k] = load(c.q + (a0 + k) * W<A>);
      if constexpr (dual) dq[k] = load(c.dq + (a0 + k) * W<A>);
    }
    each_row(s, w, [&](int B, int c0, int c1) {
      for (int64_t pair = int64_t(B) * s.S + c0; pair < int64_t(B) * s.S + c1; ++pair) {
        Vec<A> p = load(c.P + pair * W<A>), d{};
        if constexpr (dual) d = load(c.D + pair * W<A>);
        STRUCTOPS_UNROLL
        for (int k = 0; k < n; ++k) {
          const A r = rule[k * s.pairs() + pair];
          p += r * q[k];
          if constexpr (dual) d += r * (dq[k] + A(widen(in.v_rule[(a0 + k) * s.pairs() + pair])) * q[k]);
        }
        store(c.P + pair * W<A>, p);
        if constexpr (dual) store(c.D + pair * W<A>, d);
      }
    });
  });
  count_rules<dual>(c, s, in, w);
  each_row(s, w, [&](int B, int c0, int c1) {  // posteriors of the pairs
    for (int64_t o = (int64_t(B) * s.S + c0) * W<A>; o < (int64_t(B) * s.S + c1) * W<A>; o += W<A>) {
      const Vec<A> p = load(c.P + o), x = load(c.lin + o);
      if constexpr (dual) store(c.D + o, load(c.D + o) * x + p * load(c.lint + o));
      store(c.P + o, p * x);
    }
  });
  for (int a = 0; a < s.NT; ++a) {
    const int64_t o = s.cell(w, a, i);
    const Vec<A> m = load(c.m + o), plain = m * pow2_of<A>(load(c.e + o) - top - c.top[a]);
    Vec<Int<A>> doubtful = valid & (m > A(0)) & (plain < PcfgConst<A>::tiny) & (load(c.a + o) > A(0));
    if (any_lane<A>(doubtful)) exact_spread<dual>(c, s, in, a, w, o, doubtful);
  }
  // Pairs go on to their splits.
  each_row(s, w, [&](int B, int c0, int c1) {
    for (int C = c0; C < c1; ++C) {
      const int64_t o = (int64_t(B) * s.S + C) * W<A>;
      const Vec<A> p = load(c.P + o), m = load(c.pm + o);
      Vec<A> d{};
      if constexpr (dual) d = load(c.D + o);
      const int first = first_width(s, w, B, C), last = last_width(s, w, B, C);
      const Vec<A> inverse = A(1) / (m > A(0) ? m : splat(A(1)));
      for (int k = first; k <= last; ++k) {
        const int64_t l = s.cell(k, B, i), r = s.cell(w - k, C, i + k);
        Vec<A> pk = p, dk = d;
        if (first < last) {
          const Vec<Int<A>> e = load(c.e + l) + load(c.e + r) - load(c.pe + o);
          const Vec<A> ratio = m > A(0) ? load(c.m + l) * pow2_of<A>(m > A(0) ? e : Vec<Int<A>>{}) * load(c.m + r) * inverse : Vec<A>{};
          pk = p * ratio;
          if constexpr (dual) dk = d * ratio + pk * (m > A(0) ? load(c.t + l) + load(c.t + r) - load(c.pt + o) : Vec<A>{});
        }
        add_to<A>(c.a + l, pk);
        if constexpr (dual) add_to<A>(c.d + l, dk);
        lane_fence();
        add_to<A>(c.a + r, pk);
        if constexpr (dual) add_to<A>(c.d + r, dk);
        lane_fence();
      }
    }
  });
}

template <class T, class A> STRUCTOPS_INLINE void fill_lanes(T* p, int64_t n, A x) {
  for (int64_t k = first_of_lanes(); k < n; k += step_of_lanes()) narrow_to(p + k, Acc<T>(x));
}

// False if the scores leave the charts of A.
template <bool dual, class T, class A>
STRUCTOPS_INLINE bool pcfg_sentence(const PcfgArgs& x, int64_t b, const PcfgCharts<A>& c) {
  using R = Acc<T>;
  const int n = int(x.lengths[b]);
  const PcfgShape s = pcfg_shape(x, n, W<A>);
  const PcfgInput<T> in = pcfg_input<T>(x, b);
  Found<A> found = pcfg_inside<dual>(c, s, in);
  const ScaledSum<A, dual> sum = all_parses<dual>(c, s, in, found);
  const bool invalid = any_lane<A>(found.invalid);
  if (sizeof(A) == sizeof(float) && !invalid && any_lane<A>(found.wide)) return false;
  const Scaled<A> z = sum.value();
  const A zm = lane_zero(z.m), zt = dual ? lane_zero(sum.tangent()) : A(0);
  double logz = n == 0 ? 0 : log_scaled<A>(zm, lane_zero(z.e));
  if (dual) logz = zm > A(0) ? double(zt) : 0;
  if (first_lane()) static_cast<R*>(x.logz)[b] = R(invalid ? __builtin_nan("") : logz);
  if (!x.post_term) return true;

  const int64_t N = x.N, rules = int64_t(s.NT) * s.pairs();
  T* const term = static_cast<T*>(x.post_term) + b * N * s.T;
  T* const rule = static_cast<T*>(x.post_rule) + b * rules;
  T* const root = static_cast<T*>(x.post_root) + b * s.NT;
  T* const span = static_cast<T*>(x.post_span) + b * (N + 1) * (N + 1) * s.NT;
  const A nan = A(__builtin_nan(""));
  fill_lanes(term, N * s.T, A(0));
  fill_lanes(rule, rules, invalid && n > 1 ? nan : A(0));
  fill_lanes(root, s.NT, invalid && n > 1 ? nan : A(0));
  fill_lanes(span, (N + 1) * (N + 1) * s.NT, A(0));
  lane_fence();
  if (invalid) {
    fill_lanes(term, int64_t(n) * s.T, nan);
    for (int i = 0; i < n; ++i)
      for (int j = i + 2; j <= n; ++j) fill_lanes(span + (i * (N + 1) + j) * s.NT, s.NT, nan);
    return true;
  }
  if (!(zm > A(0)) || n < 2) return true;

  const A scale = x.weight ? A(static_cast<const R*>(x.weight)[b]) : A(1);
  for (int64_t k = first_of_lanes(); k < s.numbers(); k += step_of_lanes()) {
    c.a[k] = 0;
    if constexpr (dual) c.d[k] = 0;
  }
  for (int64_t k = first_of_lanes(); k < rules; k += step_of_lanes()) c.count[k] = 0;
  lane_fence();
  for (int a = 0; a < s.NT; ++a) {
    A t;
    const Scaled<A> y = rooted<dual>(c, s, in, a, &t, found);
    const A p = lane_zero(y.m * pow2_of<A>(y.e - z.e) / z.m);
    if (!first_lane()) continue;
    c.a[s.cell(n, a, 0)] = p;
    if constexpr (dual) c.d[s.cell(n, a, 0)] = p > A(0) ? p * (t - zt) : A(0);
    narrow_to(root + a, R((dual ? (p > A(0) ? p * (t - zt) : A(0)) : p) * scale));
  }
  lane_fence();
  for (int w = n; w >= 2; --w)
    for (int i = 0; i <= n - w; i += W<A>) spread_vector<dual>(c, s, in, w, i);
  const A* const post = dual ? c.d : c.a;
  for (int64_t k = first_of_lanes(); k < int64_t(n) * s.T; k += step_of_lanes())
    narrow_to(term + k, R(post[s.cell(1, s.NT + int(k % s.T), int(k / s.T))] * scale));
  for (int64_t k = first_of_lanes(); k < rules; k += step_of_lanes()) narrow_to(rule + k, R(c.count[k] * scale));
  for (int w = 2; w <= n; ++w)
    for (int i = 0; i + w <= n; ++i)
      for (int a = first_of_lanes(); a < s.NT; a += step_of_lanes())
        narrow_to(span + (i * (N + 1) + i + w) * s.NT + a, R(post[s.cell(w, a, i)] * scale));
  lane_fence();
  return true;
}

}  // namespace structops::STRUCTOPS_ISA
