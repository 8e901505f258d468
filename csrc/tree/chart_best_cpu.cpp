// CPU best trees: max-plus charts with the winning splits, and K-best lists. The contract is chart.h.
#include "tree/chart_kbest.h"
#include "tree/chart_scratch.h"
#include "tree/chart_tree.h"
#include "tree/schedule.h"

namespace structops::STRUCTOPS_ISA {
namespace {

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

template <bool many, class T, class A>
STRUCTOPS_INLINE Scaled<A> best_sibling(const Charts<A>& c, const Input<T, A>& in, bool left, int i, int w, Vec<Int<A>> valid, Found<A>& found) {
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
template <bool many, class T, class A> Found<A> best_inside(const Charts<A>& c, const Input<T, A>& in) {
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

template <bool many, class T, class A>
void run(const ChartTreeArgs& t, const Input<T, A>& in, int count, char* memory, const Layout<A>& layout) {
  const Scratch<A> scratch = lay_out<many>(memory, layout, in.most);
  const Charts<A>& c = scratch.charts;
  Found<A> found = best_inside<many>(c, in);
  if constexpr (!many) found.invalid = splat(Int<A>(any<A>(found.invalid) ? -1 : 0));
  Visit* const stack = reinterpret_cast<Visit*>(memory + layout.bytes());
  const int64_t size = tree_size(t.in);
  for (int l = 0; l < count; ++l) {
    const int n = int(in.n[l]);
    int64_t* const tree = t.tree + in.b[l] * size;
    for (int64_t i = 0; i < size; ++i) tree[i] = -1;
    A value = n == 0 ? A(0) : (in.kind == Chart::span ? c.IL : c.CR).m[c.row[n] + (many ? l : 0)];
    if (found.invalid[l]) value = A(__builtin_nan(""));
    static_cast<A*>(t.value)[in.b[l]] = value;
    if (!(value > A(-INFINITY))) continue;
    write_tree(in.kind, in.sib != nullptr, n, 0, stack, tree, [&](const Visit& v) {
      const Cells<A>* const from[] = {&c.CR, &c.CL, &c.IR, &c.IL, &c.T, &c.IL};
      return Pick{int(from[int(v.item)]->e[c.row[v.w] + v.i * kCell<A, many> + (many ? l : 0)]), 0, 0};
    });
  }
}

}  // namespace

void chart_best(const ChartTreeArgs& t, const ParallelFor& pf) {
  const ChartArgs& a = t.in;
  const int most = int(longest(a.lengths, a.B));
  with_score_type(a.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    using A = Acc<T>;
    if (t.K > 1) {
      each_sentence(a.lengths, a.B, KBest<T>::bytes(a, most, t.K), pf,
                    [&](char* memory, int64_t b) { KBest<T>(t, b, memory, most).run(); });
      return;
    }
    const Layout<A> layout(most, false, false, a.B > 1);
    auto group = [&](const int64_t* b, int64_t left) { return together<A>(a, b, left); };
    each_task(a.lengths, a.B, layout.bytes() + visits(most) * sizeof(Visit), pf, group, [&](char* memory, const int64_t* b, int count) {
      if (count > 1) run<true>(t, input<T, A>(a, b, count), count, memory, layout);
      else run<false>(t, input<T, A>(a, b, 1), 1, memory, layout);
    });
  });
}

}  // namespace structops::STRUCTOPS_ISA
