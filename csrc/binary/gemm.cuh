// CUDA kernels of gemm.h.
//
// Tiles of 64 by 64 by 512 bits in shared memory, four warps of 32 by 32. The tensor cores count a & b (XOR is emulated from
// sm_90 on): mma.sync m16n8k256 .and.popc where the architecture has it, else __popc on the same fragments. With the ones of every
// row, popcount(a ^ b) = popcount(a) + popcount(b) - 2 popcount(a & b). A convolution's rows are gathered first, as bits.
#pragma once
#include "binary/gemm.h"
#include "core/cuda/device.cuh"

namespace structops::cuda {

constexpr int kTile = 64, kStepWords = 16, kGemmThreads = 128;  // rows and columns; 32-bit words of a step

struct GemmParams {
  BitsGemmArgs a;
  const uint32_t* rows;     // [G or 1, M, 2 W]
  const int32_t* row_ones;  // [G or 1, M]
  const int32_t* b_ones;    // [P, G N]
  const int32_t* taps;      // [kh kw, G N], where padding is undone
  bool grouped;             // rows of every group are their own
};

STRUCTOPS_DEVICE void mma_and_popc(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  // Lane (g, t) holds rows g and g + 8 and column g at words t and t + 4; it owns columns 2 t and 2 t + 1 of its rows.
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  for (int w = 0; w < 4; ++w)
    for (int h = 0; h < 2; ++h) {
      const unsigned top = __shfl_sync(kFull, a[2 * h], 4 * g + w), low = __shfl_sync(kFull, a[2 * h + 1], 4 * g + w);
      for (int c = 0; c < 2; ++c) {
        const unsigned column = __shfl_sync(kFull, b[h], 4 * (2 * t + c) + w);
        d[c] += __popc(top & column);
        d[2 + c] += __popc(low & column);
      }
    }
#endif
}

// ---- epilogue ------------------------------------------------------------------------------------------------------
STRUCTOPS_DEVICE float real_value(const BitsEpilogue& e, int dot, int64_t at, int64_t n) {
  float y = float(dot);
  if (e.scale) y = __fmul_rn(y, e.scale[n]);
  if (e.bias) y = __fadd_rn(y, e.bias[n]);
  if (e.residual) {
    const float r = e.residual_dtype == Dtype::bf16  ? widen(static_cast<const bf16*>(e.residual)[at])
                    : e.residual_dtype == Dtype::f16 ? widen(static_cast<const f16*>(e.residual)[at])
                                                     : static_cast<const float*>(e.residual)[at];
    y = __fadd_rn(y, r);
  }
  if (e.slope) {
    if (e.gamma) y = __fadd_rn(y, e.gamma[n]);
    y = y > 0.f ? y : __fmul_rn(y, e.slope[n]);
    if (e.zeta) y = __fadd_rn(y, e.zeta[n]);
  }
  return y;
}

// One row of up to 64 columns by one warp; every lane calls. n0 is a multiple of 64 where bits are stored.
STRUCTOPS_DEVICE void finish_row(const BitsEpilogue& e, const int* dot /* [64] */, int64_t m, int64_t n0, int cols, int64_t N) {
  const int lane = threadIdx.x & 31;
  unsigned half[2] = {0, 0};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int c = 32 * h + lane;
    const bool in = c < cols;
    const int64_t n = n0 + c, at = m * N + n;
    const int d = in ? dot[c] : 0;
    bool bit = false;
    if (in) {
      switch (e.out) {
        case BitsOut::i32: static_cast<int32_t*>(e.data)[at] = d; break;
        case BitsOut::f32: static_cast<float*>(e.data)[at] = real_value(e, d, at, n); break;
        case BitsOut::bf16: static_cast<bf16*>(e.data)[at] = Narrow<bf16>::to(real_value(e, d, at, n)); break;
        case BitsOut::f16: static_cast<f16*>(e.data)[at] = Narrow<f16>::to(real_value(e, d, at, n)); break;
        case BitsOut::bits:
          if (e.threshold) {
            bit = (d >= e.threshold[n]) != (e.flip[n] != 0);
          } else {
            float y = real_value(e, d, at, n);
            if (e.shift) y = __fadd_rn(y, e.shift[n]);
            bit = y >= 0.f;
          }
          break;
      }
    }
    if (e.out == BitsOut::bits) half[h] = __ballot_sync(kFull, bit);
  }
  if (e.out == BitsOut::bits && lane == 0)
    static_cast<uint64_t*>(e.data)[m * words_of(N) + n0 / 64] = half[0] | uint64_t(half[1]) << 32;
}

