// CPU grammar charts: sentences are tasks. The contract is pcfg.h, the passes are in pcfg_inside.h, pcfg_outside.h,
// pcfg_tree.h and pcfg_kbest.h.
#include "tree/chart_scratch.h"
#include "tree/pcfg_kbest.h"
#include "tree/pcfg_outside.h"
#include "tree/schedule.h"
#include "tree/widened.h"

namespace structops::STRUCTOPS_ISA {
namespace {

template <class A> PcfgRoom room_of(const PcfgArgs& a, int64_t most, bool posts, bool dual) {
  const PcfgShape s = pcfg_shape(a, most, W<A>);
  return {s.numbers(), s.pairs(), s.NT, W<A>, posts, dual};
}

// What a thread needs for a sentence of up to `most` words in charts of A. Charts of all sentences lie alike, so that numbers never
// lie where exponents lay.
template <class A> struct Room {
  PcfgRoom room;
  Dtype outputs;  // of the posteriors
  size_t tables, charts;
  Room(const PcfgArgs& a, int64_t most, bool posts, bool dual, Dtype out)
      : room(room_of<A>(a, most, posts, dual)), outputs(out), tables(Widened<A, PcfgArgs>::bytes(a, out)) {
    PcfgCharts<A> c{};
    charts = room.template lay_out<A>(nullptr, &c);
  }
  size_t bytes() const { return tables + charts; }

  // f(args, number in args, charts) -> bool for sentence b: whether there are results.
  template <class F> bool run(const PcfgArgs& a, int64_t b, char* memory, F f) const {
    Widened<A, PcfgArgs> w(a, b, outputs, memory);
    PcfgCharts<A> c{};
    room.template lay_out<A>(memory + tables, &c);
    const bool done = f(w.args, w.at, c);
    if (done) w.finish();
    return done;
  }
};

size_t stack_bytes(int64_t most) { return (size_t(most + 2) * sizeof(PcfgVisit) + 63) / 64 * 64; }

// f(args, number in args, charts, stack, b) -> bool for every sentence; where it says false, once more with charts of double.
template <class F> void each_chart(const PcfgArgs& a, bool posts, bool dual, const ParallelFor& pf, F f) {
  const int64_t most = longest(a.lengths, a.B);
  const size_t stack = stack_bytes(most);
  with_accumulator(a.dtype, [&](auto* p) {
    using A = Pointee<decltype(p)>;
    constexpr bool narrow = __is_same(A, float);
    const Room<A> room(a, most, posts, dual, a.dtype);
    const Room<double> wide(a, most, posts, dual, a.dtype);
    each_sentence(a.lengths, a.B, stack + room.bytes() + (narrow ? wide.bytes() : 0), pf, [&](char* memory, int64_t b) {
      auto go = [&](const PcfgArgs& args, int64_t at, const auto& c) { return f(args, at, c, reinterpret_cast<PcfgVisit*>(memory), b); };
      if (!room.run(a, b, memory + stack, go))
        if constexpr (narrow) wide.run(a, b, memory + stack + room.bytes(), go);
    });
  });
}

template <bool dual> void sum(const PcfgArgs& all, const ParallelFor& pf) {
  const PcfgArgs a = dual ? all : without_directions(all);
  each_chart(a, a.post_term != nullptr, dual, pf, [](const PcfgArgs& args, int64_t at, const auto& c, PcfgVisit*, int64_t) {
    return pcfg_sentence<dual, Pointee<decltype(c.m)>>(args, at, c);
  });
}

int64_t* begin_rows(const PcfgTreeArgs& t, int64_t tree) {
  const int64_t size = t.in.N > 0 ? 3 * (2 * t.in.N - 1) : 0;
  int64_t* const rows = t.tree + tree * size;
  for (int64_t k = 0; k < size; ++k) rows[k] = -1;
  return rows;
}

template <class A> void best_few(const PcfgTreeArgs& t, const ParallelFor& pf) {
  const PcfgArgs a = scores_alone(t.in);
  const int64_t most = longest(a.lengths, a.B), K = t.K, size = a.N > 0 ? 3 * (2 * a.N - 1) : 0;
  const Room<A> room(a, most, false, false, a.dtype);
  PcfgLists<A> p{};
  const size_t stack = stack_bytes(most), lists = size_t(lay_out_lists<A>(nullptr, most, a.NT, K, W<A>, 1, &p));
  each_sentence(a.lengths, a.B, stack + room.bytes() + lists, pf, [&](char* memory, int64_t b) {
    room.run(a, b, memory + stack, [&](const PcfgArgs& args, int64_t at, const PcfgCharts<A>& c) {
      PcfgKBest<A, A> s{pcfg_shape(a, a.lengths[b], W<A>), pcfg_input<A>(args, at), c, {}, int(K), {}};
      lay_out_lists<A>(memory + stack + room.bytes(), most, a.NT, K, W<A>, 1, &s.p);
      for (int64_t r = 0; r < K; ++r) begin_rows(t, b * K + r);
      s.run(reinterpret_cast<PcfgVisit*>(memory), static_cast<A*>(t.value) + b * K, t.tree + b * K * size, size);
      return true;
    });
  });
}

template <class A> void best(const PcfgTreeArgs& t, const ParallelFor& pf) {
  const PcfgArgs a = scores_alone(t.in);
  const int64_t most = longest(a.lengths, a.B);
  const Room<A> room(a, most, false, false, a.dtype);
  const size_t stack = stack_bytes(most);
  each_sentence(a.lengths, a.B, stack + room.bytes(), pf, [&](char* memory, int64_t b) {
    room.run(a, b, memory + stack, [&](const PcfgArgs& args, int64_t at, const PcfgCharts<A>& c) {
      const PcfgShape s = pcfg_shape(a, a.lengths[b], W<A>);
      const PcfgInput<A> in = pcfg_input<A>(args, at);
      Found<A> found = best_parses(c, s, in);
      const A value = best_parse(c, s, in, reinterpret_cast<PcfgVisit*>(memory), begin_rows(t, b), found);
      static_cast<A*>(t.value)[b] = any<A>(found.invalid) ? A(__builtin_nan("")) : value;
      return true;
    });
  });
}

// The parses of sentence b, whose scores are number `at` of args.
template <class A>
bool sample(const PcfgTreeArgs& t, int64_t b, const PcfgArgs& args, int64_t at, const PcfgCharts<A>& c, PcfgVisit* stack) {
  const PcfgArgs& a = t.in;
  const PcfgShape s = pcfg_shape(a, a.lengths[b], W<A>);
  const PcfgInput<A> in = pcfg_input<A>(args, at);
  Found<A> found = pcfg_inside<false>(c, s, in);
  const bool some = lane_zero(all_parses<false>(c, s, in, found).value().m) > A(0), invalid = any<A>(found.invalid);
  if (sizeof(A) == sizeof(float) && !invalid && any<A>(found.wide)) return false;
  for (int64_t k = 0; k < t.K; ++k) {
    int64_t* const rows = begin_rows(t, k * a.B + b);
    if (some && !invalid) sample_parse<A>(c, s, in, stack, t.uniform + (k * a.B + b) * 2 * a.N, rows);
  }
  return true;
}

}  // namespace

void pcfg_logz(const PcfgArgs& a, const ParallelFor& pf) { sum<false>(a, pf); }
void pcfg_marginals(const PcfgArgs& a, const ParallelFor& pf) { sum<false>(a, pf); }
void pcfg_hvp(const PcfgArgs& a, const ParallelFor& pf) { sum<true>(a, pf); }

void pcfg_max_marginals(const PcfgArgs& all, const ParallelFor& pf) {
  const PcfgArgs a = without_directions(all);
  with_accumulator(a.dtype, [&](auto* p) {
    using A = Pointee<decltype(p)>;
    const Room<A> room(a, longest(a.lengths, a.B), true, false, accumulator_of(a.dtype));
    each_sentence(a.lengths, a.B, room.bytes(), pf, [&](char* memory, int64_t b) {
      room.run(a, b, memory, [](const PcfgArgs& args, int64_t at, const PcfgCharts<A>& c) {
        max_sentence<A>(args, at, c);
        return true;
      });
    });
  });
}

void pcfg_best(const PcfgTreeArgs& t, const ParallelFor& pf) {
  with_accumulator(t.in.dtype, [&](auto* p) {
    using A = Pointee<decltype(p)>;
    if (t.K == 1) best<A>(t, pf); else best_few<A>(t, pf);
  });
}

void pcfg_sample(const PcfgTreeArgs& t, const ParallelFor& pf) {
  each_chart(scores_alone(t.in), false, false, pf, [&](const PcfgArgs& args, int64_t at, const auto& c, PcfgVisit* stack, int64_t b) {
    return sample(t, b, args, at, c, stack);
  });
}

}  // namespace structops::STRUCTOPS_ISA
