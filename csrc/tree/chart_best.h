// Max-plus charts with the winning splits, for one instruction set. The contract is chart.h.
#pragma once
#include "tree/chart_inside.h"

namespace structops::STRUCTOPS_ISA {

// The best of L[i, i+k] R[i+k+gap, i+w] over k in [k0, k1), the first of equals.
template <bool many, class A>
STRUCTOPS_INLINE Scaled<A> best_split(const Cells<A>& L, const Cells<A>& R, const int32_t* row, int k0, int k1, int w, int gap, int i) {
  constexpr int cell = kCell<A, many>;
  Scaled<A> best{splat(A(-INFINITY)), splat(Int<A>(k0))};
  for (int k = k0; k < k1; ++k) {
    const Vec<A> x = load(L.m + row[k] + i * cell) + load(R.m + row[w - k - gap] + (i + k + gap) * cell);
    const Vec<Int<A>> better = x > best.m;
    best.m = better ? x : best.m;
    best.e = better ? splat(Int<A>(k)) : best.e;
  }
  return best;
}

template <bool many, class A>
STRUCTOPS_INLINE Scaled<A> best_sibling(const Charts<A>& c, const Input<A>& in, bool left, int i, int w, Vec<Int<A>> valid, Found<A>& found) {
  constexpr int cell = kCell<A, many>;
  Scaled<A> best{load((left ? c.CR : c.CL).m + c.row[w - 1] + (i + !left) * cell), Vec<Int<A>>{}};
  const Cells<A>&X = left ? c.T : c.IR, &Y = left ? c.IL : c.T;
  int64_t at[W<A>];
  sib_start<many>(in, left, i, w, at);
  each_sibling<many, false, BestCells<A>>(in, left, i, w, valid, at, found, [&](int k, Scaled<A> b, Vec<A>) __attribute__((always_inline)) {
    const Vec<A> x = load(X.m + c.row[k] + i * cell) + load(Y.m + c.row[w - k] + (i + k) * cell) + b.m;
    const Vec<Int<A>> better = x > best.m;
    best.m = better ? x : best.m;
    best.e = better ? splat(Int<A>(k)) : best.e;
  });
  return best;
}

// Fills the charts with the best values (m) and their splits (e).
template <bool many, class A> Found<A> best_inside(const Charts<A>& c, const Input<A>& in) {
  using S = BestCells<A>;
  constexpr int cell = kCell<A, many>, step = kStep<A, many>;
  Found<A> found = load_scores<many, false, S>(c, in);
  const int n = in.most;
  auto put_best = [&](const Cells<A>& to, int o, const Scaled<A>& x, Vec<Int<A>> valid) __attribute__((always_inline)) {
    put<A, false, S>(to, o, x, Vec<A>{}, valid);
  };
  auto scored = [&](const Cells<A>& to, int o, Scaled<A> x, Vec<Int<A>> valid) __attribute__((always_inline)) {
    x.m += load(to.m + o);
    put_best(to, o, x, valid);
  };
  if (in.kind != Chart::span)
    for (int k = 0; k < (n + 1) * cell; ++k) c.CL.m[k] = c.CR.m[k] = 0;
  for (int w = in.kind == Chart::span ? 2 : 1; w <= n; ++w)
    for (int i = 0; i <= n - w; i += step) {
      const int o = c.row[w] + i * cell;
      const Vec<Int<A>> valid = in.template valid<many>(i, w);
      if (in.kind == Chart::span) {
        scored(c.IL, o, best_split<many>(c.IL, c.IL, c.row, 1, w, w, 0, i), valid);
        continue;
      }
      const Scaled<A> split = best_split<many>(c.CR, c.CL, c.row, 0, w, w, 1, i);
      put_best(c.T, o, split, valid);
      scored(c.IL, o, in.sib ? best_sibling<many>(c, in, true, i, w, valid, found) : split, valid);
      scored(c.IR, o, in.sib ? best_sibling<many>(c, in, false, i, w, valid, found) : split, valid);
      put_best(c.CL, o, best_split<many>(c.CL, c.IL, c.row, 0, w, w, 0, i), valid);
      Vec<Int<A>> rooted = valid;
      if (in.kind == Chart::dep_single && !in.sib) rooted &= ~in.template at_root<many>(i) | (in.n == Int<A>(w));
      put_best(c.CR, o, best_split<many>(c.IR, c.CR, c.row, 1, w + 1, w, 0, i), rooted);
    }
  return found;
}

}  // namespace structops::STRUCTOPS_ISA
