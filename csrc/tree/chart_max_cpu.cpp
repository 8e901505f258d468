// CPU max-marginals: the best charts, then what every item scores outside itself at best. The contract is chart.h.
// The lanes of a vector are neighbouring spans of one sentence; no two of them reach the same cell by the same split.
#include "tree/chart_best.h"
#include "tree/chart_scratch.h"
#include "tree/schedule.h"

namespace structops::STRUCTOPS_ISA {
namespace {

template <class A> STRUCTOPS_INLINE void raise(A* p, Vec<A> x) {
  const Vec<A> y = load(p);
  store(p, x > y ? x : y);
}

// o: the best outside of an item; its best split over k in [k0, k1) may be any, so both parts of all of them can rise.
template <class A>
STRUCTOPS_INLINE void raise_splits(Vec<A> o, const Cells<A>& L, const Posts<A>& aL, const Cells<A>& R, const Posts<A>& aR,
                                   const int32_t* row, int k0, int k1, int w, int gap, int i) {
  for (int k = k0; k < k1; ++k) {
    const int l = row[k] + i, r = row[w - k - gap] + i + k + gap;
    const Vec<A> left = load(L.m + l), right = load(R.m + r);
    raise<A>(aL.a + l, o + right);
    raise<A>(aR.a + r, o + left);
  }
}

// The scores of the arcs or spans at i of width w; -inf in the lanes that hold none.
template <class A> STRUCTOPS_INLINE Vec<A> raw_score(const Input<A>& in, bool left, int i, int w, Vec<Int<A>> valid) {
  const bool span = in.kind == Chart::span;
  const int64_t at = in.b[0] * in.N * in.N + (left ? i * in.N + i + w : (i + w) * in.N + i);
  int64_t o[W<A>];
  for (int l = 0; l < W<A>; ++l) o[l] = at + l * (in.N + 1);
  return read_lanes<A>(in.score, o, lane_bits<A>(span || !left ? valid : valid & ~in.template at_root<false>(i)), A(-INFINITY));
}

template <class A> void max_outside(const Charts<A>& c, const PostCharts<A>& a, const Input<A>& in, A* through) {
  constexpr int step = kStep<A, false>;
  const int n = in.most, numbers = c.row[n + 1];
  const bool span = in.kind == Chart::span;
  const Posts<A>* const all[] = {&a.S, &a.IL, &a.IR, &a.CL, &a.CR};
  for (const Posts<A>* const p : all)
    for (int k = 0; k < numbers; ++k) p->a[k] = A(-INFINITY);
  (span ? a.IL : a.CR).a[c.row[n]] = 0;
  Found<A> known;
  auto outer = [&](const Posts<A>& p, int o, Vec<Int<A>> valid) { return valid ? load(p.a + o) : splat(A(-INFINITY)); };
  for (int w = n; w >= 1; --w)
    for (int i = 0; i <= n - w; i += step) {
      const int o = c.row[w] + i;
      const Vec<Int<A>> valid = in.template valid<false>(i, w);
      auto write = [&](const Cells<A>& item, const Posts<A>& p, bool left) {
        const Vec<A> x = load(item.m + o) + load(p.a + o);
        for (int l = 0; l < W<A>; ++l)
          if (valid[l] && (span || !left || i + l > 0)) through[left ? (i + l) * in.N + i + l + w : (i + l + w) * in.N + i + l] = x[l];
      };
      if (span) {
        write(c.IL, a.IL, true);
        raise_splits<A>(outer(a.IL, o, valid) + raw_score(in, true, i, w, valid), c.IL, a.IL, c.IL, a.IL, c.row, 1, w, w, 0, i);
        continue;
      }
      Vec<Int<A>> rooted = valid;
      if (in.kind == Chart::dep_single && !in.sib) rooted &= ~in.template at_root<false>(i) | (in.n == Int<A>(w));
      raise_splits<A>(outer(a.CR, o, rooted), c.IR, a.IR, c.CR, a.CR, c.row, 1, w + 1, w, 0, i);
      raise_splits<A>(outer(a.CL, o, valid), c.CL, a.CL, c.IL, a.IL, c.row, 0, w, w, 0, i);
      write(c.IL, a.IL, true);
      write(c.IR, a.IR, false);
      const Vec<A> to_left = outer(a.IL, o, valid) + raw_score(in, true, i, w, valid);
      const Vec<A> to_right = outer(a.IR, o, valid) + raw_score(in, false, i, w, valid);
      Vec<A> halves = to_left > to_right ? to_left : to_right;
      if (in.sib) {
        for (int side = 0; side < 2; ++side) {
          const bool left = side == 0;
          const Vec<A> x = left ? to_left : to_right;
          raise<A>((left ? a.CR : a.CL).a + c.row[w - 1] + i + !left, x);
          const Cells<A>&X = left ? c.T : c.IR, &Y = left ? c.IL : c.T;
          const Posts<A>&aX = left ? a.S : a.IR, &aY = left ? a.IL : a.S;
          int64_t at[W<A>];
          sib_start<false>(in, left, i, w, at);
          each_sibling<false, false, BestCells<A>>(in, left, i, w, valid, at, known, [&](int k, Scaled<A> b, Vec<A>) {
            const int l = c.row[k] + i, r = c.row[w - k] + i + k;
            raise<A>(aX.a + l, x + b.m + load(Y.m + r));
            raise<A>(aY.a + r, x + b.m + load(X.m + l));
          });
        }
        halves = outer(a.S, o, valid);
      }
      raise_splits<A>(halves, c.CR, a.CR, c.CL, a.CL, c.row, 0, w, w, 1, i);
    }
}

template <class A> void sentence(const ChartMaxArgs& x, int64_t b, char* memory, const Layout<A>& layout) {
  const ChartArgs& a = x.in;
  const Input<A> in = input<A>(a, &b, 1);
  const int n = in.most;
  A* const through = static_cast<A*>(x.through) + b * a.N * a.N;
  for (int64_t k = 0; k < a.N * a.N; ++k) through[k] = A(-INFINITY);
  if (n == 0) return;
  const Scratch<A> scratch = lay_out<false>(memory, layout, n);
  const Found<A> found = best_inside<false>(scratch.charts, in);
  if (!any<A>(found.invalid)) {
    max_outside(scratch.charts, scratch.posts, in, through);
    return;
  }
  const bool span = a.kind == Chart::span;
  for (int64_t row = span ? 0 : 1; row <= n; ++row)
    for (int64_t column = span ? row + 1 : 0; column <= n; ++column)
      if (row != column) through[row * a.N + column] = A(__builtin_nan(""));
}

}  // namespace

void chart_max_marginals(const ChartMaxArgs& x, const ParallelFor& pf) {
  const ChartArgs& a = x.in;
  const int most = int(longest(a.lengths, a.B));
  with_accumulator(a.dtype, [&](auto* p) {
    const Layout<Pointee<decltype(p)>> layout(most, true, false, false);
    each_sentence(a.lengths, a.B, layout.bytes(), pf, [&](char* memory, int64_t b) { sentence(x, b, memory, layout); });
  });
}

}  // namespace structops::STRUCTOPS_ISA
