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

// Scratch of a thread for charts of A: the charts, the tables of a task, and the factors of one sentence.
template <class A>
struct FactoredRoom {
  Layout<A> charts;
  FactorRoom<A> factors;
  int64_t table;  // numbers of all tables of one kind
  int tables;     // kinds

  FactoredRoom(int most, int64_t D, Query query, bool many)
      : charts(most, query != Query::logz, query == Query::hvp, many), factors(most, D, query == Query::hvp), tables(tables_of(query)) {
    const int64_t some = most < kManyFactoredWords ? most : kManyFactoredWords;
    const int64_t one = table_numbers<A>(most), all = many ? W<A> * table_numbers<A>(some) : 0;
    table = one > all ? one : all;
  }
  size_t chart_bytes() const { return (charts.bytes() + 63) / 64 * 64; }
  size_t bytes() const { return (chart_bytes() + size_t(tables * table + factors.numbers()) * sizeof(A) + 127) / 64 * 64; }
};

Numbers rows_of(const FactoredArgs& f, const void* p, int64_t b) { return Numbers{p, f.in.dtype} + b * f.in.N * f.D; }
Results rows_of(const FactoredArgs& f, void* p, int64_t b) { return Results{p, f.in.dtype} + b * f.in.N * f.D; }

// NaN where the sentence was read.
void invalidate(const FactoredArgs& f, int64_t b) {
  constexpr float nan = __builtin_nanf("");
  const ChartArgs& a = f.in;
  const int64_t n = a.lengths[b];
  fill(Results{a.logz, a.dtype} + b, 1, nan);
  if (!a.post) return;
  for (int64_t dep = 1; dep <= n; ++dep)
    for (int64_t head = 0; head <= n; ++head)
      if (head != dep) fill(Results{a.post, a.dtype} + ((b * a.N + dep) * a.N + head), 1, nan);
  void* const posts[] = {f.post_x, f.post_y, f.post_z};
  for (void* p : posts) fill(rows_of(f, p, b), (n + 1) * f.D, nan);
}

template <Query query, bool many, class A>
Found<A> run(const FactoredArgs& f, const int64_t* b, int count, char* memory, const FactoredRoom<A>& room) {
  const ChartArgs& a = f.in;
  constexpr bool posts = query != Query::logz, dual = query == Query::hvp;
  Input<A> in = input<A>(a, b, count);
  A* const sib = reinterpret_cast<A*>(memory + room.chart_bytes());
  A *const post_sib = sib + room.table, *const v_sib = sib + 2 * room.table, *const d_sib = sib + 3 * room.table;
  A* const factor_memory = sib + room.tables * room.table;
  constexpr Dtype dtype = sizeof(A) == 8 ? Dtype::f64 : Dtype::f32;
  in.sib = {sib, dtype};
  in.sib_N = in.most + 1;
  const int64_t side = in.sib_N, each = side * side * side;
  for (int l = 0; l < W<A>; ++l) in.sib_b[l] = many && l < count ? l : 0;
  auto factors_of = [&](int l) {
    SentenceFactors<A> factors(room.factors, int(a.lengths[b[l]]), factor_memory);
    factors.read(0, rows_of(f, f.x, b[l]), rows_of(f, f.y, b[l]), rows_of(f, f.z, b[l]));
    if constexpr (dual) factors.read(1, rows_of(f, f.v_x, b[l]), rows_of(f, f.v_y, b[l]), rows_of(f, f.v_z, b[l]));
    return factors;
  };
  for (int l = 0; l < count; ++l) {
    SentenceFactors<A> factors = factors_of(l);
    factors.scores(sib + l * each, side, false);
    if constexpr (dual) factors.scores(v_sib + l * each, side, true);
  }
  const Scratch<A> scratch = lay_out<many>(memory, room.charts, in.most);
  const Charts<A>& c = scratch.charts;
  Vec<A> scale = splat(A(1));
  if constexpr (posts) {
    if (a.weight)
      for (int l = 0; l < W<A>; ++l) scale[l] = read_one<A>({a.weight, a.dtype}, in.b[l]);
    for (int l = 0; l < count; ++l) fill(Results{a.post, a.dtype} + in.b[l] * a.N * a.N, a.N * a.N, A(0));
  }
  Found<A> found = inside<many, false>(c, in);
  if constexpr (posts) outside<many, false>(c, scratch.posts, in, {post_sib, dtype}, scale);
  if constexpr (dual) {
    in.v_sib = {v_sib, dtype};
    found = inside<many, true>(c, in);
    outside<many, true>(c, scratch.posts, in, {d_sib, dtype}, scale);
  }
  for (int l = 0; l < count; ++l) {
    double tangent;
    const double z = total<many>(c, in, l, dual ? &tangent : nullptr);
    fill(Results{a.logz, a.dtype} + in.b[l], 1, dual ? tangent : z);
  }
  if constexpr (posts) {
    const PostCharts<A>& p = scratch.posts;
    write_posts<many>(c, dual ? p.IL.d : p.IL.a, dual ? p.IR.d : p.IR.a, in, scale, {a.post, a.dtype});
    for (int l = 0; l < count; ++l) {
      SentenceFactors<A> factors = factors_of(l);
      const int64_t rows = (a.lengths[b[l]] + 1) * f.D;
      const Results out[] = {rows_of(f, f.post_x, b[l]), rows_of(f, f.post_y, b[l]), rows_of(f, f.post_z, b[l])};
      factors.gradients(post_sib + l * each, dual ? d_sib + l * each : nullptr, side, out[0], out[1], out[2]);
      for (const Results g : out) fill(g + rows, a.N * f.D - rows, A(0));
    }
  }
  return found;
}

