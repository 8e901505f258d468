// CPU grammar charts: sentences are tasks. The contract is pcfg.h, the passes are in pcfg_inside.h, pcfg_outside.h,
// pcfg_tree.h and pcfg_kbest.h.
#include "tree/chart_scratch.h"
#include "tree/pcfg_kbest.h"
#include "tree/pcfg_outside.h"
#include "tree/schedule.h"

namespace structops::STRUCTOPS_ISA {
namespace {

template <class A> PcfgRoom room_of(const PcfgArgs& a, int64_t most, bool posts, bool dual) {
  const PcfgShape s = pcfg_shape(a, most, W<A>);
  return {s.numbers(), s.pairs(), s.NT, W<A>, posts, dual};
}

// f(charts of A, stack, b) -> bool for every sentence; where it says false, once more with charts of double. Charts of all sentences
// lie alike, so that numbers never lie where exponents lay.
template <class T, class F> void each_chart(const PcfgArgs& a, bool posts, bool dual, const ParallelFor& pf, F f) {
  using A = Acc<T>;
  const int64_t most = longest(a.lengths, a.B);
  const PcfgRoom room = room_of<A>(a, most, posts, dual), wide = room_of<double>(a, most, posts, dual);
  PcfgCharts<A> c{};
  PcfgCharts<double> d{};
  const size_t stack = (size_t(most + 2) * sizeof(PcfgVisit) + 63) / 64 * 64, first = room.template lay_out<A>(nullptr, &c);
  const size_t second = sizeof(A) == sizeof(float) ? wide.template lay_out<double>(nullptr, &d) : 0;
  each_sentence(a.lengths, a.B, stack + first + second, pf, [&](char* memory, int64_t b) {
    PcfgVisit* const visits = reinterpret_cast<PcfgVisit*>(memory);
    PcfgCharts<A> c{};
    room.template lay_out<A>(memory + stack, &c);
    if (f(c, visits, b)) return;
    if constexpr (sizeof(A) == sizeof(float)) {
      PcfgCharts<double> d{};
      wide.template lay_out<double>(memory + stack + first, &d);
      f(d, visits, b);
    }
  });
}

template <bool dual> void sum(const PcfgArgs& a, const ParallelFor& pf) {
  with_score_type(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    each_chart<T>(a, a.post_term != nullptr, dual, pf, [&](const auto& c, PcfgVisit*, int64_t b) { return pcfg_sentence<dual, T>(a, b, c); });
  });
}

int64_t* begin_rows(const PcfgTreeArgs& t, int64_t tree) {
  const int64_t size = t.in.N > 0 ? 3 * (2 * t.in.N - 1) : 0;
  int64_t* const rows = t.tree + tree * size;
  for (int64_t k = 0; k < size; ++k) rows[k] = -1;
  return rows;
}

template <class T> void best_few(const PcfgTreeArgs& t, const ParallelFor& pf) {
  using A = Acc<T>;
  const PcfgArgs& a = t.in;
  const int64_t most = longest(a.lengths, a.B), K = t.K, size = a.N > 0 ? 3 * (2 * a.N - 1) : 0;
  const PcfgRoom room = room_of<A>(a, most, false, false);
  PcfgCharts<A> c{};
  PcfgLists<A> p{};
  const size_t stack = (size_t(most + 2) * sizeof(PcfgVisit) + 63) / 64 * 64, chart = room.template lay_out<A>(nullptr, &c);
  const size_t lists = size_t(lay_out_lists<A>(nullptr, most, a.NT, K, W<A>, 1, &p));
  each_sentence(a.lengths, a.B, stack + chart + lists, pf, [&](char* memory, int64_t b) {
    PcfgKBest<T, A> s{pcfg_shape(a, a.lengths[b], W<A>), pcfg_input<T>(a, b), {}, {}, int(K), {}};
    room.template lay_out<A>(memory + stack, &s.c);
    lay_out_lists<A>(memory + stack + chart, most, a.NT, K, W<A>, 1, &s.p);
    for (int64_t r = 0; r < K; ++r) begin_rows(t, b * K + r);
    s.run(reinterpret_cast<PcfgVisit*>(memory), static_cast<A*>(t.value) + b * K, t.tree + b * K * size, size);
  });
}

template <class T, class A> bool sample(const PcfgTreeArgs& t, const PcfgCharts<A>& c, PcfgVisit* stack, int64_t b) {
  const PcfgArgs& a = t.in;
  const PcfgShape s = pcfg_shape(a, a.lengths[b], W<A>);
  const PcfgInput<T> in = pcfg_input<T>(a, b);
  Found<A> found = pcfg_inside<false>(c, s, in);
  const bool some = lane_zero(all_parses<false>(c, s, in, found).value().m) > A(0), invalid = any<A>(found.invalid);
  if (sizeof(A) == sizeof(float) && !invalid && any<A>(found.wide)) return false;
  for (int64_t k = 0; k < t.K; ++k) {
    int64_t* const rows = begin_rows(t, k * a.B + b);
    if (some && !invalid) sample_parse<T>(c, s, in, stack, t.uniform + (k * a.B + b) * 2 * a.N, rows);
  }
  return true;
}

}  // namespace

void pcfg_logz(const PcfgArgs& a, const ParallelFor& pf) { sum<false>(a, pf); }
void pcfg_marginals(const PcfgArgs& a, const ParallelFor& pf) { sum<false>(a, pf); }
void pcfg_hvp(const PcfgArgs& a, const ParallelFor& pf) { sum<true>(a, pf); }

void pcfg_max_marginals(const PcfgArgs& a, const ParallelFor& pf) {
  with_score_type(a.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    each_chart<T>(a, true, false, pf, [&](const auto& c, PcfgVisit*, int64_t b) {
      if constexpr (__is_same(Pointee<decltype(c.m)>, Acc<T>)) max_sentence<T>(a, b, c);
      return true;
    });
  });
}

void pcfg_best(const PcfgTreeArgs& t, const ParallelFor& pf) {
  const PcfgArgs& a = t.in;
  with_score_type(a.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    using A = Acc<T>;
    if (t.K != 1) return best_few<T>(t, pf);
    each_chart<T>(a, false, false, pf, [&](const auto& c, PcfgVisit* stack, int64_t b) {
      if constexpr (__is_same(Pointee<decltype(c.m)>, A)) {
        const PcfgShape s = pcfg_shape(a, a.lengths[b], W<A>);
        const PcfgInput<T> in = pcfg_input<T>(a, b);
        Found<A> found = best_parses(c, s, in);
        const A value = best_parse(c, s, in, stack, begin_rows(t, b), found);
        static_cast<A*>(t.value)[b] = any<A>(found.invalid) ? A(__builtin_nan("")) : value;
      }
      return true;
    });
  });
}

void pcfg_sample(const PcfgTreeArgs& t, const ParallelFor& pf) {
  with_score_type(t.in.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    each_chart<T>(t.in, false, false, pf, [&](const auto& c, PcfgVisit* stack, int64_t b) { return sample<T>(t, c, stack, b); });
  });
}

}  // namespace structops::STRUCTOPS_ISA
