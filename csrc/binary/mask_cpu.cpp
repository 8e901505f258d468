// CPU masks. The contract is mask.h. Digits of 16 bits, most significant first; parts have histograms of their own.
#include "binary/mask.h"
#include "binary/quantize_rows.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kBins = 1 << 16;
constexpr int64_t kMaskPart = 1 << 18;  // scores that share a histogram; a multiple of 8

// Unsigned keys in the order of the scores.
template <class T> STRUCTOPS_INLINE uint64_t key_of(T score, bool magnitude) {
  using A = Acc<T>;
  const A v = widen(score);
  if (v != v) return 0;
  if constexpr (sizeof(A) == 4) {
    const uint32_t u = bitcast<uint32_t>(v == A(0) ? A(0) : v);
    if (magnitude) return uint64_t(u & 0x7fffffffu) + 1;
    return (u >> 31 ? ~u : u | 0x80000000u);
  } else {
    const uint64_t u = bitcast<uint64_t>(v == A(0) ? A(0) : v);
    if (magnitude) return (u & 0x7fffffffffffffffull) + 1;
    return u >> 63 ? ~u : u | 0x8000000000000000ull;
  }
}

template <class T> void select(const TopkMaskArgs& a, const ParallelFor& pf) {
  const T* const score = static_cast<const T*>(a.score);
  const int64_t parts = (a.n + kMaskPart - 1) / kMaskPart;
  const auto last = [&](int64_t part) { return (part + 1) * kMaskPart < a.n ? (part + 1) * kMaskPart : a.n; };
  int32_t* const hist = allocate<int32_t>(size_t(parts * kBins));
  int64_t* const ties = allocate<int64_t>(size_t(parts + 1));
  uint64_t prefix = 0, known = 0;  // the digits found so far of the keep-th largest key
  int64_t left = a.keep;           // how many keys with this prefix are kept
  for (int digit = int(sizeof(Acc<T>)) / 2 - 1; digit >= 0 && left > 0; --digit) {
    const int shift = 16 * digit;
    auto count = [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        int32_t* const h = hist + part * kBins;
        __builtin_memset(h, 0, kBins * sizeof(int32_t));
        for (int64_t i = part * kMaskPart; i < last(part); ++i) {
          const uint64_t key = key_of(score[i], a.magnitude);
          if ((key & known) == prefix) ++h[key >> shift & (kBins - 1)];
        }
      }
    };
    parallel_for(pf, parts, 1, count);
    int bin = kBins - 1;
    for (; bin >= 0; --bin) {
      int64_t total = 0;
      for (int64_t p = 0; p < parts; ++p) total += hist[p * kBins + bin];
      if (total >= left) break;
      left -= total;
    }
    prefix |= uint64_t(bin) << shift;
    known |= uint64_t(kBins - 1) << shift;
  }
  // Keys above the prefix are kept, and the first `left` that equal it.
  auto count_ties = [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      int64_t t = 0;
      for (int64_t i = part * kMaskPart; i < last(part); ++i) t += key_of(score[i], a.magnitude) == prefix;
      ties[part + 1] = t;
    }
  };
  parallel_for(pf, parts, 1, count_ties);
  ties[0] = 0;
  for (int64_t p = 0; p < parts; ++p) ties[p + 1] += ties[p];
  auto emit = [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      int64_t seen = ties[part];
      for (int64_t i = part * kMaskPart; i < last(part); i += 8) {
        unsigned byte = 0;
        for (int k = 0; k < 8 && i + k < a.n; ++k) {
          const uint64_t key = key_of(score[i + k], a.magnitude);
          const bool on = a.keep > 0 && (key > prefix || (key == prefix && seen < left));
          seen += key == prefix;
          byte |= unsigned(on) << k;
        }
        a.bits[i / 8] = uint8_t(byte);
      }
    }
  };
  parallel_for(pf, parts, 1, emit);
  std::free(hist);
  std::free(ties);
}

template <class T> void apply(const MaskApplyArgs& a, int64_t begin, int64_t end) {
  using A = Acc<T>;
  A v[kBlock];
  for (int64_t block = begin; block < end; ++block) {
    const int64_t at = block * kBlock;
    const int n = int(a.n - at < kBlock ? a.n - at : kBlock);
    load_block(static_cast<const T*>(a.x) + at, v, n);
    unpack_bits<A>(a.bits + at / 8, v, n, [&](auto on, int i) { return on ? load(v + i) : Vec<A>{}; });
    store_block(static_cast<T*>(a.out) + at, v, n);
  }
}

}  // namespace

void topk_mask(const TopkMaskArgs& a, const ParallelFor& pf) {
  if (a.n == 0) return;
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) select<T>(a, pf);
  });
}

void mask_apply(const MaskApplyArgs& a, const ParallelFor& pf) {
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) {
      auto body = [&](int64_t begin, int64_t end) { apply<T>(a, begin, end); };
      parallel_for(pf, (a.n + kBlock - 1) / kBlock, 32, body);
    }
  });
}

}  // namespace structops::STRUCTOPS_ISA
