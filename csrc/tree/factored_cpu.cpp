// CPU sums of second-order charts with factored sibling scores. The contract is factored.h.
#include "tree/factored.h"
#include "tree/factored_tables.h"
#include "tree/schedule.h"

namespace structops::STRUCTOPS_ISA {
namespace {

enum class Query { logz, marginals, hvp };
constexpr int tables_of(Query query) { return query == Query::logz ? 1 : query == Query::marginals ? 2 : 4; }

constexpr int kManyFactoredWords = 24;  // the tables of W longer sentences leave the second-level cache

template <class A>
int64_t table_numbers(int64_t words) {
  return (words + 1) * (words + 1) * (words + 1) + W<A>;
}

// Scratch of a thread: charts, the tables of a task, and the factors of one sentence.
template <class A>
struct FactoredRoom {
  Layout<A> charts;
  Layout<double> wide;  // float scores too large for float charts
  FactorRoom<A> factors;
  int64_t table;  // numbers of all tables of one kind

  FactoredRoom(int most, int64_t D, Query query, bool many)
      : charts(most, query != Query::logz, query == Query::hvp, many),
        wide(most, query != Query::logz, query == Query::hvp, false),
        factors(most, D, query == Query::hvp) {
    const int64_t some = most < kManyFactoredWords ? most : kManyFactoredWords;
    const int64_t one = table_numbers<A>(most), all = many ? W<A> * table_numbers<A>(some) : 0;
    table = one > all ? one : all;
  }
  size_t chart_bytes() const { return charts.bytes() + (sizeof(A) == 4 ? wide.bytes() : 0); }
  size_t bytes(Query query) const {
    return chart_bytes() + size_t(tables_of(query) * table + factors.numbers()) * sizeof(A) + 128;
  }
};

template <class A>
int64_t factor_at(const FactoredArgs& a, int64_t b) {
  return b * a.in.N * a.D;
}
template <class A>
const A* of(const void* p, int64_t at) {
  return static_cast<const A*>(p) + at;
}
template <class A>
A* of(void* p, int64_t at) {
  return static_cast<A*>(p) + at;
}

template <class A>
void fill_rows(A* p, int64_t from, int64_t to, A x) {
  for (int64_t i = from; i < to; ++i) p[i] = x;
}

// NaN where the sentence was read.
template <class A>
void invalidate(const FactoredArgs& f, int64_t b) {
  const A nan = A(__builtin_nan(""));
  const ChartArgs& a = f.in;
  const int64_t N = a.N, n = a.lengths[b];
  static_cast<A*>(a.logz)[b] = nan;
  if (!a.post) return;
  for (int64_t dep = 1; dep <= n; ++dep)
    for (int64_t head = 0; head <= n; ++head)
      if (head != dep) static_cast<A*>(a.post)[(b * N + dep) * N + head] = nan;
  void* const posts[] = {f.post_x, f.post_y, f.post_z};
  for (void* p : posts) fill_rows(of<A>(p, factor_at<A>(f, b)), 0, (n + 1) * f.D, nan);
}

// C: the accumulator of the charts. A: the dtype of scores, factors and tables.
template <Query query, bool many, class C, class A>
Found<C> run(const FactoredArgs& f, const int64_t* b, int count, char* chart_memory, const Layout<C>& layout, A* tables,
             int64_t table, const FactorRoom<A>& room, A* factor_memory) {
  const ChartArgs& a = f.in;
  constexpr bool posts = query != Query::logz, dual = query == Query::hvp;
  Input<A, C> in = input<A, C>(a, b, count);
  A *const sib = tables, *const post_sib = tables + table, *const v_sib = tables + 2 * table, *const d_sib = tables + 3 * table;
  in.sib = sib;
  in.sib_N = in.most + 1;
  const int64_t side = in.sib_N, each = side * side * side;
  for (int l = 0; l < W<C>; ++l) in.sib_b[l] = many && l < count ? l : 0;
  auto factors_of = [&](int l) {
    SentenceFactors<A> factors(room, int(a.lengths[b[l]]), factor_memory);
    const int64_t at = factor_at<A>(f, b[l]);
    factors.read(0, of<A>(f.x, at), of<A>(f.y, at), of<A>(f.z, at));
    if constexpr (dual) factors.read(1, of<A>(f.v_x, at), of<A>(f.v_y, at), of<A>(f.v_z, at));
    return factors;
  };
  for (int l = 0; l < count; ++l) {
    SentenceFactors<A> factors = factors_of(l);
    factors.scores(sib + l * each, side, false);
    if constexpr (dual) factors.scores(v_sib + l * each, side, true);
  }
  const Scratch<C> scratch = lay_out<many>(chart_memory, layout, in.most);
  const Charts<C>& c = scratch.charts;
  Vec<C> scale = splat(C(1));
  if constexpr (posts) {
    if (a.weight)
      for (int l = 0; l < W<C>; ++l) scale[l] = C(static_cast<const A*>(a.weight)[in.b[l]]);
    for (int l = 0; l < count; ++l) fill_rows(of<A>(a.post, in.b[l] * a.N * a.N), 0, a.N * a.N, A(0));
  }
  Found<C> found = inside<many, false>(c, in);
  if constexpr (posts) outside<many, false>(c, scratch.posts, in, post_sib, scale);
  if constexpr (dual) {
    in.v_sib = v_sib;
    found = inside<many, true>(c, in);
    outside<many, true>(c, scratch.posts, in, d_sib, scale);
  }
  for (int l = 0; l < count; ++l) {
    double tangent;
    const double z = total<many>(c, in, l, dual ? &tangent : nullptr);
    static_cast<A*>(a.logz)[in.b[l]] = A(dual ? tangent : z);
  }
  if constexpr (posts) {
    const PostCharts<C>& p = scratch.posts;
    write_posts<many>(c, dual ? p.IL.d : p.IL.a, dual ? p.IR.d : p.IR.a, in, scale, static_cast<A*>(a.post));
    for (int l = 0; l < count; ++l) {
      SentenceFactors<A> factors = factors_of(l);
      const int64_t at = factor_at<A>(f, b[l]), rows = (a.lengths[b[l]] + 1) * f.D;
      A* const out[] = {of<A>(f.post_x, at), of<A>(f.post_y, at), of<A>(f.post_z, at)};
      factors.gradients(post_sib + l * each, dual ? d_sib + l * each : nullptr, side, out[0], out[1], out[2]);
      for (A* g : out) fill_rows(g, rows, a.N * f.D, A(0));
    }
  }
  return found;
}

template <Query query>
void launch(const FactoredArgs& f, const ParallelFor& pf) {
  const ChartArgs& a = f.in;
  const int most = int(longest(a.lengths, a.B));
  with_score_type(a.dtype, [&](auto* t) {
    using A = Pointee<decltype(t)>;
    if constexpr (__is_same(A, Acc<A>)) {
      constexpr bool dual = query == Query::hvp;
      const FactoredRoom<A> room(most, f.D, query, !dual && a.B > 1);
      auto group = [&](const int64_t* b, int64_t left) -> int64_t {
        return dual || a.lengths[b[0]] > kManyFactoredWords ? 1 : together<A>(a, b, left);
      };
      each_task(a.lengths, a.B, room.bytes(query), pf, group, [&](char* memory, const int64_t* b, int count) {
        A* const tables = reinterpret_cast<A*>(memory + ((room.chart_bytes() + 63) & ~size_t(63)));
        A* const factors = tables + tables_of(query) * room.table;
        Found<A> found;
        if constexpr (!dual) {
          if (count > 1) found = run<query, true>(f, b, count, memory, room.charts, tables, room.table, room.factors, factors);
        }
        if (count == 1) found = run<query, false>(f, b, 1, memory, room.charts, tables, room.table, room.factors, factors);
        for (int l = 0; l < count; ++l) {
          const bool all = count == 1;  // every lane is of the one sentence
          bool invalid = all ? any<A>(found.invalid) : found.invalid[l] != 0;
          const bool wide = all ? any<A>(found.wide) : found.wide[l] != 0;
          if constexpr (sizeof(A) == 4) {
            if (wide && !invalid) {
              char* const after = memory + room.charts.bytes();
              invalid = any<double>(
                  run<query, false>(f, b + l, 1, after, room.wide, tables, room.table, room.factors, factors).invalid);
            }
          }
          if (invalid) invalidate<A>(f, b[l]);
        }
      });
    }
  });
}

}  // namespace

void factored_logz(const FactoredArgs& a, const ParallelFor& pf) { launch<Query::logz>(a, pf); }
void factored_marginals(const FactoredArgs& a, const ParallelFor& pf) { launch<Query::marginals>(a, pf); }
void factored_hvp(const FactoredArgs& a, const ParallelFor& pf) { launch<Query::hvp>(a, pf); }

}  // namespace structops::STRUCTOPS_ISA
