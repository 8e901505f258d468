// Reducers of spmm over vectors of n lanes (a whole vector unless said). A reducer keeps C component vectors per output vector:
//   init(s, nan); step(s, m, lane, count, nan) adds message m, the `lane`-th edge of its row and `count`-th (from 1) of this
//   partial state; merge(a, na, b, nb, nan) appends the later partial b of nb edges; final(s, count, args) gives the value.
//   join(a, b, nan), of those whose order is free: b's edges lie between those of a.
// `nan` is all-ones where NaN propagates, zero where comparisons with NaN are false.
#pragma once
#include "core/vmath.h"
#include "sparse/spmm.h"

namespace structops::STRUCTOPS_ISA {

template <class A_, int n = W<A_>> struct SumOp {
  using A = A_; using V = Lanes<A, n>; using VI = Lanes<Int<A>, n>;
  static constexpr int C = 1, max_nv = 8;
  static constexpr bool has_arg = false, splits = true;  // splits: worth several states per output vector
  STRUCTOPS_INLINE void init(V* s, VI) { s[0] = V{}; }
  STRUCTOPS_INLINE void step(V* s, V m, Int<A>, int64_t, VI) { s[0] += m; }
  STRUCTOPS_INLINE void merge(V* a, int64_t, const V* b, int64_t, VI) { a[0] += b[0]; }
  STRUCTOPS_INLINE void join(V* a, const V* b, VI) { a[0] += b[0]; }
  STRUCTOPS_INLINE V final(const V* s, int64_t count, const SpmmArgs& a) {
    return a.reduce == Reduce::mean ? s[0] / A(count) : s[0];
  }
};

template <class A_> struct ProdOp {
  using A = A_; using V = Vec<A>; using VI = Vec<Int<A>>;
  static constexpr int C = 1, max_nv = 4;
  static constexpr bool has_arg = false, splits = false;
  STRUCTOPS_INLINE void init(V* s, VI) { s[0] = splat(A(1)); }
  STRUCTOPS_INLINE void step(V* s, V m, Int<A>, int64_t, VI) { s[0] *= m; }
  STRUCTOPS_INLINE void merge(V* a, int64_t, const V* b, int64_t, VI) { a[0] *= b[0]; }
  STRUCTOPS_INLINE V final(const V* s, int64_t, const SpmmArgs&) { return s[0]; }
};

template <class A> struct Lowest;
template <> struct Lowest<float> { static constexpr float max = INFINITY, min = -INFINITY; };
template <> struct Lowest<double> { static constexpr double max = INFINITY, min = -INFINITY; };
template <> struct Lowest<int32_t> { static constexpr int32_t max = INT32_MAX, min = INT32_MIN; };
template <> struct Lowest<int64_t> { static constexpr int64_t max = INT64_MAX, min = INT64_MIN; };

template <class A_, bool Max, int n = W<A_>> struct ExtremeOp {
  using A = A_; using V = Lanes<A, n>; using VI = Lanes<Int<A>, n>;
  static constexpr int C = 1, max_nv = 8;
  static constexpr bool has_arg = false, splits = false;
  STRUCTOPS_INLINE void init(V* s, VI) { s[0] = V{} + (Max ? Lowest<A>::min : Lowest<A>::max); }
  // The machine's max and min give the second operand where either is NaN; NaN in s[0] stays.
  STRUCTOPS_INLINE void step(V* s, V m, Int<A>, int64_t, VI) {
    V r = Max ? (s[0] > m ? s[0] : m) : (s[0] < m ? s[0] : m);
    pin(r);
    s[0] = s[0] == s[0] ? r : s[0];
  }
  STRUCTOPS_INLINE void merge(V* a, int64_t, const V* b, int64_t, VI nan) { step(a, b[0], 0, 0, nan); }
  STRUCTOPS_INLINE void join(V* a, const V* b, VI nan) { step(a, b[0], 0, 0, nan); }
  STRUCTOPS_INLINE V final(const V* s, int64_t, const SpmmArgs&) { return s[0]; }
};

// With the winner's lane in s[1]. Where NaN propagates an untouched state is the worst value at lane 0: a row of nothing
// better is won by its first edge. Otherwise it is NaN at lane -1, which any number replaces. Earlier lanes win ties.
template <class A_, bool Max, int n = W<A_>> struct ArgOp {
  using A = A_; using V = Lanes<A, n>; using VI = Lanes<Int<A>, n>;
  static constexpr int C = 2, max_nv = 4;
  static constexpr bool has_arg = true, splits = false, real = __is_same(A, float) || __is_same(A, double);
  STRUCTOPS_INLINE void init(V* s, VI nan) {
    s[0] = V{} + (Max ? Lowest<A>::min : Lowest<A>::max);
    s[1] = V{};
    if constexpr (real) {
      s[0] = nan ? s[0] : V{} + A(NAN);
      s[1] = bitcast<V>(~nan);
    }
  }
  STRUCTOPS_INLINE VI better(const V* s, V m, VI nan) {
    VI t = ~(Max ? m <= s[0] : m >= s[0]);
    if constexpr (real) {
      const V taken = bitcast<V>((bitcast<VI>(s[0]) & nan) | (bitcast<VI>(m) & ~nan));  // whichever must not be NaN
      t &= taken == taken;
    }
    return t;
  }
  STRUCTOPS_INLINE void take(V* s, VI t, V m, VI lanes) {
    s[0] = t ? m : s[0];
    s[1] = bitcast<V>(t ? lanes : bitcast<VI>(s[1]));
  }
  STRUCTOPS_INLINE void step(V* s, V m, Int<A> lane, int64_t, VI nan) { take(s, better(s, m, nan), m, VI{} + lane); }
  STRUCTOPS_INLINE void merge(V* a, int64_t, const V* b, int64_t, VI nan) {
    take(a, better(a, b[0], nan), b[0], bitcast<VI>(b[1]));
  }
  STRUCTOPS_INLINE void join(V* a, const V* b, VI nan) {
    const VI tie = (a[0] == b[0]) | ((a[0] != a[0]) & (b[0] != b[0])), earlier = bitcast<VI>(b[1]) < bitcast<VI>(a[1]);
    take(a, better(a, b[0], nan) | (tie & earlier), b[0], bitcast<VI>(b[1]));
  }
  STRUCTOPS_INLINE V final(const V* s, int64_t, const SpmmArgs&) { return s[0]; }
};

// Running mean s[0] of the differences to the first message s[2], and centred second moment s[1]: a large offset common to the
// messages costs no digits.
template <class A_> struct MomentOp {
  using A = A_; using V = Vec<A>; using VI = Vec<Int<A>>;
  static constexpr int C = 3, max_nv = STRUCTOPS_VBYTES == 64 ? 4 : 2;
  static constexpr bool has_arg = false, splits = false;
  STRUCTOPS_INLINE void init(V* s, VI) { s[0] = s[1] = s[2] = V{}; }
  STRUCTOPS_INLINE void step(V* s, V m, Int<A>, int64_t count, VI) {
    pin(m);
    if (count == 1) s[2] = m;
    const V x = m - s[2], d = x - s[0];
    s[0] += d * (A(1) / A(count));
    s[1] += d * (x - s[0]);
  }
  STRUCTOPS_INLINE void merge(V* a, int64_t na, const V* b, int64_t nb, VI) {
    const V d = (b[2] - a[2]) + (b[0] - a[0]);
    const A n = A(na + nb);
    a[0] += d * (A(nb) / n);
    a[1] += b[1] + d * d * (A(na) * (A(nb) / n));
  }
  STRUCTOPS_INLINE V final(const V* s, int64_t n, const SpmmArgs& a) {
    const int64_t d = a.unbiased ? n - 1 : n;
    V r = s[1] / A(d < 1 ? 1 : d);
    if (a.reduce == Reduce::std)
      for (int i = 0; i < W<A>; ++i) r[i] = sizeof(A) == 4 ? A(__builtin_sqrtf(r[i])) : A(__builtin_sqrt(r[i]));
    return r;
  }
};

// Running maximum s[0] and sum s[1] of exp(m - s[0]).
template <class A_> struct LseOp {
  using A = A_; using V = Vec<A>; using VI = Vec<Int<A>>;
  static constexpr int C = 2, max_nv = 2;
  static constexpr bool has_arg = false, splits = false;
  STRUCTOPS_INLINE void init(V* s, VI) { s[0] = splat(A(-INFINITY)); s[1] = V{}; }
  STRUCTOPS_INLINE void add(V* s, V m, V weight) {
    const VI rises = m > s[0], same = m == s[0];
    const V d = rises ? s[0] - m : m - s[0];
    const V e = same ? splat(A(1)) : vexp<A>(d);
    s[1] = rises ? s[1] * e + weight : s[1] + weight * e;
    s[0] = rises ? m : s[0];
  }
  STRUCTOPS_INLINE void step(V* s, V m, Int<A>, int64_t, VI) { pin(m); add(s, m, splat(A(1))); }
  STRUCTOPS_INLINE void merge(V* a, int64_t, const V* b, int64_t, VI) { add(a, b[0], b[1]); }
  STRUCTOPS_INLINE V final(const V* s, int64_t, const SpmmArgs&) { return s[0] + vlog<A>(s[1]); }
};

}  // namespace structops::STRUCTOPS_ISA
