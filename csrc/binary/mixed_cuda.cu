// CUDA kernels of mixed.h: packed weights against int8 and floats. A warp makes four outputs of one row of x: it reads 32 words of each
// weight at once, then every lane takes bit `lane` of one word after the other, beside the 32 neighbouring values of x.
#include "binary/cuda.h"
#include "core/cuda/device.cuh"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256, kRows = 4;

template <class A> STRUCTOPS_DEVICE A lane_sum(A v) {
  for (int d = 16; d > 0; d >>= 1) v = add(v, __shfl_xor_sync(kFull, v, d));
  return v;
}

// signs: a bit is the sign of x; else it says whether x counts.
template <class T, class A, bool signs> __global__ void __launch_bounds__(kThreads) mixed(const BitsMixedArgs a) {
  const int lane = threadIdx.x & 31;
  const int64_t W = 2 * words_of(a.K), quads = (a.N + kRows - 1) / kRows, warps = int64_t(gridDim.x) * (kThreads / 32);
  const uint32_t* const b = reinterpret_cast<const uint32_t*>(a.b);
  for (int64_t t = int64_t(blockIdx.x) * (kThreads / 32) + (threadIdx.x >> 5); t < a.M * quads; t += warps) {
    const int64_t m = t / quads, n0 = t % quads * kRows;
    const T* const x = static_cast<const T*>(a.x) + m * a.K;
    A out[kRows] = {}, total = 0;
    for (int64_t plane = 0; plane < a.P; ++plane) {
      A sum[kRows] = {};
      for (int64_t w0 = 0; w0 < W; w0 += 32) {
        unsigned word[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) word[r] = n0 + r < a.N && w0 + lane < W ? __ldg(b + (plane * a.N + n0 + r) * W + w0 + lane) : 0;
        const int count = int(W - w0 < 32 ? W - w0 : 32);
        for (int j = 0; j < count; ++j) {
          const int64_t k = (w0 + j) * 32 + lane;
          const A v = k < a.K ? A(widen(x[k])) : A(0);
          if (plane == 0) total = add(total, v);
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            const bool bit = (__shfl_sync(kFull, word[r], j) >> lane) & 1;
            sum[r] = add(sum[r], bit ? v : signs ? -v : A(0));
          }
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) out[r] = add(out[r], mul(A(a.coef[plane]), lane_sum(sum[r])));
    }
    total = lane_sum(total);
    if (lane == 0)
      for (int r = 0; r < kRows && n0 + r < a.N; ++r)
        static_cast<A*>(a.out)[m * a.N + n0 + r] = a.base == 0 ? out[r] : add(out[r], mul(A(a.base), total));
  }
}

template <class T, class A, bool signs> void run(const char* op, const BitsMixedArgs& a, const CudaContext& ctx) {
  launch(op, ctx, mixed<T, A, signs>, blocks_for(a.M * div_up(a.N, kRows), kThreads / 32), kThreads, a);
}

}  // namespace

void bits_w1a8(const BitsMixedArgs& a, const CudaContext& ctx) { run<int8_t, int32_t, false>("bits_w1a8", a, ctx); }

void bits_w1a16(const BitsMixedArgs& a, const CudaContext& ctx) {
  switch (a.dtype) {
    case Dtype::bf16: return run<bf16, float, true>("bits_w1a16", a, ctx);
    case Dtype::f16: return run<f16, float, true>("bits_w1a16", a, ctx);
    default: return run<float, float, true>("bits_w1a16", a, ctx);
  }
}

}  // namespace structops::cuda
