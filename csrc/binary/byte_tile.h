// The register tiles of w1a8 (mixed.h): R rows of int8 by one panel of 64 columns. *_cpu.cpp only.
//
// Lane c of a panel's word s holds bits 32 s .. of column c. Shifted right by t and masked, its bytes are the bits t, 8 + t, 16 + t,
// 24 + t: activations are put in that order once, four bytes a step, and one instruction multiplies and adds the four.
//   byte_tile    takes the bits apart in every tile: for few rows
//   weight_tile  reads bytes that take_apart made of the bits, for many rows
#pragma once
#include "binary/lanes.h"
#include "binary/mixed.h"
#if defined(__SSSE3__) && !defined(__AVX2__)
#include <tmmintrin.h>
#endif

namespace structops::STRUCTOPS_ISA {

typedef Vec<int32_t> Ints;
typedef Vec<int16_t> Shorts;
typedef Vec<int8_t> Chars;
typedef int32_t ByteSums[kPanelRows];

#if !defined(__AVX512VNNI__) && defined(__SSSE3__)
#define STRUCTOPS_BYTE_PAIRS
#if defined(__AVX2__)
// Sums of two neighbours: bytes < 128 times signed ones, at most 2 * 127 * 128.
STRUCTOPS_INLINE Shorts pairs(Ints bytes, Ints x) { return (Shorts)_mm256_maddubs_epi16((__m256i)bytes, (__m256i)x); }
STRUCTOPS_INLINE Ints pairs(Shorts s) { return (Ints)_mm256_madd_epi16((__m256i)s, _mm256_set1_epi16(1)); }
#else
STRUCTOPS_INLINE Shorts pairs(Ints bytes, Ints x) { return (Shorts)_mm_maddubs_epi16((__m128i)bytes, (__m128i)x); }
STRUCTOPS_INLINE Ints pairs(Shorts s) { return (Ints)_mm_madd_epi16((__m128i)s, _mm_set1_epi16(1)); }
#endif
#endif

// acc += the four products of every lane
STRUCTOPS_INLINE Ints add_products(Ints acc, Ints bytes, Ints x) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)bytes, (__m512i)x);
#elif defined(STRUCTOPS_BYTE_PAIRS)
  return acc + pairs(pairs(bytes, x));
#else
  for (int j = 0; j < 4; ++j) acc += ((bytes >> (8 * j)) & 255) * ((x << (24 - 8 * j)) >> 24);
  return acc;
#endif
}

// 64 bytes, two words' worth, in the order of the bits.
STRUCTOPS_INLINE void order_two_words(const int8_t* x, int8_t* out) {
#if defined(__AVX512F__)
  // The fours 0, 2, 4, 6 of a word hold what its first four steps need: they move side by side, then each four is turned.
  const __m512i fours = _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  const __m512i turn = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  _mm512_storeu_si512(out, _mm512_shuffle_epi8(_mm512_permutexvar_epi32(fours, _mm512_loadu_si512(x)), turn));
#elif defined(__SSSE3__)
  for (int k = 0; k < 64; k += 32) {
    const __m128i first = _mm_loadu_si128((const __m128i*)(x + k)), last = _mm_loadu_si128((const __m128i*)(x + k + 16));
    const __m128i a = _mm_unpacklo_epi8(first, _mm_srli_si128(first, 8)), b = _mm_unpacklo_epi8(last, _mm_srli_si128(last, 8));
    _mm_storeu_si128((__m128i*)(out + k), _mm_unpacklo_epi16(a, b));
    _mm_storeu_si128((__m128i*)(out + k + 16), _mm_unpackhi_epi16(a, b));
  }
#else
  for (int k = 0; k < 64; ++k) out[k / 32 * 32 + k % 8 * 4 + k % 32 / 8] = x[k];
#endif
}

