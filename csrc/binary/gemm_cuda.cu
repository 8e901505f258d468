// CUDA products of bits: launch. The contract is gemm.h, the algorithm is in gemm.cuh.
#include "binary/cuda.h"
#include "binary/gemm.cuh"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256;

void run(const BitsGemmArgs& a, const CudaContext& ctx) {
  const int64_t W = words_of(a.K), all = a.G * a.N;
  GemmParams p{};
  p.a = a;
  p.grouped = a.conv || a.batched;
  const int64_t rows = p.grouped ? a.G * a.M : a.M;
  const uint64_t* words = a.a;
  if (a.conv) {
    uint64_t* const gathered = scratch<uint64_t>(ctx, rows * W);
    launch("bits_conv", ctx, gather_taps, blocks_for(rows * W, kThreads), kThreads, a, gathered);
    words = gathered;
    const BitsWindow& w = a.win;
    if (w.pad == BitsPad::zero && w.reaches_out()) {
      p.taps = a.taps;
      if (!p.taps) {
        int32_t* const made = scratch<int32_t>(ctx, w.kh * w.kw * all);
        launch("bits_conv", ctx, count_taps, blocks_for(w.kh * w.kw * all, kThreads), kThreads, a, made);
        p.taps = made;
      }
    }
  }
  p.rows = reinterpret_cast<const uint32_t*>(words);
  int32_t* const row_ones = scratch<int32_t>(ctx, rows);
  int32_t* const b_ones = scratch<int32_t>(ctx, a.P * all);
  bits_count({BitCount::one, rows, W, words, nullptr, row_ones}, ctx);
  bits_count({BitCount::one, a.P * all, W, a.b, nullptr, b_ones}, ctx);
  p.row_ones = row_ones;
  p.b_ones = b_ones;
  const int64_t tiles = div_up(a.M, kTile) * panels_of(a.N) * a.G;
  if (tiles >> 31) throw std::runtime_error("bits_gemm: too many tiles of 64 by 64 for one launch");
  launch("bits_gemm", ctx, bits_gemm_tiles, unsigned(tiles), kGemmThreads, p);
}

}  // namespace

void bits_gemm(const BitsGemmArgs& a, const CudaContext& ctx) {
  if (a.M == 0 || a.N == 0 || a.G == 0) return;
  if (a.e.out != BitsOut::bits || a.G == 1 || a.batched || a.N % 64 == 0) return run(a, ctx);
  // Groups share words of the result: integers first.
  const int64_t all = a.G * a.N;
  BitsGemmArgs inner = a;
  int32_t* const dots = scratch<int32_t>(ctx, a.M * all);
  inner.e = BitsEpilogue{};
  inner.e.data = dots;
  run(inner, ctx);
  launch("bits_gemm", ctx, finish_rows, blocks_for(a.M * div_up(all, 64), kThreads / 32), kThreads, a.e, static_cast<const int32_t*>(dots), a.M, all);
}

}  // namespace structops::cuda
