// Grammar charts: the K best parses. The contract is pcfg.h. For one instruction set, and for nvcc.
// Every span and nonterminal has a list of its K best derivations in descending order. Derivations come in an order: by their value,
// then by their pair of parts. So the K best are derivations of the K pairs whose best derivations come first, and none is worse than
// the best of the last pair. Those pairs are found from the chart of best values, neighbouring spans in the lanes of a vector; of
// their derivations only those are listed that some nonterminal can use.
#pragma once
#include "tree/pcfg_tree.h"

namespace structops::STRUCTOPS_ISA {

template <class A> struct PcfgDerivation {
  A value;  // -inf: none
  PcfgSplit from;
};

template <class A> struct PcfgLists {
  PcfgDerivation<A>*part, *lists;  // [lanes, K]; [cells, NT, K]
  A *top, *least;                  // [K] vectors: the best pairs of a nonterminal; [NT] vectors: the value of its last pair
  Int<A>*which, *pairs;            // [K] and [NT, K] vectors
  int* next;                       // [lanes, NT]
};

// Lays the lists of n words out from `memory`, for `lanes` cells at a time, and returns their size.
template <class A>
STRUCTOPS_CONSTANT int64_t lay_out_lists(char* memory, int64_t n, int64_t NT, int64_t K, int64_t width, int64_t lanes, PcfgLists<A>* p) {
  int64_t at = 0;
  const auto take = [&](int64_t bytes) {
    char* const q = memory + at;
    at += (bytes + 63) / 64 * 64;
    return q;
  };
  const int64_t derivation = sizeof(PcfgDerivation<A>), cells = n > 1 ? n * (n - 1) / 2 : 0;
  p->part = reinterpret_cast<PcfgDerivation<A>*>(take(lanes * K * derivation));
  p->lists = reinterpret_cast<PcfgDerivation<A>*>(take(cells * NT * K * derivation));
  p->top = reinterpret_cast<A*>(take(K * width * int64_t(sizeof(A))));
  p->least = reinterpret_cast<A*>(take(NT * width * int64_t(sizeof(A))));
  p->which = reinterpret_cast<Int<A>*>(take(K * width * int64_t(sizeof(A))));
  p->pairs = reinterpret_cast<Int<A>*>(take(NT * K * width * int64_t(sizeof(A))));
  p->next = reinterpret_cast<int*>(take(lanes * NT * int64_t(sizeof(int))));
  return at;
}

template <class T, class A> struct PcfgKBest {
  using Derivation = PcfgDerivation<A>;
  static constexpr Int<A> none = 0x7fffffff;
  static constexpr A rounding = A(sizeof(A) == 4 ? 0x1p-21 : 0x1p-50);  // of a sum and a difference, with room to spare
  PcfgShape s;
  PcfgInput<T> in;
  PcfgCharts<A> c;  // m: values; pm
  PcfgLists<A> p;
  int K;
  Found<A> found;

  STRUCTOPS_MEMBER Derivation* at(int w, int symbol, int i) const {  // w > 1
    const int64_t before = int64_t(w - 2) * (s.n + 1) - (int64_t(w) * (w - 1) / 2 - 1);
    return p.lists + ((before + i) * s.NT + symbol) * K;
  }
  STRUCTOPS_MEMBER A value(int w, int symbol, int i, int rank) const {
    if (w > 1) return at(w, symbol, i)[rank].value;
    return rank ? A(-INFINITY) : c.m[s.cell(1, symbol, i)];
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

  // The best splits of a pair, of those worth `bound`. Of two ranks (l, r) there are (l + 1)(r + 1) - 1 others at least as good.
  STRUCTOPS_MEMBER void split(Derivation* part, int w, int i, int B, int C, A bound) const {
    start(part);
    for (int k = first_width(s, w, B, C), last = last_width(s, w, B, C); k <= last; ++k)
      for (int l = 0; l < K; ++l) {
        const A left = value(k, B, i, l);
        if (!(left > A(-INFINITY))) break;
        int r = 0;
        for (; (l + 1) * (r + 1) <= K; ++r) {
          const A right = value(w - k, C, i + k, r);
          if (!(right > A(-INFINITY)) || left + right < bound || !insert(part, left + right, {B * s.S + C, k, l, r})) break;
        }
        if (r == 0) break;
      }
  }

  // The first K pairs of nonterminal a in the spans at i of width w, by their numbers; `none` where there are fewer.
  STRUCTOPS_MEMBER void choose(int w, int a, int i) const {
    const Vec<Int<A>> valid = lane_numbers<A>() + Int<A>(i + w) <= Int<A>(s.n);
    const Vec<A> empty = valid ? splat(A(-INFINITY)) : splat(A(INFINITY));
    for (int r = 0; r < K; ++r) {
      store(p.top + r * W<A>, empty);
      store(p.which + r * W<A>, splat(none));
    }
    Vec<A> least = empty;
    each_row(s, w, [&](int B, int c0, int c1) {
      for (int64_t pair = int64_t(B) * s.S + c0; pair < int64_t(B) * s.S + c1; ++pair) {
        Vec<A> x = load(c.pm + pair * W<A>) + A(widen(in.rule[a * s.pairs() + pair]));
        if (!any<A>(x > least)) continue;
        Vec<Int<A>> number = splat(Int<A>(pair)), moved = splat(Int<A>(0));
        for (int r = 0; r < K; ++r) {  // from where x stands on, everything moves by one place
          const Vec<A> t = load(p.top + r * W<A>);
          const Vec<Int<A>> q = load(p.which + r * W<A>);
          moved |= x > t;
          least = moved ? x : t;
          store(p.top + r * W<A>, least);
          store(p.which + r * W<A>, moved ? number : q);
          x = moved ? t : x;
          number = moved ? q : number;
        }
      }
    });
    store(p.least + a * W<A>, least);
    for (int x = 0; x < K; ++x) {
      Vec<Int<A>> low = load(p.which + x * W<A>);
      for (int y = x + 1; y < K; ++y) {
        const Vec<Int<A>> q = load(p.which + y * W<A>);
        store(p.which + y * W<A>, low < q ? q : low);
        low = low < q ? low : q;
      }
      store(p.pairs + (int64_t(a) * K + x) * W<A>, low);
    }
  }

  // The lists of the span in lane l, from the pairs that were chosen.
  STRUCTOPS_MEMBER void list(int w, int i, int l) {
    Derivation* const part = p.part + own_lane() * K;
    int* const next = p.next + own_lane() * s.NT;
    for (int a = 0; a < s.NT; ++a) {
      next[a] = 0;
      start(at(w, a, i));
    }
    const auto front = [&](int a) { return next[a] < K ? p.pairs[(int64_t(a) * K + next[a]) * W<A> + l] : none; };
    for (;;) {
      Int<A> pair = none;
      for (int a = 0; a < s.NT; ++a) pair = front(a) < pair ? front(a) : pair;
      if (pair == none) break;
      A bound = A(INFINITY);
      for (int a = 0; a < s.NT; ++a) {
        if (front(a) != pair) continue;
        const A rule = A(widen(in.rule[a * s.pairs() + pair])), least = p.least[a * W<A> + l];
        const A slack = rounding * ((rule < A(0) ? -rule : rule) + (least < A(0) ? -least : least));
        if (least - rule - slack < bound) bound = least - rule - slack;
      }
      split(part, w, i, int(pair) / s.S, int(pair) % s.S, bound);
      for (int a = 0; a < s.NT; ++a) {
        if (front(a) != pair) continue;
        ++next[a];
        const A rule = A(widen(in.rule[a * s.pairs() + pair]));
        for (int r = 0; r < K && part[r].value > A(-INFINITY); ++r)
          if (!insert(at(w, a, i), part[r].value + rule, part[r].from)) break;
      }
    }
    for (int a = 0; a < s.NT; ++a) {
      Derivation* const to = at(w, a, i);
      const A score = in.span ? A(widen(in.span[(i * in.posts + i + w) * s.NT + a])) : A(0);
      for (int r = 0; in.span && r < K; ++r) to[r].value += score;
      c.m[s.cell(w, a, i)] = to[0].value;
    }
  }

  STRUCTOPS_MEMBER void fill() {
    best_words(c, s, in, found);
    for (int w = 2; w <= s.n; ++w)
      for (int i = 0; i + w <= s.n; i += W<A>) {
        best_pairs(c, s, w, i);
        for (int a = 0; a < s.NT; ++a) {
          choose(w, a, i);
          store(c.m + s.cell(w, a, i), splat(A(-INFINITY)));
          if (in.span) checked_score<A>(load_spans<A>(in.span, s, in.posts, a, w, i, A(-INFINITY)), found);
        }
        lane_fence();
        each_lane<A>(s.n - w - i + 1, [&](int l) { list(w, i + l, l); });
        lane_fence();
      }
  }

  // Values [K] and rows [K, size / 3, 3] of -1; `stack` is this lane's.
  STRUCTOPS_MEMBER void run(PcfgVisit* stack, A* values, int64_t* rows, int64_t size) {
    fill();
    Derivation* const part = p.part;
    for (int a = 0; s.n > 1 && a < s.NT; ++a) checked_score<A>(splat(A(widen(in.root[a]))), found);
    if (first_lane()) {
      start(part);
      for (int a = 0; s.n > 1 && a < s.NT; ++a)
        for (int r = 0; r < K; ++r) {
          const A x = at(s.n, a, 0)[r].value;
          if (!(x > A(-INFINITY)) || !insert(part, x + A(widen(in.root[a])), {a, r, 0, 0})) break;
        }
    }
    lane_fence();
    const bool wrong = any_lane<A>(found.invalid);
    for (int r = first_of_lanes(); r < K; r += step_of_lanes()) {
      values[r] = wrong ? A(__builtin_nan("")) : s.n ? part[r].value : r ? A(-INFINITY) : A(0);
      if (!(values[r] > A(-INFINITY)) || s.n == 0) continue;
      write_parse(s, part[r].from.pair, part[r].from.k, stack, rows + r * size, [&](const PcfgVisit& v) { return at(v.w, v.symbol, v.i)[v.rank].from; });
    }
    lane_fence();
  }
};

}  // namespace structops::STRUCTOPS_ISA
