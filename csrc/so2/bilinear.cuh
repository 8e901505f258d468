// CUDA sparse bilinear maps: a thread owns a row and channel, or a component and channel of a total. The contract is bilinear.h.
#pragma once
#include "core/cuda/device.cuh"
#include "so2/bilinear.h"

namespace structops::cuda {

struct BilinearParams {
  int64_t N, C, a_row, b_row, out_row;  // numbers between rows; 0: one row for all
  int64_t a_channel, b_channel, out_channel, a_component, b_component, out_component;
  int R;
  const int32_t *row_ptr, *pairs, *b_list;
  const double* coef;
  const void *a, *b;
  void* out;
};

// Component r of the product of one row and channel.
template <class T> STRUCTOPS_DEVICE Acc<T> bilinear_sum(const BilinearParams& p, const T* a, const T* b, int r) {
  using A = Acc<T>;
  A sum = 0;
  const int begin = p.row_ptr[r], end = p.row_ptr[r + 1];
  int t = begin > 0 ? p.pairs[2 * begin - 1] : 0;
  for (int q = begin; q < end; ++q) {
    A s = 0;
    for (const int stop = p.pairs[2 * q + 1]; t < stop; ++t) s += A(p.coef[t]) * widen(b[p.b_list[t] * p.b_component]);
    sum += s * widen(a[p.pairs[2 * q] * p.a_component]);
  }
  return sum;
}

template <class T> __global__ void __launch_bounds__(128) bilinear_kernel(const BilinearParams p) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t job = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; job < p.N * p.C; job += stride) {
    const int64_t n = job / p.C, c = job % p.C;
    const T* const a = static_cast<const T*>(p.a) + n * p.a_row + c * p.a_channel;
    const T* const b = static_cast<const T*>(p.b) + n * p.b_row + c * p.b_channel;
    T* const out = static_cast<T*>(p.out) + n * p.out_row + c * p.out_channel;
    for (int r = 0; r < p.R; ++r) out[r * p.out_component] = Narrow<T>::to(bilinear_sum<T>(p, a, b, r));
  }
}

template <class T> __global__ void __launch_bounds__(128) bilinear_total_kernel(const BilinearParams p) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t job = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; job < p.R * p.C; job += stride) {
    const int64_t r = job / p.C, c = job % p.C;
    const T* const a = static_cast<const T*>(p.a) + c * p.a_channel;
    const T* const b = static_cast<const T*>(p.b) + c * p.b_channel;
    Acc<T> sum = 0;
    for (int64_t n = 0; n < p.N; ++n) sum += bilinear_sum<T>(p, a + n * p.a_row, b + n * p.b_row, int(r));
    static_cast<T*>(p.out)[r * p.out_component + c * p.out_channel] = Narrow<T>::to(sum);
  }
}

}  // namespace structops::cuda
