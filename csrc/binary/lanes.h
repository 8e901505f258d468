// Words of bits to and from vector lanes. Include only from *_cpu.cpp of this folder.
#pragma once
#include "binary/bits.h"
#include "core/simd.h"

namespace structops::STRUCTOPS_ISA {

// Bit i of the result: lane i of a comparison is all ones.
template <class I> STRUCTOPS_INLINE uint64_t lane_mask(Vec<I> m) {
#if defined(__AVX512F__)
  if constexpr (sizeof(I) == 4) return _mm512_movepi32_mask((__m512i)m);
  else return _mm512_movepi64_mask((__m512i)m);
#elif defined(__AVX2__)
  if constexpr (sizeof(I) == 4) return unsigned(_mm256_movemask_ps((__m256)m));
  else return unsigned(_mm256_movemask_pd((__m256d)m));
#else
  uint64_t r = 0;
  for (int i = 0; i < W<I>; ++i) r |= uint64_t(m[i] & 1) << i;
  return r;
#endif
}

// Bit i of the result: x[i] >= y[i].
STRUCTOPS_INLINE uint64_t at_least(Vec<float> x, Vec<float> y) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)x, (__m512)y, _CMP_GE_OQ);  // gcc takes a vector comparison through a vector of masks
#else
  return lane_mask<int32_t>((Vec<int32_t>)(x >= y));
#endif
}
STRUCTOPS_INLINE uint64_t at_least(Vec<int32_t> x, Vec<int32_t> y) {
#if defined(__AVX512F__)
  return _mm512_cmpge_epi32_mask((__m512i)x, (__m512i)y);
#else
  return lane_mask<int32_t>((Vec<int32_t>)(x >= y));
#endif
}

template <class I> STRUCTOPS_INLINE Vec<I> lane_number() {
  Vec<I> v;
  for (int i = 0; i < W<I>; ++i) v[i] = i;
  return v;
}

inline __attribute__((always_inline)) int popcount64(uint64_t w) { return __builtin_popcountll(w); }

// The valid bits of word w of a row of K.
inline __attribute__((always_inline)) uint64_t valid_bits(int64_t K, int64_t w) {
  const int64_t left = K - 64 * w;
  return left >= 64 ? ~uint64_t(0) : (uint64_t(1) << left) - 1;
}

}  // namespace structops::STRUCTOPS_ISA
