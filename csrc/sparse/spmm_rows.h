// What the two walks of CPU spmm share: tiles of features (spmm_cpu.cpp) and rows of few features (spmm_narrow_cpu.cpp).
#pragma once
#include "sparse/reduce_ops.h"

namespace structops::STRUCTOPS_ISA {

struct Batch {
  const SpmmArgs* a;
  const char* x;  // base of this batch; the one operand of a copy message
  const char* e;
  char* out;  // [N, F] of this batch
  char* arg;
};

struct Item {
  Cut begin, end;
  bool head, tail;  // its first row continues from before; its last row goes on after
};

// Reduces the rows of an item. A row that began before the item or goes on after it ends in the state `head` or `tail`:
// the components of Op one after the other, a whole vector each, for every vector of features.
using NarrowFn = void (*)(const Batch&, const Index& xi, const Item&, char* head, char* tail);

// Null where tiles do it. `product`: the message is x[u, :] * e[k], one weight an edge; otherwise one operand is copied.
NarrowFn narrow_rows(const SpmmArgs& a, const Index& xi, bool product);

// Winners of n outputs from their lanes in the row that begins at edge `first`.
template <class I, class L>
STRUCTOPS_INLINE void write_arg(const Batch& b, int64_t row, int64_t first, int64_t f, int n, const L* lane) {
  const SpmmArgs& a = *b.a;
  I* const arg = reinterpret_cast<I*>(b.arg) + row * a.F + f;
  const Index& map = a.arg_kind == ArgKind::edge ? a.eid : a.arg_kind == ArgKind::source ? a.col : Index{};
  const I none = a.arg_kind == ArgKind::source ? I(-1) : I(a.E);
  bool all = true;
  for (int i = 0; i < n; ++i) all &= lane[i] >= 0;
  const I* const to = map ? static_cast<const I*>(map.data) + first : nullptr;
  if (all && to) for (int i = 0; i < n; ++i) arg[i] = to[lane[i]];
  else if (all) for (int i = 0; i < n; ++i) arg[i] = I(first + lane[i]);
  else for (int i = 0; i < n; ++i) arg[i] = lane[i] < 0 ? none : to ? to[lane[i]] : I(first + lane[i]);
}

// The value of a state of `count` edges to n outputs from feature f. Op has n lanes or a whole vector of them.
template <class T, class Op>
STRUCTOPS_INLINE void emit(const Batch& b, const typename Op::V* s, int64_t row, int64_t count, int64_t first, int64_t f, int n) {
  using A = Acc<T>;
  using V = typename Op::V;
  using VI = typename Op::VI;
  T* out = reinterpret_cast<T*>(b.out) + row * b.a->F + f;
  V r = count ? Op::final(s, count, *b.a) : V{} + A(b.a->fill);
  if constexpr (Op::has_arg) {
    const VI lanes = count ? bitcast<VI>(s[1]) : VI{} - 1;
    r = lanes < 0 ? V{} + A(b.a->fill) : r;
    if (b.arg) {
      Int<A> lane[sizeof lanes / sizeof(A)];
      __builtin_memcpy(lane, &lanes, sizeof lanes);
      if (b.a->rowptr.wide) write_arg<int64_t>(b, row, first, f, n, lane);
      else write_arg<int32_t>(b, row, first, f, n, lane);
    }
  }
  if constexpr (sizeof(V) == sizeof(Vec<A>)) {
    if (n == W<A>) store(out, r); else store_n(out, r, n);
  } else {
    for (int i = 0; i < n; ++i) narrow_to(out + i, r[i]);
  }
}

}  // namespace structops::STRUCTOPS_ISA
