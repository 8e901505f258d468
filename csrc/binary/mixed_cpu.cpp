// CPU kernels of mixed.h, on the panels of bits.h.
#include "binary/byte_tile.h"
#include "core/memory.h"

namespace structops::STRUCTOPS_ISA {

void bits_panels(const BitsPanelsArgs& a, const ParallelFor& pf);  // bits_cpu.cpp

namespace {

int64_t div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Buffer {
  void* p = nullptr;
  ~Buffer() { std::free(p); }
};
template <class T> T* hold(Buffer& b, int64_t n) {
  b.p = allocate<T>(size_t(n));
  return static_cast<T*>(b.p);
}

const uint32_t* panels_or_make(const BitsMixedArgs& a, Buffer& buffer, const ParallelFor& pf) {
  if (a.panels) return a.panels;
  uint32_t* const made = hold<uint32_t>(buffer, a.P * panels_of(a.N) * 2 * words_of(a.K) * kPanelRows);
  STRUCTOPS_ISA::bits_panels({a.P, a.N, words_of(a.K), a.b, made}, pf);
  return made;
}

// ---- int8 ----------------------------------------------------------------------------------------------------------
struct Bytes {
  const uint32_t* panels;
  const int32_t* x;      // blocks of `block` words, one after the other, each [M, 8 words] of four ordered bytes
  const int32_t* start;  // [M] what is not a product with a bit
  int64_t steps, block;  // words of a row, words of a block
};

// Rows of a task, at most. The many share the bytes that a panel's bits become, which pays from kManyRows rows times planes on.
constexpr int64_t kFewTask = 96, kManyTask = 32 * kWeightRows, kManyRows = 16;

void few_rows(const BitsMixedArgs& a, const Bytes& b, const ParallelFor& pf) {
  constexpr int R = kByteRows;
  const int64_t NB = panels_of(a.N), row = 8 * b.steps, tasks = NB * div_up(a.M, kFewTask);
  auto body = [&](int64_t begin, int64_t end) {
    alignas(64) ByteSums sum[R];
    for (int64_t task = begin; task < end; ++task) {
      const int64_t q = task % NB, n0 = q * kPanelRows, first = task / NB * kFewTask;
      const int64_t last = a.M - first < kFewTask ? a.M : first + kFewTask;
      const int cols = int(a.N - n0 < kPanelRows ? a.N - n0 : kPanelRows);
      for (int64_t m0 = first; m0 < last; m0 += R) {
        const int rows = int(last - m0 < R ? last - m0 : R);
        for (int64_t p = 0; p < a.P; ++p) {
          byte_rows<R>(b.x + m0 * row, row, b.panels + (p * NB + q) * b.steps * kPanelRows, b.steps, rows, sum);
          const int32_t coef = int32_t(a.coef[p]);
          for (int r = 0; r < rows; ++r) {
            int32_t* const out = static_cast<int32_t*>(a.out) + (m0 + r) * a.N + n0;
            for (int c = 0; c < cols; ++c) out[c] = (p ? out[c] : b.start[m0 + r]) + coef * sum[r][c];
          }
        }
      }
    }
  };
  const double work = double(a.M) * double(a.N) * double(a.K) * double(a.P) / double(tasks);
  parallel_for(pf, tasks, 1 + int64_t(3e6 / (work + 1)), body);
}

void many_rows(const BitsMixedArgs& a, const Bytes& b, const ByteWeights& w, const ParallelFor& pf) {
  const int64_t NB = panels_of(a.N), parts = div_up(a.M, kManyTask), most = div_up(div_up(a.M, parts), kWeightRows) * kWeightRows;
  const int64_t tasks = NB * div_up(a.M, most);
  auto body = [&](int64_t begin, int64_t end) {
    alignas(64) int32_t tile[8 * kWeightSteps * kPanelRows];
    alignas(64) ByteSums sum[kManyTask];
    for (int64_t task = begin; task < end; ++task) {
      const int64_t q = task % NB, n0 = q * kPanelRows, m0 = task / NB * most, rows = a.M - m0 < most ? a.M - m0 : most;
      int32_t* const out = static_cast<int32_t*>(a.out) + m0 * a.N + n0;
      const bool narrow = a.N - n0 < kPanelRows;
      for (int64_t s = 0; s < b.steps; s += b.block) {
        const int64_t count = b.steps - s < b.block ? b.steps - s : b.block, row = 8 * count;
        const int32_t* const x = b.x + 8 * s * a.M + m0 * row;
        const bool last = s + count == b.steps && !narrow;  // straight to the result
        take_apart(w, a.P, b.panels + (q * b.steps + s) * kPanelRows, NB * b.steps * kPanelRows, count, tile);
        for (int64_t r = 0; r < rows; r += kWeightRows)
          weight_rows<kWeightRows>(rows - r, x + r * row, row, tile, row, w.most, s ? nullptr : b.start + m0 + r, sum + r,
                                   last ? out + r * a.N : sum[r], last ? a.N : kPanelRows);
      }
      if (narrow)
        for (int64_t r = 0; r < rows; ++r) __builtin_memcpy(out + r * a.N, sum[r], size_t(a.N - n0) * sizeof(int32_t));
    }
  };
  const double work = double(a.M) * double(a.N) * double(a.K) / double(tasks);
  parallel_for(pf, tasks, 1 + int64_t(3e6 / (work + 1)), body);
}

}  // namespace

void bits_w1a8(const BitsMixedArgs& a, const ParallelFor& pf) {
  if (a.M == 0 || a.N == 0) return;
  const int64_t steps = 2 * words_of(a.K);
  ByteWeights weights;
  const bool many = a.M * a.P >= kManyRows && steps > 0 && byte_weights(a, weights);
  const int64_t block = many ? kWeightSteps : steps;
  const int32_t factor = int32_t(a.base) + (many ? weights.low : 0);
  Buffer panel_buffer, x_buffer, start_buffer;
  const uint32_t* const panels = panels_or_make(a, panel_buffer, pf);
  int32_t* const x = hold<int32_t>(x_buffer, a.M * 8 * steps);
  int32_t* const start = hold<int32_t>(start_buffer, a.M);
  auto order = [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) {
      int32_t sum = 0;
      for (int64_t s = 0; s < steps; s += block) {
        const int64_t count = steps - s < block ? steps - s : block, left = a.K - 32 * s;
        sum += order_bytes(static_cast<const int8_t*>(a.x) + m * a.K + 32 * s, left < 32 * count ? left : 32 * count, 32 * count,
                           reinterpret_cast<int8_t*>(x + 8 * (s * a.M + m * count)));
      }
      start[m] = factor * sum;
    }
  };
  parallel_for(pf, a.M, 1 + 4096 / (steps + 1), order);
  const Bytes bytes{panels, x, start, steps, block};
  if (many) many_rows(a, bytes, weights, pf);
  else few_rows(a, bytes, pf);
}