// ---- products ------------------------------------------------------------------------------------------------------
// 64 rows of 16 words from row0 on and word w0 on, 0 beyond the rows and words. Rows in shared memory are 20 words apart: the
// lanes (g, t) of a fragment, word g * 20 + t, then meet 32 different banks.
STRUCTOPS_DEVICE void load_tile(uint32_t (*tile)[kStepWords + 4], const uint32_t* rows, int64_t row0, int64_t count, int64_t words, int64_t w0) {
  for (int i = threadIdx.x; i < kTile * kStepWords; i += kGemmThreads) {
    const int r = i / kStepWords, w = i % kStepWords;
    tile[r][w] = row0 + r < count && w0 + w < words ? __ldg(rows + (row0 + r) * words + w0 + w) : 0;
  }
}

STRUCTOPS_DEVICE int undone_padding(const GemmParams& p, int64_t m, int64_t column) {
  const BitsWindow& w = p.a.win;
  const int64_t image = w.OH * w.OW, o = m % image, ih = o / w.OW * w.sh - w.ph, iw = o % w.OW * w.sw - w.pw;
  const int each = int(p.a.base / p.a.K * (p.a.K / (w.kh * w.kw)));
  int sum = 0;
  for (int64_t i = 0; i < w.kh; ++i)
    for (int64_t j = 0; j < w.kw; ++j) {
      const int64_t y = ih + i * w.dh, x = iw + j * w.dw;
      if (y < 0 || y >= w.H || x < 0 || x >= w.W) sum += each + p.a.coef[0] * p.taps[(i * w.kw + j) * p.a.G * p.a.N + column];
    }
  return sum;
}

__global__ void __launch_bounds__(kGemmThreads) bits_gemm_tiles(const GemmParams p) {
  __shared__ uint32_t x[kTile][kStepWords + 4], y[kTile][kStepWords + 4];
  __shared__ int dots[kTile][kTile + 1];
  const BitsGemmArgs& a = p.a;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  const int row_base = (warp & 1) * 32, column_base = (warp >> 1) * 32;
  const int64_t blocks = (a.M + kTile - 1) / kTile, panels = panels_of(a.N);
  const int64_t block = blockIdx.x % blocks, panel = blockIdx.x / blocks % panels, group = blockIdx.x / blocks / panels;
  const int64_t m0 = block * kTile, n0 = panel * kTile, words = 2 * words_of(a.K), all = a.G * a.N;
  const int64_t lead = p.grouped ? group : 0;
  const uint32_t* const rows = p.rows + lead * a.M * words;
  int dot[2][4][4] = {};
  for (int64_t plane = 0; plane < a.P; ++plane) {
    const uint32_t* const columns = reinterpret_cast<const uint32_t*>(a.b) + (plane * all + group * a.N) * words;
    int both[2][4][4] = {};
    for (int64_t w0 = 0; w0 < words; w0 += kStepWords) {
      load_tile(x, rows, m0, a.M, words, w0);
      load_tile(y, columns, n0, a.N, words, w0);
      __syncthreads();
#pragma unroll
      for (int s = 0; s < kStepWords; s += 8) {
        unsigned fa[2][4], fb[4][2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int r = row_base + 16 * i + g;
          fa[i][0] = x[r][s + t];
          fa[i][1] = x[r + 8][s + t];
          fa[i][2] = x[r][s + 4 + t];
          fa[i][3] = x[r + 8][s + 4 + t];
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          fb[j][0] = y[column_base + 8 * j + g][s + t];
          fb[j][1] = y[column_base + 8 * j + g][s + 4 + t];
        }
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) mma_and_popc(both[i][j], fa[i], fb[j]);
      }
      __syncthreads();
    }
    const int coef = a.coef[plane], col = a.col[plane];
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const int64_t m = m0 + row_base + 16 * i + g + (c >> 1) * 8, n = n0 + column_base + 8 * j + 2 * t + (c & 1);
          if (m >= a.M || n >= a.N) continue;
          const int ones = p.row_ones[lead * a.M + m], other = p.b_ones[plane * all + group * a.N + n];
          dot[i][j][c] += coef * (ones + other - 2 * both[i][j][c]) + col * other;
          if (plane == 0) dot[i][j][c] += a.base + a.row * ones;
        }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int r = row_base + 16 * i + g + (c >> 1) * 8, n = column_base + 8 * j + 2 * t + (c & 1);
        int d = dot[i][j][c];
        if (p.taps && m0 + r < a.M && n0 + n < a.N) d -= undone_padding(p, m0 + r, group * a.N + n0 + n);
        dots[r][n] = a.halve ? d >> 1 : d;
      }
  __syncthreads();
  const int cols = int(a.N - n0 < kTile ? a.N - n0 : kTile);
  for (int r = warp; r < kTile && m0 + r < a.M; r += kGemmThreads / 32) {
    if (a.batched) finish_row(a.e, dots[r], lead * a.M + m0 + r, n0, cols, a.N);
    else finish_row(a.e, dots[r], m0 + r, group * a.N + n0, cols, all);
  }
}

