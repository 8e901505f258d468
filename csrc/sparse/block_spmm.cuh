// CUDA block-sparse products: device code. The contract is block_spmm.h. Every output element is one thread's, which sums in
// the order of the contract: nothing is shared, and no atomics are needed.
#pragma once
#include "core/cuda/device.cuh"

namespace structops::cuda {

constexpr int kBlockThreads = 256;

struct BlockParams {
  const void *a, *b, *diag;
  void* out;
  IndexRef rowptr, col, eid, pair;
  int64_t N, Nu, E, p, q, r;  // r: features, or the inner dimension of block_matmul
  double alpha;
  int transpose, batch_first, pair_a, pair_b, transpose_a, transpose_b;
};

// Thread (v, i, f), or (f, v, i) with the batch first: in the order of the result.
template <class T> __global__ void __launch_bounds__(kBlockThreads) block_product(const BlockParams p) {
  using A = Acc<T>;
  const int64_t si = p.transpose ? 1 : p.q, sj = p.transpose ? p.p : 1, rows = p.N * p.p, total = rows * p.r;
  const int64_t step = p.batch_first ? 1 : p.r;
  for (int64_t n = int64_t(blockIdx.x) * kBlockThreads + threadIdx.x; n < total; n += int64_t(gridDim.x) * kBlockThreads) {
    const int64_t row = p.batch_first ? n % rows : n / p.r, i = row % p.p, v = row / p.p;
    const T* const from = static_cast<const T*>(p.a) + (p.batch_first ? n / rows * p.Nu * p.q : n % p.r);
    const auto dot = [&](const void* blocks, int64_t j, int64_t u) {
      const T* const m = static_cast<const T*>(blocks) + j * p.p * p.q + i * si;
      const T* const x = from + u * p.q * step;
      A sum = 0;
      for (int64_t c = 0; c < p.q; ++c) sum += widen(m[c * sj]) * widen(x[c * step]);
      return sum;
    };
    A sum = 0;
    for (int64_t k = p.rowptr.at(v), end = p.rowptr.at(v + 1); k < end; ++k)
      sum += dot(p.b, p.eid.data ? p.eid.at(k) : k, p.col.data ? p.col.at(k) : k);
    sum *= A(p.alpha);
    if (p.diag) sum += dot(p.diag, v, v);
    static_cast<T*>(p.out)[n] = Narrow<T>::to(sum);
  }
}

// Thread (k, i, j); the row of edge k by binary search.
template <class T> __global__ void __launch_bounds__(kBlockThreads) block_outer(const BlockParams p) {
  using A = Acc<T>;
  const int64_t size = p.p * p.q, total = p.E * size;
  for (int64_t n = int64_t(blockIdx.x) * kBlockThreads + threadIdx.x; n < total; n += int64_t(gridDim.x) * kBlockThreads) {
    const int64_t j = n % p.q, i = n / p.q % p.p, k = n / size;
    int64_t lo = 0, hi = p.N;  // the last row that begins at or before k
    while (hi - lo > 1) {
      const int64_t mid = (lo + hi) / 2;
      if (p.rowptr.at(mid) <= k) lo = mid; else hi = mid;
    }
    const int64_t u = p.col.data ? p.col.at(k) : k, e = p.eid.data ? p.eid.at(k) : k;
    const int64_t at = p.batch_first ? 1 : p.r, step_l = p.batch_first ? p.N * p.p : 1, step_r = p.batch_first ? p.Nu * p.q : 1;
    const T* const l = static_cast<const T*>(p.a) + (lo * p.p + i) * at;
    const T* const r = static_cast<const T*>(p.b) + (u * p.q + j) * at;
    A sum = 0;
    for (int64_t f = 0; f < p.r; ++f) sum += widen(l[f * step_l]) * widen(r[f * step_r]);
    static_cast<T*>(p.out)[e * size + (p.transpose ? j * p.p + i : i * p.q + j)] = Narrow<T>::to(A(p.alpha) * sum);
  }
}

// Thread (k, i, j).
template <class T> __global__ void __launch_bounds__(kBlockThreads) block_small(const BlockParams p) {
  using A = Acc<T>;
  const int64_t size = p.p * p.q, total = p.E * size;
  const int64_t ai = p.transpose_a ? 1 : p.r, ar = p.transpose_a ? p.p : 1, br = p.transpose_b ? 1 : p.q, bj = p.transpose_b ? p.r : 1;
  for (int64_t n = int64_t(blockIdx.x) * kBlockThreads + threadIdx.x; n < total; n += int64_t(gridDim.x) * kBlockThreads) {
    const int64_t j = n % p.q, i = n / p.q % p.p, k = n / size, other = p.pair.data ? p.pair.at(k) : k;
    const T* const x = static_cast<const T*>(p.a) + (p.pair_a ? other : k) * p.p * p.r + i * ai;
    const T* const y = static_cast<const T*>(p.b) + (p.pair_b ? other : k) * p.r * p.q + j * bj;
    A sum = 0;
    for (int64_t c = 0; c < p.r; ++c) sum += widen(x[c * ar]) * widen(y[c * br]);
    static_cast<T*>(p.out)[n] = Narrow<T>::to(sum);
  }
}

}  // namespace structops::cuda
