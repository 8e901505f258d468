// What the tests of the core share: random data in buffers exactly as long as the contract says, so that AddressSanitizer sees
// any access beyond, naive reductions in double, and comparison. Every launcher runs serially and on threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "core/parallel.h"
#include "core/types.h"
#include "sparse/spmm.h"

namespace structops::tests {

inline constexpr double kInf = std::numeric_limits<double>::infinity();
inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
inline int failures = 0;
inline long checks = 0;

struct Rng {
  uint64_t state;
  uint64_t next() {
    state += 0x9e3779b97f4a7c15ull;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t n) { return int64_t(next() % uint64_t(n)); }
};

// Three threads, whatever the grain: every split of the work list is exercised.
inline constexpr ParallelFor threaded{
    [](int64_t begin, int64_t end, int64_t, ParallelFor::Body body, void* ctx) {
      constexpr int parts = 3;
      std::vector<std::thread> pool;
      for (int p = 0; p < parts; ++p) {
        const int64_t b = begin + (end - begin) * p / parts, e = begin + (end - begin) * (p + 1) / parts;
        if (b < e) pool.emplace_back([=] { body(b, e, ctx); });
      }
      for (std::thread& t : pool) t.join();
    },
    3};

// ---- typed buffers ---------------------------------------------------------------------------------------------------

inline float decode_f16(uint16_t h) {
  const int exponent = (h >> 10) & 31, fraction = h & 1023;
  const float sign = h & 0x8000 ? -1.f : 1.f;
  if (exponent == 31) return fraction ? float(kNan) : sign * float(kInf);
  return sign * (exponent ? std::ldexp(float(fraction + 1024), exponent - 25) : std::ldexp(float(fraction), -24));
}

inline uint16_t encode_f16(float f) {  // exact values only
  if (f != f) return 0x7e00;
  const uint16_t sign = std::signbit(f) ? 0x8000 : 0;
  f = std::fabs(f);
  if (f == 0) return sign;
  if (std::isinf(f)) return uint16_t(sign | 0x7c00);
  int exponent;
  const float m = std::frexp(f, &exponent);  // f = m 2^exponent, m in [1/2, 1)
  return uint16_t(sign | ((exponent + 14) << 10) | (int(m * 2048) - 1024));
}

struct Array {
  Dtype dtype;
  int64_t n;
  std::unique_ptr<char[]> bytes;

