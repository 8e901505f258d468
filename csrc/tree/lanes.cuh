// The lanes of tree/lanes.h for device code: a vector is one number of each thread of a warp, so that Vec<A> is A and a mask is 0 or
// not. The warps of a block share the work on one sentence.
#pragma once
#include "tree/scaled.cuh"

#define STRUCTOPS_ISA cuda
#define STRUCTOPS_INLINE STRUCTOPS_DEVICE
#define STRUCTOPS_MEMBER STRUCTOPS_DEVICE
#define STRUCTOPS_CONSTANT __host__ __device__ constexpr
#define STRUCTOPS_UNROLL _Pragma("unroll")

namespace structops::cuda {

template <class A> constexpr int W = 32;

STRUCTOPS_DEVICE int lane_id() { return threadIdx.x & 31; }
STRUCTOPS_DEVICE bool first_lane() { return lane_id() == 0; }
STRUCTOPS_DEVICE int first_of_lanes() { return lane_id(); }
STRUCTOPS_DEVICE int step_of_lanes() { return 32; }
template <class V, class X> STRUCTOPS_DEVICE void lane_set(V& v, int, X x) { v = x; }
template <class A, class F> STRUCTOPS_DEVICE void each_lane(int count, F f) {
  if (lane_id() < count) f(lane_id());
}
template <class A> STRUCTOPS_DEVICE bool any_lane(Int<A> mask) { return __any_sync(kFull, mask != 0) != 0; }
STRUCTOPS_DEVICE void lane_fence() { __syncwarp(); }
STRUCTOPS_DEVICE int own_lane() { return lane_id(); }
template <class V> STRUCTOPS_DEVICE V lane_zero(V v) { return v; }  // of numbers that are equal in all lanes
template <class A> STRUCTOPS_DEVICE Int<A> lane_numbers() { return lane_id(); }
template <class A> STRUCTOPS_DEVICE bool any(Int<A> mask) { return mask != 0; }  // this thread's

template <class A> STRUCTOPS_DEVICE A load(const A* p) { return p[lane_id()]; }
template <class A> STRUCTOPS_DEVICE void store(A* p, A x) { p[lane_id()] = x; }
// Other warps may own the lanes that do not change.
template <class A> STRUCTOPS_DEVICE void add_to(A* p, A x) {
  if (x != A(0)) p[lane_id()] += x;
}
template <class A> STRUCTOPS_DEVICE void max_to(A* p, A x) {
  if (x > p[lane_id()]) p[lane_id()] = x;
}
template <class A, class T> STRUCTOPS_DEVICE A load_as(const T* p, int n) {
  return lane_id() < n ? A(widen(p[lane_id()])) : A(0);
}
template <class T, class A> STRUCTOPS_DEVICE void narrow_to(T* p, A x) { *p = Narrow<T>::to(Acc<T>(x)); }
template <class A, class T> STRUCTOPS_DEVICE void store_as(T* p, A x, int n) {
  if (lane_id() < n) narrow_to(p + lane_id(), x);
}

template <class A> STRUCTOPS_DEVICE A hsum(A x) {  // in every lane, in a fixed order
#pragma unroll
  for (int w = 16; w >= 1; w /= 2) x += __shfl_xor_sync(kFull, x, w);
  return x;
}
template <class A> STRUCTOPS_DEVICE A hmax(A x) {
#pragma unroll
  for (int w = 16; w >= 1; w /= 2) {
    const A y = __shfl_xor_sync(kFull, x, w);
    x = y > x ? y : x;
  }
  return x;
}

template <class A> struct Found {
  Int<A> invalid = 0, wide = 0;
};
template <class A> STRUCTOPS_DEVICE A sanitise(A x, Found<A>& found) {
  constexpr A most = ScaledConst<A>::max_score;
  const A infinite = Limits<A>::high();
  if (x != x || x == infinite) {
    found.invalid = 1;
    return -infinite;
  }
  if ((x > most || x < -most) && x != -infinite) {
    found.wide = 1;
    return x > A(0) ? most : -most;
  }
  return x;
}

struct Team {  // the warps of a block
  int warp, warps, thread, threads;
  STRUCTOPS_DEVICE Team() : warp(threadIdx.x >> 5), warps(blockDim.x >> 5), thread(threadIdx.x), threads(blockDim.x) {}
  STRUCTOPS_DEVICE void sync() const { __syncthreads(); }
  STRUCTOPS_DEVICE bool any(bool mine) const { return __syncthreads_or(mine) != 0; }
};

}  // namespace structops::cuda
