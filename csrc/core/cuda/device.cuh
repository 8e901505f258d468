// Device types, loads, and warp helpers; below them the host half that launches kernels. NVRTC compiles the device half alone.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#ifndef __CUDACC_RTC__
#include <cstdint>
#endif

namespace structops::cuda {

#ifdef __CUDACC_RTC__
using int32_t = int;
using int64_t = long long;
#endif

#define STRUCTOPS_DEVICE __device__ __forceinline__
#ifndef STRUCTOPS_DYNAMIC_SHARED
#define STRUCTOPS_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

using bf16 = __nv_bfloat16;
using f16 = __half;

// ---- storage and accumulator types ------------------------------------------------------------------------------
template <class T> struct AccOf { using type = T; };
template <> struct AccOf<bf16> { using type = float; };
template <> struct AccOf<f16> { using type = float; };
template <class T> using Acc = typename AccOf<T>::type;

template <class T> constexpr bool is_float = false;
template <> constexpr bool is_float<float> = true;
template <> constexpr bool is_float<double> = true;
template <> constexpr bool is_float<bf16> = true;
template <> constexpr bool is_float<f16> = true;

template <class T> constexpr int wide_lanes = sizeof(T) == 8 ? 2 : 4;  // elements a lane of the vectorised kernels owns

STRUCTOPS_DEVICE float widen(bf16 v) { return __bfloat162float(v); }
STRUCTOPS_DEVICE float widen(f16 v) { return __half2float(v); }
template <class T> STRUCTOPS_DEVICE T widen(T v) { return v; }

template <class T> struct Narrow {
  static STRUCTOPS_DEVICE T to(T v) { return v; }
};
template <> struct Narrow<bf16> {
  static STRUCTOPS_DEVICE bf16 to(float v) { return __float2bfloat16_rn(v); }
};
template <> struct Narrow<f16> {
  static STRUCTOPS_DEVICE f16 to(float v) { return __float2half_rn(v); }
};

template <class A> struct Limits;  // the identities of max and min
template <> struct Limits<float> {
  static STRUCTOPS_DEVICE float low() { return -__int_as_float(0x7f800000); }
  static STRUCTOPS_DEVICE float high() { return __int_as_float(0x7f800000); }
};
template <> struct Limits<double> {
  static STRUCTOPS_DEVICE double low() { return -__longlong_as_double(0x7ff0000000000000ll); }
  static STRUCTOPS_DEVICE double high() { return __longlong_as_double(0x7ff0000000000000ll); }
};
template <> struct Limits<int32_t> {
  static STRUCTOPS_DEVICE int32_t low() { return -2147483647 - 1; }
  static STRUCTOPS_DEVICE int32_t high() { return 2147483647; }
};
template <> struct Limits<int64_t> {
  static STRUCTOPS_DEVICE int64_t low() { return -9223372036854775807ll - 1; }
  static STRUCTOPS_DEVICE int64_t high() { return 9223372036854775807ll; }
};

// Integers wrap.
STRUCTOPS_DEVICE float add(float a, float b) { return a + b; }
STRUCTOPS_DEVICE double add(double a, double b) { return a + b; }
STRUCTOPS_DEVICE int32_t add(int32_t a, int32_t b) { return int32_t(unsigned(a) + unsigned(b)); }
STRUCTOPS_DEVICE int64_t add(int64_t a, int64_t b) { return int64_t((unsigned long long)(a) + (unsigned long long)(b)); }
STRUCTOPS_DEVICE float mul(float a, float b) { return a * b; }
STRUCTOPS_DEVICE double mul(double a, double b) { return a * b; }
STRUCTOPS_DEVICE int32_t mul(int32_t a, int32_t b) { return int32_t(unsigned(a) * unsigned(b)); }
STRUCTOPS_DEVICE int64_t mul(int64_t a, int64_t b) { return int64_t((unsigned long long)(a) * (unsigned long long)(b)); }

// ---- memory -----------------------------------------------------------------------------------------------------
template <int bytes> struct WordOf;
template <> struct WordOf<2> { using type = unsigned short; };
template <> struct WordOf<4> { using type = unsigned; };
template <> struct WordOf<8> { using type = uint2; };
template <> struct WordOf<16> { using type = uint4; };

// V elements as loaded. Kept as one word until they are used: sixteen-bit elements would take a register each.
template <class T, int V> using Word = typename WordOf<int(sizeof(T)) * V>::type;
template <class T, int V> struct Pack { T v[V]; };

// One access of V elements; p is aligned to all of them, and nothing writes there while the kernel runs.
template <class T, int V> STRUCTOPS_DEVICE Word<T, V> load_word(const T* p) {
  return __ldg(reinterpret_cast<const Word<T, V>*>(p));
}

template <class T> STRUCTOPS_DEVICE T load_one(const T* p) {
  const Word<T, 1> w = load_word<T, 1>(p);
  T t;
  memcpy(&t, &w, sizeof t);
  return t;
}

template <class T, int V> STRUCTOPS_DEVICE Word<T, V> to_word(const Pack<T, V>& r) {
  Word<T, V> w;
  memcpy(&w, &r, sizeof w);
  return w;
}

template <class T, int V> STRUCTOPS_DEVICE Word<T, V> splat_word(T t) {
  Pack<T, V> r;
#pragma unroll
  for (int v = 0; v < V; ++v) r.v[v] = t;
  return to_word<T, V>(r);
}

template <class T, int V> STRUCTOPS_DEVICE void widen_word(Acc<T> (&a)[V], const Word<T, V>& w) {
  Pack<T, V> r;
  memcpy(&r, &w, sizeof r);
#pragma unroll
  for (int v = 0; v < V; ++v) a[v] = widen(r.v[v]);
}

template <class T, int V> STRUCTOPS_DEVICE void store(T* p, const Acc<T> (&a)[V]) {
  Pack<T, V> r;
#pragma unroll
  for (int v = 0; v < V; ++v) r.v[v] = Narrow<T>::to(a[v]);
  *reinterpret_cast<Word<T, V>*>(p) = to_word<T, V>(r);
}

// A read-only index array of int32 or int64. The branch is the same for every lane of a launch.
struct IndexRef {
  const void* data;
  int wide;
  STRUCTOPS_DEVICE int64_t at(int64_t i) const {
    return wide ? int64_t(__ldg(static_cast<const long long*>(data) + i)) : __ldg(static_cast<const int*>(data) + i);
  }
};

// ---- warps ------------------------------------------------------------------------------------------------------
constexpr unsigned kFull = 0xffffffffu;

// shfl_down for any trivially copyable type made of 32-bit words.
template <class S> STRUCTOPS_DEVICE S shift_down(const S& s, int delta) {
  constexpr int n = sizeof(S) / 4;
  static_assert(sizeof(S) == 4 * n);
  unsigned w[n];
  memcpy(w, &s, sizeof s);
#pragma unroll
  for (int i = 0; i < n; ++i) w[i] = __shfl_down_sync(kFull, w[i], delta);
  S r;
  memcpy(&r, w, sizeof r);
  return r;
}

// The first i in [lo, hi] with i == hi or !before(i), where before is true up to some point; all lanes call and get the same.
template <class F> STRUCTOPS_DEVICE int64_t warp_search(int64_t lo, int64_t hi, F before) {
  const int lane = threadIdx.x & 31;
  while (lo < hi) {
    const int64_t step = (hi - lo + 31) >> 5, probe = lo + lane * step;
    const int hits = __popc(__ballot_sync(kFull, probe < hi && before(probe)));
    if (hits == 0) return lo;
    const int64_t end = lo + hits * step;
    lo = end - step + 1;
    hi = end < hi ? end : hi;
  }
  return lo;
}

}  // namespace structops::cuda

