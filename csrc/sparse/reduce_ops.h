// Reducers of spmm over vectors. A reducer keeps C component vectors per output vector:
//   init(s); step(s, m, lane, count, nan) adds message m, the `lane`-th edge of its row and `count`-th (from 1) of this
//   partial state; merge(a, na, b, nb, nan) appends the later partial b of nb edges; final(s, n, unbiased) gives the value.
// `nan` is all-ones where NaN propagates, zero where comparisons with NaN are false.
#pragma once
#include "core/vmath.h"

namespace structops::STRUCTOPS_ISA {

template <class A_> struct SumOp {
  using A = A_; using V = Vec<A>; using VI = Vec<Int<A>>;
  static constexpr int C = 1, max_nv = 8;
  static constexpr bool has_arg = false, splits = true;  // splits: worth several states per output vector
  STRUCTOPS_INLINE void init(V* s) { s[0] = V{}; }
  STRUCTOPS_INLINE void step(V* s, V m, Int<A>, int64_t, VI) { s[0] += m; }
  STRUCTOPS_INLINE void merge(V* a, int64_t, const V* b, int64_t, VI) { a[0] += b[0]; }
  STRUCTOPS_INLINE V final(const V* s, int64_t, bool) { return s[0]; }
};

template <class A> struct MeanOp : SumOp<A> {
  STRUCTOPS_INLINE Vec<A> final(const Vec<A>* s, int64_t n, bool) { return s[0] / A(n); }
};

template <class A_> struct ProdOp {
  using A = A_; using V = Vec<A>; using VI = Vec<Int<A>>;
  static constexpr int C = 1, max_nv = 4;
  static constexpr bool has_arg = false, splits = false;
  STRUCTOPS_INLINE void init(V* s) { s[0] = splat(A(1)); }
  STRUCTOPS_INLINE void step(V* s, V m, Int<A>, int64_t, VI) { s[0] *= m; }
  STRUCTOPS_INLINE void merge(V* a, int64_t, const V* b, int64_t, VI) { a[0] *= b[0]; }
  STRUCTOPS_INLINE V final(const V* s, int64_t, bool) { return s[0]; }
};

template <class A> struct Lowest;
template <> struct Lowest<float> { static constexpr float max = INFINITY, min = -INFINITY; };
template <> struct Lowest<double> { static constexpr double max = INFINITY, min = -INFINITY; };
template <> struct Lowest<int32_t> { static constexpr int32_t max = INT32_MAX, min = INT32_MIN; };
template <> struct Lowest<int64_t> { static constexpr int64_t max = INT64_MAX, min = INT64_MIN; };

template <class A_, bool Max> struct ExtremeOp {
  using A = A_; using V = Vec<A>; using VI = Vec<Int<A>>;
  static constexpr int C = 1, max_nv = 8;
  static constexpr bool has_arg = false, splits = false;
  STRUCTOPS_INLINE VI better(V m, V v) { return Max ? m > v : m < v; }
  STRUCTOPS_INLINE void init(V* s) { s[0] = splat(Max ? Lowest<A>::min : Lowest<A>::max); }
  STRUCTOPS_INLINE void step(V* s, V m, Int<A>, int64_t, VI) { s[0] = better(m, s[0]) | (m != m) ? m : s[0]; }
  STRUCTOPS_INLINE void merge(V* a, int64_t, const V* b, int64_t, VI nan) { step(a, b[0], 0, 0, nan); }
  STRUCTOPS_INLINE V final(const V* s, int64_t, bool) { return s[0]; }
};

// With the winner's lane in s[1]; -1 while nothing was taken. Earlier lanes win ties.
template <class A_, bool Max> struct ArgOp {
  using A = A_; using V = Vec<A>; using VI = Vec<Int<A>>;
  static constexpr int C = 2, max_nv = 4;
  static constexpr bool has_arg = true, splits = false;
  STRUCTOPS_INLINE VI take(V m, VI m_lane, V v, VI v_lane, VI nan) {
    const VI is_nan = m != m;
    const VI wins = (Max ? m > v : m < v) | ((v_lane < 0) & ~is_nan) | (is_nan & (v == v) & nan);
    return wins & (m_lane >= 0);
  }
  STRUCTOPS_INLINE void init(V* s) {
    s[0] = splat(Max ? Lowest<A>::min : Lowest<A>::max);
    s[1] = bitcast<V>(splat(Int<A>(-1)));
  }
  STRUCTOPS_INLINE void step_lanes(V* s, V m, VI lanes, VI nan) {
    const VI old = bitcast<VI>(s[1]), t = take(m, lanes, s[0], old, nan);
    s[0] = t ? m : s[0];
    s[1] = bitcast<V>(t ? lanes : old);
  }
  STRUCTOPS_INLINE void step(V* s, V m, Int<A> lane, int64_t, VI nan) { step_lanes(s, m, splat(lane), nan); }
  STRUCTOPS_INLINE void merge(V* a, int64_t, const V* b, int64_t, VI nan) { step_lanes(a, b[0], bitcast<VI>(b[1]), nan); }
  STRUCTOPS_INLINE V final(const V* s, int64_t, bool) { return s[0]; }
};

// Running mean s[0] and centred second moment s[1].
template <class A_, bool Root> struct MomentOp {
  using A = A_; using V = Vec<A>; using VI = Vec<Int<A>>;
  static constexpr int C = 2, max_nv = 4;
  static constexpr bool has_arg = false, splits = false;
  STRUCTOPS_INLINE void init(V* s) { s[0] = s[1] = V{}; }
  STRUCTOPS_INLINE void step(V* s, V m, Int<A>, int64_t count, VI) {
    pin(m);
    const V d = m - s[0];
    s[0] += d * (A(1) / A(count));
    s[1] += d * (m - s[0]);
  }
  STRUCTOPS_INLINE void merge(V* a, int64_t na, const V* b, int64_t nb, VI) {
    const V d = b[0] - a[0];
    const A n = A(na + nb);
    a[0] += d * (A(nb) / n);
    a[1] += b[1] + d * d * (A(na) * (A(nb) / n));
  }
  STRUCTOPS_INLINE V final(const V* s, int64_t n, bool unbiased) {
    const int64_t d = unbiased ? n - 1 : n;
    V r = s[1] / A(d < 1 ? 1 : d);
    if (Root)
      for (int i = 0; i < W<A>; ++i) r[i] = sizeof(A) == 4 ? A(__builtin_sqrtf(r[i])) : A(__builtin_sqrt(r[i]));
    return r;
  }
};

// Running maximum s[0] and sum s[1] of exp(m - s[0]).
template <class A_> struct LseOp {
  using A = A_; using V = Vec<A>; using VI = Vec<Int<A>>;
  static constexpr int C = 2, max_nv = 2;
  static constexpr bool has_arg = false, splits = false;
  STRUCTOPS_INLINE void init(V* s) { s[0] = splat(A(-INFINITY)); s[1] = V{}; }
  STRUCTOPS_INLINE void add(V* s, V m, V weight) {
    const VI rises = m > s[0], same = m == s[0];
    const V d = rises ? s[0] - m : m - s[0];
    const V e = same ? splat(A(1)) : vexp<A>(d);
    s[1] = rises ? s[1] * e + weight : s[1] + weight * e;
    s[0] = rises ? m : s[0];
  }
  STRUCTOPS_INLINE void step(V* s, V m, Int<A>, int64_t, VI) { pin(m); add(s, m, splat(A(1))); }
  STRUCTOPS_INLINE void merge(V* a, int64_t, const V* b, int64_t, VI) { add(a, b[0], b[1]); }
  STRUCTOPS_INLINE V final(const V* s, int64_t, bool) { return s[0] + vlog<A>(s[1]); }
};

}  // namespace structops::STRUCTOPS_ISA
