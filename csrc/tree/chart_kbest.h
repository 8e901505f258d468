// The K best trees of one sentence: every item keeps its K best derivations in descending order. For one instruction set.
#pragma once
#include "tree/chart_scratch.h"
#include "tree/chart_tree.h"

namespace structops::STRUCTOPS_ISA {

template <class A> class KBest {
  struct Derivation {
    A value;  // -inf: none
    int32_t k, left, right;
  };

 public:
  static size_t bytes(const ChartArgs& a, int most, int64_t K) {
    const size_t cells = size_t(most + 1) * (most + 2) / 2;
    return cells * size_t(a.kind == Chart::span ? 1 : 5) * size_t(K) * sizeof(Derivation) + visits(most) * sizeof(Visit);
  }

  KBest(const ChartTreeArgs& t, int64_t b, char* memory, int most)
      : t_(t), a_(t.in), b_(b), K_(int(t.K)), n_(int(t.in.lengths[b])), score_(Numbers{a_.score, a_.dtype} + b * a_.N * a_.N),
        sib_(a_.sib ? Numbers{a_.sib, a_.dtype} + b * a_.N * a_.N * a_.N : Numbers{}), stack_(reinterpret_cast<Visit*>(memory)),
        lists_(reinterpret_cast<Derivation*>(memory + visits(most) * sizeof(Visit))), cells_(int64_t(n_ + 1) * (n_ + 2) / 2) {}

  void run() {
    fill();
    const int64_t size = tree_size(a_);
    A* const value = static_cast<A*>(t_.value) + b_ * K_;
    const Derivation* const goal = n_ ? at(a_.kind == Chart::span ? Item::V : Item::CR, n_, 0) : nullptr;
    for (int r = 0; r < K_; ++r) {
      int64_t* const tree = t_.tree + (b_ * K_ + r) * size;
      for (int64_t i = 0; i < size; ++i) tree[i] = -1;
      value[r] = invalid_ ? A(__builtin_nan("")) : goal ? goal[r].value : r == 0 ? A(0) : A(-INFINITY);
      if (!(value[r] > A(-INFINITY))) continue;
      write_tree(a_.kind, bool(sib_), n_, r, stack_, tree, [&](const Visit& v) {
        const Derivation& d = at(v.item, v.w, v.i)[v.rank];
        return Pick{d.k, d.left, d.right};
      });
    }
  }

 private:
  Derivation* at(Item item, int w, int i) const {
    const int64_t chart = item == Item::V ? 0 : int64_t(item);
    return lists_ + (chart * cells_ + int64_t(w) * (2 * n_ + 3 - w) / 2 + i) * K_;
  }

  A read(Numbers p) {
    const A x = read_one<A>(p, 0);
    invalid_ |= x != x || x == A(INFINITY);
    return x;
  }
  A score(int row, int column) { return read(score_ + row * a_.N + column); }
  A sib(int dep, int head, int s) { return read(sib_ + (int64_t(dep) * a_.N + head) * a_.N + s); }

  void start(Derivation* to) const {
    for (int r = 0; r < K_; ++r) to[r] = {A(-INFINITY), 0, 0, 0};
  }

  // Of all pairs of derivations, those that may be among the K best: pair (l, r) has (l + 1)(r + 1) - 1 at least as good ones.
  void combine(Derivation* to, int k, const Derivation* L, const Derivation* R, A extra) const {
    for (int l = 0; l < K_ && L[l].value > A(-INFINITY); ++l)
      for (int r = 0; (l + 1) * (r + 1) <= K_ && R[r].value > A(-INFINITY); ++r) {
        const A value = L[l].value + R[r].value + extra;
        if (!(value > to[K_ - 1].value)) break;
        int place = K_ - 1;
        for (; place > 0 && value > to[place - 1].value; --place) to[place] = to[place - 1];
        to[place] = {value, k, l, r};
      }
  }

  void add(Derivation* to, A score) const {
    for (int r = 0; r < K_; ++r) to[r].value += score;
  }

  void halves(Derivation* to, int w, int i) const {
    for (int k = 0; k < w; ++k) combine(to, k, at(Item::CR, k, i), at(Item::CL, w - k - 1, i + k + 1), 0);
  }

  void link(bool left, int w, int i) {
    const Item item = left ? Item::IL : Item::IR;
    const int dep = left ? i : i + w, head = left ? i + w : i;
    Derivation* const to = at(item, w, i);
    start(to);
    if (left && i == 0) return;  // the root has no head
    if (!sib_) {
      halves(to, w, i);
    } else {
      combine(to, 0, at(Item::CR, left ? w - 1 : 0, i), at(Item::CL, left ? 0 : w - 1, left ? i + w : i + 1), 0);
      if (left || i > 0 || a_.kind == Chart::dep_multi)
        for (int k = 1; k < w; ++k)
          combine(to, k, at(left ? Item::T : Item::IR, k, i), at(left ? Item::IL : Item::T, w - k, i + k), sib(dep, head, i + k));
    }
    add(to, score(dep, head));
  }

  void fill() {
    if (a_.kind == Chart::span) {
      for (int w = 1; w <= n_; ++w)
        for (int i = 0; i + w <= n_; ++i) {
          Derivation* const to = at(Item::V, w, i);
          start(to);
          if (w == 1) to[0].value = 0;
          for (int k = 1; k < w; ++k) combine(to, k, at(Item::V, k, i), at(Item::V, w - k, i + k), 0);
          add(to, score(i, i + w));
        }
      return;
    }
    for (int i = 0; i <= n_; ++i)
      for (int side = 0; side < 2; ++side) {
        Derivation* const empty = at(side ? Item::CR : Item::CL, 0, i);
        start(empty);
        empty->value = 0;
      }
    for (int w = 1; w <= n_; ++w)
      for (int i = 0; i + w <= n_; ++i) {
        Derivation* const s = at(Item::T, w, i);
        start(s);
        halves(s, w, i);
        link(true, w, i);
        link(false, w, i);
        Derivation* const cl = at(Item::CL, w, i);
        start(cl);
        for (int k = 0; k < w; ++k) combine(cl, k, at(Item::CL, k, i), at(Item::IL, w - k, i + k), 0);
        Derivation* const cr = at(Item::CR, w, i);
        start(cr);
        if (i == 0 && w < n_ && a_.kind == Chart::dep_single && !sib_) continue;
        for (int k = 1; k <= w; ++k) combine(cr, k, at(Item::IR, k, i), at(Item::CR, w - k, i + k), 0);
      }
  }

  const ChartTreeArgs& t_;
  const ChartArgs& a_;
  int64_t b_;
  int K_, n_;
  Numbers score_, sib_;
  Visit* stack_;
  Derivation* lists_;
  int64_t cells_;
  bool invalid_ = false;
};

}  // namespace structops::STRUCTOPS_ISA
