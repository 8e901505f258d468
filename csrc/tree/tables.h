// Which tables the arguments of an operator hold, for code that copies them to another dtype.
#pragma once
#include "tree/grand.h"
#include "tree/pcfg.h"

namespace structops {

struct Table {  // of a sentence: `rank` sides and what lies behind them; a sentence of n words uses n + more of every side
  int rank;
  int64_t side, inner, more;
  bool shared = false;  // one for all sentences
  int64_t numbers() const {
    int64_t n = inner;
    for (int k = 0; k < rank; ++k) n *= side;
    return n;
  }
};

// f(pointer, table) for the scores, directions and posteriors; those that are not there are null.
template <class F> void each_score(GrandArgs& a, F f) {
  const Table plane{2, a.N, 1, 1}, cube{3, a.N, 1, 1};
  f(a.arc, plane);
  f(a.grand, cube);
  f(a.sib, cube);
}
template <class F> void each_direction(GrandArgs& a, F f) {
  const Table plane{2, a.N, 1, 1}, cube{3, a.N, 1, 1};
  f(a.v, plane);
  f(a.v_grand, cube);
  f(a.v_sib, cube);
}
template <class F> void each_output(GrandArgs& a, F f) {
  const Table plane{2, a.N, 1, 1}, cube{3, a.N, 1, 1};
  f(a.post, plane);
  f(a.post_grand, cube);
  f(a.post_sib, cube);
}

inline Table pcfg_rules(const PcfgArgs& a, bool shared) { return {0, 0, a.NT * (a.NT + a.T) * (a.NT + a.T), 0, shared}; }

template <class F> void each_score(PcfgArgs& a, F f) {
  f(a.term, Table{1, a.N, a.T, 0});
  f(a.rule, pcfg_rules(a, a.shared));
  f(a.root, Table{0, 0, a.NT, 0});
  f(a.span, Table{2, a.N + 1, a.NT, 1});
}
template <class F> void each_direction(PcfgArgs& a, F f) {
  f(a.v_term, Table{1, a.N, a.T, 0});
  f(a.v_rule, pcfg_rules(a, a.shared));
  f(a.v_root, Table{0, 0, a.NT, 0});
  f(a.v_span, Table{2, a.N + 1, a.NT, 1});
}
template <class F> void each_output(PcfgArgs& a, F f) {
  f(a.post_term, Table{1, a.N, a.T, 0});
  f(a.post_rule, pcfg_rules(a, false));
  f(a.post_root, Table{0, 0, a.NT, 0});
  f(a.post_span, Table{2, a.N + 1, a.NT, 1});
}

template <class Args, class F> void each_input(Args& a, F f) {
  each_score(a, f);
  each_direction(a, f);
}

// Operators that do not use a field may be given anything in it.
template <class Args> Args without_directions(Args a) {
  each_direction(a, [](const void*& p, const Table&) { p = nullptr; });
  return a;
}
template <class Args> Args scores_alone(const Args& args) {
  Args a = without_directions(args);
  each_output(a, [](void*& p, const Table&) { p = nullptr; });
  a.logz = nullptr;
  a.weight = nullptr;
  return a;
}

}  // namespace structops
