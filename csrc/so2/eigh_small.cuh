// CUDA eigen-decomposition and its derivative: a thread per matrix. The contract is eigh_small.h.
#pragma once
#include "so2/eigh_small.h"
#include "so2/jacobi.h"

namespace structops::cuda {

constexpr int kEighThreads = 128;

template <int n, class A>
__global__ void __launch_bounds__(kEighThreads) eigh_small_kernel(int64_t B, const A* in, A* out_w, A* out_v) {
  for (int64_t b = blockIdx.x * int64_t(kEighThreads) + threadIdx.x; b < B; b += int64_t(gridDim.x) * kEighThreads) {
    A a[n][n], w[n], v[n][n];
#pragma unroll
    for (int i = 0; i < n; ++i)
#pragma unroll
      for (int j = i; j < n; ++j) a[i][j] = in[(b * n + i) * n + j] * A(0.5) + in[(b * n + j) * n + i] * A(0.5);
    eigh_small<n>(a, w, v);
#pragma unroll
    for (int i = 0; i < n; ++i) {
      out_w[b * n + i] = w[i];
#pragma unroll
      for (int j = 0; j < n; ++j) out_v[(b * n + i) * n + j] = v[i][j];
    }
  }
}

template <int n, class A>
__global__ void __launch_bounds__(kEighThreads)
  eigh_small_bwd_kernel(int64_t B, const A* in_w, const A* in_v, const A* in_gw, const A* in_gv, A* out) {
  for (int64_t b = blockIdx.x * int64_t(kEighThreads) + threadIdx.x; b < B; b += int64_t(gridDim.x) * kEighThreads) {
    A w[n], v[n][n], gw[n], gv[n][n], ga[n][n];
#pragma unroll
    for (int i = 0; i < n; ++i) {
      w[i] = in_w[b * n + i];
      gw[i] = in_gw ? in_gw[b * n + i] : A(0);
#pragma unroll
      for (int j = 0; j < n; ++j) {
        v[i][j] = in_v[(b * n + i) * n + j];
        gv[i][j] = in_gv ? in_gv[(b * n + i) * n + j] : A(0);
      }
    }
    eigh_gradient<n>(w, v, gw, gv, in_gv != nullptr, ga);
#pragma unroll
    for (int i = 0; i < n; ++i)
#pragma unroll
      for (int j = 0; j < n; ++j) out[(b * n + i) * n + j] = i < j ? ga[i][j] : ga[j][i];
  }
}

}  // namespace structops::cuda
