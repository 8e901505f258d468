// CPU log-partition, posteriors and Hessian-vector products of charts. The contract is chart.h, the passes are in
// chart_inside.h and chart_outside.h.
#include "tree/chart_scratch.h"
#include "tree/schedule.h"

namespace structops::STRUCTOPS_ISA {

STRUCTOPS_ALL_CHART_PASSES(, float)
STRUCTOPS_ALL_CHART_PASSES(, double)

namespace {

enum class Query { logz, marginals, hvp };

void fill_results(const ChartArgs& a, int64_t b, float x) {
  const int64_t plane = a.N * a.N;
  if (a.post) fill(Results{a.post, a.dtype} + b * plane, plane, x);
  if (a.post_sib) fill(Results{a.post_sib, a.dtype} + b * plane * a.N, plane * a.N, x);
}

// NaN in every result of a sentence whose score was read.
void invalidate(const ChartArgs& a, int64_t b) {
  constexpr float nan = __builtin_nanf("");
  const int64_t N = a.N, n = a.lengths[b];
  fill(Results{a.logz, accumulator_of(a.dtype)} + b, 1, nan);
  if (!a.post) return;
  fill_results(a, b, 0);
  const Results post = Results{a.post, a.dtype} + b * N * N;
  if (a.kind == Chart::span) {
    for (int64_t i = 0; i < n; ++i) fill(post + (i * N + i + 1), n - i, nan);
    return;
  }
  for (int64_t dep = 1; dep <= n; ++dep)
    for (int64_t head = 0; head <= n; ++head) {
      if (head == dep) continue;
      fill(post + (dep * N + head), 1, nan);
      if (!a.post_sib || (head == 0 && a.kind == Chart::dep_single)) continue;
      const int64_t low = dep < head ? dep : head, high = dep < head ? head : dep;
      fill(Results{a.post_sib, a.dtype} + (((b * N + dep) * N + head) * N + low + 1), high - low - 1, nan);
    }
}

template <Query query, bool many, class A>
Found<A> run(const ChartArgs& a, const Input<A>& in, int count, char* memory, const Layout<A>& layout) {
  constexpr bool dual = query == Query::hvp;
  const Scratch<A> scratch = lay_out<many>(memory, layout, in.most);
  const Charts<A>& c = scratch.charts;
  const Found<A> found = inside<many, dual>(c, in);
  Vec<A> scale = splat(A(1));
  for (int l = 0; l < count; ++l) {
    double tangent;
    const double z = total<many>(c, in, l, dual ? &tangent : nullptr);
    fill(Results{a.logz, accumulator_of(a.dtype)} + in.b[l], 1, dual ? tangent : z);
  }
  if constexpr (query != Query::logz) {
    if (a.weight)
      for (int l = 0; l < W<A>; ++l) scale[l] = read_one<A>({a.weight, accumulator_of(a.dtype)}, in.b[l]);
    for (int l = 0; l < count; ++l) fill_results(a, in.b[l], 0);
    outside<many, dual>(c, scratch.posts, in, {a.post_sib, a.dtype}, scale);
    const PostCharts<A>& p = scratch.posts;
    write_posts<many>(c, dual ? p.IL.d : p.IL.a, dual ? p.IR.d : p.IR.a, in, scale, {a.post, a.dtype});
  }
  return found;
}

template <Query query> void launch(const ChartArgs& a, const ParallelFor& pf) {
  constexpr bool dual = query == Query::hvp, posts = query != Query::logz;
  const int most = int(longest(a.lengths, a.B));
  with_accumulator(a.dtype, [&](auto* t) {
    using A = Pointee<decltype(t)>;
    constexpr bool narrow = __is_same(A, float);  // scores that leave float charts take double ones
    const Layout<A> layout(most, posts, dual, !dual && a.B > 1);
    const Layout<double> wide_layout(most, posts, dual, false);
    auto group = [&](const int64_t* b, int64_t left) -> int64_t { return dual ? 1 : together<A>(a, b, left); };
    each_task(a.lengths, a.B, layout.bytes() + (narrow ? wide_layout.bytes() : 0), pf, group, [&](char* memory, const int64_t* b, int count) {
      Found<A> found;
      if constexpr (!dual) {
        if (count > 1) found = run<query, true>(a, input<A>(a, b, count), count, memory, layout);
      }
      if (count == 1) found = run<query, false>(a, input<A>(a, b, 1), 1, memory, layout);
      for (int l = 0; l < count; ++l) {
        const bool all = count == 1;  // every lane is of the one sentence
        bool invalid = all ? any<A>(found.invalid) : found.invalid[l] != 0;
        const bool wide = all ? any<A>(found.wide) : found.wide[l] != 0;
        if constexpr (narrow) {
          if (wide && !invalid)
            invalid = any<double>(run<query, false>(a, input<double>(a, b + l, 1), 1, memory + layout.bytes(), wide_layout).invalid);
        }
        if (invalid) invalidate(a, b[l]);
      }
    });
  });
}

}  // namespace

void chart_logz(const ChartArgs& a, const ParallelFor& pf) { launch<Query::logz>(a, pf); }
void chart_marginals(const ChartArgs& a, const ParallelFor& pf) { launch<Query::marginals>(a, pf); }
void chart_hvp(const ChartArgs& a, const ParallelFor& pf) { launch<Query::hvp>(a, pf); }

}  // namespace structops::STRUCTOPS_ISA
