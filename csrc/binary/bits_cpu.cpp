// CPU kernels of bits.h: pack, unpack, count, panels.
#include "binary/lanes.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements a task is worth

int64_t rows_per_task(int64_t row) { return row >= kGrain ? 1 : kGrain / (row > 0 ? row : 1) + 1; }

template <BitTest test, class A> STRUCTOPS_INLINE auto holds(Vec<A> v, Vec<A> limit) {
  if constexpr (test == BitTest::ge) return v >= A(0);
  else if constexpr (test == BitTest::gt) return v > A(0);
  else if constexpr (test == BitTest::abs_le) return (v <= limit) & (v >= -limit);
  else return (v < limit) & (v > -limit);
}

// ---- pack ----------------------------------------------------------------------------------------------------------
// Rows: the bits of one word come from 64 neighbouring values.
template <class T, BitTest test, bool shifted>
void pack_rows(const BitsPackArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  constexpr int V = W<A>;
  const int64_t K = a.K, Wd = words_of(K);
  const Vec<A> limit = splat(A(a.limit));
  const T* const shift = static_cast<const T*>(a.shift);
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* const x = static_cast<const T*>(a.x) + r * K;
      uint64_t* const out = a.words + r * Wd;
      for (int64_t w = 0; w < Wd; ++w) {
        const int64_t k0 = 64 * w, n = K - k0 < 64 ? K - k0 : 64;
        uint64_t bits = 0;
        int64_t i = 0;
        for (; i + V <= n; i += V) {
          Vec<A> v = load<T>(x + k0 + i);
          if constexpr (shifted) v += load<T>(shift + k0 + i);
          bits |= lane_mask<Int<A>>((Vec<Int<A>>)holds<test, A>(v, limit)) << i;
        }
        if (i < n) {
          Vec<A> v = load_n<T>(x + k0 + i, int(n - i));
          if constexpr (shifted) v += load_n<T>(shift + k0 + i, int(n - i));
          bits |= lane_mask<Int<A>>((Vec<Int<A>>)holds<test, A>(v, limit)) << i;
        }
        if (a.invert) bits = ~bits;
        out[w] = bits & valid_bits(K, w);
      }
    }
  };
  parallel_for(pf, a.A, rows_per_task(K), body);
}

// The middle dimension: lane s collects the bits of column s, one shifted mask a step.
template <class T, BitTest test, bool shifted>
void pack_columns(const BitsPackArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  using I = Int<A>;
  constexpr int V = W<A>, bits = 8 * sizeof(I), halves = 64 / bits;
  const int64_t K = a.K, S = a.S, Wd = words_of(K);
  const Vec<A> limit = splat(A(a.limit));
  const T* const shift = static_cast<const T*>(a.shift);
  const int64_t blocks = (S + V - 1) / V;
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t n = t / (Wd * blocks), w = t / blocks % Wd, s0 = t % blocks * V;
      const int count = int(S - s0 < V ? S - s0 : V);
      const T* const x = static_cast<const T*>(a.x) + n * K * S + s0;
      Vec<I> acc[halves] = {};
      for (int h = 0; h < halves; ++h) {
        const int64_t k0 = 64 * w + h * bits;
        const int64_t left = K - k0 < bits ? K - k0 : bits;
        for (int64_t i = 0; i < left; ++i) {
          const T* const p = x + (k0 + i) * S;
          Vec<A> v = count == V ? load<T>(p) : load_n<T>(p, count);
          if constexpr (shifted) v += splat(widen(shift[k0 + i]));
          acc[h] |= (Vec<I>)holds<test, A>(v, limit) & I(uint64_t(1) << i);
        }
      }
      uint64_t* const out = a.words + (n * S + s0) * Wd + w;
      for (int i = 0; i < count; ++i) {
        uint64_t word = 0;
        for (int h = 0; h < halves; ++h) word |= (uint64_t(acc[h][i]) & (~uint64_t(0) >> (64 - bits))) << (h * (bits % 64));
        if (a.invert) word = ~word;
        out[i * Wd] = word & valid_bits(K, w);
      }
    }
  };
  parallel_for(pf, a.A * Wd * blocks, rows_per_task(64 * V), body);
}

template <class T, BitTest test> void pack_typed(const BitsPackArgs& a, const ParallelFor& pf) {
  if constexpr (is_float_storage<T>) {
    if (a.shift) return a.S == 1 ? pack_rows<T, test, true>(a, pf) : pack_columns<T, test, true>(a, pf);
  }
  return a.S == 1 ? pack_rows<T, test, false>(a, pf) : pack_columns<T, test, false>(a, pf);
}

