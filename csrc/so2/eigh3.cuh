// CUDA eigen-decomposition: a thread per matrix. The contract is eigh3.h.
#pragma once
#include "so2/eigh3.h"
#include "so2/jacobi.h"

namespace structops::cuda {

constexpr int kEighThreads = 128;

template <int n, class A>
__global__ void __launch_bounds__(kEighThreads) eigh3_kernel(int64_t B, const A* in, A* out_w, A* out_v) {
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

}  // namespace structops::cuda
