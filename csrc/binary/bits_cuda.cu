// CUDA kernels of bits.h: pack, unpack, count, panels. All are bound by memory: one pass, coalesced.
#include "binary/cuda.h"
#include "core/cuda/device.cuh"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256;

template <class T> STRUCTOPS_DEVICE bool holds(T v, BitTest test, T limit) {
  switch (test) {
    case BitTest::ge: return v >= T(0);
    case BitTest::gt: return v > T(0);
    case BitTest::abs_le: return v <= limit && v >= -limit;
    default: return v < limit && v > -limit;
  }
}

template <class T> STRUCTOPS_DEVICE T read(const void* p, int64_t i) { return static_cast<const T*>(p)[i]; }

STRUCTOPS_DEVICE uint64_t valid_bits(int64_t K, int64_t w) {
  const int64_t left = K - 64 * w;
  return left >= 64 ? ~uint64_t(0) : (uint64_t(1) << left) - 1;
}

// A warp makes one word of a row: two ballots.
template <class T> __global__ void pack_rows(const BitsPackArgs a) {
  using A = Acc<T>;
  const int lane = threadIdx.x & 31;
  const int64_t W = words_of(a.K), warps = int64_t(gridDim.x) * (kThreads / 32);
  for (int64_t t = int64_t(blockIdx.x) * (kThreads / 32) + (threadIdx.x >> 5); t < a.A * W; t += warps) {
    const int64_t r = t / W, w = t - r * W;
    unsigned half[2];
    for (int h = 0; h < 2; ++h) {
      const int64_t k = 64 * w + 32 * h + lane;
      bool bit = false;
      if (k < a.K) {
        A v = widen(read<T>(a.x, r * a.K + k));
        if (a.shift) v = add(v, widen(read<T>(a.shift, k)));
        bit = holds(v, a.test, A(a.limit));
      }
      half[h] = __ballot_sync(kFull, bit);
    }
    uint64_t word = half[0] | uint64_t(half[1]) << 32;
    if (a.invert) word = ~word;
    if (lane == 0) a.words[t] = word & valid_bits(a.K, w);
  }
}

// A thread makes one word of a column; neighbouring threads read neighbouring columns.
template <class T> __global__ void pack_columns(const BitsPackArgs a) {
  using A = Acc<T>;
  const int64_t W = words_of(a.K), n = a.A * W * a.S;
  for (int64_t t = int64_t(blockIdx.x) * kThreads + threadIdx.x; t < n; t += int64_t(gridDim.x) * kThreads) {
    const int64_t s = t % a.S, w = t / a.S % W, outer = t / a.S / W;
    uint64_t word = 0;
    for (int i = 0; i < 64 && 64 * w + i < a.K; ++i) {
      const int64_t k = 64 * w + i;
      A v = widen(read<T>(a.x, (outer * a.K + k) * a.S + s));
      if (a.shift) v = add(v, widen(read<T>(a.shift, k)));
      word |= uint64_t(holds(v, a.test, A(a.limit))) << i;
    }
    if (a.invert) word = ~word;
    a.words[(outer * a.S + s) * W + w] = word & valid_bits(a.K, w);
  }
}

template <class T> __global__ void unpack(const BitsUnpackArgs a, T zero, T one) {
  const int64_t W = words_of(a.K), n = a.A * a.K * a.S;
  for (int64_t t = int64_t(blockIdx.x) * kThreads + threadIdx.x; t < n; t += int64_t(gridDim.x) * kThreads) {
    const int64_t s = t % a.S, k = t / a.S % a.K, outer = t / a.S / a.K;
    static_cast<T*>(a.out)[t] = (a.words[(outer * a.S + s) * W + k / 64] >> (k % 64)) & 1 ? one : zero;
  }
}

__global__ void count(const BitsCountArgs a) {  // a warp a row
  const int lane = threadIdx.x & 31;
  const int64_t warps = int64_t(gridDim.x) * (kThreads / 32);
  for (int64_t r = int64_t(blockIdx.x) * (kThreads / 32) + (threadIdx.x >> 5); r < a.R; r += warps) {
    unsigned n = 0;
    for (int64_t w = lane; w < a.W; w += 32) {
      uint64_t v = a.a[r * a.W + w];
      if (a.op == BitCount::bit_xor) v ^= a.b[r * a.W + w];
      if (a.op == BitCount::bit_and) v &= a.b[r * a.W + w];
      n += __popcll(v);
    }
    for (int d = 16; d > 0; d >>= 1) n += __shfl_down_sync(kFull, n, d);
    if (lane == 0) a.out[r] = int32_t(n);
  }
}

__global__ void panels(const BitsPanelsArgs a) {
  const int64_t NB = panels_of(a.N), n = a.P * NB * 2 * a.W * kPanelRows;
  for (int64_t t = int64_t(blockIdx.x) * kThreads + threadIdx.x; t < n; t += int64_t(gridDim.x) * kThreads) {
    const int64_t i = t % kPanelRows, s = t / kPanelRows % (2 * a.W), q = t / kPanelRows / (2 * a.W);
    const int64_t p = q / NB, row = q % NB * kPanelRows + i;
    const uint64_t word = row < a.N ? a.words[(p * a.N + row) * a.W + s / 2] : 0;
    a.panels[t] = uint32_t(s & 1 ? word >> 32 : word);
  }
}

template <class F> void with_any(Dtype t, F&& f) {
  with_dtype(t, [&](auto* p) { f(static_cast<typename DeviceOf<Pointee<decltype(p)>>::type*>(nullptr)); });
}

template <class T> T host_value(double v) {
  if constexpr (__is_same(T, bf16)) return __float2bfloat16_rn(float(v));
  else if constexpr (__is_same(T, f16)) return __float2half_rn(float(v));
  else return T(v);
}

}  // namespace

void bits_pack(const BitsPackArgs& a, const CudaContext& ctx) {
  with_any(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    const int64_t W = words_of(a.K);
    if (a.S == 1) launch("bits_pack", ctx, pack_rows<T>, blocks_for(a.A * W, kThreads / 32), kThreads, a);
    else launch("bits_pack", ctx, pack_columns<T>, blocks_for(a.A * W * a.S, kThreads), kThreads, a);
  });
}

void bits_unpack(const BitsUnpackArgs& a, const CudaContext& ctx) {
  with_any(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    launch("bits_unpack", ctx, unpack<T>, blocks_for(a.A * a.K * a.S, kThreads), kThreads, a, host_value<T>(a.zero), host_value<T>(a.one));
  });
}

void bits_count(const BitsCountArgs& a, const CudaContext& ctx) {
  launch("bits_count", ctx, count, blocks_for(a.R, kThreads / 32), kThreads, a);
}

void bits_panels(const BitsPanelsArgs& a, const CudaContext& ctx) {
  launch("bits_panels", ctx, panels, blocks_for(a.P * panels_of(a.N) * 2 * a.W * kPanelRows, kThreads), kThreads, a);
}

}  // namespace structops::cuda
