// CPU forward of relational_spmm. The contract is rspmm.h.
//
// Work items are rows, and parts of long ones, of about equal edges and one batch entry each, so that a slice of x of one entry stays
// in cache. A tile of NV vectors of features walks the rows of an item with its states in registers; x and rel are read once per tile.
#include "sparse/rspmm_rows.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kAhead = 8;  // prefetch distance, edges

// States: init(s), step(s, m, lane, count) with count the edges so far including this one, merge(a, na, b, nb) appends the later state b
// of nb > 0 edges to that of na > 0, final in `emit`.
template <class A> struct Sum {
  static constexpr int C = 1;
  STRUCTOPS_INLINE void init(Vec<A>* s) { s[0] = Vec<A>{}; }
  STRUCTOPS_INLINE void step(Vec<A>* s, Vec<A> m, Int<A>, int64_t, A) { s[0] += m; }
  STRUCTOPS_INLINE void merge(Vec<A>* a, int64_t, const Vec<A>* b, int64_t) { a[0] += b[0]; }
};

// Largest of sign * m, with its lane in s[1]: the earlier of equals, the first NaN.
template <class A> STRUCTOPS_INLINE void take_larger(Vec<A>* s, Vec<A> m, Vec<Int<A>> lane, bool first) {
  using VI = Vec<Int<A>>;
  const VI better = (~(m <= s[0]) & (s[0] == s[0])) | splat(Int<A>(first ? -1 : 0));
  s[0] = better ? m : s[0];
  s[1] = bitcast<Vec<A>>(better ? lane : bitcast<VI>(s[1]));
}
template <class A> STRUCTOPS_INLINE void merge_larger(Vec<A>* a, const Vec<A>* b) {
  take_larger<A>(a, b[0], bitcast<Vec<Int<A>>>(b[1]), false);
}
template <class A> struct Extreme {
  static constexpr int C = 2;
  STRUCTOPS_INLINE void init(Vec<A>* s) { s[0] = s[1] = Vec<A>{}; }
  STRUCTOPS_INLINE void step(Vec<A>* s, Vec<A> m, Int<A> lane, int64_t count, A sign) {
    take_larger<A>(s, m * sign, splat(lane), count == 1);
  }
  STRUCTOPS_INLINE void merge(Vec<A>* a, int64_t, const Vec<A>* b, int64_t) { merge_larger<A>(a, b); }
};

template <class A> struct Lse {
  static constexpr int C = 2;
  STRUCTOPS_INLINE void init(Vec<A>* s) { s[0] = splat(A(-INFINITY)); s[1] = Vec<A>{}; }
  STRUCTOPS_INLINE void step(Vec<A>* s, Vec<A> m, Int<A>, int64_t, A) {
    const Vec<Int<A>> rises = m > s[0], same = m == s[0];
    const Vec<A> e = same ? splat(A(1)) : vexp<A>(rises ? s[0] - m : m - s[0]);
    s[1] = rises ? s[1] * e + A(1) : s[1] + e;
    s[0] = rises ? m : s[0];
  }
  STRUCTOPS_INLINE void merge(Vec<A>* a, int64_t, const Vec<A>* b, int64_t) {
    const Vec<Int<A>> rises = b[0] > a[0], same = b[0] == a[0];
    const Vec<A> e = same ? splat(A(1)) : vexp<A>(rises ? a[0] - b[0] : b[0] - a[0]);
    a[1] = rises ? a[1] * e + b[1] : a[1] + b[1] * e;
    a[0] = rises ? b[0] : a[0];
  }
};

// Mean and centred second moment of m - shift, largest and its lane, largest of -m and its lane, the shift.
template <class A> struct Pna {
  static constexpr int C = 7;
  STRUCTOPS_INLINE void init(Vec<A>* s) { for (int i = 0; i < C; ++i) s[i] = Vec<A>{}; }
  STRUCTOPS_INLINE void step(Vec<A>* s, Vec<A> m, Int<A> lane, int64_t count, A inverse) {
    if (count == 1) s[6] = m - m == 0 ? m : Vec<A>{};
    const Vec<A> shifted = m - s[6], d = shifted - s[0];
    s[0] += d * inverse;
    s[1] += d * (shifted - s[0]);
    take_larger<A>(s + 2, m, splat(lane), count == 1);
    take_larger<A>(s + 4, -m, splat(lane), count == 1);
  }
  STRUCTOPS_INLINE void merge(Vec<A>* a, int64_t na, const Vec<A>* b, int64_t nb) {
    const A share = A(nb) / A(na + nb);
    const Vec<A> d = b[6] - a[6] + (b[0] - a[0]);
    a[0] += d * share;
    a[1] += b[1] + d * d * (A(na) * share);
    merge_larger<A>(a + 2, b + 2);
    merge_larger<A>(a + 4, b + 4);
  }
};

