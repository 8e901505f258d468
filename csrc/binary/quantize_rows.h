// Blocks of a tensor [outer, C, inner] in flat order: loads, vectors by channel, sums by channel, packing of codes.
// Include only from *_cpu.cpp. Buffers hold kBlock numbers; passes run over whole vectors, lanes beyond n hold anything.
#pragma once
#include "core/memory.h"
#include "core/simd.h"

namespace structops::STRUCTOPS_ISA {

constexpr int kBlock = 1024;          // a multiple of 8, so that blocks of codes are whole bytes
constexpr int64_t kPart = 64 * kBlock;  // elements whose sums are added in order

template <class A, class F> STRUCTOPS_INLINE void map(A* to, const A* from, int n, F f) {
  for (int i = 0; i < n; i += W<A>) store(to + i, f(load(from + i)));
}

template <class T> STRUCTOPS_INLINE void load_block(const T* p, Acc<T>* to, int n) {
  constexpr int L = W<Acc<T>>;
  int i = 0;
  for (; i + L <= n; i += L) store(to + i, load(p + i));
  if (i < n) store(to + i, load_n(p + i, n - i));
}

template <class T> STRUCTOPS_INLINE void store_block(T* p, const Acc<T>* from, int n) {
  constexpr int L = W<Acc<T>>;
  int i = 0;
  for (; i + L <= n; i += L) store(p + i, load(from + i));
  if (i < n) store_n(p + i, load(from + i), n - i);
}

struct Rows {
  int64_t C, inner;

  // f(i, len, c, step): elements i .. i + len of the block have channels c, c + step, ...
  template <class F> void each(int64_t begin, int n, F f) const {
    if (C == 1) return f(0, n, int64_t(0), 0);
    const bool along = inner == 1;
    for (int i = 0; i < n;) {
      const int64_t at = begin + i, c = (at / inner) % C, left = along ? C - c : inner - at % inner;
      const int len = left < n - i ? int(left) : n - i;
      f(i, len, c, along ? 1 : 0);
      i += len;
    }
  }

  template <class A> void expand(const A* p, A* to, int64_t begin, int n) const {
    each(begin, n, [&](int i, int len, int64_t c, int step) {
      if (step) __builtin_memcpy(to + i, p + c, size_t(len) * sizeof(A));
      else {
        const A one = p[c];
        const Vec<A> v = splat(one);
        int j = 0;
        for (; j + W<A> <= len; j += W<A>) store(to + i + j, v);
        for (; j < len; ++j) to[i + j] = one;
      }
    });
  }

  template <class A> void accumulate(double* sum, const A* v, int64_t begin, int n) const {
    each(begin, n, [&](int i, int len, int64_t c, int step) {
      if (step) {
        for (int j = 0; j < len; ++j) sum[c + j] += double(v[i + j]);
        return;
      }
      Vec<A> s[4] = {};
      int j = 0;
      for (; j + 4 * W<A> <= len; j += 4 * W<A>)
        for (int k = 0; k < 4; ++k) s[k] += load(v + i + j + k * W<A>);
      for (; j + W<A> <= len; j += W<A>) s[0] += load(v + i + j);
      A total = hsum<A>((s[0] + s[1]) + (s[2] + s[3]));
      for (; j < len; ++j) total += v[i + j];
      sum[c] += double(total);
    });
  }