#ifndef __CUDACC_RTC__
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "core/cuda/context.h"
#include "core/types.h"

namespace structops::cuda {

inline void check(const char* op, cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(op) + ": CUDA error: " + cudaGetErrorString(status));
}

inline cudaStream_t stream_of(const CudaContext& ctx) { return static_cast<cudaStream_t>(ctx.stream); }

template <class... P, class... A>
void launch(const char* op, const CudaContext& ctx, void (*kernel)(P...), dim3 grid, int threads, A... a) {
  if (grid.x == 0 || grid.y == 0) return;
  struct Args { void* p[sizeof...(P)]; };
  const auto call = [&](P... p) {
    Args args{{&p...}};
    check(op, cudaLaunchKernel(kernel, grid, dim3(unsigned(threads)), args.p, 0, stream_of(ctx)));
  };
  call(P(a)...);
}

template <class T> T* scratch(const CudaContext& ctx, int64_t n) {
  return n > 0 ? static_cast<T*>(ctx.scratch(ctx.owner, size_t(n) * sizeof(T))) : nullptr;
}

inline IndexRef ref(const Index& i) { return {i.data, i.wide ? 1 : 0}; }

constexpr int64_t div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int pow2_above(int64_t n) {  // smallest power of two >= n
  int p = 1;
  while (p < n) p *= 2;
  return p;
}

// Grid-stride kernels: enough blocks to fill any device, few enough for every grid limit.
inline unsigned blocks_for(int64_t n, int64_t per_block) {
  const int64_t b = div_up(n, per_block);
  return unsigned(b < 65536 ? b : 65536);
}
inline unsigned grid_y(int64_t n) { return unsigned(n < 65535 ? n : 65535); }

inline bool aligned(const void* p, int64_t bytes) { return reinterpret_cast<uintptr_t>(p) % size_t(bytes) == 0; }

template <class T> struct DeviceOf { using type = T; };
template <> struct DeviceOf<bf16_t> { using type = bf16; };
template <> struct DeviceOf<f16_t> { using type = f16; };

// Calls f with a null pointer of the device type of a floating dtype.
template <class F> void with_float(const char* op, Dtype t, F&& f) {
  if (!is_floating(t)) throw std::runtime_error(std::string(op) + ": CUDA kernels take floating dtypes only");
  with_dtype(t, [&](auto* p) {
    using T = typename DeviceOf<Pointee<decltype(p)>>::type;
    if constexpr (is_float<T>) f(static_cast<T*>(nullptr));
  });
}

}  // namespace structops::cuda
#endif
