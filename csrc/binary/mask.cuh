// CUDA masks: device code. The contract is mask.h. Digits of 8 bits, most significant first; counts are integers, so that their
// atomics have one result. Ties are numbered by a scan over blocks.
#pragma once
#include "binary/mask.h"
#include "core/cuda/device.cuh"

namespace structops::cuda {

constexpr int kMaskThreads = 256;
constexpr int64_t kMaskBlock = 8 * kMaskThreads;  // scores of a block, eight a thread

struct SelectState { unsigned long long prefix, known; long long left; };

template <class T> STRUCTOPS_DEVICE unsigned long long key_of(T score, bool magnitude) {
  using A = Acc<T>;
  const A v = widen(score);
  if (v != v) return 0;
  const A w = v == A(0) ? A(0) : v;
  if constexpr (sizeof(A) == 4) {
    const unsigned u = __float_as_uint(w);
    return magnitude ? (unsigned long long)(u & 0x7fffffffu) + 1 : (unsigned long long)(u >> 31 ? ~u : u | 0x80000000u);
  } else {
    const unsigned long long u = (unsigned long long)__double_as_longlong(w);
    return magnitude ? (u & 0x7fffffffffffffffull) + 1 : (u >> 63 ? ~u : u | 0x8000000000000000ull);
  }
}

template <class T> __global__ void __launch_bounds__(kMaskThreads)
mask_histogram(const TopkMaskArgs a, const SelectState* state, int shift, unsigned long long* hist) {
  __shared__ unsigned count[256];
  count[threadIdx.x] = 0;
  __syncthreads();
  const T* const score = static_cast<const T*>(a.score);
  const SelectState s = *state;
  for (int64_t i = int64_t(blockIdx.x) * kMaskThreads + threadIdx.x; i < a.n; i += int64_t(gridDim.x) * kMaskThreads) {
    const unsigned long long key = key_of(score[i], a.magnitude);
    if ((key & s.known) == s.prefix) atomicAdd(&count[key >> shift & 255], 1u);
  }
  __syncthreads();
  if (count[threadIdx.x]) atomicAdd(&hist[threadIdx.x], (unsigned long long)(count[threadIdx.x]));
}

__global__ void mask_pick(SelectState* state, int shift, unsigned long long* hist) {
  if (threadIdx.x || blockIdx.x) return;
  if (state->left > 0) {
    int bin = 255;
    for (; bin > 0 && (long long)(hist[bin]) < state->left; --bin) state->left -= (long long)(hist[bin]);
    state->prefix |= (unsigned long long)(bin) << shift;
    state->known |= 255ull << shift;
  }
  for (int i = 0; i < 256; ++i) hist[i] = 0;
}

__global__ void mask_start(SelectState* state, long long keep, unsigned long long* hist) {
  if (threadIdx.x == 0 && blockIdx.x == 0) {
    *state = {0, 0, keep};
    for (int i = 0; i < 256; ++i) hist[i] = 0;
  }
}

// How many of a thread's eight scores tie, and their keys.
template <class T> STRUCTOPS_DEVICE int thread_ties(const TopkMaskArgs& a, unsigned long long prefix, int64_t at, unsigned long long (&key)[8]) {
  int ties = 0;
  for (int k = 0; k < 8; ++k) {
    key[k] = at + k < a.n ? key_of(static_cast<const T*>(a.score)[at + k], a.magnitude) : 0;
    ties += at + k < a.n && key[k] == prefix;
  }
  return ties;
}

template <class T> __global__ void __launch_bounds__(kMaskThreads) mask_ties(const TopkMaskArgs a, const SelectState* state, long long* ties) {
  __shared__ int total;
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  unsigned long long key[8];
  atomicAdd(&total, thread_ties<T>(a, state->prefix, int64_t(blockIdx.x) * kMaskBlock + 8 * int64_t(threadIdx.x), key));
  __syncthreads();
  if (threadIdx.x == 0) ties[blockIdx.x] = total;
}

__global__ void mask_scan(long long* ties, int64_t blocks) {
  if (threadIdx.x || blockIdx.x) return;
  long long sum = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    const long long t = ties[b];
    ties[b] = sum;
    sum += t;
  }
}

template <class T> __global__ void __launch_bounds__(kMaskThreads) mask_emit(const TopkMaskArgs a, const SelectState* state, const long long* ties) {
  __shared__ int before[kMaskThreads];
  const SelectState s = *state;
  const int64_t at = int64_t(blockIdx.x) * kMaskBlock + 8 * int64_t(threadIdx.x);
  unsigned long long key[8];
  before[threadIdx.x] = thread_ties<T>(a, s.prefix, at, key);
  __syncthreads();
  if (threadIdx.x == 0) {
    int sum = 0;
    for (int t = 0; t < kMaskThreads; ++t) {
      const int n = before[t];
      before[t] = sum;
      sum += n;
    }
  }
  __syncthreads();
  long long seen = ties[blockIdx.x] + before[threadIdx.x];
  unsigned byte = 0;
  for (int k = 0; k < 8 && at + k < a.n; ++k) {
    const bool tie = key[k] == s.prefix;
    byte |= unsigned(a.keep > 0 && (key[k] > s.prefix || (tie && seen < s.left))) << k;
    seen += tie;
  }
  if (at < a.n) a.bits[at / 8] = uint8_t(byte);
}

template <class T> __global__ void __launch_bounds__(kMaskThreads) mask_apply_elements(const MaskApplyArgs a) {
  using A = Acc<T>;
  for (int64_t i = int64_t(blockIdx.x) * kMaskThreads + threadIdx.x; i < a.n; i += int64_t(gridDim.x) * kMaskThreads) {
    const A v = widen(static_cast<const T*>(a.x)[i]);
    static_cast<T*>(a.out)[i] = Narrow<T>::to(a.bits[i / 8] >> (i % 8) & 1 ? v : A(0));
  }
}

}  // namespace structops::cuda