  template <class A> void maximum(double* top, const A* v, int64_t begin, int n) const {  // of magnitudes; NaN wins
    each(begin, n, [&](int i, int len, int64_t c, int step) {
      const auto take = [](double& m, double x) { m = x > m || x != x ? x : m; };
      int j = 0;
      if (!step && len >= W<A>) {
        Vec<A> m = load(v + i);
        for (; j + W<A> <= len; j += W<A>) {
          const Vec<A> x = load(v + i + j);
          m = (x > m) | (x != x) ? x : m;
        }
        for (int k = 0; k < W<A>; ++k) take(top[c], double(m[k]));
      }
      for (; j < len; ++j) take(top[c + step * j], double(v[i + j]));
    });
  }
};

// Elements are cut into parts of a size that depends on the sizes alone; a part of many channels is large, for its sums.
struct Parts {
  int64_t size, count;
  Parts(int64_t numel, int64_t C) : size(kPart) {
    while (size < 16 * C) size *= 2;
    count = (numel + size - 1) / size;
  }
};

struct Partials {
  double* data = nullptr;
  explicit Partials(int64_t n) {
    if (!n) return;
    data = allocate<double>(size_t(n));
    __builtin_memset(data, 0, size_t(n) * sizeof(double));
  }
  ~Partials() { std::free(data); }
  Partials(const Partials&) = delete;
  Partials& operator=(const Partials&) = delete;

