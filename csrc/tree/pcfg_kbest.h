// Grammar charts: the K best parses. The contract is pcfg.h. For one instruction set, and for nvcc, where the lanes share the symbols.
// Every span and nonterminal has a list of its K best derivations in descending order.
#pragma once
#include "tree/pcfg_tree.h"

namespace structops::STRUCTOPS_ISA {

template <class A> struct PcfgDerivation {
  A value;  // -inf: none
  PcfgSplit from;
};

template <class A> STRUCTOPS_CONSTANT int64_t kbest_cells(int64_t n) { return n > 1 ? n * (n - 1) / 2 : 0; }
template <class A> STRUCTOPS_CONSTANT int64_t kbest_bytes(int64_t n, int64_t NT, int64_t K) {
  return ((kbest_cells<A>(n) * NT + 1) * K * int64_t(sizeof(PcfgDerivation<A>)) + 63) / 64 * 64;
}

template <class T, class A> struct PcfgKBest {
  using Derivation = PcfgDerivation<A>;
  PcfgShape s;
  PcfgInput<T> in;
  int K;
  Derivation *part, *lists;  // [K]; [cells, NT, K]
  bool invalid;

  STRUCTOPS_MEMBER A read(const T* p) {
    const A x = A(widen(*p));
    invalid |= x != x || x == A(INFINITY);
    return x;
  }
  STRUCTOPS_MEMBER Derivation* at(int w, int symbol, int i) const {  // w > 1
    const int64_t before = int64_t(w - 2) * (s.n + 1) - (int64_t(w) * (w - 1) / 2 - 1);
    return lists + ((before + i) * s.NT + symbol) * K;
  }
  STRUCTOPS_MEMBER A value(int w, int symbol, int i, int rank) {
    if (w > 1) return at(w, symbol, i)[rank].value;
    return rank ? A(-INFINITY) : read(in.term + int64_t(i) * s.T + symbol - s.NT);
  }
  STRUCTOPS_MEMBER void start(Derivation* to) const {
    for (int r = 0; r < K; ++r) to[r] = {A(-INFINITY), {0, 0, 0, 0}};
  }
  // Behind those that are as good. False where there is no place for it.
  STRUCTOPS_MEMBER bool insert(Derivation* to, A value, const PcfgSplit& from) const {
    if (!(value > to[K - 1].value)) return false;
    int place = K - 1;
    for (; place > 0 && value > to[place - 1].value; --place) to[place] = to[place - 1];
    to[place] = {value, from};
    return true;
  }

  // The best splits of a pair. Of two ranks (l, r) there are (l + 1)(r + 1) - 1 others at least as good.
  STRUCTOPS_MEMBER void split(int w, int i, int B, int C) {
    start(part);
    for (int k = first_width(s, w, B, C), last = last_width(s, w, B, C); k <= last; ++k)
      for (int l = 0; l < K; ++l) {
        const A left = value(k, B, i, l);
        if (!(left > A(-INFINITY))) break;
        for (int r = 0; (l + 1) * (r + 1) <= K; ++r) {
          const A right = value(w - k, C, i + k, r);
          if (!(right > A(-INFINITY)) || !insert(part, left + right, {B * s.S + C, k, l, r})) break;
        }
      }
  }

  STRUCTOPS_MEMBER void fill() {
    for (int64_t k = first_of_lanes(); k < int64_t(s.n) * s.T; k += step_of_lanes()) read(in.term + k);
    for (int64_t k = first_of_lanes(); s.n > 1 && k < s.NT * s.pairs(); k += step_of_lanes()) read(in.rule + k);
    for (int w = 2; w <= s.n; ++w)
      for (int i = 0; i + w <= s.n; ++i) {
        for (int a = first_of_lanes(); a < s.NT; a += step_of_lanes()) start(at(w, a, i));
        each_row(s, w, [&](int B, int c0, int c1) {
          for (int C = c0; C < c1; ++C) {
            lane_fence();
            if (first_lane()) split(w, i, B, C);
            lane_fence();
            for (int a = first_of_lanes(); a < s.NT; a += step_of_lanes()) {
              const A rule = A(widen(in.rule[a * s.pairs() + int64_t(B) * s.S + C]));
              for (int r = 0; r < K && part[r].value > A(-INFINITY); ++r)
                if (!insert(at(w, a, i), part[r].value + rule, part[r].from)) break;
            }
          }
        });
        for (int a = first_of_lanes(); in.span && a < s.NT; a += step_of_lanes()) {
          const A score = read(in.span + (i * in.posts + i + w) * s.NT + a);
          for (int r = 0; r < K; ++r) at(w, a, i)[r].value += score;
        }
        lane_fence();
      }
  }

  // Values [K] and rows [K, size / 3, 3] of -1; `stack` is this lane's.
  STRUCTOPS_MEMBER void run(PcfgVisit* stack, A* values, int64_t* rows, int64_t size) {
    invalid = false;
    fill();
    if (first_lane()) {
      start(part);
      for (int a = 0; s.n > 1 && a < s.NT; ++a) {
        const A root = read(in.root + a);
        for (int r = 0; r < K; ++r) {
          const A x = at(s.n, a, 0)[r].value;
          if (!(x > A(-INFINITY)) || !insert(part, x + root, {a, r, 0, 0})) break;
        }
      }
    }
    lane_fence();
    const bool wrong = any_lane<A>(splat(Int<A>(invalid ? -1 : 0)));
    for (int r = first_of_lanes(); r < K; r += step_of_lanes()) {
      values[r] = wrong ? A(__builtin_nan("")) : s.n ? part[r].value : r ? A(-INFINITY) : A(0);
      if (!(values[r] > A(-INFINITY)) || s.n == 0) continue;
      write_parse(s, part[r].from.pair, part[r].from.k, stack, rows + r * size, [&](const PcfgVisit& v) { return at(v.w, v.symbol, v.i)[v.rank].from; });
    }
    lane_fence();
  }
};

}  // namespace structops::STRUCTOPS_ISA