namespace {

// ---- floats --------------------------------------------------------------------------------------------------------
typedef float Sixteen __attribute__((vector_size(64)));
typedef uint32_t SixteenBits __attribute__((vector_size(64)));

// The 16 sums of four values, x_i negative where bit i of the lane's number is 0.
STRUCTOPS_INLINE void signed_sums(const float* x, float* table) {
  SixteenBits lane;
  for (int i = 0; i < 16; ++i) lane[i] = uint32_t(i);
  Sixteen sum = {};
  for (int i = 0; i < 4; ++i) {
    const SixteenBits sign = (((lane >> i) & 1u) ^ 1u) << 31;
    const Sixteen v = Sixteen{} + x[i];
    const Sixteen term = (Sixteen)((SixteenBits)v ^ sign);
    sum = i ? sum + term : term;
  }
  __builtin_memcpy(table, &sum, sizeof sum);
}

// Rows that share the nibbles: with 32 registers, enough that shifting them is a small part of the work.
constexpr int kTableRows = W<float> == 16 ? 4 : 1;
typedef float TableSums[kPanelRows];

// sum[r][c] = over q of table_q[nibble q of column c] of row r; the rows' tables are `size` floats apart.
template <int R> void table_tile(const float* table, [[maybe_unused]] int64_t size, const uint32_t* panel, int64_t steps, TableSums* sums) {
#if defined(__AVX512F__)
  __m512 acc[R][4];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) acc[r][v] = _mm512_setzero_ps();
  for (int64_t s = 0; s < steps; ++s) {
    __m512i word[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) word[v] = _mm512_loadu_si512(panel + s * kPanelRows + 16 * v);
#pragma GCC unroll 8
    for (int t = 0; t < 8; ++t, table += 16) {
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const __m512 entries = _mm512_loadu_ps(table + r * size);
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) {
          acc[r][v] = _mm512_add_ps(acc[r][v], _mm512_permutexvar_ps(word[v], entries));  // the low four bits
          pin(acc[r][v]);  // else the compiler looks up all eight first and spills them
        }
      }
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) word[v] = _mm512_srli_epi32(word[v], 4);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) _mm512_storeu_ps(sums[r] + 16 * v, acc[r][v]);
#elif defined(__AVX2__)
  static_assert(R == 1);
  float* const sum = *sums;
  for (int c = 0; c < kPanelRows; c += 32) {
    __m256 acc[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) acc[v] = _mm256_setzero_ps();
    const float* entry = table;
    for (int64_t s = 0; s < steps; ++s) {
      __m256i word[4];
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) word[v] = _mm256_loadu_si256((const __m256i*)(panel + s * kPanelRows + c + 8 * v));
      for (int t = 0; t < 8; ++t, entry += 16) {
        const __m256 low = _mm256_loadu_ps(entry), high = _mm256_loadu_ps(entry + 8);
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) {
          const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(word[v], 28));  // bit 3 becomes the sign that blendv reads
          acc[v] = _mm256_add_ps(acc[v], _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, word[v]), _mm256_permutevar8x32_ps(high, word[v]), upper));
          word[v] = _mm256_srli_epi32(word[v], 4);
        }
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) _mm256_storeu_ps(sum + c + 8 * v, acc[v]);
  }