  template <class A> void total(A* out, int64_t C, int64_t parts, int64_t stride, int64_t at, bool largest = false) const {
    for (int64_t c = 0; c < C; ++c) {
      double sum = 0;
      for (int64_t p = 0; p < parts; ++p) {
        const double v = data[p * stride + at + c];
        sum = !largest ? sum + v : v > sum || v != v ? v : sum;
      }
      out[c] = A(sum);
    }
  }
};

// ---- codes -----------------------------------------------------------------------------------------------------------

template <class A> struct ByteVec { typedef uint8_t type __attribute__((vector_size(W<A>))); };

// code[i] = f(v[i]), a small integer.
template <class A, class F> STRUCTOPS_INLINE void bytes(uint8_t* code, const A* v, int n, F f) {
  using B = typename ByteVec<A>::type;
  for (int i = 0; i < n; i += W<A>) {
    const B b = __builtin_convertvector(__builtin_convertvector(f(load(v + i)), Vec<Int<A>>), B);
    __builtin_memcpy(code + i, &b, sizeof b);
  }
}

template <class A> STRUCTOPS_INLINE Vec<A> from_bytes(const uint8_t* code) {
  typename ByteVec<A>::type b;
  __builtin_memcpy(&b, code, sizeof b);
  return __builtin_convertvector(__builtin_convertvector(b, Vec<Int<A>>), Vec<A>);
}

// One bit a lane of a mask.
template <class A> STRUCTOPS_INLINE unsigned lane_bits(Vec<Int<A>> m) {
#if defined(__AVX512F__)
  if constexpr (sizeof(A) == 4) return unsigned(_mm512_movepi32_mask((__m512i)m));
  else return unsigned(_mm512_movepi64_mask((__m512i)m));
#elif defined(__AVX2__)
  if constexpr (sizeof(A) == 4) return unsigned(_mm256_movemask_ps((__m256)m));
  else return unsigned(_mm256_movemask_pd((__m256d)m));
#else
  unsigned bits = 0;
  for (int k = 0; k < W<A>; ++k) bits |= unsigned(m[k] & 1) << k;
  return bits;
#endif
}

// to: ceil(n / 8) bytes of test(v[i]), padded with 0.
template <class A, class F> STRUCTOPS_INLINE void pack_bits(uint8_t* to, const A* v, int n, F test) {
  constexpr int step = W<A> < 8 ? 8 : W<A>;
  for (int i = 0; i < n; i += step) {
    unsigned bits = 0;
    for (int k = 0; k < step; k += W<A>) bits |= lane_bits<A>(test(load(v + i + k))) << k;
    const int left = n - i < step ? n - i : step;
    bits &= (1u << left) - 1;
    __builtin_memcpy(to + i / 8, &bits, size_t(left + 7) / 8);
  }
}

// v[i] = bit i ? one : zero, as vectors by `value(mask)`.
template <class A, class F> STRUCTOPS_INLINE void unpack_bits(const uint8_t* from, A* v, int n, F value) {
  constexpr int step = W<A> < 8 ? 8 : W<A>;
  Vec<Int<A>> lane;
  for (int k = 0; k < W<A>; ++k) lane[k] = Int<A>(1) << k;
  for (int i = 0; i < n; i += step) {
    unsigned bits = 0;
    const int left = n - i < step ? n - i : step;
    if (left == step) __builtin_memcpy(&bits, from + i / 8, step / 8);
    else __builtin_memcpy(&bits, from + i / 8, size_t(left + 7) / 8);
    for (int k = 0; k < step; k += W<A>) {
      const Vec<Int<A>> here = Vec<Int<A>>{} + Int<A>(bits >> k);
      store(v + i + k, value((here & lane) != 0, i + k));
    }
  }
}

// Eight codes to `bits` bytes and back, least significant first. code: a buffer of kBlock bytes.
STRUCTOPS_INLINE uint64_t gather8(uint64_t v, int bits) {
  if (bits == 1) return (v * 0x0102040810204080ull) >> 56;
  if (bits == 2) {
    v = (v | v >> 6) & 0x000f000f000f000full;
    v = (v | v >> 12) & 0x000000ff000000ffull;
    return (v | v >> 24) & 0xffff;
  }
  v = (v | v >> 4) & 0x00ff00ff00ff00ffull;
  v = (v | v >> 8) & 0x0000ffff0000ffffull;
  return (v | v >> 16) & 0xffffffff;
}
STRUCTOPS_INLINE uint64_t spread8(uint64_t v, int bits) {
  if (bits == 1) return ((((v * 0x0101010101010101ull) & 0x8040201008040201ull) + 0x7f7f7f7f7f7f7f7full) >> 7) & 0x0101010101010101ull;
  if (bits == 2) {
    v = (v | v << 24) & 0x000000ff000000ffull;
    v = (v | v << 12) & 0x000f000f000f000full;
    return (v | v << 6) & 0x0303030303030303ull;
  }
  v = (v | v << 16) & 0x0000ffff0000ffffull;
  v = (v | v << 8) & 0x00ff00ff00ff00ffull;
  return (v | v << 4) & 0x0f0f0f0f0f0f0f0full;
}

template <int bits> STRUCTOPS_INLINE void pack_as(uint8_t* code, uint8_t* to, int n) {
  for (int i = n; i % 8; ++i) code[i] = 0;
  for (int i = 0; i < n; i += 8) {
    uint64_t v;
    __builtin_memcpy(&v, code + i, 8);
    v = gather8(v, bits);
    const int left = ((n - i < 8 ? n - i : 8) * bits + 7) / 8;
    __builtin_memcpy(to + i * bits / 8, &v, left == bits ? bits : left);
  }
}
STRUCTOPS_INLINE void pack(uint8_t* code, int bits, uint8_t* to, int n) {
  switch (bits) {
    case 1: return pack_as<1>(code, to, n);
    case 2: return pack_as<2>(code, to, n);
    case 4: return pack_as<4>(code, to, n);
    default: __builtin_memcpy(to, code, size_t(n));
  }
}

template <int bits> STRUCTOPS_INLINE void unpack_as(const uint8_t* from, uint8_t* code, int n) {
  for (int i = 0; i < n; i += 8) {
    uint64_t v = 0;
    const int left = ((n - i < 8 ? n - i : 8) * bits + 7) / 8;
    __builtin_memcpy(&v, from + i * bits / 8, left == bits ? bits : left);
    v = spread8(v, bits);
    __builtin_memcpy(code + i, &v, 8);
  }
}
STRUCTOPS_INLINE void unpack(const uint8_t* from, int bits, uint8_t* code, int n) {
  switch (bits) {
    case 1: return unpack_as<1>(from, code, n);
    case 2: return unpack_as<2>(from, code, n);
    case 4: return unpack_as<4>(from, code, n);
    default: __builtin_memcpy(code, from, size_t(n));
  }
}

}  // namespace structops::STRUCTOPS_ISA