// ---- unpack: by the size of an element, which is only copied ---------------------------------------------------------
template <class U> void unpack_sized(const BitsUnpackArgs& a, U zero, U one, const ParallelFor& pf) {
  const int64_t K = a.K, S = a.S, Wd = words_of(K);
  U* const out = static_cast<U*>(a.out);
  auto rows = [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t w = 0; w < Wd; ++w) {
        const uint64_t word = a.words[r * Wd + w];
        U* const o = out + r * K + 64 * w;
        const int n = int(K - 64 * w < 64 ? K - 64 * w : 64);
        for (int h = 0; h < n; h += 16) {
          const uint32_t part = uint32_t(word >> h) & 0xffff;
          if (n - h >= 16) {
            for (int i = 0; i < 16; ++i) o[h + i] = (part >> i) & 1 ? one : zero;
          } else {
            for (int i = 0; i < n - h; ++i) o[h + i] = (part >> i) & 1 ? one : zero;
          }
        }
      }
  };
  constexpr int block = 16;
  const int64_t blocks = (S + block - 1) / block;
  auto columns = [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t n = t / (Wd * blocks), w = t / blocks % Wd, s0 = t % blocks * block;
      const int count = int(S - s0 < block ? S - s0 : block);
      uint32_t part[2][block] = {};
      for (int i = 0; i < count; ++i) {
        const uint64_t word = a.words[(n * S + s0 + i) * Wd + w];
        part[0][i] = uint32_t(word);
        part[1][i] = uint32_t(word >> 32);
      }
      const int64_t left = K - 64 * w < 64 ? K - 64 * w : 64;
      for (int64_t k = 0; k < left; ++k) {
        U* const o = out + (n * K + 64 * w + k) * S + s0;
        const uint32_t* const p = part[k >> 5];
        const int bit = int(k & 31);
        if (count == block) {
          for (int i = 0; i < block; ++i) o[i] = (p[i] >> bit) & 1 ? one : zero;
        } else {
          for (int i = 0; i < count; ++i) o[i] = (p[i] >> bit) & 1 ? one : zero;
        }
      }
    }
  };
  if (S == 1) parallel_for(pf, a.A, rows_per_task(K), rows);
  else parallel_for(pf, a.A * Wd * blocks, rows_per_task(64 * block), columns);
}

}  // namespace

void bits_pack(const BitsPackArgs& a, const ParallelFor& pf) {
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    switch (a.test) {
      case BitTest::ge: return pack_typed<T, BitTest::ge>(a, pf);
      case BitTest::gt: return pack_typed<T, BitTest::gt>(a, pf);
      case BitTest::abs_le: return pack_typed<T, BitTest::abs_le>(a, pf);
      case BitTest::abs_lt: return pack_typed<T, BitTest::abs_lt>(a, pf);
    }
  });
}

void bits_unpack(const BitsUnpackArgs& a, const ParallelFor& pf) {
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    T pair[2];
    narrow_to(pair, Acc<T>(a.zero));
    narrow_to(pair + 1, Acc<T>(a.one));
    if constexpr (sizeof(T) == 8) unpack_sized<uint64_t>(a, bitcast<uint64_t>(pair[0]), bitcast<uint64_t>(pair[1]), pf);
    else if constexpr (sizeof(T) == 4) unpack_sized<uint32_t>(a, bitcast<uint32_t>(pair[0]), bitcast<uint32_t>(pair[1]), pf);
    else unpack_sized<uint16_t>(a, bitcast<uint16_t>(pair[0]), bitcast<uint16_t>(pair[1]), pf);
  });
}

void bits_count(const BitsCountArgs& a, const ParallelFor& pf) {
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const uint64_t *const x = a.a + r * a.W, *const y = a.b ? a.b + r * a.W : nullptr;
      uint32_t n = 0;
      switch (a.op) {
        case BitCount::one: for (int64_t w = 0; w < a.W; ++w) n += popcount64(x[w]); break;
        case BitCount::bit_xor: for (int64_t w = 0; w < a.W; ++w) n += popcount64(x[w] ^ y[w]); break;
        case BitCount::bit_and: for (int64_t w = 0; w < a.W; ++w) n += popcount64(x[w] & y[w]); break;
      }
      a.out[r] = int32_t(n);
    }
  };
  parallel_for(pf, a.R, rows_per_task(a.W * 8), body);
}

void bits_panels(const BitsPanelsArgs& a, const ParallelFor& pf) {
  const int64_t NB = panels_of(a.N);
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t n0 = t % NB * kPanelRows, rows = a.N - n0 < kPanelRows ? a.N - n0 : kPanelRows;
      const uint64_t* const in = a.words + (t / NB * a.N + n0) * a.W;
      uint32_t* const out = a.panels + t * 2 * a.W * kPanelRows;
      for (int64_t w0 = 0; w0 < a.W; w0 += 8) {  // a cache line of every row
        const int64_t w1 = w0 + 8 < a.W ? w0 + 8 : a.W;
        for (int64_t i = 0; i < kPanelRows; ++i)
          for (int64_t w = w0; w < w1; ++w) {
            const uint64_t word = i < rows ? in[i * a.W + w] : 0;
            out[2 * w * kPanelRows + i] = uint32_t(word);
            out[(2 * w + 1) * kPanelRows + i] = uint32_t(word >> 32);
          }
      }
    }
  };
  parallel_for(pf, a.P * NB, rows_per_task(a.W * kPanelRows * 8), body);
}

}  // namespace structops::STRUCTOPS_ISA
