// CPU grandparent charts: sentences are tasks, the lanes of a vector are grandparents. The contract is grand.h, the passes are in
// grand_sum.h and grand_tree.h.
#include "tree/chart_scratch.h"
#include "tree/grand_tree.h"
#include "tree/schedule.h"

namespace structops::STRUCTOPS_ISA {
namespace {

template <class A> GrandRoom room_of(const GrandArgs& a, int64_t n, bool posts, bool dual) {
  const GrandShape s = grand_shape(a, n, W<A>);
  return {s.numbers(), s.lanes, posts, dual, 1};
}

// f(charts of A in memory, b) -> bool for every sentence; where it says false, once more with charts of double.
template <class T, class F> void each_chart(const GrandArgs& a, bool posts, bool dual, const ParallelFor& pf, F f) {
  using A = Acc<T>;
  const int64_t most = longest(a.lengths, a.B);
  const size_t first = (room_of<A>(a, most, posts, dual).template bytes<A>() + 63) / 64 * 64;
  const size_t second = sizeof(A) == sizeof(float) ? room_of<double>(a, most, posts, dual).template bytes<double>() : 0;
  each_sentence(a.lengths, a.B, first + second, pf, [&](char* memory, int64_t b) {
    const int64_t n = a.lengths[b];
    if (f(grand_charts<A>(memory, room_of<A>(a, n, posts, dual), 0), b)) return;
    if constexpr (sizeof(A) == sizeof(float)) f(grand_charts<double>(memory + first, room_of<double>(a, n, posts, dual), 0), b);
  });
}

template <bool dual> void sum(const GrandArgs& a, const ParallelFor& pf) {
  with_score_type(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    each_chart<T>(a, a.post != nullptr, dual, pf, [&](const auto& c, int64_t b) { return grand_sentence<dual, T>(Team{}, a, b, c); });
  });
}

// Value and heads of tree `rank` of K; true if the heads are to be written.
template <class A> bool begin_tree(const GrandTreeArgs& t, int64_t b, int64_t rank, A value) {
  int64_t* const heads = t.tree + (b * t.K + rank) * t.in.N;
  for (int64_t i = 0; i < t.in.N; ++i) heads[i] = -1;
  static_cast<A*>(t.value)[b * t.K + rank] = value;
  return value > A(-INFINITY);
}

template <class T> void kbest(const GrandTreeArgs& t, const ParallelFor& pf) {
  using A = Acc<T>;
  const GrandArgs& a = t.in;
  const int64_t most = longest(a.lengths, a.B);
  const size_t lists = kGrandItems * size_t(grand_shape(a, most, 1).numbers()) * size_t(t.K) * sizeof(Derivation<A>);
  each_sentence(a.lengths, a.B, lists + grand_visits(most) * sizeof(GrandVisit), pf, [&](char* memory, int64_t b) {
    const GrandShape s = grand_shape(a, a.lengths[b], 1);
    const GrandLists<A> list{reinterpret_cast<Derivation<A>*>(memory), s.numbers(), int(t.K)};
    GrandVisit* const stack = reinterpret_cast<GrandVisit*>(memory + lists);
    const bool invalid = any<A>(kbest_inside(Team{}, list, s, grand_input<T>(a, b)).invalid);
    const Derivation<A>* const goal = list.at(GrandItem::CR, s.cell(0, s.n));
    for (int rank = 0; rank < int(t.K); ++rank)
      if (begin_tree<A>(t, b, rank, invalid ? A(__builtin_nan("")) : goal[rank].value))
        grand_write(s, rank, [&](int k) -> GrandVisit& { return stack[k]; }, t.tree + (b * t.K + rank) * a.N, [&](const GrandVisit& v) {
          const Derivation<A>& d = list.at(v.item, s.cell(v.i, v.j) + v.g)[v.rank];
          return GrandPick{d.k, d.left, d.right};
        });
  });
}

template <class T> void best(const GrandTreeArgs& t, const ParallelFor& pf) {
  using A = Acc<T>;
  const GrandArgs& a = t.in;
  const int64_t most = longest(a.lengths, a.B);
  const size_t charts = (room_of<A>(a, most, false, false).template bytes<A>() + 63) / 64 * 64;
  each_sentence(a.lengths, a.B, charts + grand_visits(most) * sizeof(GrandVisit), pf, [&](char* memory, int64_t b) {
    const GrandShape s = grand_shape(a, a.lengths[b], W<A>);
    const GrandCharts<A> c = grand_charts<A>(memory, room_of<A>(a, s.n, false, false), 0);
    GrandVisit* const stack = reinterpret_cast<GrandVisit*>(memory + charts);
    const bool invalid = any<A>(best_inside(Team{}, c, s, grand_input<T>(a, b)).invalid);
    if (begin_tree<A>(t, b, 0, invalid ? A(__builtin_nan("")) : c[GrandItem::CR].m[s.cell(0, s.n)]))
      grand_write(s, 0, [&](int k) -> GrandVisit& { return stack[k]; }, t.tree + b * a.N, [&](const GrandVisit& v) {
        return GrandPick{int(c[v.item].e[s.cell(v.i, v.j) + v.g]), 0, 0};
      });
  });
}

template <class T, class A> bool sample(const GrandTreeArgs& t, int64_t b, const GrandCharts<A>& c) {
  const GrandArgs& a = t.in;
  const GrandShape s = grand_shape(a, a.lengths[b], W<A>);
  const GrandInput<T> in = grand_input<T>(a, b);
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
        return GrandPick{grand_choose<T>(c, s, in, v, *u++), 0, 0};
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
  with_score_type(t.in.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    if (t.K == 1) best<T>(t, pf); else kbest<T>(t, pf);
  });
}

void grand_sample(const GrandTreeArgs& t, const ParallelFor& pf) {
  with_score_type(t.in.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    each_chart<T>(t.in, false, false, pf, [&](const auto& c, int64_t b) { return sample<T>(t, b, c); });
  });
}

void grand_max_marginals(const GrandMaxArgs& x, const ParallelFor& pf) {
  with_score_type(x.in.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    using A = Acc<T>;
    const GrandArgs& a = x.in;
    const size_t bytes = room_of<A>(a, longest(a.lengths, a.B), true, false).template bytes<A>();
    each_sentence(a.lengths, a.B, bytes, pf, [&](char* memory, int64_t b) {
      max_sentence<T>(Team{}, x, b, grand_charts<A>(memory, room_of<A>(a, a.lengths[b], true, false), 0));
    });
  });
}

}  // namespace structops::STRUCTOPS_ISA
