// CPU kernels of mixed.h, on the panels of bits.h.
#include "binary/lanes.h"
#include "binary/mixed.h"
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
// Lane c of a panel's word s holds bits 32 s .. of column c. Shifted right by t and masked, its bytes are the bits t, 8 + t, 16 + t,
// 24 + t: activations are put in that order once, four bytes a word, and one instruction multiplies and adds the four.
typedef Vec<int32_t> Ints;

STRUCTOPS_INLINE Ints add_products(Ints acc, Ints bits, Ints x) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)bits, (__m512i)x);
#elif defined(__AVX2__)
  return acc + (Ints)_mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)bits, (__m256i)x), _mm256_set1_epi16(1));
#else
  for (int j = 0; j < 4; ++j) acc += ((bits >> (8 * j)) & 1) * ((x << (24 - 8 * j)) >> 24);
  return acc;
#endif
}

// Rows of the largest tile: with 32 registers, enough that taking the bits apart is a small part of the work.
constexpr int kByteRows = W<int32_t> == 16 ? 12 : 4;
constexpr int64_t kByteSteps = 64;

// sum = or, where `more`, += the products of R rows with a panel.
template <int R> void byte_tile(const int32_t* x, int64_t ldx, const uint32_t* panel, int64_t steps, bool more, int32_t (*sum)[kPanelRows]) {
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

// x in the order of the bits, padded with 0 to `count` bytes; returns its sum.
STRUCTOPS_INLINE int32_t order_bytes(const int8_t* x, int64_t K, int64_t count, int8_t* out) {
  uint32_t sum = 0;
  for (int64_t k = 0; k < K; ++k) sum += uint32_t(int32_t(x[k]));
  int64_t k = 0;
#if defined(__AVX2__)
  for (; k + 32 <= K; k += 32) {
    const __m128i first = _mm_loadu_si128((const __m128i*)(x + k)), last = _mm_loadu_si128((const __m128i*)(x + k + 16));
    const __m128i a = _mm_unpacklo_epi8(first, _mm_srli_si128(first, 8)), b = _mm_unpacklo_epi8(last, _mm_srli_si128(last, 8));
    _mm_storeu_si128((__m128i*)(out + k), _mm_unpacklo_epi16(a, b));
    _mm_storeu_si128((__m128i*)(out + k + 16), _mm_unpackhi_epi16(a, b));
  }
#endif
  for (; k < count; ++k) out[k / 32 * 32 + k % 8 * 4 + k % 32 / 8] = k < K ? x[k] : int8_t(0);
  return int32_t(sum);
}

// Tiles of R rows, then of fewer, of `rows` rows; of kByteSteps words at a time, whose activations stay in L1.
template <int R> STRUCTOPS_INLINE void byte_rows(const int32_t* x, int64_t ldx, const uint32_t* panel, int64_t steps, int rows, int32_t (*sum)[kPanelRows]) {
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

}  // namespace

void bits_w1a8(const BitsMixedArgs& a, const ParallelFor& pf) {
  if (a.M == 0 || a.N == 0) return;
  const int64_t Wd = words_of(a.K), steps = 2 * Wd, NB = panels_of(a.N), row = 8 * steps;
  Buffer panel_buffer, x_buffer, sum_buffer;
  const uint32_t* const panels = panels_or_make(a, panel_buffer, pf);
  int32_t* const x = hold<int32_t>(x_buffer, a.M * row);   // [M, 8 steps] of four bytes
  int32_t* const total = hold<int32_t>(sum_buffer, a.M);
  auto order = [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) {
      total[m] = order_bytes(static_cast<const int8_t*>(a.x) + m * a.K, a.K, 4 * row, reinterpret_cast<int8_t*>(x + m * row));
    }
  };
  parallel_for(pf, a.M, 1 + 32768 / (row + 1), order);
  constexpr int R = kByteRows, most = 96;  // rows of a tile and of a task
  const int64_t tasks = NB * div_up(a.M, most);
  auto body = [&](int64_t begin, int64_t end) {
    alignas(64) int32_t sum[R][kPanelRows];
    for (int64_t task = begin; task < end; ++task) {
      const int64_t q = task % NB, n0 = q * kPanelRows, first = task / NB * most;
      const int64_t last = a.M - first < most ? a.M : first + most;
      const int cols = int(a.N - n0 < kPanelRows ? a.N - n0 : kPanelRows);
      for (int64_t m0 = first; m0 < last; m0 += R) {
        const int rows = int(last - m0 < R ? last - m0 : R);
        for (int64_t p = 0; p < a.P; ++p) {
          const uint32_t* const panel = panels + (p * NB + q) * steps * kPanelRows;
          byte_rows<R>(x + m0 * row, row, panel, steps, rows, sum);
          const int32_t coef = int32_t(a.coef[p]), base = int32_t(a.base);
          for (int r = 0; r < rows; ++r) {
            int32_t* const out = static_cast<int32_t*>(a.out) + (m0 + r) * a.N + n0;
            for (int c = 0; c < cols; ++c) out[c] = (p ? out[c] : base * total[m0 + r]) + coef * sum[r][c];
          }
        }
      }
    }
  };
  const double work = double(a.M) * double(a.N) * double(a.K) * double(a.P) / double(tasks);
  parallel_for(pf, tasks, 1 + int64_t(3e6 / (work + 1)), body);
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

// sum[c] += over q of table_q[nibble q of column c]
STRUCTOPS_INLINE void table_tile(const float* table, const uint32_t* panel, int64_t steps, float* sum) {
#if defined(__AVX512F__)
  __m512 acc[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) acc[v] = _mm512_setzero_ps();
  for (int64_t s = 0; s < steps; ++s) {
    __m512i word[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) word[v] = _mm512_loadu_si512(panel + s * kPanelRows + 16 * v);
#pragma GCC unroll 8
    for (int t = 0; t < 8; ++t, table += 16) {
      const __m512 entries = _mm512_loadu_ps(table);
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        acc[v] = _mm512_add_ps(acc[v], _mm512_permutexvar_ps(word[v], entries));  // reads the low four bits
        word[v] = _mm512_srli_epi32(word[v], 4);
      }
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) _mm512_storeu_ps(sum + 16 * v, acc[v]);
#elif defined(__AVX2__)
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
  for (int c = 0; c < kPanelRows; ++c) sum[c] = 0.f;
  for (int64_t s = 0; s < steps; ++s)
    for (int t = 0; t < 8; ++t, table += 16)
      for (int c = 0; c < kPanelRows; ++c) sum[c] += table[(panel[s * kPanelRows + c] >> (4 * t)) & 15];
#endif
}

template <class T> void run_w1a16(const BitsMixedArgs& a, const ParallelFor& pf) {
  constexpr int64_t rows = 16;  // whose tables are kept at a time
  const int64_t Wd = words_of(a.K), steps = 2 * Wd, NB = panels_of(a.N), size = 16 * Wd * 16;
  Buffer panel_buffer, table_buffer;
  const uint32_t* const panels = panels_or_make(a, panel_buffer, pf);
  const int64_t held = a.M < rows ? a.M : rows;
  float* const tables = hold<float>(table_buffer, held * (size + 1));  // [held, 16 W, 16], then [held] sums
  float* const totals = tables + held * size;
  for (int64_t m0 = 0; m0 < a.M; m0 += rows) {
    const int64_t count = a.M - m0 < rows ? a.M - m0 : rows;
    auto prepare = [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* const x = static_cast<const T*>(a.x) + (m0 + r) * a.K;
        float total = 0.f;
        for (int64_t q = 0; q < 16 * Wd; ++q) {
          float four[4];
          for (int i = 0; i < 4; ++i) {
            four[i] = 4 * q + i < a.K ? float(widen(x[4 * q + i])) : 0.f;
            total += four[i];
          }
          signed_sums(four, tables + r * size + q * 16);
        }
        totals[r] = total;
      }
    };
    parallel_for(pf, count, 1 + 8192 / (a.K + 1), prepare);
    const float base = float(a.base);
    auto body = [&](int64_t begin, int64_t end) {
      alignas(64) float sum[kPanelRows];
      for (int64_t task = begin; task < end; ++task) {
        const int64_t q = task / count, r = task % count, n0 = q * kPanelRows;
        const int cols = int(a.N - n0 < kPanelRows ? a.N - n0 : kPanelRows);
        float* const out = static_cast<float*>(a.out) + (m0 + r) * a.N + n0;
        for (int64_t p = 0; p < a.P; ++p) {
          table_tile(tables + r * size, panels + (p * NB + q) * steps * kPanelRows, steps, sum);
          for (int c = 0; c < kPanelRows; c += W<float>) {
            Vec<float> term = load(sum + c) * float(a.coef[p]);
            pin(term);  // rounded before the addition, on every instruction set
            store(sum + c, term);
          }
          const float start = base == 0.f ? 0.f : base * totals[r];
          for (int c = 0; c < cols; ++c) out[c] = (p ? out[c] : start) + sum[c];
        }
      }
    };
    parallel_for(pf, NB * count, 1 + int64_t(1e6 / (double(kPanelRows) * double(a.K) * double(a.P) + 1)), body);
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
