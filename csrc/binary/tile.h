// The register tile of the bit GEMM: R rows by one panel of 64 columns, counts of a ^ b added into int32. *_cpu.cpp only.
#pragma once
#include "binary/lanes.h"

namespace structops::STRUCTOPS_ISA {

typedef int32_t PanelRow[kPanelRows];

#if defined(__AVX512VPOPCNTDQ__)
// 16 counters of 16 lanes, 4 of b, one broadcast of a: xor, popcount and add are 3 instructions for 512 products.
template <int R>
STRUCTOPS_INLINE void count_tile(const uint32_t* a, int64_t lda, const uint32_t* panel, int64_t steps, int32_t coef, PanelRow* dot) {
  __m512i acc[R][4];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) acc[r][v] = _mm512_setzero_si512();
  for (int64_t s = 0; s < steps; ++s, panel += kPanelRows) {
    __m512i b[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) b[v] = _mm512_loadu_si512(panel + 16 * v);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const __m512i x = _mm512_set1_epi32(int(a[r * lda + s]));
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        acc[r][v] = _mm512_add_epi32(acc[r][v], _mm512_popcnt_epi32(_mm512_xor_si512(x, b[v])));
        pin(acc[r][v]);  // else the compiler keeps two copies of every counter and spills one
      }
    }
  }
  const __m512i c = _mm512_set1_epi32(coef);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const __m512i old = _mm512_loadu_si512(dot[r] + 16 * v);
      _mm512_storeu_si512(dot[r] + 16 * v, _mm512_add_epi32(old, _mm512_mullo_epi32(acc[r][v], c)));
    }
}

#elif defined(__SSSE3__)
// Counts of nibbles by table, summed in bytes for up to 31 steps (31 * 8 < 256), then widened to the lane.
#if defined(__AVX2__)
typedef __m256i Bytes;
#define STRUCTOPS_B(op) _mm256_##op
#define STRUCTOPS_SI(op) _mm256_##op##_si256
STRUCTOPS_INLINE Bytes nibble_counts() {
  return _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
}
#else
}  // namespace structops::STRUCTOPS_ISA
#include <tmmintrin.h>
namespace structops::STRUCTOPS_ISA {
typedef __m128i Bytes;
#define STRUCTOPS_B(op) _mm_##op
#define STRUCTOPS_SI(op) _mm_##op##_si128
STRUCTOPS_INLINE Bytes nibble_counts() { return _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4); }
#endif

template <int R>
STRUCTOPS_INLINE void count_tile(const uint32_t* a, int64_t lda, const uint32_t* panel, int64_t steps, int32_t coef, PanelRow* dot) {
  constexpr int L = sizeof(Bytes) / 4;
  const Bytes table = nibble_counts(), low = STRUCTOPS_B(set1_epi8)(15);
  for (int v = 0; v < kPanelRows; v += L) {
    Vec<int32_t> total[R] = {};
    for (int64_t s0 = 0; s0 < steps; s0 += 31) {
      const int64_t s1 = s0 + 31 < steps ? s0 + 31 : steps;
      Bytes acc[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[r] = STRUCTOPS_B(set1_epi8)(0);
      for (int64_t s = s0; s < s1; ++s) {
        Bytes b;
        __builtin_memcpy(&b, panel + s * kPanelRows + v, sizeof b);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          const Bytes x = STRUCTOPS_SI(xor)(b, STRUCTOPS_B(set1_epi32)(int(a[r * lda + s])));
          const Bytes lo = STRUCTOPS_SI(and)(x, low), hi = STRUCTOPS_SI(and)(STRUCTOPS_B(srli_epi16)(x, 4), low);
          const Bytes n = STRUCTOPS_B(add_epi8)(STRUCTOPS_B(shuffle_epi8)(table, lo), STRUCTOPS_B(shuffle_epi8)(table, hi));
          acc[r] = STRUCTOPS_B(add_epi8)(acc[r], n);
        }
      }
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const Bytes pairs = STRUCTOPS_B(maddubs_epi16)(acc[r], STRUCTOPS_B(set1_epi8)(1));
        total[r] += (Vec<int32_t>)STRUCTOPS_B(madd_epi16)(pairs, STRUCTOPS_B(set1_epi16)(1));
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) store(dot[r] + v, load(dot[r] + v) + total[r] * coef);
  }
}
#undef STRUCTOPS_B
#undef STRUCTOPS_SI

#else
template <int R>
STRUCTOPS_INLINE void count_tile(const uint32_t* a, int64_t lda, const uint32_t* panel, int64_t steps, int32_t coef, PanelRow* dot) {
  for (int r = 0; r < R; ++r) {
    int32_t n[kPanelRows] = {};
    for (int64_t s = 0; s < steps; ++s)
      for (int i = 0; i < kPanelRows; ++i) n[i] += __builtin_popcount(a[r * lda + s] ^ panel[s * kPanelRows + i]);
    for (int i = 0; i < kPanelRows; ++i) dot[r][i] += coef * n[i];
  }
}
#endif

}  // namespace structops::STRUCTOPS_ISA
