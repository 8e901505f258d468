// Tests of the torch-free core: every launcher against naive loops in double, serial and on threads, on random data with hub
// rows. Buffers are exactly as long as the contract says, so that AddressSanitizer sees any access beyond.
//
//   core_tests [baseline | avx2 | avx512]     exit status 1 on failure, 0 where the instruction set is not available
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

#include "core/isa.h"
#include "sparse/csr.h"
#include "sparse/scatter.h"
#include "sparse/sddmm.h"
#include "sparse/select.h"
#include "sparse/softmax.h"
#include "sparse/spmm.h"

using namespace structops;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
int failures = 0;
long checks = 0;

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
constexpr ParallelFor threaded{
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

float decode_f16(uint16_t h) {
  const int exponent = (h >> 10) & 31, fraction = h & 1023;
  const float sign = h & 0x8000 ? -1.f : 1.f;
  if (exponent == 31) return fraction ? float(kNan) : sign * float(kInf);
  return sign * (exponent ? std::ldexp(float(fraction + 1024), exponent - 25) : std::ldexp(float(fraction), -24));
}

uint16_t encode_f16(float f) {  // exact values only
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

Array random_array(Dtype t, int64_t n, Rng& rng, Values kind) {
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
Structure random_structure(int64_t N, int64_t M, int64_t edges, int64_t hub, Rng& rng) {
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

// ---- comparison ------------------------------------------------------------------------------------------------------

double storage_eps(Dtype t) { return t == Dtype::f64 ? 2.3e-16 : t == Dtype::f32 ? 1.2e-7 : t == Dtype::f16 ? 9.8e-4 : t == Dtype::bf16 ? 7.9e-3 : 0; }
double accumulator_eps(Dtype t) { return t == Dtype::f64 ? 2.3e-16 : is_floating(t) ? 1.2e-7 : 0; }

bool close(double got, double want, Dtype t, double terms, double magnitude) {
  if (want != want) return got != got;
  if (t == Dtype::f16 && std::fabs(want) > 65520) want = want > 0 ? kInf : -kInf;
  if (std::isinf(want)) return got == want;
  const double tiny = t == Dtype::f16 ? 6e-8 : t == Dtype::bf16 || t == Dtype::f32 ? 1e-37 : 0;
  return std::fabs(got - want) <= 0.51 * storage_eps(t) * std::fabs(want) + 4 * accumulator_eps(t) * (terms * magnitude + std::fabs(want)) + tiny;
}

void expect(bool ok, const char* what, const char* detail) {
  ++checks;
  if (ok) return;
  if (++failures <= 40) std::printf("FAILED %s: %s\n", what, detail);
}

void expect_close(const Array& got, const std::vector<double>& want, double terms, double magnitude, const char* what) {
  char detail[200] = "";
  bool ok = got.n == int64_t(want.size());
  for (int64_t i = 0; ok && i < got.n; ++i)
    if (!close(got.get(i), want[size_t(i)], got.dtype, terms, magnitude)) {
      std::snprintf(detail, sizeof detail, "element %ld of %ld is %.9g, expected %.9g", long(i), long(got.n), got.get(i), want[size_t(i)]);
      ok = false;
    }
  expect(ok, what, detail);
}

void expect_same(const Array& a, const Array& b, const char* what) {
  expect(a.size() == b.size() && (a.size() == 0 || !std::memcmp(a.data(), b.data(), size_t(a.size()))), what, "threads change the bits");
}

// ---- naive reductions ------------------------------------------------------------------------------------------------

struct Reduced { double value; int64_t winner; };  // winner: position in the row, -1 if none

Reduced reduce_row(const std::vector<double>& m, Reduce r, double fill, bool skip_nan, bool unbiased) {
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

double apply(Message m, double x, double e) {
  switch (m) {
    case Message::copy_u: return x;
    case Message::copy_e: return e;
    case Message::add: return x + e;
    case Message::sub: return x - e;
    case Message::mul: return x * e;
    default: return x / e;
  }
}

#ifdef STRUCTOPS_FEW_DTYPES
constexpr Dtype kFloats[] = {Dtype::f32, Dtype::bf16};
constexpr Dtype kInts[] = {Dtype::i64};
constexpr Dtype kAll[] = {Dtype::f32, Dtype::bf16, Dtype::i64};
#else
constexpr Dtype kFloats[] = {Dtype::f32, Dtype::f64, Dtype::bf16, Dtype::f16};
constexpr Dtype kInts[] = {Dtype::i32, Dtype::i64};
constexpr Dtype kAll[] = {Dtype::f32, Dtype::f64, Dtype::bf16, Dtype::f16, Dtype::i32, Dtype::i64};
#endif
const char* kNames[] = {"f32", "f64", "bf16", "f16", "i32", "i64"};

// ---- spmm ------------------------------------------------------------------------------------------------------------

struct SpmmCase {
  Dtype dtype;
  Message message;
  Reduce reduce;
  int mode;  // 0 both, 1 e scalar, 2 x scalar, 3 offset tables
  int64_t B, F;
  ArgKind arg;
  bool wide, permuted, skip_nan;
};

void test_spmm(const Structure& s, const SpmmCase& c, Rng& rng) {
  char what[200];
  std::snprintf(what, sizeof what, "spmm %s message %d reduce %d mode %d B %ld F %ld arg %d E %ld skip %d", kNames[int(c.dtype)], int(c.message),
                int(c.reduce), c.mode, long(c.B), long(c.F), int(c.arg), long(s.E), int(c.skip_nan));
  const bool extreme = c.reduce == Reduce::min || c.reduce == Reduce::max;
  const bool copy = c.message <= Message::copy_e;
  const int mode = copy ? 0 : c.mode;
  const int64_t Fx = mode == 2 ? 1 : mode == 3 ? c.F + 3 : c.F, Fe = mode == 1 ? 1 : mode == 3 ? (c.F + 1) / 2 : c.F;
  const bool hub = s.E > 1000;  // a few sources many times over: powers of 2 would run away
  const Values kind = c.reduce == Reduce::prod ? (hub ? Values::signs : Values::powers) : c.skip_nan ? Values::spiked : Values::quarters;
  const Array x = random_array(c.dtype, c.B * s.M * Fx, rng, kind);
  const Array e = random_array(c.dtype, s.E * Fe, rng, c.message == Message::div && !hub ? Values::powers : c.message == Message::div ? Values::signs : kind);
  std::unique_ptr<int32_t[]> xo(new int32_t[size_t(c.F)]), eo(new int32_t[size_t(c.F)]);
  for (int64_t f = 0; f < c.F; ++f) { xo[size_t(f)] = int32_t(rng.below(Fx)); eo[size_t(f)] = int32_t(rng.below(Fe)); }

  SpmmArgs a{};
  a.dtype = c.dtype; a.message = c.message; a.reduce = c.reduce; a.arg_kind = c.arg;
  a.skip_nan = c.skip_nan; a.unbiased = rng.below(2) != 0;
  a.fill = -3;
  a.B = c.B; a.N = s.N; a.E = s.E; a.F = c.F;
  if (c.message != Message::copy_e) { a.x = x.data(); a.Fx = Fx; a.x_batch = c.B > 1 ? s.M * Fx : 0; }
  if (c.message != Message::copy_u) { a.e = e.data(); a.Fe = Fe; }
  a.rowptr = s.rowptr.index(c.wide);
  a.col = s.col.index(c.wide);
  if (c.permuted) a.eid = s.eid.index(c.wide);
  if (mode == 3) { a.x_off = xo.get(); a.e_off = eo.get(); }

  const int64_t cells = c.B * s.N * c.F;
  std::vector<double> want(static_cast<size_t>(cells));
  std::vector<int64_t> winner(static_cast<size_t>(cells));
  std::vector<double> m;
  int64_t longest = 1;
  for (int64_t b = 0; b < c.B; ++b)
    for (int64_t v = 0; v < s.N; ++v)
      for (int64_t f = 0; f < c.F; ++f) {
        m.clear();
        for (int64_t k = s.rowptr[v]; k < s.rowptr[v + 1]; ++k) {
          const int64_t u = s.col[k], j = c.permuted ? s.eid[k] : k;
          const int64_t fx = mode == 3 ? xo[size_t(f)] : mode == 2 ? 0 : f, fe = mode == 3 ? eo[size_t(f)] : mode == 1 ? 0 : f;
          m.push_back(apply(c.message, a.x ? x.get((b * s.M + u) * Fx + fx) : 0, a.e ? e.get(j * Fe + fe) : 0));
        }
        longest = std::max(longest, int64_t(m.size()));
        const Reduced r = reduce_row(m, c.reduce, a.fill, c.skip_nan, a.unbiased);
        const int64_t k = s.rowptr[v] + r.winner, at = (b * s.N + v) * c.F + f;
        want[size_t(at)] = r.value;
        winner[size_t(at)] = r.winner < 0 ? s.E : c.arg == ArgKind::edge && c.permuted ? s.eid[k] : c.arg == ArgKind::source ? s.col[k] : k;
      }

  Array out(c.dtype, cells), again(c.dtype, cells);
  Array arg(c.wide ? Dtype::i64 : Dtype::i32, cells), arg2(arg.dtype, cells);
  a.out = out.data();
  a.arg = c.arg != ArgKind::none ? arg.data() : nullptr;
  spmm_fwd(a, serial_for);
  a.out = again.data();
  a.arg = c.arg != ArgKind::none ? arg2.data() : nullptr;
  spmm_fwd(a, threaded);
  expect_close(out, want, double(longest), 4, what);
  expect_same(out, again, what);
  if (c.arg == ArgKind::none || !extreme) return;
  bool same = true;
  for (int64_t i = 0; i < cells; ++i) same &= int64_t(arg.get(i)) == winner[size_t(i)];
  expect(same, what, "winners differ");
  expect_same(arg, arg2, what);
}

void test_spmm_all(Rng& rng) {
  const Structure small = random_structure(33, 21, 260, 40, rng), hub = random_structure(17, 9, 200, 3000, rng);
  const Structure none = random_structure(5, 3, 0, 0, rng), single = random_structure(1, 1, 1, 0, rng);
  const int64_t features[] = {1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 65, 127, 130};
  int turn = 0;
  for (Dtype t : kAll)
    for (int r = 0; r < 8; ++r)
      for (int m = 0; m < 6; ++m) {
        const Reduce reduce = Reduce(r);
        const bool extreme = reduce == Reduce::min || reduce == Reduce::max;
        if (!is_floating(t) && (m > 1 || reduce == Reduce::mean || r > int(Reduce::prod))) continue;
        for (int mode = 0; mode < (m < 2 ? 1 : 4); ++mode)
          for (int k = 0; k < 2; ++k, ++turn) {
            const int64_t F = features[size_t(turn * 5 % 14)];
            const ArgKind arg = extreme ? ArgKind(turn % 4) : ArgKind::none;
            test_spmm(small, {t, Message(m), reduce, mode, 1 + turn % 2, F, arg, turn % 3 == 0, turn % 4 != 0, false}, rng);
            if (k == 0) test_spmm(hub, {t, Message(m), reduce, mode, 1, F % 20 + 1, arg, turn % 2 == 0, turn % 3 != 0, false}, rng);
          }
      }
  for (Dtype t : kFloats)
    for (Reduce r : {Reduce::min, Reduce::max})
      for (int64_t F : {1, 7, 40})
        for (const Structure* s : {&small, &hub}) test_spmm(*s, {t, Message::copy_e, r, 0, 1, F, ArgKind::position, F == 7, true, true}, rng);
  for (int r = 0; r < 8; ++r)
    for (const Structure* s : {&none, &single}) test_spmm(*s, {Dtype::f32, Message::mul, Reduce(r), 0, 2, 5, ArgKind::none, true, true, false}, rng);
}

// Documented wrap-around of integers.
void test_wrapping() {
  for (Dtype t : kInts) {
    const int64_t top = t == Dtype::i32 ? INT32_MAX : INT64_MAX;
    for (int64_t F : {1, 5, 16}) {
      Array src(t, 4 * F), out(t, F), scattered(t, F);
      for (int64_t i = 0; i < 4 * F; ++i) {
        if (t == Dtype::i32) src.put(i, int32_t(top)); else src.put(i, top);
      }
      const IndexArray ptr({0, 4}), zero({0, 0, 0, 0});
      for (Reduce r : {Reduce::sum, Reduce::prod}) {
        SpmmArgs a{};
        a.dtype = t; a.message = Message::copy_e; a.reduce = r;
        a.B = 1; a.N = 1; a.E = 4; a.F = a.Fe = F; a.e = src.data();
        a.rowptr = ptr.index(true);
        a.out = out.data();
        spmm_fwd(a, serial_for);
        ScatterArgs b{t, r, false, r == Reduce::prod ? 1. : 0., 1, 1, 4, F, src.data(), zero.index(false), scattered.data(), nullptr};
        scatter_fwd(b, serial_for);
        const int64_t want = r == Reduce::sum ? -4 : 1;  // 4 (2^n - 1) and (2^n - 1)^4 modulo 2^(n+1)
        for (int64_t f = 0; f < F; ++f) {
          const int64_t got = t == Dtype::i32 ? out.raw<int32_t>(f) : out.raw<int64_t>(f);
          const int64_t got2 = t == Dtype::i32 ? scattered.raw<int32_t>(f) : scattered.raw<int64_t>(f);
          expect(got == want && got2 == want, "wrapping", "wrong value");
        }
      }
    }
  }
}

// ---- sddmm -----------------------------------------------------------------------------------------------------------

void test_sddmm(const Structure& s, Dtype t, EdgeOp op, Target lt, Target rt, int64_t B, int64_t Fo, int64_t R, int mode, bool wide, Rng& rng) {
  char what[160];
  std::snprintf(what, sizeof what, "sddmm %s op %d targets %d %d B %ld Fo %ld R %ld mode %d", kNames[int(t)], int(op), int(lt), int(rt), long(B),
                long(Fo), long(R), mode);
  const int64_t F = Fo * R, rows[] = {s.M, s.N, s.E};
  const int64_t Fl = mode == 1 ? 1 : F, Fr = mode == 2 ? 1 : mode == 3 ? F + 1 : F, lr = rows[int(lt)], rr = rows[int(rt)];
  const Array lhs = random_array(t, B * lr * Fl, rng, Values::quarters), rhs = random_array(t, rr * Fr, rng, Values::powers);
  std::unique_ptr<int32_t[]> lo(new int32_t[size_t(F)]), ro(new int32_t[size_t(F)]);
  for (int64_t f = 0; f < F; ++f) { lo[size_t(f)] = int32_t(rng.below(Fl)); ro[size_t(f)] = int32_t(rng.below(Fr)); }
  SddmmArgs a{};
  a.dtype = t; a.op = op; a.lhs_target = lt; a.rhs_target = rt;
  a.B = B; a.N = s.N; a.E = s.E; a.Fo = Fo; a.R = R;
  a.lhs = lhs.data(); a.Fl = Fl; a.lhs_batch = B > 1 ? lr * Fl : 0;
  if (op != EdgeOp::copy) { a.rhs = rhs.data(); a.Fr = Fr; }
  a.rowptr = s.rowptr.index(wide); a.col = s.col.index(wide); a.eid = s.eid.index(wide);
  if (mode == 3) { a.l_off = lo.get(); a.r_off = ro.get(); }
  std::vector<double> want(size_t(B * s.E * Fo), 0);
  for (int64_t b = 0; b < B; ++b)
    for (int64_t v = 0; v < s.N; ++v)
      for (int64_t k = s.rowptr[v]; k < s.rowptr[v + 1]; ++k)
        for (int64_t f = 0; f < F; ++f) {
          const int64_t at[] = {s.col[k], v, s.eid[k]};
          const double l = lhs.get((b * lr + at[int(lt)]) * Fl + (mode == 3 ? lo[size_t(f)] : Fl == 1 ? 0 : f));
          const double r = op == EdgeOp::copy ? 0 : rhs.get(at[int(rt)] * Fr + (mode == 3 ? ro[size_t(f)] : Fr == 1 ? 0 : f));
          const double value = op == EdgeOp::copy ? l : op == EdgeOp::add ? l + r : op == EdgeOp::sub ? l - r : op == EdgeOp::mul ? l * r : l / r;
          want[size_t((b * s.E + s.eid[k]) * Fo + f / R)] += value;
        }
  Array out(t, B * s.E * Fo), again(t, B * s.E * Fo);
  a.out = out.data();
  sddmm_fwd(a, serial_for);
  a.out = again.data();
  sddmm_fwd(a, threaded);
  expect_close(out, want, double(R), 4, what);
  expect_same(out, again, what);
}

void test_sddmm_all(Rng& rng) {
  const Structure small = random_structure(23, 17, 150, 30, rng), hub = random_structure(11, 9, 100, 2000, rng);
  const int64_t features[] = {1, 3, 8, 16, 17, 33, 65, 130};
  int turn = 0;
  for (Dtype t : kFloats)
    for (int op = 0; op < 5; ++op)
      for (int pair = 0; pair < 9; ++pair)
        for (int mode = 0; mode < 4; ++mode, ++turn) {
          const int64_t F = features[turn % 8];
          test_sddmm(small, t, EdgeOp(op), Target(pair / 3), Target(pair % 3), 1 + turn % 2, F, 1, mode, turn % 2 == 0, rng);
          if (op == int(EdgeOp::mul)) test_sddmm(small, t, EdgeOp(op), Target(pair / 3), Target(pair % 3), 1, 1 + turn % 3, F, mode, turn % 2 == 0, rng);
        }
  for (Dtype t : kFloats) test_sddmm(hub, t, EdgeOp::mul, Target::u, Target::v, 1, 1, 9, 0, false, rng);
  for (Dtype t : kInts)
    for (int pair = 0; pair < 3; ++pair) test_sddmm(small, t, EdgeOp::copy, Target(pair), Target(pair), 1, 5, 1, 0, true, rng);
}

// ---- softmax ---------------------------------------------------------------------------------------------------------

void test_softmax(const Structure& s, Dtype t, bool log, int64_t B, int64_t F, bool wide, bool permuted, Rng& rng) {
  char what[120];
  std::snprintf(what, sizeof what, "softmax %s log %d B %ld F %ld E %ld", kNames[int(t)], int(log), long(B), long(F), long(s.E));
  const Array src = random_array(t, B * s.E * F, rng, Values::quarters), grad = random_array(t, B * s.E * F, rng, Values::quarters);
  const int64_t cells = B * s.E * F;
  Array out(t, cells), again(t, cells), back(t, cells), back2(t, cells);
  SoftmaxArgs a{};
  a.dtype = t; a.log = log; a.B = B; a.N = s.N; a.E = s.E; a.F = F;
  a.rowptr = s.rowptr.index(wide);
  if (permuted) a.eid = s.eid.index(wide);
  a.src = src.data(); a.out = out.data();
  softmax_fwd(a, serial_for);
  a.out = again.data();
  softmax_fwd(a, threaded);
  a.src = out.data(); a.grad = grad.data(); a.out = back.data();
  softmax_bwd(a, serial_for);
  a.out = back2.data();
  softmax_bwd(a, threaded);
  std::vector<double> want(static_cast<size_t>(cells)), dwant(static_cast<size_t>(cells));
  double longest = 1;
  for (int64_t b = 0; b < B; ++b)
    for (int64_t v = 0; v < s.N; ++v)
      for (int64_t f = 0; f < F; ++f) {
        auto at = [&](int64_t k) { return (b * s.E + (permuted ? s.eid[k] : k)) * F + f; };
        double top = -kInf, total = 0, g = 0;
        longest = std::max(longest, double(s.rowptr[v + 1] - s.rowptr[v]));
        for (int64_t k = s.rowptr[v]; k < s.rowptr[v + 1]; ++k) top = std::max(top, src.get(at(k)));
        for (int64_t k = s.rowptr[v]; k < s.rowptr[v + 1]; ++k) total += std::exp(src.get(at(k)) - top);
        for (int64_t k = s.rowptr[v]; k < s.rowptr[v + 1]; ++k) g += (log ? 1 : out.get(at(k))) * grad.get(at(k));
        for (int64_t k = s.rowptr[v]; k < s.rowptr[v + 1]; ++k) {
          const double x = src.get(at(k)) - top, y = out.get(at(k));
          want[size_t(at(k))] = log ? x - std::log(total) : std::exp(x) / total;
          dwant[size_t(at(k))] = log ? grad.get(at(k)) - std::exp(y) * g : y * (grad.get(at(k)) - g);
        }
      }
  expect_close(out, want, 16 + std::sqrt(longest), 1, what);
  expect_close(back, dwant, longest, 4, what);
  expect_same(out, again, what);
  expect_same(back, back2, what);
}

void test_softmax_all(Rng& rng) {
  const Structure small = random_structure(23, 17, 150, 30, rng), hub = random_structure(11, 9, 100, 3000, rng);
  int turn = 0;
  for (Dtype t : kFloats)
    for (bool log : {false, true})
      for (int64_t F : {1, 2, 3, 4, 8, 16, 17, 40}) {
        ++turn;
        test_softmax(small, t, log, 1 + turn % 2, F, turn % 2 == 0, turn % 3 != 0, rng);
        if (F < 20) test_softmax(hub, t, log, 1, F, turn % 2 != 0, turn % 3 == 0, rng);
      }
}

// ---- scatter ---------------------------------------------------------------------------------------------------------

void test_scatter(Dtype t, Reduce r, int64_t B, int64_t N, int64_t E, int64_t F, bool with_arg, bool wide, bool skip_nan, Rng& rng) {
  char what[160];
  std::snprintf(what, sizeof what, "scatter %s reduce %d B %ld N %ld E %ld F %ld arg %d skip %d", kNames[int(t)], int(r), long(B), long(N), long(E),
                long(F), int(with_arg), int(skip_nan));
  std::vector<int64_t> index(static_cast<size_t>(E));
  for (int64_t& i : index) i = rng.below(4) ? rng.below(N) : N / 2;  // a quarter of the edges in one row
  for (int64_t& i : index) i = i == 1 && N > 2 ? 0 : i;
  const IndexArray idx(index);
  const Array src = random_array(t, B * E * F, rng, r == Reduce::prod ? Values::powers : skip_nan ? Values::spiked : Values::quarters);
  const int64_t cells = B * N * F;
  Array out(t, cells), again(t, cells);
  std::unique_ptr<int64_t[]> arg(new int64_t[size_t(cells)]), arg2(new int64_t[size_t(cells)]);
  ScatterArgs a{t, r, skip_nan, -2, B, N, E, F, src.data(), idx.index(wide), out.data(), with_arg ? arg.get() : nullptr};
  expect(scatter_fwd(a, serial_for), what, "refused");
  a.out = again.data();
  a.arg = with_arg ? arg2.get() : nullptr;
  expect(scatter_fwd(a, threaded), what, "refused");
  std::vector<double> want(static_cast<size_t>(cells));
  std::vector<std::vector<int64_t>> groups(static_cast<size_t>(N));
  for (int64_t e = 0; e < E; ++e) groups[size_t(index[size_t(e)])].push_back(e);
  bool same = true;
  double longest = 1;
  std::vector<double> m;
  for (int64_t b = 0; b < B; ++b)
    for (int64_t n = 0; n < N; ++n)
      for (int64_t f = 0; f < F; ++f) {
        m.clear();
        for (int64_t e : groups[size_t(n)]) m.push_back(src.get((b * E + e) * F + f));
        longest = std::max(longest, double(m.size()));
        const Reduced red = reduce_row(m, r, -2, skip_nan, true);
        const int64_t at = (b * N + n) * F + f;
        want[size_t(at)] = red.value;
        if (with_arg) same &= arg[size_t(at)] == (red.winner < 0 ? E : groups[size_t(n)][size_t(red.winner)]) && arg2[size_t(at)] == arg[size_t(at)];
      }
  expect_close(out, want, longest, 2, what);
  expect_same(out, again, what);
  expect(same, what, "winners differ");
}

void test_scatter_all(Rng& rng) {
  int turn = 0;
  for (Dtype t : kAll)
    for (Reduce r : {Reduce::sum, Reduce::mean, Reduce::min, Reduce::max, Reduce::prod}) {
      if (!is_floating(t) && r == Reduce::mean) continue;
      const bool extreme = r == Reduce::min || r == Reduce::max;
      for (int64_t F : {1, 2, 3, 7, 8, 16, 33, 65}) {
        ++turn;
        test_scatter(t, r, 1 + turn % 2, 9, 300, F, extreme && turn % 3 != 0, turn % 2 == 0, extreme && turn % 2 == 0, rng);
      }
      test_scatter(t, r, 1, 50, 70'000, 1, extreme, true, false, rng);
      test_scatter(t, r, 1, 50, 9'000, 9, extreme, false, false, rng);
      test_scatter(t, r, 1, 5, 0, 3, extreme, false, false, rng);
    }
  for (int64_t bad : {int64_t(-1), int64_t(9), int64_t(INT32_MAX), int64_t(INT32_MIN)})
    for (bool wide : {false, true})
      for (int64_t E : {20, 70'000}) {
        std::vector<int64_t> index(size_t(E), 3);
        index[size_t(E) - 7] = bad;
        const IndexArray idx(index);
        const Array src = random_array(Dtype::f32, E, rng, Values::quarters);
        Array out(Dtype::f32, 9);
        const ScatterArgs a{Dtype::f32, Reduce::sum, false, 0, 1, 9, E, 1, src.data(), idx.index(wide), out.data(), nullptr};
        expect(!scatter_fwd(a, serial_for) && !scatter_fwd(a, threaded), "scatter", "an index out of range was accepted");
      }
}

// ---- select ----------------------------------------------------------------------------------------------------------

void test_select_all(Rng& rng) {
  int turn = 0;
  for (Dtype t : kAll)
    for (int64_t F : {1, 2, 5, 16, 17, 40})
      for (int64_t N : {7, 900}) {
        ++turn;
        const int64_t B = 1 + turn % 2, M = 11;
        std::vector<int64_t> index(size_t(B * N * F));
        for (int64_t& i : index) i = rng.below(M + 4) - 2;
        const IndexArray idx(index);
        const Array src = random_array(t, B * M * F, rng, Values::quarters), grad = random_array(t, B * N * F, rng, Values::quarters);
        Array out(t, B * N * F), out2(t, B * N * F), back(t, B * M * F), back2(t, B * M * F);
        SelectArgs a{t, B, N, M, F, src.data(), idx.index(turn % 2 != 0), out.data()};
        select_fwd(a, serial_for);
        a.out = out2.data();
        select_fwd(a, threaded);
        a.src = grad.data();
        a.out = back.data();
        select_bwd(a, serial_for);
        a.out = back2.data();
        select_bwd(a, threaded);
        std::vector<double> want(size_t(B * N * F), 0), dwant(size_t(B * M * F), 0);
        for (int64_t b = 0; b < B; ++b)
          for (int64_t n = 0; n < N; ++n)
            for (int64_t f = 0; f < F; ++f) {
              const int64_t at = (b * N + n) * F + f, m = index[size_t(at)];
              if (m < 0 || m >= M) continue;
              want[size_t(at)] = src.get((b * M + m) * F + f);
              dwant[size_t((b * M + m) * F + f)] += grad.get(at);
            }
        expect_close(out, want, 1, 1, "select");
        expect_close(back, dwant, double(N), 2, "select_bwd");
        expect_same(out, out2, "select");
        expect_same(back, back2, "select_bwd");
      }
}

// ---- csr -------------------------------------------------------------------------------------------------------------

template <class I> void test_csr(int64_t E, int64_t N, Rng& rng) {
  std::unique_ptr<I[]> index(new I[size_t(E)]), ptr(new I[size_t(N) + 1]), perm(new I[size_t(E)]);
  for (int64_t e = 0; e < E; ++e) index[size_t(e)] = I(rng.below(N));
  const Index idx{index.get(), sizeof(I) == 8};
  for (const ParallelFor* pf : {&serial_for, &threaded}) {
    std::fill(perm.get(), perm.get() + E, I(-1));
    expect(csr_build(idx, E, N, ptr.get(), perm.get(), *pf), "csr_build", "refused");
    bool ok = ptr[0] == 0 && ptr[size_t(N)] == E;
    for (int64_t n = 0; ok && n < N; ++n)
      for (int64_t k = ptr[size_t(n)]; ok && k < ptr[size_t(n) + 1]; ++k)
        ok = index[size_t(perm[size_t(k)])] == n && (k == ptr[size_t(n)] || perm[size_t(k)] > perm[size_t(k) - 1]);
    expect(ok, "csr_build", "not a stable sort");
    if (E == 0) continue;
    bool sorted = true;
    const Range r = index_range(idx, E, &sorted, *pf);
    const auto [lo, hi] = std::minmax_element(index.get(), index.get() + E);
    expect(r.min == *lo && r.max == *hi && sorted == std::is_sorted(index.get(), index.get() + E), "index_range", "wrong");
    const I keep = index[size_t(E / 2)];
    for (I bad : {I(-1), I(N), std::numeric_limits<I>::max(), std::numeric_limits<I>::min()}) {
      index[size_t(E / 2)] = bad;
      expect(!csr_build(idx, E, N, ptr.get(), perm.get(), *pf), "csr_build", "an index out of range was accepted");
    }
    index[size_t(E / 2)] = keep;
  }
}

void test_csr_all(Rng& rng) {
  const int64_t sizes[][2] = {{0, 1}, {1, 1}, {100, 7}, {100, 5000}, {65'536, 3}, {200'000, 1000}, {70'000, 400'000}};
  for (const auto& s : sizes) {
    test_csr<int32_t>(s[0], s[1], rng);
    test_csr<int64_t>(s[0], s[1], rng);
  }
  std::vector<int64_t> up(200'000);
  for (size_t i = 0; i < up.size(); ++i) up[i] = int64_t(i / 3);
  for (size_t dip : {size_t(0), size_t(65'535), size_t(65'536), size_t(131'072), up.size() - 1}) {
    std::vector<int64_t> index = up;
    if (dip) index[dip] = -1;
    const IndexArray idx(index);
    for (bool wide : {false, true})
      for (const ParallelFor* pf : {&serial_for, &threaded}) {
        bool sorted = false;
        const Range r = index_range(idx.index(wide), int64_t(index.size()), &sorted, *pf);
        expect(sorted == (dip == 0) && r.min == (dip ? -1 : 0), "index_range", "order or minimum is wrong");
      }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const char* const name = argc > 1 ? argv[1] : "auto";
  if (!set_isa(name)) {
    std::printf("skipped: instruction set '%s' is not available here\n", name);
    return 0;
  }
  Rng rng{20240607};
  test_spmm_all(rng);
  test_wrapping();
  test_sddmm_all(rng);
  test_softmax_all(rng);
  test_scatter_all(rng);
  test_select_all(rng);
  test_csr_all(rng);
  std::printf("%s: %ld checks, %d failures\n", isa_name(active_isa()), checks, failures);
  return failures ? 1 : 0;
}
