// The outside pass over the charts of one sentence: posteriors of every item, for one instruction set. chart.h has the
// recurrences of the inside; each of its terms has the posterior  a[parent] term / parent, which is added to both factors.
// Widths descend, and within one width completions come before links, so that every posterior is complete when it is read.
// dual: also the derivative of every posterior along the tangents of the charts.
#pragma once
#include "tree/chart_inside.h"

namespace structops::STRUCTOPS_ISA {

template <class A> struct Posts {  // posteriors and, in dual passes, their derivatives
  A* a;
  A* d;
};

template <class A> struct PostCharts {
  Posts<A> S, IL, IR, CL, CR;  // S in second order only
};

// A parent's posterior over its value, ready to be multiplied by terms. Lanes that are masked or 0 pass nothing on.
template <class A> struct Parent {
  Vec<A> q, dq, t;
  Vec<Int<A>> e;  // less the bias, as pow2_biased wants it
};

template <class A, bool dual> STRUCTOPS_INLINE Parent<A> parent(const Cells<A>& c, Vec<A> a, Vec<A> da, int o, Vec<Int<A>> valid) {
  const Vec<A> m = load(c.m + o);
  const Vec<Int<A>> live = valid & (m > A(0));
  const Vec<A> inverse = live ? A(1) / (live ? m : splat(A(1))) : Vec<A>{};
  Parent<A> p;
  p.q = live ? a * inverse : Vec<A>{};
  p.e = live ? load(c.e + o) - Int<A>(MathConst<A>::bias) : splat(ScaledConst<A>::none);
  if constexpr (dual) {
    p.dq = live ? da * inverse : Vec<A>{};
    p.t = live ? load(c.t + o) : Vec<A>{};
  }
  return p;
}

template <class A> STRUCTOPS_INLINE void add_to(A* p, Vec<A> x) { store(p, load(p) + x); }

// One term L[l] R[r] b of the parent: its posterior goes to both factors; returned for b.
template <class A, bool dual>
STRUCTOPS_INLINE Vec<A> pass(const Parent<A>& p, const Cells<A>& L, const Posts<A>& aL, int l, const Cells<A>& R, const Posts<A>& aR, int r,
                             const Scaled<A>* b, Vec<A> tb, Vec<A>* derivative) {
  Vec<Int<A>> e = load(L.e + l) + load(R.e + r) - p.e;
  if (b) e += b->e;
  Vec<A> x = load(L.m + l) * pow2_biased<A>(e);
  const Vec<A> mr = load(R.m + r);
  if (b) x *= b->m;
  const Vec<A> post = p.q * x * mr;
  add_to<A>(aL.a + l, post);
  add_to<A>(aR.a + r, post);
  if constexpr (dual) {
    Vec<A> t = load(L.t + l) + load(R.t + r) - p.t;
    if (b) t += tb;
    const Vec<A> d = p.dq * x * mr + post * t;
    add_to<A>(aL.d + l, d);
    add_to<A>(aR.d + r, d);
    if (derivative) *derivative = d;
  }
  return post;
}

// The adjoint of contract().
template <class A, bool many, bool dual>
STRUCTOPS_INLINE void spread(const Parent<A>& p, const Cells<A>& L, const Posts<A>& aL, const Cells<A>& R, const Posts<A>& aR,
                             const int32_t* row, int k0, int k1, int w, int gap, int i) {
  constexpr int cell = kCell<A, many>;
  for (int k = k0; k < k1; ++k)
    pass<A, dual>(p, L, aL, row[k] + i * cell, R, aR, row[w - k - gap] + (i + k + gap) * cell, nullptr, Vec<A>{}, nullptr);
}

// The inverse of load_tile.
template <class A> [[gnu::noinline]] void store_tile(Vec<A>* tile, Results x, const int64_t* at, uint32_t valid, int count) {
  transpose<A>(tile);
  with_storage(x.dtype, [&](auto* t) __attribute__((always_inline)) {
    auto* const p = static_cast<Pointee<decltype(t)>*>(x.data);
#pragma GCC unroll 16
    for (int l = 0; l < W<A>; ++l)
      if (valid >> l & 1) store_as<A>(p + at[l], tile[l], count);
  });
}

// Puts the score of the arcs over the spans at i back beside the item, which holds it times its sum.
template <bool many, bool dual, class A>
STRUCTOPS_INLINE Scaled<A> arc_score(const Input<A>& in, bool left, int i, int w, Vec<Int<A>> valid, Vec<A>* tangent) {
  const int64_t at = left ? i * in.N + i + w : (i + w) * in.N + i;
  const uint32_t bits = lane_bits<A>(left ? valid & ~in.template at_root<many>(i) : valid);
  int64_t o[W<A>];
  for (int l = 0; l < W<A>; ++l) o[l] = in.b[l] * in.N * in.N + at + (many ? 0 : l * (in.N + 1));
  const Vec<A> x = read_lanes<A>(in.score, o, bits, A(-INFINITY));
  Vec<A> t{};
  if constexpr (dual) t = read_lanes<A>(in.v, o, bits, A(0));
  Found<A> known;
  const Scaled<A> score = exp_scaled<A>(sanitise<A>(x, known));
  *tangent = score.m > A(0) ? t : Vec<A>{};
  return score;
}

// The adjoint of sibling_sum(); writes the posteriors of the siblings (dual: their derivatives) times scale to out.
template <bool many, bool dual, class A>
STRUCTOPS_INLINE void spread_siblings(const Charts<A>& c, const PostCharts<A>& a, const Input<A>& in, bool left, int i, int w,
                                      Vec<Int<A>> valid, Results out, Vec<A> scale) {
  constexpr int cell = kCell<A, many>;
  const Cells<A>& item = left ? c.IL : c.IR;
  const Posts<A>& post = left ? a.IL : a.IR;
  const int o = c.row[w] + i * cell, first = c.row[w - 1] + (i + !left) * cell;
  Parent<A> p = parent<A, dual>(item, load(post.a + o), dual ? load(post.d + o) : Vec<A>{}, o, valid);
  Vec<A> t;
  const Scaled<A> score = arc_score<many, dual>(in, left, i, w, valid, &t);
  p.q *= score.m;
  p.e = p.e == ScaledConst<A>::none ? p.e : p.e - score.e;
  if constexpr (dual) {
    p.dq *= score.m;
    p.t -= t;
  }

  const Cells<A>& edge = left ? c.CR : c.CL;
  const Posts<A>& a_edge = left ? a.CR : a.CL;
  const Vec<A> alone = load(edge.m + first) * pow2_biased<A>(load(edge.e + first) - p.e);
  const Vec<A> passed = p.q * alone;
  add_to<A>(a_edge.a + first, passed);
  if constexpr (dual) add_to<A>(a_edge.d + first, p.dq * alone + passed * (load(edge.t + first) - p.t));

  const Cells<A>&X = left ? c.T : c.IR, &Y = left ? c.IL : c.T;
  const Posts<A>&aX = left ? a.S : a.IR, &aY = left ? a.IL : a.S;
  int64_t at[W<A>];
  sib_start<many>(in, left, i, w, at);
  Vec<A> tile[W<A>];
  int filled = 0;
  const uint32_t bits = lane_bits<A>(valid);
  Found<A> known;
  each_sibling<many, dual, SumCells<A>>(in, left, i, w, valid, at, known, [&](int k, Scaled<A> b, Vec<A> tb) __attribute__((always_inline)) {
    Vec<A> d{};
    const Vec<A> y = pass<A, dual>(p, X, aX, c.row[k] + i * cell, Y, aY, c.row[w - k] + (i + k) * cell, &b, tb, &d);
    tile[filled++] = (dual ? d : y) * scale;
    if (filled == W<A> || k == w - 1) {
      store_tile<A>(tile, out + (k - filled), at, bits, filled);
      filled = 0;
    }
  });
}

template <class A, bool dual> void clear(const Posts<A>& p, int numbers) {
  for (int i = 0; i < numbers; ++i) p.a[i] = 0;
  if constexpr (dual)
    for (int i = 0; i < numbers; ++i) p.d[i] = 0;
}

// Fills a. Second order: out_sib [B, N, N, N] takes the posteriors of the siblings times scale, dual: their derivatives.
template <bool many, bool dual, class A>
void outside(const Charts<A>& c, const PostCharts<A>& a, const Input<A>& in, Results out_sib, Vec<A> scale) {
  constexpr int cell = kCell<A, many>, step = kStep<A, many>;
  const int n = in.most, numbers = c.row[n + 1];
  const bool span = in.kind == Chart::span;
  clear<A, dual>(a.IL, numbers);
  if (!span) {
    clear<A, dual>(a.IR, numbers);
    clear<A, dual>(a.CL, numbers);
    clear<A, dual>(a.CR, numbers);
    if (in.sib) clear<A, dual>(a.S, numbers);
  }
  for (int l = 0; l < cell; ++l) {
    const int root = c.row[in.n[l]] + l;
    (span ? a.IL : a.CR).a[root] = (span ? c.IL : c.CR).m[root] > 0 ? 1 : 0;  // no trees, no posteriors
  }
  auto from = [&](const Cells<A>& chart, const Posts<A>& post, int o, Vec<Int<A>> valid) __attribute__((always_inline)) {
    return parent<A, dual>(chart, load(post.a + o), dual ? load(post.d + o) : Vec<A>{}, o, valid);
  };
  for (int w = n; w >= 1; --w)
    for (int i = 0; i <= n - w; i += step) {
      const int o = c.row[w] + i * cell;
      const Vec<Int<A>> valid = in.template valid<many>(i, w);
      if (span) {
        // T differs from V by the score alone; a term of V over V is a term of T over T. No split where V is 0.
        const Vec<Int<A>> live = valid & (load(c.IL.m + o) > A(0));
        spread<A, many, dual>(from(c.T, a.IL, o, live), c.IL, a.IL, c.IL, a.IL, c.row, 1, w, w, 0, i);
        continue;
      }
      if (in.sib) {
        prefetch_siblings<many, false>(in.sib.data, in.sib.dtype, in, i, w, valid);
        prefetch_siblings<many, true>(out_sib.data, out_sib.dtype, in, i, w, valid);
      }
      spread<A, many, dual>(from(c.CR, a.CR, o, valid), c.IR, a.IR, c.CR, a.CR, c.row, 1, w + 1, w, 0, i);
      spread<A, many, dual>(from(c.CL, a.CL, o, valid), c.CL, a.CL, c.IL, a.IL, c.row, 0, w, w, 0, i);
      Vec<A> link, dlink{};
      if (in.sib) {
        spread_siblings<many, dual>(c, a, in, true, i, w, valid, out_sib, scale);
        spread_siblings<many, dual>(c, a, in, false, i, w, valid, out_sib, scale);
        link = load(a.S.a + o);
        if constexpr (dual) dlink = load(a.S.d + o);
      } else {
        link = load(a.IL.a + o) + load(a.IR.a + o);
        if constexpr (dual) dlink = load(a.IL.d + o) + load(a.IR.d + o);
      }
      spread<A, many, dual>(parent<A, dual>(c.T, link, dlink, o, valid), c.CR, a.CR, c.CL, a.CL, c.row, 0, w, w, 1, i);
    }
}

// post [B, N, N] from the posteriors of the scored items; its other entries are 0 already.
template <bool many, class A>
void write_posts(const Charts<A>& c, const A* left, const A* right, const Input<A>& in, Vec<A> scale, Results post) {
  const bool span = in.kind == Chart::span;
  const int n = in.most;
  for (int a = span ? 0 : 1; a <= n; ++a) {
    auto at = [&](int h) { return h > a ? left + c.row[h - a] + a * kCell<A, many> : right + c.row[a - h] + h * kCell<A, many>; };
    for (int h0 = span ? a + 1 : 0; h0 <= n; h0 += W<A>) {
      const int count = n + 1 - h0 < W<A> ? n + 1 - h0 : W<A>;
      if constexpr (many) {
        Vec<A> tile[W<A>];
        int64_t to[W<A>];
        for (int l = 0; l < W<A>; ++l) to[l] = (in.b[l] * in.N + a) * in.N + h0;
        for (int k = 0; k < count; ++k) tile[k] = h0 + k == a ? Vec<A>{} : load(at(h0 + k)) * scale;
        store_tile<A>(tile, post, to, lane_bits<A>((in.n >= Int<A>(a)) & (in.n > Int<A>(0))), count);
      } else {
        Vec<A> x{};
        for (int k = 0; k < count; ++k)
          if (h0 + k != a) x[k] = scale[0] * *at(h0 + k);
        write_vector<A>(post + (in.b[0] * in.N + a) * in.N + h0, x, count);
      }
    }
  }
}

// Both passes are compiled in chart_sum_cpu.cpp alone.
#define STRUCTOPS_CHART_PASSES(keyword, many, dual, A)                                \
  keyword template Found<A> inside<many, dual, A>(const Charts<A>&, const Input<A>&); \
  keyword template void outside<many, dual, A>(const Charts<A>&, const PostCharts<A>&, const Input<A>&, Results, Vec<A>);
#define STRUCTOPS_ALL_CHART_PASSES(keyword, A)      \
  STRUCTOPS_CHART_PASSES(keyword, true, false, A)  \
  STRUCTOPS_CHART_PASSES(keyword, false, false, A) \
  STRUCTOPS_CHART_PASSES(keyword, false, true, A)
STRUCTOPS_ALL_CHART_PASSES(extern, float)
STRUCTOPS_ALL_CHART_PASSES(extern, double)

}  // namespace structops::STRUCTOPS_ISA
