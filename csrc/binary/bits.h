// The bit layout of the binary family, and the operators that make, read and count bits.
//
// Layout. A packed tensor is rows of bits in int64 words:
//   words [.., W], W = ceil(K / 64); value k of a row is bit k % 64 of word k / 64 (least significant first).
//   Rows are padded to whole words and the padding bits are 0; K is kept beside the words, which do not say it.
//   The packed dimension comes last: images are [B, H, W, words of C], channels packed.
// Meaning. Bit 1 is +1 and bit 0 is -1 (polarity +1); polarity -1 stores the complement of the valid bits. Sets in {0, 1} are
//   the bits themselves. Zero has no sign: sign_zero says whether it packs as +1 (the default, x >= 0) or as -1 (x > 0). NaN
//   compares false: it packs as -1 before the polarity is applied.
// Arithmetic. With padding 0 in both operands every count below is exact without a mask, in int32 for K <= 2^31 - 1:
//   {-1, 1} x {-1, 1}:  dot = K - 2 popcount(a ^ b)  =  K - 2 popcount(a) - 2 popcount(b) + 4 popcount(a & b)
//   {0, 1} x {-1, 1}:   dot = 2 popcount(a & b) - popcount(a)  =  popcount(b) - popcount(a ^ b)
//   {-1, 1} x (p - n):  dot = popcount(a ^ n) - popcount(a ^ p)      ternary, planes p and n
// CPU GEMMs read the second operand as panels, made by bits_panels: 32-bit words of 64 rows side by side,
//   panels [P, ceil(N / 64), 2 W, 64]; rows beyond N are 0.
// The file's kernels run on the copy of csrc that bits_isa() names: avx512 here also means VPOPCNTDQ and VNNI.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

#if defined(__CUDACC__) || defined(STRUCTOPS_CUDA_SOURCE)
#define STRUCTOPS_BOTH __host__ __device__
#else
#define STRUCTOPS_BOTH
#endif

constexpr int64_t kPanelRows = 64;

STRUCTOPS_BOTH inline constexpr int64_t words_of(int64_t K) { return (K + 63) / 64; }
STRUCTOPS_BOTH inline constexpr int64_t panels_of(int64_t N) { return (N + kPanelRows - 1) / kPanelRows; }

enum class BitTest : int { ge, gt, abs_le, abs_lt };  // x >= 0, x > 0, |x| <= limit, |x| < limit

// words[a, s, k] = test(x[a, k, s] + shift[k]) ^ invert. S = 1 packs rows, S > 1 the middle dimension.
struct BitsPackArgs {
  Dtype dtype;  // any; shift only with floating ones
  BitTest test;
  bool invert;
  double limit;
  int64_t A, K, S;
  const void* x;      // [A, K, S]
  const void* shift;  // [K] of dtype, or null
  uint64_t* words;    // [A, S, W]
};

// out[a, k, s] = bit k of words[a, s] ? one : zero, as dtype.
struct BitsUnpackArgs {
  Dtype dtype;
  double zero, one;
  int64_t A, K, S;
  const uint64_t* words;  // [A, S, W]
  void* out;              // [A, K, S]
};

enum class BitCount : int { one, bit_xor, bit_and };  // popcount(a), popcount(a ^ b), popcount(a & b)

struct BitsCountArgs {
  BitCount op;
  int64_t R, W;
  const uint64_t* a;  // [R, W]
  const uint64_t* b;  // [R, W]; null for BitCount::one
  int32_t* out;       // [R]
};

struct BitsPanelsArgs {
  int64_t P, N, W;
  const uint64_t* words;  // [P, N, W]
  uint32_t* panels;       // [P, ceil(N / 64), 2 W, 64]
};

void bits_pack(const BitsPackArgs& a, const ParallelFor& pf);
void bits_unpack(const BitsUnpackArgs& a, const ParallelFor& pf);
void bits_count(const BitsCountArgs& a, const ParallelFor& pf);
void bits_panels(const BitsPanelsArgs& a, const ParallelFor& pf);

}  // namespace structops
