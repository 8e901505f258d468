// Small transposes, between rows of components in memory and vectors of channels. Include only from *_cpu.cpp.
#pragma once
#include "core/simd.h"

#if defined(__SSE__)
#include <immintrin.h>
#endif

namespace structops::STRUCTOPS_ISA {

#if defined(__SSE__)
template <int n> STRUCTOPS_INLINE __m128 load_few(const float* p) {  // n is 3 or 4
  if constexpr (n == 4) return _mm_loadu_ps(p);
  else return _mm_movelh_ps(_mm_loadl_pi(_mm_setzero_ps(), (const __m64*)p), _mm_load_ss(p + 2));
}
template <int n> STRUCTOPS_INLINE void store_few(float* p, __m128 v) {
  if constexpr (n == 4) {
    _mm_storeu_ps(p, v);
  } else {
    _mm_storel_pi((__m64*)p, v);
    _mm_store_ss(p + 2, _mm_movehl_ps(v, v));
  }
}

#if defined(__AVX2__)
// Four rows of 8 columns: the 4 by 4 blocks of the two lanes at once.
STRUCTOPS_INLINE void transpose_wide(const float* p, int64_t from_step, float* o, int64_t to_step) {
  const __m256 a = _mm256_loadu_ps(p), b = _mm256_loadu_ps(p + from_step), d = _mm256_loadu_ps(p + 2 * from_step),
               e = _mm256_loadu_ps(p + 3 * from_step);
  const __m256d ab = (__m256d)_mm256_unpacklo_ps(a, b), AB = (__m256d)_mm256_unpackhi_ps(a, b);
  const __m256d de = (__m256d)_mm256_unpacklo_ps(d, e), DE = (__m256d)_mm256_unpackhi_ps(d, e);
  const __m256 column[4] = {(__m256)_mm256_unpacklo_pd(ab, de), (__m256)_mm256_unpackhi_pd(ab, de), (__m256)_mm256_unpacklo_pd(AB, DE),
                            (__m256)_mm256_unpackhi_pd(AB, DE)};
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    _mm_storeu_ps(o + c * to_step, _mm256_castps256_ps128(column[c]));
    _mm_storeu_ps(o + (c + 4) * to_step, _mm256_extractf128_ps(column[c], 1));
  }
}
#endif

// n and m: what a block has of 4 rows and columns. The last block of a row overlaps the one before rather than being smaller.
template <int n, int m>
STRUCTOPS_INLINE void transpose_blocks(const float* from, int64_t from_step, int64_t rows, int64_t columns, float* to, int64_t to_step) {
  for (int64_t r = 0; r < rows; r += n) {
    const int64_t i = r + n <= rows ? r : rows - n;
    int64_t c = 0;
#if defined(__AVX2__)
    if constexpr (n == 4 && m == 4)
      for (; c + 8 <= columns; c += 8) transpose_wide(from + i * from_step + c, from_step, to + c * to_step + i, to_step);
#endif
    for (; c < columns; c += m) {
      const int64_t j = c + m <= columns ? c : columns - m;
      const float* const p = from + i * from_step + j;
      __m128 a = load_few<m>(p), b = load_few<m>(p + from_step), d = load_few<m>(p + 2 * from_step), e = _mm_setzero_ps();
      if constexpr (n == 4) e = load_few<m>(p + 3 * from_step);
      _MM_TRANSPOSE4_PS(a, b, d, e);
      float* const o = to + j * to_step + i;
      store_few<n>(o, a);
      store_few<n>(o + to_step, b);
      store_few<n>(o + 2 * to_step, d);
      if constexpr (m == 4) store_few<n>(o + 3 * to_step, e);
    }
  }
}
#endif

// to[c][r] = from[r][c], rows `step` apart, nothing else read or written; both in elements. From storage to Acc, or back.
template <class From, class To>
STRUCTOPS_INLINE void transpose(const From* from, int64_t from_step, int64_t rows, int64_t columns, To* to, int64_t to_step) {
#if defined(__SSE__)
  if constexpr (__is_same(From, float) && __is_same(To, float)) {
    if (rows > 3 && columns > 3) return transpose_blocks<4, 4>(from, from_step, rows, columns, to, to_step);
    if (rows > 3 && columns == 3) return transpose_blocks<4, 3>(from, from_step, rows, columns, to, to_step);
    if (rows == 3 && columns > 3) return transpose_blocks<3, 4>(from, from_step, rows, columns, to, to_step);
  }
#endif
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) narrow_to(to + c * to_step + r, widen(from[r * from_step + c]));
}

}  // namespace structops::STRUCTOPS_ISA
