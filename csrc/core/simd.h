// Vectors for one instruction set, on the compiler's vector extension (gcc, clang). Include only from *_cpu.cpp.
//
// Vec<A> holds W<A> lanes of the accumulator type A. load<T> widens storage to the accumulator:
//   float, bf16, f16 -> float;  the others are their own accumulators.
// load_n/store_n touch exactly n <= W elements, so no kernel reads or writes past a row.
#pragma once
#include <cmath>
#include <cstring>

#include "core/types.h"

#if defined(__AVX512F__)
#define STRUCTOPS_VBYTES 64
#include <immintrin.h>
#elif defined(__AVX2__)
#define STRUCTOPS_VBYTES 32
#include <immintrin.h>
#else
#define STRUCTOPS_VBYTES 16
#endif

#define STRUCTOPS_INLINE [[gnu::always_inline]] static inline

namespace structops::STRUCTOPS_ISA {

template <class A> struct VecOf { typedef A type __attribute__((vector_size(STRUCTOPS_VBYTES))); };
template <class A> using Vec = typename VecOf<A>::type;
template <class A> constexpr int W = STRUCTOPS_VBYTES / sizeof(A);

// n <= W lanes of A. One lane is the first of a 16-byte vector: scalar selects become branches, and "is this the new maximum"
// is not predictable.
template <class A, int n> struct LanesOf { typedef A type __attribute__((vector_size((n == 1 ? 16 / sizeof(A) : n) * sizeof(A)))); };
template <class A, int n = W<A>> using Lanes = typename LanesOf<A, n>::type;

template <class T> struct AccOf { using type = T; };
template <> struct AccOf<bf16_t> { using type = float; };
template <> struct AccOf<f16_t> { using type = float; };
template <class T> using Acc = typename AccOf<T>::type;

template <class T> constexpr bool is_float_storage = __is_same(Acc<T>, float) || __is_same(Acc<T>, double);

// The signed integer as wide as A, for masks and arg lanes.
template <class A> struct IntOf { using type = int32_t; };
template <> struct IntOf<double> { using type = int64_t; };
template <> struct IntOf<int64_t> { using type = int64_t; };
template <class A> using Int = typename IntOf<A>::type;

template <class To, class From> STRUCTOPS_INLINE To bitcast(From v) {
  static_assert(sizeof(To) == sizeof(From));
  To r;
  __builtin_memcpy(&r, &v, sizeof r);
  return r;
}

template <class A> STRUCTOPS_INLINE Vec<A> splat(A a) { return Vec<A>{} + a; }

// ---- 16-bit floats ---------------------------------------------------------------------------------------------
typedef uint16_t VecHalf __attribute__((vector_size(STRUCTOPS_VBYTES / 2)));
typedef uint32_t VecU32 __attribute__((vector_size(STRUCTOPS_VBYTES)));

STRUCTOPS_INLINE float widen(bf16_t h) { return bitcast<float>(uint32_t(h.bits) << 16); }

STRUCTOPS_INLINE float widen(f16_t h) {
#ifdef __F16C__
  return _cvtsh_ss(h.bits);
#else
  const uint32_t sign = uint32_t(h.bits & 0x8000) << 16, mag = h.bits & 0x7fff;
  if (mag >= 0x7c00) return bitcast<float>(sign | 0x7f800000u | ((mag & 0x3ff) << 13));
  // Scaling by 2^112 moves the half exponent bias to the float one and normalises subnormals exactly.
  return bitcast<float>(sign | bitcast<uint32_t>(bitcast<float>(mag << 13) * 0x1p112f));
#endif
}

STRUCTOPS_INLINE uint16_t narrow_bf16(float f) {
  const uint32_t u = bitcast<uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return uint16_t((u >> 16) | 0x40);
  return uint16_t((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

STRUCTOPS_INLINE uint16_t narrow_f16(float f) {
#ifdef __F16C__
  return _cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT);
#else
  const uint32_t u = bitcast<uint32_t>(f), sign = (u >> 16) & 0x8000, mag = u & 0x7fffffffu;
  if (mag > 0x7f800000u) return uint16_t(sign | 0x7e00);
  if (mag >= 0x477ff000u) return uint16_t(sign | 0x7c00);  // rounds to 65536 or more
  if (mag < 0x38800000u)                                     // subnormal half: adding 0.5 aligns and rounds it
    return uint16_t(sign | (bitcast<uint32_t>(bitcast<float>(mag) + 0.5f) - 0x3f000000u));
  return uint16_t(sign | ((mag - 0x38000000u + 0xfffu + ((mag >> 13) & 1)) >> 13));
#endif
}

STRUCTOPS_INLINE float widen(float v) { return v; }
STRUCTOPS_INLINE double widen(double v) { return v; }
STRUCTOPS_INLINE int32_t widen(int32_t v) { return v; }
STRUCTOPS_INLINE int64_t widen(int64_t v) { return v; }

template <class T, class A> STRUCTOPS_INLINE void narrow_to(T* p, A v) { *p = T(v); }
STRUCTOPS_INLINE void narrow_to(bf16_t* p, float v) { p->bits = narrow_bf16(v); }
STRUCTOPS_INLINE void narrow_to(f16_t* p, float v) { p->bits = narrow_f16(v); }

// ---- loads -----------------------------------------------------------------------------------------------------
template <class T> STRUCTOPS_INLINE Vec<Acc<T>> load(const T* p) {
  Vec<Acc<T>> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <> inline __attribute__((always_inline)) Vec<float> load<bf16_t>(const bf16_t* p) {
  VecHalf h;
  __builtin_memcpy(&h, p, sizeof h);
  return bitcast<Vec<float>>(__builtin_convertvector(h, VecU32) << 16);
}
template <> inline __attribute__((always_inline)) Vec<float> load<f16_t>(const f16_t* p) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__AVX2__)
  return (Vec<float>)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
#else
  Vec<float> v;
  for (int i = 0; i < W<float>; ++i) v[i] = widen(p[i]);
  return v;
#endif
}

template <class T> STRUCTOPS_INLINE Vec<Acc<T>> load_n(const T* p, int n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return (Vec<Acc<T>>)_mm512_maskz_loadu_epi32((__mmask16)((1u << n) - 1), p);
  if constexpr (sizeof(T) == 8) return (Vec<Acc<T>>)_mm512_maskz_loadu_epi64((__mmask8)((1u << n) - 1), p);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return (Vec<Acc<T>>)_mm256_maskload_epi32((const int*)p, _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane));
  }
  if constexpr (sizeof(T) == 8) {
    const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
    return (Vec<Acc<T>>)_mm256_maskload_epi64((const long long*)p, _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), lane));
  }