#else
  static_assert(R == 1);
  float* const sum = *sums;
  for (int c = 0; c < kPanelRows; ++c) sum[c] = 0.f;
  for (int64_t s = 0; s < steps; ++s)
    for (int t = 0; t < 8; ++t, table += 16)
      for (int c = 0; c < kPanelRows; ++c) sum[c] += table[(panel[s * kPanelRows + c] >> (4 * t)) & 15];
#endif
}

// The same for 1 to R rows.
template <int R> STRUCTOPS_INLINE void table_rows(int64_t rows, const float* table, int64_t size, const uint32_t* panel, int64_t steps, TableSums* sums) {
  if (rows >= R) return table_tile<R>(table, size, panel, steps, sums);
  if constexpr (R > 1) table_rows<R - 1>(rows, table, size, panel, steps, sums);
}

template <class T> void run_w1a16(const BitsMixedArgs& a, const ParallelFor& pf) {
  constexpr int64_t rows = 16;  // whose tables are kept at a time
  const int64_t Wd = words_of(a.K), steps = 2 * Wd, NB = panels_of(a.N), size = 16 * Wd * 16;
  Buffer panel_buffer, table_buffer;
  const uint32_t* const panels = panels_or_make(a, panel_buffer, pf);
  const int64_t held = a.M < rows ? a.M : rows;
  float* const tables = hold<float>(table_buffer, held * (size + 1));  // [held, 16 W, 16], then [held] sums
  float* const totals = tables + held * size;
  const float base = float(a.base);
  for (int64_t m0 = 0; m0 < a.M; m0 += rows) {
    const int64_t count = a.M - m0 < rows ? a.M - m0 : rows;
    auto prepare = [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* const x = static_cast<const T*>(a.x) + (m0 + r) * a.K;
        float* const table = tables + r * size;
        float four[4];
        for (int64_t q = 0; q < a.K / 4; ++q) {
          for (int i = 0; i < 4; ++i) four[i] = widen(x[4 * q + i]);
          signed_sums(four, table + q * 16);
        }
        for (int64_t q = a.K / 4; q < 16 * Wd; ++q) {
          for (int i = 0; i < 4; ++i) four[i] = 4 * q + i < a.K ? float(widen(x[4 * q + i])) : 0.f;
          signed_sums(four, table + q * 16);
        }
        float total = 0.f;
        if (base != 0.f)
          for (int64_t k = 0; k < a.K; ++k) total += widen(x[k]);
        totals[r] = base * total;
      }
    };
    parallel_for(pf, count, 1 + 8192 / (a.K + 1), prepare);
    const int64_t groups = div_up(count, kTableRows);
    auto body = [&](int64_t begin, int64_t end) {
      alignas(64) TableSums sum[kTableRows];
      for (int64_t task = begin; task < end; ++task) {
        const int64_t q = task / groups, r0 = task % groups * kTableRows, n0 = q * kPanelRows;
        const int64_t some = count - r0 < kTableRows ? count - r0 : kTableRows;
        const int cols = int(a.N - n0 < kPanelRows ? a.N - n0 : kPanelRows);
        for (int64_t p = 0; p < a.P; ++p) {
          table_rows<kTableRows>(some, tables + r0 * size, size, panels + (p * NB + q) * steps * kPanelRows, steps, sum);
          for (int64_t r = 0; r < some; ++r) {
            float* const out = static_cast<float*>(a.out) + (m0 + r0 + r) * a.N + n0;
            for (int c = 0; c < kPanelRows; c += W<float>) {
              Vec<float> term = load(sum[r] + c) * float(a.coef[p]);
              pin(term);  // rounded before the addition, on every instruction set
              store(sum[r] + c, term);
            }
            for (int c = 0; c < cols; ++c) out[c] = (p ? out[c] : totals[r0 + r]) + sum[r][c];
          }
        }
      }
    };
    parallel_for(pf, NB * groups, 1 + int64_t(1e6 / (double(kTableRows * kPanelRows) * double(a.K) * double(a.P) + 1)), body);
  }
}

}  // namespace

void bits_w1a16(const BitsMixedArgs& a, const ParallelFor& pf) {
  if (a.M == 0 || a.N == 0) return;
  switch (a.dtype) {
    case Dtype::bf16: return run_w1a16<bf16_t>(a, pf);
    case Dtype::f16: return run_w1a16<f16_t>(a, pf);
    default: return run_w1a16<float>(a, pf);
  }
}

}  // namespace structops::STRUCTOPS_ISA
