// CPU kernel of bag.h. A vector of words holds one binary digit of the counts of its columns: full adders take rows in eights, five
// logical operations for a vector of rows, and no bit leaves its place until a bag's counts are spread to bytes, once.
#include "binary/bag.h"
#include "binary/lanes.h"
#include "sparse/row_pieces.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kDigits = 8;
constexpr int64_t kRows = 248;   // of whole eights, whose counts fit in kDigits
constexpr int64_t kAhead = 24;  // rows between a prefetch and its use

// L words side by side.
template <int L> struct BlockOf { typedef uint64_t type __attribute__((vector_size(8 * L))); };
template <> struct BlockOf<1> { using type = uint64_t; };
template <int L> using Block = typename BlockOf<L>::type;

// sum + b + c: leaves the sum's digit in place and returns the carry.
template <class V> STRUCTOPS_INLINE V full_add(V& sum, V b, V c) {
  const V either = sum ^ b, carry = (sum & b) | (either & c);
  sum = either ^ c;
  return carry;
}

// Up to kRows rows of a bag: where they begin in the table.
struct Rows {
  int64_t n, at[kRows];
};

void find_rows(const BitsBagArgs& a, int64_t begin, int64_t end, int64_t words, Rows& rows) {
  rows.n = end - begin;
  for (int64_t k = begin; k < end; ++k) {
    rows.at[k - begin] = a.index[k] * words;
    if (k + kAhead < a.E) __builtin_prefetch(a.table + a.index[k + kAhead] * words);
  }
}

// Adds R <= 8 rows to the digits of the counts.
template <int R, int L> STRUCTOPS_INLINE void add_rows(const uint64_t* table, const int64_t* at, int digits, Block<L> (&digit)[kDigits]) {
  Block<L> row[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    row[i] = Block<L>{};
    if (i < R) __builtin_memcpy(&row[i], table + at[i], 8 * L);
  }
  const Block<L> two0 = full_add(digit[0], row[0], row[1]), two1 = full_add(digit[0], row[2], row[3]);
  const Block<L> four0 = full_add(digit[1], two0, two1);
  const Block<L> two2 = full_add(digit[0], row[4], row[5]), two3 = full_add(digit[0], row[6], row[7]);
  const Block<L> four1 = full_add(digit[1], two2, two3);
  Block<L> carry = full_add(digit[2], four0, four1);
#pragma GCC unroll 8
  for (int p = 3; p < kDigits; ++p) {
    if (p >= digits) break;
    const Block<L> next = digit[p] & carry;
    digit[p] ^= carry;
    carry = next;
  }
}

// Counts of the rows in L words of the table: digit p of all counts is digit[p].
template <int L> STRUCTOPS_INLINE void count_rows(const Rows& rows, const uint64_t* table, int digits, Block<L> (&digit)[kDigits]) {
#pragma GCC unroll 8
  for (int p = 0; p < kDigits; ++p) digit[p] = Block<L>{};
  const int64_t* at = rows.at;
  int64_t left = rows.n;
  for (; left >= 8; left -= 8, at += 8) add_rows<8, L>(table, at, digits, digit);
  switch (left) {
    case 0: break;
    case 1: add_rows<1, L>(table, at, digits, digit); break;
    case 2: add_rows<2, L>(table, at, digits, digit); break;
    case 3: add_rows<3, L>(table, at, digits, digit); break;
    case 4: add_rows<4, L>(table, at, digits, digit); break;
    case 5: add_rows<5, L>(table, at, digits, digit); break;
    case 6: add_rows<6, L>(table, at, digits, digit); break;
    default: add_rows<7, L>(table, at, digits, digit);
  }
}

// count[c] = sum_p 2^p * bit c of digit[p * stride]
STRUCTOPS_INLINE void spread(const uint64_t* digit, int64_t stride, int digits, uint8_t* count /* [64] */) {
#if defined(__AVX512BW__)
  __m512i sum = _mm512_setzero_si512();
  for (int p = 0; p < digits; ++p) sum = _mm512_mask_add_epi8(sum, _cvtu64_mask64(digit[p * stride]), sum, _mm512_set1_epi8(char(1 << p)));
  _mm512_storeu_si512(count, sum);
#elif defined(__AVX2__)
  const __m256i byte = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
  const __m256i bit = _mm256_set1_epi64x(int64_t(0x8040201008040201));
  __m256i sum[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (int p = 0; p < digits; ++p)
    for (int h = 0; h < 2; ++h) {
      const __m256i half = _mm256_shuffle_epi8(_mm256_set1_epi32(int(digit[p * stride] >> (32 * h))), byte);
      const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(half, bit), bit);
      sum[h] = _mm256_or_si256(sum[h], _mm256_and_si256(set, _mm256_set1_epi8(char(1 << p))));
    }
  for (int h = 0; h < 2; ++h) _mm256_storeu_si256((__m256i*)(count + 32 * h), sum[h]);
#else
  for (int b = 0; b < 8; ++b) {  // eight bits to eight bytes
    uint64_t sum = 0;
    for (int p = 0; p < digits; ++p) {
      const uint64_t copies = ((digit[p * stride] >> (8 * b)) & 0xff) * 0x0101010101010101ull & 0x8040201008040201ull;
      sum |= (((copies + 0x7f7f7f7f7f7f7f7full) | copies) >> 7 & 0x0101010101010101ull) << p;
    }
    __builtin_memcpy(count + 8 * b, &sum, 8);
  }
#endif
}

