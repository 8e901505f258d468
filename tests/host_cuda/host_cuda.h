// The CUDA language for a C++ compiler: included ahead of every *_cuda.cu in builds with STRUCTOPS_CUDA=HOST, where the CUDA kernels
// run on the CPU, each thread as a fiber, so that they can be tested without a GPU. See README.md in this folder.
#pragma once
#define STRUCTOPS_CUDA_SOURCE  // as __CUDACC__ in headers with one source for the CPU and for CUDA
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <utility>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __forceinline__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __shared__ static  // blocks run one after another
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define STRUCTOPS_DYNAMIC_SHARED(name) static unsigned char* const name = host_cuda::dynamic_shared()

namespace host_cuda {

struct Place {  // of the running thread
  uint3 thread, block;
  dim3 threads, blocks;
};
extern Place place;

unsigned char* dynamic_shared();
void run(dim3 blocks, dim3 threads, size_t dynamic_bytes, const std::function<void()>& thread);

// Barriers. An exchange returns, in every lane of the mask, what `source` of that lane gave (own value where source is outside the
// warp); a lane outside the mask gives a pattern that no caller expects.
enum class Vote { none, ballot, any, all, largest };
uint64_t exchange(unsigned mask, uint64_t value, int source);
unsigned vote(Vote kind, unsigned mask, unsigned value);
void sync_warp(unsigned mask);
int sync_block(int value);  // the or of all values

template <class T> T shuffle(unsigned mask, T value, int source) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = exchange(mask, bits, source);
  memcpy(&value, &bits, sizeof value);
  return value;
}
inline int lane() { return int(place.thread.x) & 31; }

template <class... P, size_t... i>
void call(void (*kernel)(P...), void** args, std::index_sequence<i...>) {
  kernel(*static_cast<P*>(args[i])...);
}

}  // namespace host_cuda

#define threadIdx host_cuda::place.thread
#define blockIdx host_cuda::place.block
#define blockDim host_cuda::place.threads
#define gridDim host_cuda::place.blocks

inline void __syncthreads() { host_cuda::sync_block(0); }
inline int __syncthreads_or(int value) { return host_cuda::sync_block(value != 0); }
inline void __syncwarp(unsigned mask = ~0u) { host_cuda::sync_warp(mask); }
template <class T> T __shfl_sync(unsigned mask, T value, int source) { return host_cuda::shuffle(mask, value, source & 31); }
template <class T> T __shfl_xor_sync(unsigned mask, T value, int with) { return host_cuda::shuffle(mask, value, host_cuda::lane() ^ with); }
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta) {
  return host_cuda::shuffle(mask, value, host_cuda::lane() + int(delta));
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta) {
  return host_cuda::shuffle(mask, value, host_cuda::lane() - int(delta));
}
inline unsigned __ballot_sync(unsigned mask, int value) { return host_cuda::vote(host_cuda::Vote::ballot, mask, value != 0); }
inline int __any_sync(unsigned mask, int value) { return int(host_cuda::vote(host_cuda::Vote::any, mask, value != 0)); }
inline int __all_sync(unsigned mask, int value) { return int(host_cuda::vote(host_cuda::Vote::all, mask, value != 0)); }
inline unsigned __reduce_max_sync(unsigned mask, unsigned value) { return host_cuda::vote(host_cuda::Vote::largest, mask, value); }

template <class T> T __ldg(const T* p) { return *p; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
// Without contraction to fused multiply-add, as the intrinsics promise.
inline float __fadd_rn(float a, float b) { volatile float r = a + b; return r; }
inline float __fmul_rn(float a, float b) { volatile float r = a * b; return r; }
template <class To, class From> To host_cuda_cast(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To r;
  memcpy(&r, &x, sizeof r);
  return r;
}
inline float __int_as_float(int x) { return host_cuda_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return host_cuda_cast<unsigned>(x); }
inline double __longlong_as_double(long long x) { return host_cuda_cast<double>(x); }
inline long long __double_as_longlong(double x) { return host_cuda_cast<long long>(x); }

// Threads change places at barriers only.
template <class T> T atomicAdd(T* p, T x) {
  const T old = *p;
  *p = old + x;
  return old;
}

template <class... P>
cudaError_t cudaLaunchKernel(void (*kernel)(P...), dim3 blocks, dim3 threads, void** args, size_t shared, cudaStream_t) {
  host_cuda::run(blocks, threads, shared, [&] { host_cuda::call(kernel, args, std::index_sequence_for<P...>{}); });
  return cudaSuccess;
}
template <class... P> cudaError_t cudaFuncSetAttribute(void (*)(P...), cudaFuncAttribute, int) { return cudaSuccess; }
template <class... P> cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void (*)(P...), int, size_t) {
  *blocks = 1;
  return cudaSuccess;
}
