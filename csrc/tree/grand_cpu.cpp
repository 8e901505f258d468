// CPU grandparent charts: sentences are tasks, the lanes of a vector are grandparents. The contract is grand.h, the passes are in
// grand_sum.h and grand_tree.h.
#include "tree/chart_scratch.h"
#include "tree/grand_tree.h"
#include "tree/schedule.h"
#include "tree/widened.h"

namespace structops::STRUCTOPS_ISA {
namespace {

template <class A> GrandRoom room_of(const GrandArgs& a, int64_t n, bool posts, bool dual) {
  const GrandShape s = grand_shape(a, n, W<A>);
  return {s.numbers(), s.lanes, posts, dual, 1};
}

// What a thread needs for a sentence of up to `most` words in charts of A.
template <class A> struct Room {
  size_t tables, charts;
  bool posts, dual;
  Room(const GrandArgs& a, int64_t most, bool with_posts, bool with_dual)
      : tables(Widened<A, GrandArgs>::bytes(a, a.dtype)), charts((room_of<A>(a, most, with_posts, with_dual).template bytes<A>() + 63) / 64 * 64),
        posts(with_posts), dual(with_dual) {}
  size_t bytes() const { return tables + charts; }

  // f(args, number in args, charts) -> bool for sentence b: whether there are results.
  template <class F> bool run(const GrandArgs& a, int64_t b, char* memory, F f) const {
    Widened<A, GrandArgs> w(a, b, a.dtype, memory);
    const bool done = f(w.args, w.at, grand_charts<A>(memory + tables, room_of<A>(a, a.lengths[b], posts, dual), 0));
    if (done) w.finish();
    return done;
  }
};

// f(args, number in args, charts, b) -> bool for every sentence; where it says false, once more with charts of double.
template <class F> void each_chart(const GrandArgs& a, bool posts, bool dual, const ParallelFor& pf, F f) {
  const int64_t most = longest(a.lengths, a.B);
  with_accumulator(a.dtype, [&](auto* p) {
    using A = Pointee<decltype(p)>;
    constexpr bool narrow = __is_same(A, float);
    const Room<A> room(a, most, posts, dual);
    const Room<double> wide(a, most, posts, dual);
    each_sentence(a.lengths, a.B, room.bytes() + (narrow ? wide.bytes() : 0), pf, [&](char* memory, int64_t b) {
      auto go = [&](const GrandArgs& args, int64_t at, const auto& c) { return f(args, at, c, b); };
      if (!room.run(a, b, memory, go))
        if constexpr (narrow) wide.run(a, b, memory + room.bytes(), go);
    });
  });
}

template <bool dual> void sum(const GrandArgs& all, const ParallelFor& pf) {
  const GrandArgs a = dual ? all : without_directions(all);
  each_chart(a, a.post != nullptr, dual, pf, [](const GrandArgs& args, int64_t at, const auto& c, int64_t) {
    return grand_sentence<dual, Pointee<decltype(c.parents.q)>>(Team{}, args, at, c);
  });
}

// Value and heads of tree `rank` of K; true if the heads are to be written.
template <class A> bool begin_tree(const GrandTreeArgs& t, int64_t b, int64_t rank, A value) {
  int64_t* const heads = t.tree + (b * t.K + rank) * t.in.N;
  for (int64_t i = 0; i < t.in.N; ++i) heads[i] = -1;
  static_cast<A*>(t.value)[b * t.K + rank] = value;
  return value > A(-INFINITY);
}

template <class A> void kbest(const GrandTreeArgs& t, const ParallelFor& pf) {
  const GrandArgs a = scores_alone(t.in);
  const int64_t most = longest(a.lengths, a.B);
  const size_t tables = Widened<A, GrandArgs>::bytes(a, a.dtype);
  const size_t lists = kGrandItems * size_t(grand_shape(a, most, 1).numbers()) * size_t(t.K) * sizeof(Derivation<A>);
  each_sentence(a.lengths, a.B, tables + lists + grand_visits(most) * sizeof(GrandVisit), pf, [&](char* memory, int64_t b) {
    const Widened<A, GrandArgs> w(a, b, a.dtype, memory);
    const GrandShape s = grand_shape(a, a.lengths[b], 1);
    const GrandLists<A> list{reinterpret_cast<Derivation<A>*>(memory + tables), s.numbers(), int(t.K)};
    GrandVisit* const stack = reinterpret_cast<GrandVisit*>(memory + tables + lists);
    const bool invalid = any<A>(kbest_inside(Team{}, list, s, grand_input<A>(w.args, w.at)).invalid);
    const Derivation<A>* const goal = list.at(GrandItem::CR, s.cell(0, s.n));
    for (int rank = 0; rank < int(t.K); ++rank)
      if (begin_tree<A>(t, b, rank, invalid ? A(__builtin_nan("")) : goal[rank].value))
        grand_write(s, rank, [&](int k) -> GrandVisit& { return stack[k]; }, t.tree + (b * t.K + rank) * a.N, [&](const GrandVisit& v) {
          const Derivation<A>& d = list.at(v.item, s.cell(v.i, v.j) + v.g)[v.rank];
          return GrandPick{d.k, d.left, d.right};
        });
  });
}

template <class A> void best(const GrandTreeArgs& t, const ParallelFor& pf) {
  const GrandArgs a = scores_alone(t.in);
  const int64_t most = longest(a.lengths, a.B);
  const Room<A> room(a, most, false, false);
  each_sentence(a.lengths, a.B, room.bytes() + grand_visits(most) * sizeof(GrandVisit), pf, [&](char* memory, int64_t b) {
    room.run(a, b, memory, [&](const GrandArgs& args, int64_t at, const GrandCharts<A>& c) {
      const GrandShape s = grand_shape(a, a.lengths[b], W<A>);
      GrandVisit* const stack = reinterpret_cast<GrandVisit*>(memory + room.bytes());
      const bool invalid = any<A>(best_inside(Team{}, c, s, grand_input<A>(args, at)).invalid);
      if (begin_tree<A>(t, b, 0, invalid ? A(__builtin_nan("")) : c[GrandItem::CR].m[s.cell(0, s.n)]))
        grand_write(s, 0, [&](int k) -> GrandVisit& { return stack[k]; }, t.tree + b * a.N, [&](const GrandVisit& v) {
          return GrandPick{int(c[v.item].e[s.cell(v.i, v.j) + v.g]), 0, 0};
        });
      return true;
    });
  });
}

// The trees of sentence b, whose scores are number `at` of args.
template <class A> bool sample(const GrandTreeArgs& t, int64_t b, const GrandArgs& args, int64_t at, const GrandCharts<A>& c) {
  const GrandArgs& a = t.in;
  const GrandShape s = grand_shape(a, a.lengths[b], W<A>);
  const GrandInput<A> in = grand_input<A>(args, at);
  const Found<A> found = grand_inside<false>(Team{}, c, s, in);
  const bool invalid = any<A>(found.invalid);
  if (sizeof(A) == sizeof(float) && !invalid && any<A>(found.wide)) return false;
  GrandVisit* const stack = static_cast<GrandVisit*>(std::malloc(size_t(grand_visits(s.n)) * sizeof(GrandVisit)));
  if (!stack) throw std::bad_alloc();
  const bool none = invalid || !(c[GrandItem::CR].m[s.cell(0, s.n)] > 0);
  for (int64_t k = 0; k < t.K; ++k) {
    int64_t* const heads = t.tree + (k * a.B + b) * a.N;
    for (int64_t i = 0; i < a.N; ++i) heads[i] = -1;
    const double* u = t.uniform + (k * a.B + b) * 3 * a.N;
    if (!none)
      grand_write(s, 0, [&](int i) -> GrandVisit& { return stack[i]; }, heads, [&](const GrandVisit& v) {
        return GrandPick{grand_choose<A>(c, s, in, v, *u++), 0, 0};
      });
  }
  std::free(stack);
  return true;
}

}  // namespace

void grand_logz(const GrandArgs& a, const ParallelFor& pf) { sum<false>(a, pf); }
void grand_marginals(const GrandArgs& a, const ParallelFor& pf) { sum<false>(a, pf); }
void grand_hvp(const GrandArgs& a, const ParallelFor& pf) { sum<true>(a, pf); }

void grand_best(const GrandTreeArgs& t, const ParallelFor& pf) {
  with_accumulator(t.in.dtype, [&](auto* p) {
    using A = Pointee<decltype(p)>;
    if (t.K == 1) best<A>(t, pf); else kbest<A>(t, pf);
  });
}

void grand_sample(const GrandTreeArgs& t, const ParallelFor& pf) {
  each_chart(scores_alone(t.in), false, false, pf, [&](const GrandArgs& args, int64_t at, const auto& c, int64_t b) { return sample(t, b, args, at, c); });
}

void grand_max_marginals(const GrandMaxArgs& x, const ParallelFor& pf) {
  const GrandArgs a = scores_alone(x.in);
  with_accumulator(a.dtype, [&](auto* p) {
    using A = Pointee<decltype(p)>;
    const Room<A> room(a, longest(a.lengths, a.B), true, false);
    each_sentence(a.lengths, a.B, room.bytes(), pf, [&](char* memory, int64_t b) {
      room.run(a, b, memory, [&](const GrandArgs& args, int64_t at, const GrandCharts<A>& c) {
        max_sentence<A>(Team{}, {args, static_cast<A*>(x.through) + (b - at) * a.N * a.N}, at, c);
        return true;
      });
    });
  });
}

}  // namespace structops::STRUCTOPS_ISA
