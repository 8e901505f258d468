// Rows of a convolution: the taps of one output pixel, joined. *_cpu.cpp only.
#pragma once
#include "binary/gemm.h"
#include "binary/lanes.h"

namespace structops::STRUCTOPS_ISA {

// n <= 64 bits of a row of words from bit `at` on.
STRUCTOPS_INLINE uint64_t bits_at(const uint64_t* p, int64_t at, int n) {
  const int s = int(at & 63);
  uint64_t v = p[at >> 6] >> s;
  if (s + n > 64) v |= p[(at >> 6) + 1] << (64 - s);
  return n == 64 ? v : v & ((uint64_t(1) << n) - 1);
}

// Puts n <= 64 bits at bit `at` of a row whose later words are still 0.
STRUCTOPS_INLINE void put_bits(uint64_t* p, int64_t at, uint64_t v, int n) {
  const int s = int(at & 63);
  p[at >> 6] |= v << s;
  if (s + n > 64) p[(at >> 6) + 1] |= v >> (64 - s);
}

struct Pixel { int64_t b, ih, iw; };  // image, and where tap (0, 0) falls

STRUCTOPS_INLINE Pixel pixel_of(const BitsWindow& w, int64_t m) {
  const int64_t image = w.OH * w.OW, b = m / image, o = m - b * image, oh = o / w.OW;
  return {b, oh * w.sh - w.ph, (o - oh * w.OW) * w.sw - w.pw};
}

// The pixel of row m + 1, without divisions.
STRUCTOPS_INLINE Pixel next_pixel(const BitsWindow& w, Pixel p) {
  p.iw += w.sw;
  if (p.iw + w.pw < w.OW * w.sw) return p;
  p.iw = -w.pw;
  p.ih += w.sh;
  if (p.ih + w.ph < w.OH * w.sh) return p;
  return {p.b + 1, -w.ph, -w.pw};
}

STRUCTOPS_INLINE bool inside(int64_t i, int64_t n) { return uint64_t(i) < uint64_t(n); }

STRUCTOPS_INLINE bool touches_padding(const BitsWindow& w, Pixel p) {
  return !inside(p.ih, w.H) || !inside(p.ih + (w.kh - 1) * w.dh, w.H) || !inside(p.iw, w.W) || !inside(p.iw + (w.kw - 1) * w.dw, w.W);
}

// The channels [c0, c0 + C) of every tap of pixel p, C bits each; image rows have Wd words. border: whether p touches_padding. out has
// words_of(taps * C) words.
STRUCTOPS_INLINE void gather_taps(const BitsWindow& w, const uint64_t* image, int64_t Wd, int64_t c0, int64_t C, Pixel p, bool border,
                                  uint64_t* out) {
  const uint64_t ones = w.pad == BitsPad::bit1 ? ~uint64_t(0) : 0;
  const bool whole = C % 64 == 0 && c0 % 64 == 0;
  const int64_t words = C / 64;
  if (whole && !border) {
    // Runs of words that are neighbours in memory: a row of the window, or a tap.
    const bool joined = w.dw == 1 && words == Wd;
    const int64_t kh = w.kh, runs = joined ? 1 : w.kw, length = joined ? w.kw * words : words;
    const int64_t down = w.dh * w.W * Wd, right = w.dw * Wd;
    const uint64_t* row = image + ((p.b * w.H + p.ih) * w.W + p.iw) * Wd + c0 / 64;
    for (int64_t i = 0; i < kh; ++i, row += down)
      for (int64_t j = 0; j < runs; ++j)
        for (int64_t n = 0; n < length; ++n) *out++ = row[j * right + n];
    return;
  }
  const int64_t total = words_of(w.kh * w.kw * C);
  if (!whole)
    for (int64_t n = 0; n < total; ++n) out[n] = 0;
  int64_t at = 0;
  for (int64_t i = 0; i < w.kh; ++i)
    for (int64_t j = 0; j < w.kw; ++j) {
      const int64_t ih = p.ih + i * w.dh, iw = p.iw + j * w.dw;
      const bool in = inside(ih, w.H) && inside(iw, w.W);
      const uint64_t* const row = in ? image + ((p.b * w.H + ih) * w.W + iw) * Wd : nullptr;
      if (whole) {
        for (int64_t n = 0; n < words; ++n) *out++ = in ? row[c0 / 64 + n] : ones;
        continue;
      }
      for (int64_t c = 0; c < C; c += 64) {
        const int n = int(C - c < 64 ? C - c : 64);
        put_bits(out, at, in ? bits_at(row, c0 + c, n) : (n == 64 ? ones : ones & ((uint64_t(1) << n) - 1)), n);
        at += n;
      }
    }
}

}  // namespace structops::STRUCTOPS_ISA