// The epilogue alone, where groups share words of the result: a warp for 64 columns of a row.
__global__ void finish_rows(const BitsEpilogue e, const int32_t* dots /* [M, N] */, int64_t M, int64_t N) {
  const int64_t parts = (N + 63) / 64, warps = int64_t(gridDim.x) * (blockDim.x / 32);
  for (int64_t t = int64_t(blockIdx.x) * (blockDim.x / 32) + (threadIdx.x >> 5); t < M * parts; t += warps) {
    const int64_t m = t / parts, n0 = t % parts * 64;
    finish_row(e, dots + m * N + n0, m, n0, int(N - n0 < 64 ? N - n0 : 64), N);
  }
}

// ---- rows of a convolution -------------------------------------------------------------------------------------------
STRUCTOPS_DEVICE uint64_t bits_at(const uint64_t* p, int64_t at, int n) {
  const int s = int(at & 63);
  uint64_t v = p[at >> 6] >> s;
  if (s + n > 64) v |= p[(at >> 6) + 1] << (64 - s);
  return n == 64 ? v : v & ((uint64_t(1) << n) - 1);
}

// One word of the joined taps of a pixel: out [G, M, W].
__global__ void gather_taps(const BitsGemmArgs a, uint64_t* out) {
  const BitsWindow& w = a.win;
  const int64_t C = a.K / (w.kh * w.kw), W = words_of(a.K), in_words = words_of(a.G * C), total = a.G * a.M * W;
  for (int64_t t = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; t < total; t += int64_t(gridDim.x) * blockDim.x) {
    const int64_t word = t % W, m = t / W % a.M, g = t / W / a.M;
    const int64_t image = w.OH * w.OW, b = m / image, o = m % image, ih = o / w.OW * w.sh - w.ph, iw = o % w.OW * w.sw - w.pw;
    uint64_t v = 0;
    for (int n = 0; n < 64 && 64 * word + n < a.K;) {
      const int64_t k = 64 * word + n, tap = k / C, c = k % C;
      int64_t take = C - c;
      if (take > 64 - n) take = 64 - n;
      const int64_t y = ih + tap / w.kw * w.dh, x = iw + tap % w.kw * w.dw;
      uint64_t part = w.pad == BitsPad::bit1 ? (take == 64 ? ~uint64_t(0) : (uint64_t(1) << take) - 1) : 0;
      if (y >= 0 && y < w.H && x >= 0 && x < w.W) part = bits_at(a.a + ((b * w.H + y) * w.W + x) * in_words, g * C + c, int(take));
      v |= part << n;
      n += int(take);
    }
    out[t] = v;
  }
}

// taps[t, n]: ones of tap t of filter n.
__global__ void count_taps(const BitsGemmArgs a, int32_t* taps) {
  const int64_t T = a.win.kh * a.win.kw, C = a.K / T, all = a.G * a.N, W = words_of(a.K);
  for (int64_t t = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; t < T * all; t += int64_t(gridDim.x) * blockDim.x) {
    const int64_t tap = t / all, n = t % all;
    int32_t count = 0;
    for (int64_t c = 0; c < C; c += 64) count += __popcll(bits_at(a.b + n * W, tap * C + c, int(C - c < 64 ? C - c : 64)));
    taps[t] = count;
  }
}

}  // namespace structops::cuda
