// SO(2) linear maps of one tile of edges, for instruction-set files. The mathematics is in so2_conv.h.
#pragma once
#include "core/memory.h"
#include "core/gemm.h"
#include "so2/so2_conv.h"
#include "so2/wigner.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int64_t kSlack = 64;  // numbers that the micro-kernel may read beyond a buffer

// A matrix of one order as the product sees it: K inputs, N outputs.
template <class A>
struct PackedBlock {
  int64_t K, N, from, to;  // of a half (+ or -) where m > 0; from, to: first number in the rows of input and output
  const A *w1, *w2, *w12;  // m = 0: w1.  four multiplications: w1 is [[W1, -W2], [W2, W1]] of 2K x 2N
};

template <class A>
struct PackedConv {
  So2Shape s;
  bool transpose, three;
  PackedBlock<A> block[kMaxL + 1];
  A* memory = nullptr;

  // Packs on the caller's threads. Throws std::bad_alloc.
  PackedConv(const So2Shape& shape, const A* w, bool transposed, bool three_products, const ParallelFor& pf)
      : s(shape), transpose(transposed), three(three_products) {
    int64_t size = 0, jobs = 0;
    for (int m = 0; m <= s.mmax; ++m) {
      PackedBlock<A>& b = block[m];
      b.K = transpose ? s.N(m) : s.K(m);
      b.N = transpose ? s.K(m) : s.N(m);
      b.from = transpose ? s.out_at(m) : s.in_at(m);
      b.to = transpose ? s.in_at(m) : s.out_at(m);
      size += floats(m);
      jobs += panels_of(m);
    }
    memory = allocate<A>(size_t(size + kSlack));
    A* at = memory;
    for (int m = 0; m <= s.mmax; ++m) {
      const int64_t one = m && three ? packed_floats<A>(block[m].K, block[m].N) : 0;
      block[m].w1 = at;
      block[m].w2 = at + one;
      block[m].w12 = at + 2 * one;
      at += floats(m);
    }
    auto body = [&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; ++j) pack(w, j);
    };
    parallel_for(pf, jobs, 4, body);
  }
  PackedConv(const PackedConv&) = delete;
  ~PackedConv() { std::free(memory); }

  int64_t scratch() const {  // numbers of scratch that apply() needs
    if (!three) return kSlack;
    int64_t most = 0;
    for (int m = 1; m <= s.mmax; ++m) {
      const int64_t need = kTile * (padded<A>(block[m].K) + 2 * padded<A>(block[m].N));
      most = need > most ? need : most;
    }
    return most + kSlack;
  }

  // out (a tile, T rows rounded up to kMR) = map of in; bias [N(0)] or null.
  void apply(int64_t T, const A* in, int64_t ld_in, A* out, int64_t ld_out, const A* bias, A* tmp) const {
    T = (T + kMR<A> - 1) / kMR<A> * kMR<A>;
    const PackedBlock<A>& zero = block[0];
    gemm<A>(T, zero.N, zero.K, in + zero.from, ld_in, zero.w1, out + zero.to, ld_out, 1, false);
    if (bias)
      for (int64_t t = 0; t < T; ++t)
        for (int64_t j = 0; j < zero.N; ++j) out[t * ld_out + zero.to + j] += bias[j];
    for (int m = 1; m <= s.mmax; ++m) {
      const PackedBlock<A>& b = block[m];
      if (!three) {
        gemm<A>(T, 2 * b.N, 2 * b.K, in + b.from, ld_in, b.w1, out + b.to, ld_out, 1, false);
        continue;
      }
      const int64_t ldk = padded<A>(b.K), ldn = padded<A>(b.N);
      A *const sum = tmp, *const t2 = sum + kTile * ldk, *const t3 = t2 + kTile * ldn;
      for (int64_t t = 0; t < T; ++t) {
        const A* const x = in + t * ld_in + b.from;
        for (int64_t k = 0; k < b.K; ++k) sum[t * ldk + k] = x[k] + x[b.K + k];
      }
      gemm<A>(T, b.N, b.K, in + b.from, ld_in, b.w1, out + b.to, ld_out, 1, false);
      gemm<A>(T, b.N, b.K, in + b.from + b.K, ld_in, b.w2, t2, ldn, 1, false);
      gemm<A>(T, b.N, b.K, sum, ldk, b.w12, t3, ldn, 1, false);
      for (int64_t t = 0; t < T; ++t) {
        A* const y = out + t * ld_out + b.to;
        for (int64_t j = 0; j < b.N; ++j) {
          const A p = y[j], q = t2[t * ldn + j];
          y[j] = p - q;
          y[b.N + j] = t3[t * ldn + j] - p - q;
        }
      }
    }
  }

 private:
  int64_t floats(int m) const {
    const PackedBlock<A>& b = block[m];
    if (m == 0) return packed_floats<A>(b.K, b.N);
    return three ? 3 * packed_floats<A>(b.K, b.N) : packed_floats<A>(2 * b.K, 2 * b.N);
  }
  int64_t panels_of(int m) const {
    const int64_t N = block[m].N;
    return m == 0 ? panels<A>(N) : three ? 3 * panels<A>(N) : panels<A>(2 * N);
  }

  void pack(const A* w, int64_t job) const {
    int m = 0;
    for (; job >= panels_of(m); ++m) job -= panels_of(m);
    const PackedBlock<A>& b = block[m];
    // The effective matrices are W1 and W2 or, for the transpose, W1^T and -W2^T.
    const int64_t columns = s.K(m), ldn = transpose ? 1 : columns, ldk = transpose ? columns : 1;
    const A *const w1 = w + s.weight_at(m), *const w2 = w1 + s.N(m) * columns, sign = transpose ? A(-1) : A(1);
    constexpr int NR = kNR<A>;
    if (m == 0) {
      pack_panel<A>(const_cast<A*>(b.w1), job, b.K, b.N, w1, ldn, ldk, 1, 0, b.K);
      return;
    }
    if (three) {
      const int64_t P = panels<A>(b.N), which = job / P, p = job % P;
      if (which == 0)
        pack_panel<A>(const_cast<A*>(b.w1), p, b.K, b.N, w1, ldn, ldk, 1, 0, b.K);
      else if (which == 1)
        pack_panel<A>(const_cast<A*>(b.w2), p, b.K, b.N, w2, ldn, ldk, sign, 0, b.K);
      else {
        A* const to = const_cast<A*>(b.w12) + p * NR * b.K;
        for (int64_t k = 0; k < b.K; ++k)
          for (int64_t j = 0; j < NR; ++j) {
            const int64_t n = p * NR + j;
            to[k * NR + j] = n < b.N ? w1[n * ldn + k * ldk] + sign * w2[n * ldn + k * ldk] : A(0);
          }
      }
      return;
    }
    // Column n of [[W1, W2], [-W2, W1]] (inputs down, outputs across).
    A* const to = const_cast<A*>(b.w1) + job * NR * 2 * b.K;
    for (int64_t j = 0; j < NR; ++j) {
      const int64_t n = job * NR + j;
      const bool minus = n >= b.N, inside = n < 2 * b.N;
      const int64_t row = (minus ? n - b.N : n) * ldn;
      for (int64_t k = 0; k < b.K; ++k) {
        to[k * NR + j] = !inside ? A(0) : minus ? sign * w2[row + k * ldk] : w1[row + k * ldk];
        to[(b.K + k) * NR + j] = !inside ? A(0) : minus ? w1[row + k * ldk] : -sign * w2[row + k * ldk];
      }
    }
  }
};