STRUCTOPS_INLINE Vec<int32_t> widen_counts(const int32_t* count) { return load(count); }
STRUCTOPS_INLINE Vec<int32_t> widen_counts(const uint8_t* count) {
#if defined(__AVX512F__)
  return (Vec<int32_t>)_mm512_maskz_cvtepu8_epi32(__mmask16(0xffff), _mm_loadu_si128((const __m128i*)count));
#elif defined(__AVX2__)
  return (Vec<int32_t>)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)count));
#else
  Vec<int32_t> v;
  for (int i = 0; i < W<int32_t>; ++i) v[i] = count[i];
  return v;
#endif
}

template <class C> STRUCTOPS_INLINE void finish(const BitsBagArgs& a, const C* count, int32_t n, int64_t cols, float* out) {
  const int32_t low = a.zero * n, step = a.one - a.zero, enough = step > 0 ? 1 : n;
  for (int64_t i = 0; i < cols; i += W<float>) {
    const Vec<int32_t> wide = widen_counts(count + i);
    Vec<float> y;
    if (a.reduce == BagReduce::max) {
      y = select<float>(wide >= enough, splat(float(a.one)), splat(float(a.zero)));
    } else {
      y = __builtin_convertvector(wide * step + low, Vec<float>);
      if (a.reduce == BagReduce::mean) y /= splat(float(n));
    }
    if (cols - i >= W<float>) store(out + i, y);
    else store_n(out + i, y, int(cols - i));
  }
}

int digits_of(int64_t n) { return 64 - __builtin_clzll(uint64_t(n)); }

// Words [w, w + L) of a bag of n rows, the first of which are in `rows`.
template <int L> void columns(const BitsBagArgs& a, Rows& rows, int64_t begin, int64_t end, int64_t words, int64_t w, float* out) {
  const int64_t n = end - begin;
  const auto cols = [&](int j) { return a.K - 64 * (w + j) < 64 ? a.K - 64 * (w + j) : int64_t(64); };
  uint64_t digits[kDigits * L];
  Block<L> digit[kDigits];
  alignas(64) uint8_t count[64];
  if (n <= kRows) {
    const int used = digits_of(n);
    count_rows<L>(rows, a.table + w, used, digit);
    __builtin_memcpy(digits, digit, sizeof digits);
    for (int j = 0; j < L; ++j) {
      spread(digits + j, L, used, count);
      finish(a, count, int32_t(n), cols(j), out + 64 * (w + j));
    }
    return;
  }
  alignas(64) int32_t total[64 * L] = {};
  for (int64_t k = begin; k < end; k += kRows) {
    find_rows(a, k, k + kRows < end ? k + kRows : end, words, rows);
    count_rows<L>(rows, a.table + w, kDigits, digit);
    __builtin_memcpy(digits, digit, sizeof digits);
    for (int j = 0; j < L; ++j) {
      spread(digits + j, L, kDigits, count);
      for (int c = 0; c < 64; ++c) total[64 * j + c] += count[c];
    }
  }
  for (int j = 0; j < L; ++j) finish(a, total + 64 * j, int32_t(n), cols(j), out + 64 * (w + j));
}

void bags(const BitsBagArgs& a, int64_t first, int64_t last) {
  constexpr int L = W<int64_t>;
  const int64_t words = words_of(a.K);
  Rows rows;
  for (int64_t v = first; v < last; ++v) {
    const int64_t begin = a.offsets[v], end = a.offsets[v + 1];
    float* const out = a.out + v * a.K;
    if (begin == end) {
      __builtin_memset(out, 0, size_t(a.K) * sizeof(float));
      continue;
    }
    if (end - begin <= kRows) find_rows(a, begin, end, words, rows);
    int64_t w = 0;
    for (; w + L <= words; w += L) columns<L>(a, rows, begin, end, words, w, out);
    if constexpr (L > 4)
      if (words - w >= 4) { columns<4>(a, rows, begin, end, words, w, out); w += 4; }
    if constexpr (L > 2)
      if (words - w >= 2) { columns<2>(a, rows, begin, end, words, w, out); w += 2; }
    if (words - w >= 1) columns<1>(a, rows, begin, end, words, w, out);
  }
}

}  // namespace

void bits_bag(const BitsBagArgs& a, const ParallelFor& pf) {
  for_row_pieces(a.offsets, a.B, a.E, a.K / 4 + 1, pf, [&](int64_t, int64_t first, int64_t last) { bags(a, first, last); });
}

}  // namespace structops::STRUCTOPS_ISA
