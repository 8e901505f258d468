// What follows the integers of a binary layer, on one row of at most 64 columns (gemm.h). *_cpu.cpp only.
#pragma once
#include "binary/gemm.h"
#include "binary/lanes.h"

namespace structops::STRUCTOPS_ISA {

STRUCTOPS_INLINE Vec<float> residual_at(const BitsEpilogue& e, int64_t at, int n) {
  switch (e.residual_dtype) {
    case Dtype::bf16: return load_n(static_cast<const bf16_t*>(e.residual) + at, n);
    case Dtype::f16: return load_n(static_cast<const f16_t*>(e.residual) + at, n);
    default: return load_n(static_cast<const float*>(e.residual) + at, n);
  }
}

// full: residual, activation and shift may be there; else only scale and bias.
template <bool full> STRUCTOPS_INLINE Vec<float> real_value(const BitsEpilogue& e, Vec<int32_t> dot, int64_t at, int64_t n0, int n) {
  Vec<float> y = __builtin_convertvector(dot, Vec<float>);
  // Each step is rounded: a contracted multiply-add would make the bits depend on the instruction set.
  if (e.scale) { y *= load_n(e.scale + n0, n); pin(y); }
  if (e.bias) y += load_n(e.bias + n0, n);
  if constexpr (full) {
    if (e.residual) y += residual_at(e, at, n);
    if (e.slope) {
      if (e.gamma) y += load_n(e.gamma + n0, n);
      Vec<float> negative = y * load_n(e.slope + n0, n);
      pin(negative);
      y = y > 0.f ? y : negative;
      if (e.zeta) y += load_n(e.zeta + n0, n);
    }
  }
  return y;
}

template <class T, bool full>
STRUCTOPS_INLINE void finish_real(const BitsEpilogue& e, const int32_t* dot, int64_t at, int64_t n0, int cols) {
  T* const out = static_cast<T*>(e.data) + at;
  for (int i = 0; i < cols; i += W<float>) {
    const int n = cols - i < W<float> ? cols - i : W<float>;
    const Vec<float> y = real_value<full>(e, load(dot + i), at + i, n0 + i, n);
    if (n == W<float>) store(out + i, y);
    else store_n(out + i, y, n);
  }
}

template <bool full>
STRUCTOPS_INLINE void finish_columns(const BitsEpilogue& e, const int32_t* dot, int64_t m, int64_t n0, int cols, int64_t N) {
  const int64_t at = m * N + n0;
  switch (e.out) {
    case BitsOut::i32: __builtin_memcpy(static_cast<int32_t*>(e.data) + at, dot, size_t(cols) * 4); return;
    case BitsOut::f32: return finish_real<float, full>(e, dot, at, n0, cols);
    case BitsOut::bf16: return finish_real<bf16_t, full>(e, dot, at, n0, cols);
    case BitsOut::f16: return finish_real<f16_t, full>(e, dot, at, n0, cols);
    case BitsOut::bits: break;
  }
  uint64_t word = 0;
#pragma GCC unroll 4
  for (int i = 0; i < cols; i += W<float>) {
    const int n = cols - i < W<float> ? cols - i : W<float>;
    if (e.threshold) {
      word |= (at_least(load(dot + i), load_n(e.threshold + n0 + i, n)) ^ lane_mask<int32_t>(load_n(e.flip + n0 + i, n))) << i;
    } else {
      Vec<float> y = real_value<full>(e, load(dot + i), at + i, n0 + i, n);
      if (e.shift) y += load_n(e.shift + n0 + i, n);
      word |= at_least(y, Vec<float>{}) << i;
    }
  }
  static_cast<uint64_t*>(e.data)[m * words_of(N) + n0 / 64] = word & valid_bits(cols, 0);
}

// Row m, columns n0 .. n0 + cols of N; n0 is a multiple of 64 where bits are stored. dot has 64 readable entries.
template <bool full>
STRUCTOPS_INLINE void finish_row(const BitsEpilogue& e, const int32_t* dot, int64_t m, int64_t n0, int cols, int64_t N) {
  if (cols == kPanelRows) finish_columns<full>(e, dot, m, n0, kPanelRows, N);  // loops of known length
  else finish_columns<full>(e, dot, m, n0, cols, N);
}

STRUCTOPS_INLINE bool is_full(const BitsEpilogue& e) { return e.residual || e.slope || (e.shift && !e.threshold); }

}  // namespace structops::STRUCTOPS_ISA