#endif
  if (n == W<Acc<T>>) return load<T>(p);
  T buf[W<Acc<T>>] = {};
  for (int i = 0; i < n; ++i) buf[i] = p[i];
  return load<T>(buf);
}

// ---- stores ----------------------------------------------------------------------------------------------------
template <class T> STRUCTOPS_INLINE void store_n(T* p, Vec<Acc<T>> v, int n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) { _mm512_mask_storeu_epi32(p, (__mmask16)((1u << n) - 1), (__m512i)v); return; }
  if constexpr (sizeof(T) == 8) { _mm512_mask_storeu_epi64(p, (__mmask8)((1u << n) - 1), (__m512i)v); return; }
#endif
  for (int i = 0; i < n; ++i) narrow_to(p + i, v[i]);
}

template <class T> STRUCTOPS_INLINE void store(T* p, Vec<Acc<T>> v) {
  __builtin_memcpy(p, &v, sizeof v);
}
template <> inline __attribute__((always_inline)) void store<bf16_t>(bf16_t* p, Vec<float> v) {
  const VecU32 u = bitcast<VecU32>(v);
  const VecU32 rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const VecU32 quiet = (u >> 16) | 0x40u;
  const VecHalf h = __builtin_convertvector((u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded, VecHalf);
  __builtin_memcpy(p, &h, sizeof h);
}
template <> inline __attribute__((always_inline)) void store<f16_t>(f16_t* p, Vec<float> v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__AVX2__)
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < W<float>; ++i) narrow_to(p + i, v[i]);
#endif
}

// ---- lane arithmetic -------------------------------------------------------------------------------------------
template <class A> STRUCTOPS_INLINE Vec<A> select(Vec<Int<A>> mask, Vec<A> yes, Vec<A> no) { return mask ? yes : no; }

// Makes v one rounded value: without it a product that feeds two expressions may be contracted into a different fused
// multiply-add in each, and m - m need not be 0.
template <class V> STRUCTOPS_INLINE void pin(V& v) {
#ifdef __clang__  // knows no register for half a vector
  if constexpr (sizeof(V) == 8) {
    Lanes<int64_t, 2> whole{};
    __builtin_memcpy(&whole, &v, 8);
    pin(whole);
    __builtin_memcpy(&v, &whole, 8);
    return;
  }
#endif
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__x86_64__)
  asm("" : "+x"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#endif
}

// Lane i ^ w in the place of lane i.
template <class A> STRUCTOPS_INLINE Vec<A> exchanged(Vec<A> v, int w) {
#ifdef __clang__
  Vec<A> moved;
  for (int i = 0; i < W<A>; ++i) moved[i] = v[i ^ w];
  return moved;
#else
  Vec<Int<A>> other;
  for (int i = 0; i < W<A>; ++i) other[i] = i ^ w;
  return __builtin_shuffle(v, other);
#endif
}

// Tree-ordered, so that the rounding does not depend on how the compiler schedules it.
template <class A> STRUCTOPS_INLINE A hsum(Vec<A> v) {
#pragma GCC unroll 4
  for (int w = W<A> / 2; w >= 1; w /= 2) v += exchanged<A>(v, w);
  return v[0];
}

template <class A> STRUCTOPS_INLINE A hmax(Vec<A> v) {  // of numbers without NaN
#pragma GCC unroll 4
  for (int w = W<A> / 2; w >= 1; w /= 2) {
    const Vec<A> other = exchanged<A>(v, w);
    v = other > v ? other : v;
  }
  return v[0];
}

}  // namespace structops::STRUCTOPS_ISA
