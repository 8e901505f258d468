// Lanes of numbers for code with one source for the CPU and for CUDA: here a vector of one instruction set and one thread for each
// sentence; in lanes.cuh a warp and one block.
#pragma once
#if defined(__CUDACC__) || defined(STRUCTOPS_CUDA_SOURCE)
#include "tree/lanes.cuh"
#else
#include "tree/chart_outside.h"  // loads and stores, checked scores, scaled numbers

#define STRUCTOPS_MEMBER [[gnu::always_inline]] inline
#define STRUCTOPS_CONSTANT constexpr  // functions that host and device code call
#define STRUCTOPS_UNROLL _Pragma("GCC unroll 4")

namespace structops::STRUCTOPS_ISA {

struct Team {  // who shares the work on one sentence: this thread alone
  static constexpr int warp = 0, warps = 1, thread = 0, threads = 1;
  [[gnu::always_inline]] static void sync() {}
  [[gnu::always_inline]] static bool any(bool mine) { return mine; }
};

STRUCTOPS_INLINE bool first_lane() { return true; }
STRUCTOPS_INLINE int first_of_lanes() { return 0; }  // loops that take a lane at a time: every lane, or this thread's
STRUCTOPS_INLINE int step_of_lanes() { return 1; }
template <class V> STRUCTOPS_INLINE auto lane_zero(V v) { return v[0]; }

template <class V, class X> STRUCTOPS_INLINE void lane_set(V& v, int lane, X x) { v[lane] = x; }
template <class A, class F> STRUCTOPS_INLINE void each_lane(int count, F f) {  // f(lane) for the lanes below count
  for (int l = 0; l < W<A> && l < count; ++l) f(l);
}
template <class A> STRUCTOPS_INLINE bool any_lane(Vec<Int<A>> mask) { return any<A>(mask); }
STRUCTOPS_INLINE void lane_fence() {}  // what the lanes wrote, all of them see
STRUCTOPS_INLINE int own_lane() { return 0; }

template <class A> STRUCTOPS_INLINE void max_to(A* p, Vec<A> x) {
  const Vec<A> y = load(p);
  store(p, x > y ? x : y);
}
template <class A> STRUCTOPS_INLINE Vec<Int<A>> lane_numbers() {
  Vec<Int<A>> n{};
  for (int l = 0; l < W<A>; ++l) n[l] = l;
  return n;
}

}  // namespace structops::STRUCTOPS_ISA
#endif

namespace structops::STRUCTOPS_ISA {

// A score of a best chart. What is wrong with it is remembered.
template <class A> STRUCTOPS_INLINE Vec<A> checked_score(Vec<A> x, Found<A>& found) {
  const Vec<Int<A>> invalid = (x != x) | (x == A(INFINITY));
  found.invalid |= invalid;
  return invalid ? splat(A(-INFINITY)) : x;
}

}  // namespace structops::STRUCTOPS_ISA