// x in the order of the bits, padded with 0 to `count` bytes, a multiple of 64; returns its sum.
STRUCTOPS_INLINE int32_t order_bytes(const int8_t* x, int64_t K, int64_t count, int8_t* out) {
  Ints sums = {};
  for (int64_t k = 0; k < count; k += 64) {
    int8_t padded[64];
    const int8_t* from = x + k;
    if (K - k < 64) {
      __builtin_memset(padded, 0, sizeof padded);
      __builtin_memcpy(padded, from, size_t(K - k));
      from = padded;
    }
    order_two_words(from, out + k);
    for (int i = 0; i < 64; i += STRUCTOPS_VBYTES) {
      Ints bytes;
      __builtin_memcpy(&bytes, from + i, sizeof bytes);
      sums = add_products(sums, splat(0x01010101), bytes);
    }
  }
  int32_t sum = 0;
  for (int i = 0; i < W<int32_t>; ++i) sum += sums[i];
  return sum;
}

// ---- few rows ------------------------------------------------------------------------------------------------------
// Rows of the largest tile: with 32 registers, enough that taking the bits apart is a small part of the work.
constexpr int kByteRows = W<int32_t> == 16 ? 12 : 4;
constexpr int64_t kByteSteps = 64;

// sum = or, where `more`, += the products of R rows with a panel.
template <int R> void byte_tile(const int32_t* x, int64_t ldx, const uint32_t* panel, int64_t steps, bool more, ByteSums* sum) {
  constexpr int L = W<int32_t>, V = L == 16 && R <= 4 ? 4 : 2;
  for (int c = 0; c < kPanelRows; c += L * V) {
    Ints acc[R][V];
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] = more ? load(sum[r] + c + v * L) : Ints{};
    for (int64_t s = 0; s < steps; ++s) {
      VecU32 word[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) __builtin_memcpy(&word[v], panel + s * kPanelRows + c + v * L, sizeof word[v]);
      for (int t = 0; t < 8; ++t) {
        Ints bits[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          bits[v] = (Ints)(word[v] & 0x01010101u);
          word[v] >>= 1;
        }
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) {
          const Ints y = splat(x[r * ldx + 8 * s + t]);
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) acc[r][v] = add_products(acc[r][v], bits[v], y);
        }
      }
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store(sum[r] + c + v * L, acc[r][v]);
  }
}

// Tiles of R rows, then of fewer, of `rows` rows; of kByteSteps words at a time, whose activations stay in L1.
template <int R> STRUCTOPS_INLINE void byte_rows(const int32_t* x, int64_t ldx, const uint32_t* panel, int64_t steps, int rows, ByteSums* sum) {
  int64_t s = 0;
  do {  // once where there are no steps, for the zeros
    const int64_t count = steps - s < kByteSteps ? steps - s : kByteSteps;
    const int32_t* const xs = x + 8 * s;
    const uint32_t* const words = panel + s * kPanelRows;
    int r = 0;
    for (; r + R <= rows; r += R) byte_tile<R>(xs + r * ldx, ldx, words, count, s > 0, sum + r);
    if constexpr (R > 4)
      for (; r + 4 <= rows; r += 4) byte_tile<4>(xs + r * ldx, ldx, words, count, s > 0, sum + r);
    for (; r < rows; ++r) byte_tile<1>(xs + r * ldx, ldx, words, count, s > 0, sum + r);
    s += kByteSteps;
  } while (s < steps);
}

// ---- many rows -----------------------------------------------------------------------------------------------------
// The planes of a weight as one byte: sum_p coef_p * bit = low + sum_p |coef_p| * (bit, or its complement where coef_p < 0).
struct ByteWeights {
  int32_t size[kMaxPlanes];  // |coef_p|; their sum is below 128
  uint32_t flip[kMaxPlanes];
  int32_t low, most;         // least value; the greatest byte
};

// False where a byte cannot hold the sums.
inline bool byte_weights(const BitsMixedArgs& a, ByteWeights& w) {
  w.low = w.most = 0;
  for (int64_t p = 0; p < a.P; ++p) {
    const double coef = a.coef[p];
    if (!(coef > -128 && coef < 128)) return false;
    w.size[p] = int32_t(coef < 0 ? -coef : coef);
    w.flip[p] = coef < 0 ? ~0u : 0u;
    w.most += w.size[p];
    if (coef < 0) w.low -= w.size[p];
  }
  return w.most < 128;
}

