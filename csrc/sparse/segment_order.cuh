// CUDA segment_order: device code. The contract is segment_order.h.
//
// A warp finds one result: the value of rank r by bisection over its bits, counting the row once a bit, then the position among
// equals. No scratch and no dependence between results.
#pragma once
#include "core/cuda/device.cuh"

namespace structops::cuda {

using Bits64 = unsigned long long;

// Bits of a value in unsigned order within 32 or 64 bits; every NaN is the largest.
template <class T> STRUCTOPS_DEVICE Bits64 order_bits(T t, bool& nan) {
  const auto a = widen(t);
  nan = a != a;
  if constexpr (sizeof(a) == 4) {
    unsigned u;
    const auto b = a == 0 ? decltype(a)(0) : a;
    memcpy(&u, &b, 4);
    if (!is_float<T>) return u ^ 0x80000000u;
    return nan ? 0xffffffffu : u & 0x80000000u ? ~u : u | 0x80000000u;
  } else {
    Bits64 u;
    const auto b = a == 0 ? decltype(a)(0) : a;
    memcpy(&u, &b, 8);
    constexpr Bits64 top = 1ull << 63;
    if (!is_float<T>) return u ^ top;
    return nan ? ~0ull : u & top ? ~u : u | top;
  }
}

template <class T, class O>
__global__ void segment_order_rows(const T* src, IndexRef rowptr, IndexRef rank, O* out, int64_t B, int64_t N, int64_t E, int64_t F,
                                   int64_t K, int largest) {
  constexpr int bits = sizeof(Acc<T>) * 8;
  constexpr Bits64 all = bits == 32 ? 0xffffffffull : ~0ull;
  const int lane = threadIdx.x & 31;
  const int64_t warps = int64_t(gridDim.x) * (blockDim.x >> 5), total = B * N * K * F;
  for (int64_t i = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) >> 5; i < total; i += warps) {
    const int64_t slot = i / F, f = i - slot * F, row = slot / K, j = slot - row * K, batch = row / N, v = row - batch * N;
    const int64_t begin = rowptr.at(v), n = rowptr.at(v + 1) - begin;
    const int64_t r = rank.data ? rank.at(v * K + j) : j;
    const T* const column = src + (batch * E + begin) * F + f;
    int64_t at = -1;
    if (r >= 0 && r < n) {
      const auto key = [&](int64_t k, bool& nan) { return order_bits<T>(column[k * F], nan) ^ (largest ? all : 0); };
      bool nan;
      // The nth k with property p: one ballot per 32 elements.
      const auto nth = [&](auto p, int64_t skip) {
        for (int64_t k0 = 0; k0 < n; k0 += 32) {
          unsigned hit = __ballot_sync(kFull, k0 + lane < n && p(k0 + lane));
          const int hits = __popc(hit);
          if (skip < hits) {
            while (skip-- > 0) hit &= hit - 1;
            return k0 + __ffs(hit) - 1;
          }
          skip -= hits;
        }
        return int64_t(-1);
      };
      int64_t found = rank.data ? nth([&](int64_t k) { key(k, nan); return nan; }, 0) : -1;
      if (found < 0) {
        Bits64 prefix = 0;
        int64_t left = r;  // rank among the elements that share the prefix
        for (int bit = bits - 1; bit >= 0; --bit) {
          int64_t zeros = 0;
          for (int64_t k0 = 0; k0 < n; k0 += 32)
            zeros += __popc(__ballot_sync(kFull, k0 + lane < n && key(k0 + lane, nan) >> bit == prefix << 1));
          const bool one = left >= zeros;
          if (one) left -= zeros;
          prefix = prefix << 1 | Bits64(one);
        }
        found = nth([&](int64_t k) { return key(k, nan) == prefix; }, left);
      }
      at = begin + found;
    }
    if (lane == 0) out[i] = O(at);
  }
}

}  // namespace structops::cuda
