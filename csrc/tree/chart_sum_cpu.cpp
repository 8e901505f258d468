// CPU log-partition, posteriors and Hessian-vector products of charts. The contract is chart.h, the passes are in
// chart_inside.h and chart_outside.h.
#include "tree/chart_scratch.h"
#include "tree/schedule.h"

namespace structops::STRUCTOPS_ISA {
namespace {

enum class Query { logz, marginals, hvp };

template <class T> void fill(T* p, int64_t n, Acc<T> x) {
  for (int64_t i = 0; i < n; ++i) narrow_to(p + i, x);
}

template <class T> void fill_results(const ChartArgs& a, int64_t b, Acc<T> x) {
  const int64_t plane = a.N * a.N;
  if (a.post) fill(static_cast<T*>(a.post) + b * plane, plane, x);
  if (a.post_sib) fill(static_cast<T*>(a.post_sib) + b * plane * a.N, plane * a.N, x);
}

// NaN in every result of a sentence whose score was read.
template <class T> void invalidate(const ChartArgs& a, int64_t b) {
  const Acc<T> nan = Acc<T>(__builtin_nan(""));
  const int64_t N = a.N, n = a.lengths[b];
  static_cast<Acc<T>*>(a.logz)[b] = nan;
  if (!a.post) return;
  fill_results<T>(a, b, 0);
  T* const post = static_cast<T*>(a.post) + b * N * N;
  if (a.kind == Chart::span) {
    for (int64_t i = 0; i < n; ++i) fill(post + i * N + i + 1, n - i, nan);
    return;
  }
  for (int64_t dep = 1; dep <= n; ++dep)
    for (int64_t head = 0; head <= n; ++head) {
      if (head == dep) continue;
      narrow_to(post + dep * N + head, nan);
      if (!a.post_sib || (head == 0 && a.kind == Chart::dep_single)) continue;
      const int64_t low = dep < head ? dep : head, high = dep < head ? head : dep;
      fill(static_cast<T*>(a.post_sib) + ((b * N + dep) * N + head) * N + low + 1, high - low - 1, nan);
    }
}

template <Query query, bool many, class A, class T>
Found<A> run(const ChartArgs& a, const Input<T, A>& in, int count, char* memory, const Layout<A>& layout) {
  constexpr bool dual = query == Query::hvp;
  using R = Acc<T>;  // the dtype of logz and weight
  const Scratch<A> scratch = lay_out<many>(memory, layout, in.most);
  const Charts<A>& c = scratch.charts;
  const Found<A> found = inside<many, dual>(c, in);
  Vec<A> scale = splat(A(1));
  for (int l = 0; l < count; ++l) {
    double tangent;
    const double z = total<many>(c, in, l, dual ? &tangent : nullptr);
    static_cast<R*>(a.logz)[in.b[l]] = R(dual ? tangent : z);
  }
  if constexpr (query != Query::logz) {
    if (a.weight)
      for (int l = 0; l < W<A>; ++l) scale[l] = A(static_cast<const R*>(a.weight)[in.b[l]]);
    for (int l = 0; l < count; ++l) fill_results<T>(a, in.b[l], 0);
    outside<many, dual>(c, scratch.posts, in, static_cast<T*>(a.post_sib), scale);
    const PostCharts<A>& p = scratch.posts;
    write_posts<many>(c, dual ? p.IL.d : p.IL.a, dual ? p.IR.d : p.IR.a, in, scale, static_cast<T*>(a.post));
  }
  return found;
}

template <Query query> void launch(const ChartArgs& a, const ParallelFor& pf) {
  constexpr bool dual = query == Query::hvp, posts = query != Query::logz;
  const int most = int(longest(a.lengths, a.B));
  with_score_type(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    using A = Acc<T>;
    constexpr bool narrow = __is_same(A, float);  // scores that leave float charts take double ones
    const Layout<A> layout(most, posts, dual, !dual && a.B > 1);
    const Layout<double> wide_layout(most, posts, dual, false);
    auto group = [&](const int64_t* b, int64_t left) -> int64_t { return dual ? 1 : together<A>(a, b, left); };
    each_task(a.lengths, a.B, layout.bytes() + (narrow ? wide_layout.bytes() : 0), pf, group, [&](char* memory, const int64_t* b, int count) {
      Found<A> found;
      if constexpr (!dual) {
        if (count > 1) found = run<query, true>(a, input<T, A>(a, b, count), count, memory, layout);
      }
      if (count == 1) found = run<query, false>(a, input<T, A>(a, b, 1), 1, memory, layout);
      for (int l = 0; l < count; ++l) {
        const bool all = count == 1;  // every lane is of the one sentence
        bool invalid = all ? any<A>(found.invalid) : found.invalid[l] != 0;
        const bool wide = all ? any<A>(found.wide) : found.wide[l] != 0;
        if constexpr (narrow) {
          if (wide && !invalid)
            invalid = any<double>(run<query, false>(a, input<T, double>(a, b + l, 1), 1, memory + layout.bytes(), wide_layout).invalid);
        }
        if (invalid) invalidate<T>(a, b[l]);
      }
    });
  });
}

}  // namespace

void chart_logz(const ChartArgs& a, const ParallelFor& pf) { launch<Query::logz>(a, pf); }
void chart_marginals(const ChartArgs& a, const ParallelFor& pf) { launch<Query::marginals>(a, pf); }
void chart_hvp(const ChartArgs& a, const ParallelFor& pf) { launch<Query::hvp>(a, pf); }

}  // namespace structops::STRUCTOPS_ISA