  Array(Dtype t, int64_t count) : dtype(t), n(count), bytes(new char[size_t(count * dtype_size(t))]) {
    std::memset(bytes.get(), 0xff, size_t(size()));  // NaN, or -1
  }
  int64_t size() const { return n * dtype_size(dtype); }
  void* data() { return bytes.get(); }
  const void* data() const { return bytes.get(); }
  template <class T> T raw(int64_t i) const {
    T v;
    std::memcpy(&v, bytes.get() + i * int64_t(sizeof(T)), sizeof v);
    return v;
  }
  double get(int64_t i) const {
    switch (dtype) {
      case Dtype::f32: return raw<float>(i);
      case Dtype::f64: return raw<double>(i);
      case Dtype::f16: return decode_f16(raw<uint16_t>(i));
      case Dtype::bf16: {
        const uint32_t u = uint32_t(raw<uint16_t>(i)) << 16;
        float f;
        std::memcpy(&f, &u, sizeof f);
        return f;
      }
      case Dtype::i32: return raw<int32_t>(i);
      default: return double(raw<int64_t>(i));
    }
  }
  template <class T> void put(int64_t i, T v) { std::memcpy(bytes.get() + i * int64_t(sizeof(T)), &v, sizeof v); }
  void set(int64_t i, double v) {
    switch (dtype) {
      case Dtype::f32: return put(i, float(v));
      case Dtype::f64: return put(i, v);
      case Dtype::f16: return put(i, encode_f16(float(v)));
      case Dtype::bf16: {
        const float f = float(v);
        uint32_t u;
        std::memcpy(&u, &f, sizeof u);
        return put(i, uint16_t(f != f ? 0x7fc0 : u >> 16));
      }
      case Dtype::i32: return put(i, int32_t(v));
      default: return put(i, int64_t(v));
    }
  }
};

// Values that every dtype holds exactly, and whose sums, products and quotients stay exact in double.
enum class Values { quarters, powers, signs, spiked };

inline Array random_array(Dtype t, int64_t n, Rng& rng, Values kind) {
  Array a(t, n);
  for (int64_t i = 0; i < n; ++i) {
    double v = 0;
    const double sign = rng.below(2) ? 1 : -1;
    if (kind == Values::signs || (kind == Values::powers && !is_floating(t))) v = sign;
    else if (!is_floating(t)) v = sign * double(rng.below(4));
    else if (kind == Values::powers) v = sign * (rng.below(64) ? 1 : rng.below(2) ? 2 : 0.5);
    else v = sign * double(rng.below(7) + 1) / 4;
    if (kind == Values::spiked && is_floating(t)) {
      const int64_t pick = rng.below(12);
      v = pick == 0 ? kNan : pick == 1 ? kInf : pick == 2 ? -kInf : v;
    }
    a.set(i, v);
  }
  return a;
}

struct IndexArray {
  std::vector<int64_t> value;
  std::unique_ptr<int32_t[]> narrow;
  std::unique_ptr<int64_t[]> wide;
  explicit IndexArray(std::vector<int64_t> v)
      : value(std::move(v)), narrow(new int32_t[value.size()]), wide(new int64_t[value.size()]) {
    for (size_t i = 0; i < value.size(); ++i) { narrow[i] = int32_t(value[i]); wide[i] = value[i]; }
  }
  Index index(bool w) const { return w ? Index{wide.get(), true} : Index{narrow.get(), false}; }
  int64_t operator[](int64_t i) const { return value[size_t(i)]; }
};

struct Structure {
  int64_t N, M, E;
  IndexArray rowptr, col, eid;
};

// Row 1 is the hub; every fifth row is empty; eid is a random permutation.
inline Structure random_structure(int64_t N, int64_t M, int64_t edges, int64_t hub, Rng& rng) {
  std::vector<int64_t> degree(size_t(N), 0);
  for (int64_t i = 0; i < edges && N > 0; ++i) {
    int64_t v = rng.below(N);
    degree[size_t(v % 5 == 2 ? 0 : v)] += 1;
  }
  if (N > 1) degree[1] += hub;
  std::vector<int64_t> ptr{0};
  for (int64_t d : degree) ptr.push_back(ptr.back() + d);
  const int64_t E = ptr.back();
  std::vector<int64_t> col(static_cast<size_t>(E)), eid(static_cast<size_t>(E));
  for (int64_t i = 0; i < E; ++i) { col[size_t(i)] = rng.below(M); eid[size_t(i)] = i; }
  for (int64_t i = E - 1; i > 0; --i) std::swap(eid[size_t(i)], eid[size_t(rng.below(i + 1))]);
  return {N, M, E, IndexArray(ptr), IndexArray(col), IndexArray(eid)};
}

// The same edges; unless permuted, numbered by their positions.
inline Structure numbered(const Structure& s, bool permuted) {
  std::vector<int64_t> eid = s.eid.value;
  for (int64_t k = 0; k < s.E && !permuted; ++k) eid[size_t(k)] = k;
  return {s.N, s.M, s.E, IndexArray(s.rowptr.value), IndexArray(s.col.value), IndexArray(eid)};
}

// Edges by their sources: the reversed structure.
inline Structure reversed(const Structure& s) {
  std::vector<int64_t> ptr(size_t(s.M) + 1, 0), row, eid;
  for (int64_t u = 0; u < s.M; ++u) {
    for (int64_t v = 0; v < s.N; ++v)
      for (int64_t k = s.rowptr[v]; k < s.rowptr[v + 1]; ++k)
        if (s.col[k] == u) { row.push_back(v); eid.push_back(s.eid[k]); }
    ptr[size_t(u) + 1] = int64_t(row.size());
  }
  return {s.M, s.N, s.E, IndexArray(ptr), IndexArray(row), IndexArray(eid)};
}

// ---- comparison ------------------------------------------------------------------------------------------------------

inline double storage_eps(Dtype t) { return t == Dtype::f64 ? 2.3e-16 : t == Dtype::f32 ? 1.2e-7 : t == Dtype::f16 ? 9.8e-4 : t == Dtype::bf16 ? 7.9e-3 : 0; }
inline double accumulator_eps(Dtype t) { return t == Dtype::f64 ? 2.3e-16 : is_floating(t) ? 1.2e-7 : 0; }

inline bool close(double got, double want, Dtype t, double terms, double magnitude) {
  if (want != want) return got != got;
  if (t == Dtype::f16 && std::fabs(want) > 65520) want = want > 0 ? kInf : -kInf;
  if (std::isinf(want)) return got == want;
  const double tiny = t == Dtype::f16 ? 6e-8 : t == Dtype::bf16 || t == Dtype::f32 ? 1e-37 : 0;
  return std::fabs(got - want) <= 0.51 * storage_eps(t) * std::fabs(want) + 4 * accumulator_eps(t) * (terms * magnitude + std::fabs(want)) + tiny;
}

inline void expect(bool ok, const char* what, const char* detail) {
  ++checks;
  if (ok) return;
  if (++failures <= 40) std::printf("FAILED %s: %s\n", what, detail);
}

inline void expect_close(const Array& got, const std::vector<double>& want, double terms, double magnitude, const char* what) {
  char detail[200] = "";
  bool ok = got.n == int64_t(want.size());
  for (int64_t i = 0; ok && i < got.n; ++i)
    if (!close(got.get(i), want[size_t(i)], got.dtype, terms, magnitude)) {
      std::snprintf(detail, sizeof detail, "element %ld of %ld is %.9g, expected %.9g", long(i), long(got.n), got.get(i), want[size_t(i)]);
      ok = false;
    }
  expect(ok, what, detail);
}

inline void expect_same(const Array& a, const Array& b, const char* what) {
  expect(a.size() == b.size() && (a.size() == 0 || !std::memcmp(a.data(), b.data(), size_t(a.size()))), what, "threads change the bits");
}

// The result of a serial run and of one on threads.
inline void expect_result(const Array& serial, const Array& threads, const std::vector<double>& want, double terms, double magnitude, const char* what) {
  expect_close(serial, want, terms, magnitude, what);
  expect_same(serial, threads, what);
}

// Of run(data, ParallelFor), which fills `want.size()` numbers.
template <class Run> void expect_run(Dtype t, const std::vector<double>& want, double terms, double magnitude, const char* what, Run run) {
  Array serial(t, int64_t(want.size())), threads(t, serial.n);
  run(serial.data(), serial_for);
  run(threads.data(), threaded);
  expect_result(serial, threads, want, terms, magnitude, what);
}

inline Dtype accumulator(Dtype t) { return t == Dtype::f64 ? t : Dtype::f32; }
inline std::vector<double> zeros(const Array& like) { return std::vector<double>(size_t(like.n), 0); }

// ---- naive reductions ------------------------------------------------------------------------------------------------

struct Reduced { double value; int64_t winner; };  // winner: position in the row, -1 if none

inline Reduced reduce_row(const std::vector<double>& m, Reduce r, double fill, bool skip_nan, bool unbiased) {
  const double n = double(m.size());
  if (m.empty()) return {fill, -1};
  double s = 0, p = 1, top = -kInf;
  for (double v : m) { s += v; p *= v; top = std::max(top, v); }
  switch (r) {
    case Reduce::sum: return {s, -1};
    case Reduce::mean: return {s / n, -1};
    case Reduce::prod: return {p, -1};
    case Reduce::logsumexp: {
      double t = 0;
      if (top == -kInf) return {s != s ? kNan : top, -1};
      for (double v : m) t += std::exp(v - top);
      return {s != s ? kNan : top + std::log(t), -1};
    }
    case Reduce::var: case Reduce::std: {
      double v = 0;
      for (double x : m) v += (x - s / n) * (x - s / n);
      v /= std::max(n - (unbiased ? 1 : 0), 1.0);
      return {r == Reduce::var ? v : std::sqrt(v), -1};
    }
    default: break;
  }
  int64_t best = -1;
  for (size_t i = 0; i < m.size(); ++i) {
    if (m[i] != m[i]) {
      if (skip_nan) continue;
      return {m[i], int64_t(i)};
    }
    if (best < 0 || (r == Reduce::max ? m[i] > m[size_t(best)] : m[i] < m[size_t(best)])) best = int64_t(i);
  }
  return best < 0 ? Reduced{fill, -1} : Reduced{m[size_t(best)], best};
}

#ifdef STRUCTOPS_FEW_DTYPES
inline constexpr Dtype kFloats[] = {Dtype::f32, Dtype::bf16};
inline constexpr Dtype kInts[] = {Dtype::i64};
inline constexpr Dtype kAll[] = {Dtype::f32, Dtype::bf16, Dtype::i64};
#else
inline constexpr Dtype kFloats[] = {Dtype::f32, Dtype::f64, Dtype::bf16, Dtype::f16};
inline constexpr Dtype kInts[] = {Dtype::i32, Dtype::i64};
inline constexpr Dtype kAll[] = {Dtype::f32, Dtype::f64, Dtype::bf16, Dtype::f16, Dtype::i32, Dtype::i64};
#endif
inline constexpr const char* kNames[] = {"f32", "f64", "bf16", "f16", "i32", "i64"};

}  // namespace structops::tests