// bytes[j] += size where bit t of byte j of word is set
STRUCTOPS_INLINE Ints add_bits(Ints bytes, VecU32 word, int t, Ints size) {
  const VecU32 bit = VecU32{} + (0x01010101u << t);
#if defined(__AVX512F__)
  return (Ints)_mm512_mask_add_epi8((__m512i)bytes, _mm512_test_epi8_mask((__m512i)word, (__m512i)bit), (__m512i)bytes, (__m512i)size);
#else
  return (Ints)((Chars)bytes + (((Chars)(word & bit) == (Chars)bit) & (Chars)size));
#endif
}

// tile [8 steps, 64] of four bytes, of `steps` words of every plane's panel; the planes are `plane` words apart.
STRUCTOPS_INLINE void take_apart(const ByteWeights& w, int64_t P, const uint32_t* panel, int64_t plane, int64_t steps, int32_t* tile) {
  constexpr int L = W<int32_t>;
  for (int64_t s = 0; s < steps; ++s)
    for (int c = 0; c < kPanelRows; c += L) {
      Ints bytes[8] = {};
      for (int64_t p = 0; p < P; ++p) {
        VecU32 word;
        __builtin_memcpy(&word, panel + p * plane + s * kPanelRows + c, sizeof word);
        word ^= w.flip[p];
        const Ints size = splat(w.size[p] * 0x01010101);
#pragma GCC unroll 8
        for (int t = 0; t < 8; ++t) bytes[t] = add_bits(bytes[t], word, t, size);
      }
#pragma GCC unroll 8
      for (int t = 0; t < 8; ++t) store(tile + (8 * s + t) * kPanelRows + c, bytes[t]);
    }
}

constexpr int kWeightRows = 6;        // of a tile: 24 sums of AVX-512's 32 registers, 12 of AVX2's 16
constexpr int64_t kWeightSteps = 16;  // words taken apart at a time: 32 KiB

// to [R, ldt] = from [R, 64], or start [R] where that is given, + the products of R rows with a tile of `steps` fours.
template <int R>
void weight_tile(const int32_t* x, int64_t ldx, const int32_t* tile, int64_t steps, [[maybe_unused]] int32_t most, const int32_t* start,
                 const ByteSums* from, int32_t* to, int64_t ldt) {
  constexpr int L = W<int32_t>;
#if defined(STRUCTOPS_BYTE_PAIRS)
  const int64_t exact = most ? 128 / most : steps;  // fours whose pairs fit 16 bits: 128 * 2 * -128 is the least of them
  for (int c = 0; c < kPanelRows; c += 2 * L)
    for (int64_t s0 = 0; s0 < steps; s0 += exact) {
      const int64_t s1 = steps - s0 < exact ? steps : s0 + exact;
      Shorts acc[R][2] = {};
      for (int64_t s = s0; s < s1; ++s) {
        const Ints w0 = load(tile + s * kPanelRows + c), w1 = load(tile + s * kPanelRows + c + L);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
          const Ints y = splat(x[r * ldx + s]);
          acc[r][0] += pairs(w0, y);
          acc[r][1] += pairs(w1, y);
        }
      }
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) {
          const int at = c + v * L;
          const Ints old = s0 ? load(to + r * ldt + at) : start ? splat(start[r]) : load(from[r] + at);
          store(to + r * ldt + at, old + pairs(acc[r][v]));
        }
    }
#else
  constexpr int V = 4;
  for (int c = 0; c < kPanelRows; c += V * L) {
    Ints acc[R][V];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] = start ? splat(start[r]) : load(from[r] + c + v * L);
    for (int64_t s = 0; s < steps; ++s) {
      Ints w[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) w[v] = load(tile + s * kPanelRows + c + v * L);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const Ints y = splat(x[r * ldx + s]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[r][v] = add_products(acc[r][v], w[v], y);
      }
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store(to + r * ldt + c + v * L, acc[r][v]);
  }
#endif
}

// The same for 1 to R rows.
template <int R, class... A> STRUCTOPS_INLINE void weight_rows(int64_t rows, A... args) {
  if (rows >= R) return weight_tile<R>(args...);
  if constexpr (R > 1) weight_rows<R - 1>(rows, args...);
}

}  // namespace structops::STRUCTOPS_ISA