template <Query query>
void launch(const FactoredArgs& f, const ParallelFor& pf) {
  const ChartArgs& a = f.in;
  const int most = int(longest(a.lengths, a.B));
  with_accumulator(a.dtype, [&](auto* t) {
    using A = Pointee<decltype(t)>;
    constexpr bool dual = query == Query::hvp, narrow = __is_same(A, float);  // scores that leave float charts take double ones
    const FactoredRoom<A> room(most, f.D, query, !dual && a.B > 1);
    const FactoredRoom<double> wide_room(most, f.D, query, false);
    auto group = [&](const int64_t* b, int64_t left) -> int64_t {
      return dual || a.lengths[b[0]] > kManyFactoredWords ? 1 : together<A>(a, b, left);
    };
    each_task(a.lengths, a.B, room.bytes() + (narrow ? wide_room.bytes() : 0), pf, group, [&](char* memory, const int64_t* b, int count) {
      Found<A> found;
      if constexpr (!dual) {
        if (count > 1) found = run<query, true>(f, b, count, memory, room);
      }
      if (count == 1) found = run<query, false>(f, b, 1, memory, room);
      for (int l = 0; l < count; ++l) {
        const bool all = count == 1;  // every lane is of the one sentence
        bool invalid = all ? any<A>(found.invalid) : found.invalid[l] != 0;
        const bool wide = all ? any<A>(found.wide) : found.wide[l] != 0;
        if constexpr (narrow) {
          if (wide && !invalid) invalid = any<double>(run<query, false>(f, b + l, 1, memory + room.bytes(), wide_room).invalid);
        }
        if (invalid) invalidate(f, b[l]);
      }
    });
  });
}

}  // namespace

void factored_logz(const FactoredArgs& a, const ParallelFor& pf) { launch<Query::logz>(a, pf); }
void factored_marginals(const FactoredArgs& a, const ParallelFor& pf) { launch<Query::marginals>(a, pf); }
void factored_hvp(const FactoredArgs& a, const ParallelFor& pf) { launch<Query::hvp>(a, pf); }

}  // namespace structops::STRUCTOPS_ISA