// v as a T holds it.
template <class T> STRUCTOPS_INLINE Vec<Acc<T>> rounded(Vec<Acc<T>> v) {
  T stored[W<Acc<T>>];
  store(stored, v);
  return load(stored);
}

template <class T, class Op> void
emit(const RspmmArgs& a, int64_t at, const Vec<Acc<T>>* s, int n, int64_t count, int64_t begin) {
  using A = Acc<T>;
  constexpr bool moments = __is_same(Op, Pna<A>), extreme = __is_same(Op, Extreme<A>), lse = __is_same(Op, Lse<A>);
  const int64_t plane = a.B * a.N * a.F;
  T* const out = static_cast<T*>(a.out) + at;
  auto put = [&](T* p, Vec<A> v) __attribute__((always_inline)) { store_n(p, v, n); };
  auto winners = [&](int64_t to, Vec<A> lanes) {
    Int<A> lane[W<A>];
    __builtin_memcpy(lane, &lanes, sizeof lanes);
    for (int i = 0; i < n; ++i) {
      const int64_t k = count ? begin + lane[i] : a.E;
      if (a.rowptr.wide) static_cast<int64_t*>(a.arg)[to + i] = k;
      else static_cast<int32_t*>(a.arg)[to + i] = int32_t(k);
    }
  };
  if constexpr (moments) {
    const Vec<A> mean = s[6] + s[0];
    put(out, mean);
    put(static_cast<T*>(a.rest) + at, s[6] - rounded<T>(mean) + s[0]);
    put(out + plane, count ? s[1] / A(count) : Vec<A>{});
    put(out + 2 * plane, s[2]);
    put(out + 3 * plane, count ? -s[4] : Vec<A>{});
    winners(at, s[3]);
    winners(plane + at, s[5]);
    return;
  }
  Vec<A> v = s[0];
  if constexpr (extreme) {
    if (a.reduce == RelReduce::min) v = -v;
    winners(at, s[1]);
  } else if constexpr (lse) {
    v = s[0] + vlog<A>(s[1]);
  } else if (a.reduce == RelReduce::mean) {
    v = v / A(count);
  }
  put(out, count ? v : splat(A(a.fill)));
}

// What a slot holds of a part of a row: the number of its edges, then every component of the state [C, F].
template <class T, class Op> struct Parts : Slots<Acc<T>> {
  using A = Acc<T>;
  const int64_t F;
  explicit Parts(const RspmmArgs& a) : Slots<A>(a.N, a.E, 1 + Op::C * a.F, a.B), F(a.F) {}
  [[gnu::always_inline]] A* state(int64_t slot, int c) const { return (*this)[slot] + 1 + c * F; }
};

// Not inlined: side by side in one function the tiles take each other's registers.
template <class T, class Op, bool product, int NV, bool masked, class Rows>
[[gnu::noinline]] void tile(const RspmmArgs& a, int64_t b, const Rows& rows, const Parts<T, Op>& parts, int64_t f, int n) {
  using A = Acc<T>;
  using V = Vec<A>;
  constexpr int L = W<A>;
  const T* const x = static_cast<const T*>(a.x) + b * a.M * a.F + f;
  const T* const rel = a.rel ? static_cast<const T*>(a.rel) + b * a.R * a.F + f : nullptr;
  const T* const weight = static_cast<const T*>(a.weight);
  const bool rotate = a.mul == RelMul::rotate, imaginary = rotate && f >= a.F / 2;
  const int64_t other = imaginary ? -(a.F / 2) : a.F / 2;
  const A sign = a.reduce == RelReduce::min ? A(-1) : A(1);
  auto get = [&](const T* p) __attribute__((always_inline)) { return masked ? load_n(p, n) : load(p); };
  rows([&](int64_t v, int64_t begin, int64_t end, int64_t slot) __attribute__((always_inline)) {
    const int64_t row_begin = a.rowptr[v];
    V st[NV][Op::C];
#pragma GCC unroll 4
    for (int i = 0; i < NV; ++i) Op::init(st[i]);
    int64_t count = 0;
    for (int64_t k = begin; k < end; ++k) {
      const int64_t j = a.eid ? a.eid[k] : k;
      if (k + kAhead < a.E) {
        const T* const next = x + a.col[k + kAhead] * a.F;
#pragma GCC unroll 4
        for (int i = 0; i < NV; ++i)
          if ((i * int(sizeof(T)) * L) % 64 == 0) __builtin_prefetch(next + i * L);
      }
      if (a.mask && !a.mask[j]) continue;
      ++count;
      const T* const xp = x + a.col[k] * a.F;
      const T* const rp = product || rel ? rel + a.type[k] * a.F : xp;
      const A w = weight ? widen(weight[j]) : A(1);
      const A fourth = __is_same(Op, Pna<A>) ? A(1) / A(count) : sign;
#pragma GCC unroll 4
      for (int i = 0; i < NV; ++i) {
        V m;
        if (!product && rotate) {
          const V xo = get(xp + other + i * L), ro = get(rp + other + i * L), xs = get(xp + i * L), rs = get(rp + i * L);
          m = imaginary ? xo * rs + xs * ro : xs * rs - xo * ro;
        } else {
          m = combine<A, product>(a.mul, get(rp + i * L), get(xp + i * L));
        }
        if (weight) m *= w;
        pin(m);
        Op::step(st[i], m, Int<A>(k - row_begin), count, fourth);
      }
    }
    if (slot >= 0) *parts[slot] = A(count);
#pragma GCC unroll 4
    for (int i = 0; i < NV; ++i) {
      if (slot < 0) {
        emit<T, Op>(a, (b * a.N + v) * a.F + f + i * L, st[i], masked ? n : L, count, row_begin);
        continue;
      }
      for (int c = 0; c < Op::C; ++c) store_n(parts.state(slot, c) + f + i * L, st[i][c], masked ? n : L);
    }
  });
}