// dw += weight gradient of T rows; x [T, ldx], g [T, ldg].
template <class A>
void conv_wgrad(const So2Shape& s, int64_t T, const A* x, int64_t ldx, const A* g, int64_t ldg, A* dw) {
  gemm_transposed<A>(s.N(0), s.K(0), T, g, ldg, x, ldx, dw, s.K(0), 1);
  for (int m = 1; m <= s.mmax; ++m) {
    const int64_t K = s.K(m), N = s.N(m);
    const A *const xp = x + s.in_at(m), *const xm = xp + K, *const gp = g + s.out_at(m), *const gm = gp + N;
    A *const d1 = dw + s.weight_at(m), *const d2 = d1 + N * K;
    gemm_transposed<A>(N, K, T, gp, ldg, xp, ldx, d1, K, 1);
    gemm_transposed<A>(N, K, T, gm, ldg, xm, ldx, d1, K, 1);
    gemm_transposed<A>(N, K, T, gm, ldg, xp, ldx, d2, K, 1);
    gemm_transposed<A>(N, K, T, gp, ldg, xm, ldx, d2, K, -1);
  }
}

// Adds `slices` partial results of n numbers in order: out = p_0 + p_1 + ...
template <class A>
void add_slices(int64_t slices, int64_t n, const A* parts, int64_t stride, A* out, const ParallelFor& pf) {
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      A sum = parts[i];
      for (int64_t p = 1; p < slices; ++p) sum += parts[p * stride + i];
      out[i] = sum;
    }
  };
  parallel_for(pf, n, 16384, body);
}

}  // namespace
}  // namespace structops::STRUCTOPS_ISA
