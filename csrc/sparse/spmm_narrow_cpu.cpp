// CPU spmm of rows of few features: at most two vectors. The contract is spmm.h.
//
// An edge costs a handful of instructions here, so nothing is prepared for it: no offset buffer, no tiles. A row's states stay
// in registers; long rows keep kStates of them, which hides the latency of dependent steps, and join them at the end. Only
// where the gathered rows exceed kNear bytes are they prefetched: it costs as much as the sum itself.
#include "sparse/spmm_rows.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kAhead = 32;        // prefetch distance, edges
constexpr int64_t kNear = 1 << 20;  // about the L2 cache of a core

struct Consecutive { int64_t operator[](int64_t k) const { return k; } };  // an index that is absent

template <class T, int n> STRUCTOPS_INLINE Lanes<Acc<T>, n> load_lanes(const T* p) {
  Lanes<Acc<T>, n> v{};
  if constexpr (n == 1) v[0] = widen(*p);
  else __builtin_memcpy(&v, p, sizeof v);
  return v;
}

// n > 0: rows of n features. n == 0: of a.F features, NV - 1 full vectors and a part of one.
template <class T, class Op, int n, int NV, bool product, class I>
void rows(const Batch& b, I xi, const Item& it, char* head, char* tail) {
  using A = Acc<T>;
  using V = typename Op::V;
  using VI = typename Op::VI;
  constexpr int L = W<A>, C = Op::C, kStates = NV == 1 ? 4 : 2;
  const SpmmArgs& a = *b.a;
  const int64_t F = n ? n : a.F;
  const int last = n ? n : int(F) - (NV - 1) * L;
  const T *const x = reinterpret_cast<const T*>(b.x), *const e = reinterpret_cast<const T*>(b.e);
  const void* const eid = a.eid.data;
  const VI nan = VI{} - Int<A>(!a.skip_nan);

  auto message = [&](int64_t k, int v) __attribute__((always_inline)) {
    const T* const p = x + int64_t(xi[k]) * F + v * L;
    V m;
    if constexpr (n > 0) m = load_lanes<T, n>(p);
    else m = v < NV - 1 ? load(p) : load_n(p, last);
    if constexpr (product) m *= widen(e[eid ? int64_t(static_cast<I>(eid)[k]) : k]);
    return m;
  };
  constexpr bool gathers = !__is_same(I, Consecutive);
  const int64_t prefetch_end = gathers && a.gathered * F * int64_t(sizeof(T)) > kNear ? a.E - kAhead - kStates : -1;
  auto prefetch = [&](int64_t k) __attribute__((always_inline)) {
    const T* const p = x + int64_t(xi[k + kAhead]) * F;
    __builtin_prefetch(p);
    if constexpr (n == 0) __builtin_prefetch(p + F - 1);
  };
  int64_t k = it.begin.k;
  for (int64_t row = it.begin.row; row < it.end.row + it.tail; ++row) {
    const bool cut = it.tail && row == it.end.row, continued = it.head && row == it.begin.row;
    const int64_t first = continued ? a.rowptr[row] : k, begin = k, end = cut ? it.end.k : a.rowptr[row + 1];
    V s[NV][C];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) Op::init(s[v], nan);
    if (end - k >= 2 * kStates) {
      V t[kStates - 1][NV][C];
#pragma GCC unroll 4
      for (int u = 0; u < kStates - 1; ++u)
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) Op::init(t[u][v], nan);
      for (; k + kStates <= end; k += kStates) {
        if (k < prefetch_end) for (int u = 0; u < kStates; ++u) prefetch(k + u);
#pragma GCC unroll 4
        for (int u = 0; u < kStates; ++u)
#pragma GCC unroll 2
          for (int v = 0; v < NV; ++v) Op::step(u ? t[u - 1][v] : s[v], message(k + u, v), Int<A>(k + u - first), 0, nan);
      }
#pragma GCC unroll 4
      for (int u = 0; u < kStates - 1; ++u)
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) Op::join(s[v], t[u][v], nan);
    }
    for (; k < end; ++k) {
      if (k < prefetch_end) prefetch(k);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) Op::step(s[v], message(k, v), Int<A>(k - first), 0, nan);
    }
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      if (cut || continued) {
        Vec<A> state[C] = {};
        for (int c = 0; c < C; ++c) __builtin_memcpy(&state[c], &s[v][c], sizeof(V));
        __builtin_memcpy((continued ? head : tail) + v * sizeof state, state, sizeof state);
      } else {
        emit<T, Op>(b, s[v], row, end - begin, first, v * L, v < NV - 1 ? L : last);
      }
    }
  }
}

template <class T, class Op, int n, int NV, bool product>
void item(const Batch& b, const Index& xi, const Item& it, char* head, char* tail) {
  if (!product && !xi) rows<T, Op, n, NV, false>(b, Consecutive{}, it, head, tail);
  else if (b.a->rowptr.wide) rows<T, Op, n, NV, product>(b, static_cast<const int64_t*>(xi.data), it, head, tail);
  else rows<T, Op, n, NV, product>(b, static_cast<const int32_t*>(xi.data), it, head, tail);
}

template <class T, template <class, int> class Op, bool product> NarrowFn of_width(int64_t F) {
  using A = Acc<T>;
  constexpr int L = W<A>;
  if (F == 1) return item<T, Op<A, 1>, 1, 1, product>;
  if constexpr (is_float_storage<T>) {
    if constexpr (sizeof(T) == 4) {
      if (F == 2) return item<T, Op<A, 2>, 2, 1, product>;
      if (F == 4) return item<T, Op<A, 4>, 4, 1, product>;
      if constexpr (L >= 8) if (F == 8) return item<T, Op<A, 8>, 8, 1, product>;
    }
    if (F <= L) return item<T, Op<A, L>, 0, 1, product>;
    if (F <= 2 * L) return item<T, Op<A, L>, 0, 2, product>;
  }
  return nullptr;
}

template <class A, int n> using Max = ExtremeOp<A, true, n>;
template <class A, int n> using Min = ExtremeOp<A, false, n>;
template <class A, int n> using ArgMax = ArgOp<A, true, n>;
template <class A, int n> using ArgMin = ArgOp<A, false, n>;

}  // namespace

NarrowFn narrow_rows(const SpmmArgs& a, const Index& xi, bool product) {
  NarrowFn fn = nullptr;
  const bool arg = a.arg_kind != ArgKind::none || a.skip_nan;
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    switch (a.reduce) {
      case Reduce::mean:
      case Reduce::sum:
        if (!product) fn = of_width<T, SumOp, false>(a.F);
        else if constexpr (is_float_storage<T>) fn = xi ? of_width<T, SumOp, true>(a.F) : nullptr;
        break;
      case Reduce::max: if (!product) fn = arg ? of_width<T, ArgMax, false>(a.F) : of_width<T, Max, false>(a.F); break;
      case Reduce::min: if (!product) fn = arg ? of_width<T, ArgMin, false>(a.F) : of_width<T, Min, false>(a.F); break;
      default: break;
    }
  });
  return fn;
}

}  // namespace structops::STRUCTOPS_ISA