// Row v of batch entry b from its parts. Those of which the mask leaves nothing do not count.
template <class T, class Op> void merge(const RspmmArgs& a, const Parts<T, Op>& parts, int64_t b, int64_t v, int64_t first, int64_t last) {
  using V = Vec<Acc<T>>;
  constexpr int L = W<Acc<T>>;
  for (int64_t f = 0; f < a.F; f += L) {
    const int n = int(a.F - f < L ? a.F - f : L);
    V total[Op::C];
    Op::init(total);
    int64_t count = 0;
    for (int64_t slot = first; slot <= last; slot = next_slot(slot)) {
      const int64_t more = int64_t(*parts[slot]);
      if (more == 0) continue;
      V part[Op::C];
      for (int c = 0; c < Op::C; ++c) part[c] = load_n(parts.state(slot, c) + f, n);
      if (count) Op::merge(total, count, part, more);
      else __builtin_memcpy(total, part, sizeof total);
      count += more;
    }
    emit<T, Op>(a, (b * a.N + v) * a.F + f, total, n, count, a.rowptr[v]);
  }
}

template <class T, class Op, bool product, class Rows>
void span(const RspmmArgs& a, int64_t b, const Rows& rows, const Parts<T, Op>& parts, int64_t f, int64_t stop) {
  constexpr int L = W<Acc<T>>;
  if constexpr (Op::C <= 2)
    for (; stop - f >= 4 * L; f += 4 * L) tile<T, Op, product, 4, false>(a, b, rows, parts, f, L);
  for (; stop - f >= 2 * L; f += 2 * L) tile<T, Op, product, 2, false>(a, b, rows, parts, f, L);
  for (; f < stop; f += L) tile<T, Op, product, 1, true>(a, b, rows, parts, f, int(stop - f < L ? stop - f : L));
}

template <class T, class Op> void reduce(const RspmmArgs& a, const ParallelFor& pf) {
  const int64_t pieces = row_pieces(a.N, a.E);
  const Parts<T, Op> parts(a);
  for_cut_rows(a.rowptr, a.N, a.E, a.F, pf, [&](int64_t task, auto rows) {
    const int64_t b = task / pieces, half = a.mul == RelMul::rotate ? a.F / 2 : a.F;
    if (a.mul == RelMul::mul) return span<T, Op, true>(a, b, rows, parts, 0, a.F);
    for (int64_t f = 0; f < a.F; f += half) span<T, Op, false>(a, b, rows, parts, f, f + half);
  }, [&](int64_t v, int64_t first, int64_t last) {
    merge<T, Op>(a, parts, first / 2 / pieces, v, first, last);
  }, a.B);
}

}  // namespace

void rspmm_fwd(const RspmmArgs& a, const ParallelFor& pf) {
  if (a.B == 0 || a.N == 0 || a.F == 0) return;
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    using A = Acc<T>;
    if constexpr (is_float_storage<T>) {
      if (a.reduce == RelReduce::pna) reduce<T, Pna<A>>(a, pf);
      else if (a.reduce == RelReduce::logsumexp) reduce<T, Lse<A>>(a, pf);
      else if (rspmm_extreme(a.reduce)) reduce<T, Extreme<A>>(a, pf);
      else reduce<T, Sum<A>>(a, pf);
    }
  });
}

}  // namespace structops::STRUCTOPS_ISA
