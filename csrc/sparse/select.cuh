// CUDA select: device code. The contract is select.h; select_bwd is put together in select_cuda.cu.
#pragma once
#include "core/cuda/device.cuh"

namespace structops::cuda {

// W: an unsigned type as wide as an element. A thread owns V consecutive outputs: one division for all of them.
template <class W>
__global__ void select_rows(const W* src, IndexRef idx, W* out, int64_t total, int64_t N, int64_t M, int64_t F) {
  constexpr int V = 4;
  const int64_t stride = int64_t(gridDim.x) * blockDim.x * V;
  for (int64_t i = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * V; i < total; i += stride) {
    const bool narrow = total >> 32 == 0;  // the same for all threads: 32-bit division where it suffices
    const int64_t row = narrow ? unsigned(i) / unsigned(F) : i / F;
    int64_t f = i - row * F, batch = narrow ? unsigned(row) / unsigned(N) : row / N, n = row - batch * N;
    W r[V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      r[v] = 0;
      if (i + v < total) {
        const int64_t m = idx.at(i + v);
        if (m >= 0 && m < M) r[v] = __ldg(src + (batch * M + m) * F + f);
      }
      if (++f == F) {
        f = 0;
        if (++n == N) { n = 0; ++batch; }
      }
    }
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (i + v < total) out[i + v] = r[v];
  }
}

// key[i] = the element of out [B, M, F] that grad element i adds to, or B*M*F where idx points outside.
template <class K>
__global__ void select_targets(IndexRef idx, K* key, int64_t total, int64_t N, int64_t M, int64_t F) {
  const int64_t outputs = total / N * M;
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += stride) {
    const int64_t m = idx.at(i), row = i / F, f = i - row * F, batch = row / N;
    key[i] = K(m >= 0 && m < M ? (batch * M + m) * F + f : outputs);
  }
}

}  // namespace structops::cuda
