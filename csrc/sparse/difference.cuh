// CUDA powers of differences: device code. The contract is difference.h. Rows: a thread per (v, f), in order of k. Edges: a warp
// per edge, lanes over features, merged by a fixed tree. No atomics.
#pragma once
#include "core/cuda/device.cuh"

namespace structops::cuda {

constexpr int kDifferenceThreads = 256;

struct DifferenceParams {
  const void *x, *y, *weight, *hu, *hv;
  void* out;
  IndexRef rowptr, col, eid;
  int64_t N, E, F;
  double power;
  int odd;
};

template <class A> struct Smallest;
template <> struct Smallest<float> { static STRUCTOPS_DEVICE float value() { return 1.17549435e-38f; } };
template <> struct Smallest<double> { static STRUCTOPS_DEVICE double value() { return 2.2250738585072014e-308; } };

template <class A> STRUCTOPS_DEVICE A difference_term(A d, double power, int odd) {
  if (d != d) return d;
  const A size = d < 0 ? -d : d;
  A t;
  if (power == 0) t = odd && d == 0 ? A(0) : A(1);
  else if (power == 1) t = size;
  else if (power == 2) t = size * size;
  else t = size < Smallest<A>::value() ? A(0) : A(exp(A(power) * log(size)));
  return odd && d < 0 ? -t : t;
}

template <class T> __global__ void __launch_bounds__(kDifferenceThreads) difference_by_row(const DifferenceParams p) {
  using A = Acc<T>;
  const int64_t total = p.N * p.F;
  for (int64_t n = int64_t(blockIdx.x) * kDifferenceThreads + threadIdx.x; n < total; n += int64_t(gridDim.x) * kDifferenceThreads) {
    const int64_t f = n % p.F, v = n / p.F;
    const A y = widen(static_cast<const T*>(p.y)[n]);
    A sum = 0;
    for (int64_t k = p.rowptr.at(v), end = p.rowptr.at(v + 1); k < end; ++k) {
      const int64_t at = (p.col.data ? p.col.at(k) : k) * p.F + f;
      A m = difference_term<A>(y - widen(static_cast<const T*>(p.x)[at]), p.power, p.odd);
      if (p.weight) m *= widen(static_cast<const T*>(p.weight)[p.eid.data ? p.eid.at(k) : k]);
      if (p.hu) m *= widen(static_cast<const T*>(p.hu)[at]);
      sum += m;
    }
    static_cast<T*>(p.out)[n] = Narrow<T>::to(sum);
  }
}

template <class T> __global__ void __launch_bounds__(kDifferenceThreads) difference_by_edge(const DifferenceParams p) {
  using A = Acc<T>;
  const int lane = threadIdx.x & 31;
  const int64_t warps = int64_t(gridDim.x) * (kDifferenceThreads / 32);
  for (int64_t k = int64_t(blockIdx.x) * (kDifferenceThreads / 32) + threadIdx.x / 32; k < p.E; k += warps) {
    int64_t lo = 0, hi = p.N;  // the last row that begins at or before k
    while (hi - lo > 1) {
      const int64_t mid = (lo + hi) / 2;
      if (p.rowptr.at(mid) <= k) lo = mid; else hi = mid;
    }
    const int64_t u = p.col.data ? p.col.at(k) : k;
    A sum = 0;
    for (int64_t f = lane; f < p.F; f += 32) {
      A m = difference_term<A>(widen(static_cast<const T*>(p.y)[lo * p.F + f]) - widen(static_cast<const T*>(p.x)[u * p.F + f]), p.power, p.odd);
      if (p.hv) m *= widen(static_cast<const T*>(p.hv)[lo * p.F + f]);
      if (p.hu) m *= widen(static_cast<const T*>(p.hu)[u * p.F + f]);
      sum += m;
    }
    for (int delta = 16; delta > 0; delta /= 2) sum += __shfl_down_sync(kFull, sum, delta);
    if (lane == 0) static_cast<T*>(p.out)[p.eid.data ? p.eid.at(k) : k] = Narrow<T>::to(sum);
  }
}

}  // namespace structops::cuda
