// CUDA kernel of bag.h. A warp counts 64 columns of a bag: every lane reads one word of one of 32 rows, five exchanges transpose the 32
// by 32 bits of each half, and a lane counts the bits of its own columns.
#include "binary/cuda.h"
#include "core/cuda/device.cuh"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256;

// Bit i of lane j becomes bit j of lane i.
STRUCTOPS_DEVICE unsigned transpose(unsigned x, int lane) {
  unsigned low = 0x0000ffffu;
#pragma unroll
  for (int s = 16; s > 0; s >>= 1) {
    const unsigned other = __shfl_xor_sync(kFull, x, s);
    x = lane & s ? (x & ~low) | ((other >> s) & low) : (x & low) | ((other & low) << s);
    low ^= low << (s >> 1);
  }
  return x;
}

STRUCTOPS_DEVICE float value(const BitsBagArgs& a, int32_t count, int32_t n) {
  if (n == 0) return 0.f;
  if (a.reduce == BagReduce::max) return float(count >= (a.one > a.zero ? 1 : n) ? a.one : a.zero);
  const float sum = float(a.zero * n + (a.one - a.zero) * count);
  return a.reduce == BagReduce::mean ? sum / float(n) : sum;
}

__global__ void __launch_bounds__(kThreads) bag(const BitsBagArgs a, const IndexRef offsets, const IndexRef index) {
  const int lane = threadIdx.x & 31;
  const int64_t words = words_of(a.K), warps = int64_t(gridDim.x) * (kThreads / 32);
  for (int64_t t = int64_t(blockIdx.x) * (kThreads / 32) + (threadIdx.x >> 5); t < a.B * words; t += warps) {
    const int64_t v = t / words, w = t - v * words, begin = offsets.at(v), end = offsets.at(v + 1);
    int32_t count[2] = {0, 0};
    for (int64_t k = begin; k < end; k += 32) {
      const uint64_t word = k + lane < end ? a.table[index.at(k + lane) * words + w] : 0;
      count[0] += __popc(transpose(unsigned(word), lane));
      count[1] += __popc(transpose(unsigned(word >> 32), lane));
    }
    for (int h = 0; h < 2; ++h) {
      const int64_t column = 64 * w + 32 * h + lane;
      if (column < a.K) a.out[v * a.K + column] = value(a, count[h], int32_t(end - begin));
    }
  }
}

}  // namespace

void bits_bag(const BitsBagArgs& a, const CudaContext& ctx) {
  launch("bits_bag", ctx, bag, blocks_for(a.B * words_of(a.K), kThreads / 32), kThreads, a, ref(a.offsets), ref(a.index));
}

}  // namespace structops::cuda
