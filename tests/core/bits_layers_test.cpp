// Products of packed bits with what follows them: planes, groups, batches, epilogues, real activations.
#include "binary/mixed.h"
#include "core/isa.h"
#include "support.h"
#include "tests.h"

namespace structops::tests {
namespace {

// Rows of K random bits in words, as long as the contract says.
struct Bits {
  int64_t W;
  std::vector<uint64_t> words;
  Bits(int64_t rows, int64_t K, Rng& rng) : W(words_of(K)), words(size_t(rows * W)) {
    for (uint64_t& w : words) w = rng.next();
    if (K % 64)
      for (int64_t r = 0; r < rows; ++r) words[size_t(r * W + W - 1)] &= (uint64_t(1) << K % 64) - 1;
  }
  int64_t at(int64_t row, int64_t k) const { return int64_t(words[size_t(row * W + k / 64)] >> (k % 64)) & 1; }
};

constexpr Dtype kStored[] = {Dtype::i32, Dtype::f32, Dtype::bf16, Dtype::f16};

struct Epilogue {
  BitsEpilogue e;
  Array scale, bias, gamma, slope, zeta, shift, residual;
  std::vector<int32_t> threshold, flip;

  // parts: bit 0 scale, 1 bias, 2 residual, 3 activation, 4 shift, 5 threshold
  Epilogue(BitsOut out, int parts, Dtype residual_dtype, int64_t M, int64_t N, Rng& rng)
      : scale(make(parts & 1, N, rng)),
        bias(make(parts & 2, N, rng)),
        gamma(make(parts & 8, N, rng)),
        slope(make(parts & 8, N, rng)),
        zeta(make(parts & 8, N, rng)),
        shift(make(parts & 16, N, rng)),
        residual(random_array(residual_dtype, parts & 4 ? M * N : 0, rng, Values::quarters)) {
    e.out = out;
    e.residual_dtype = residual_dtype;
    auto in = [](const Array& a) { return a.n ? static_cast<const float*>(a.data()) : nullptr; };
    e.scale = in(scale);
    e.bias = in(bias);
    e.gamma = in(gamma);
    e.slope = in(slope);
    e.zeta = in(zeta);
    e.shift = in(shift);
    e.residual = residual.n ? residual.data() : nullptr;
    if (!(parts & 32)) return;
    for (int64_t i = 0; i < N; ++i) {
      threshold.push_back(int32_t(rng.below(9) - 4));
      flip.push_back(-int32_t(rng.below(2)));
    }
    threshold.shrink_to_fit();
    flip.shrink_to_fit();
    e.threshold = threshold.data();
    e.flip = flip.data();
  }
  static Array make(int wanted, int64_t n, Rng& rng) { return random_array(Dtype::f32, wanted ? n : 0, rng, Values::quarters); }
  double real(int64_t dot, int64_t m, int64_t n, int64_t N) const {  // quarters and integers: exact in float32
    auto of = [&](const Array& a, double none) { return a.n ? a.get(n) : none; };
    double y = double(dot) * of(scale, 1) + of(bias, 0) + (residual.n ? residual.get(m * N + n) : 0);
    if (!slope.n) return y;
    const double t = y + of(gamma, 0);
    return (t > 0 ? t : float(of(slope, 0) * t)) + of(zeta, 0);
  }
  bool bit(int64_t dot, int64_t m, int64_t n, int64_t N) const {
    if (!threshold.empty()) return (dot >= threshold[size_t(n)]) != (flip[size_t(n)] != 0);
    return real(dot, m, n, N) + (shift.n ? shift.get(n) : 0) >= 0;
  }
};

// count(m, column of all groups) against what g gives, stored in every way.
template <class Dot>
void check_stored(BitsGemmArgs g, int64_t rows, int64_t columns, const char* what, Rng& rng, Dot count) {
  std::vector<int64_t> dots;
  for (int64_t m = 0; m < rows; ++m)
    for (int64_t n = 0; n < columns; ++n) dots.push_back(count(m, n));
  const auto dot = [&](int64_t m, int64_t n) { return dots[size_t(m * columns + n)]; };
  for (int turn = 0; turn < 8; ++turn) {
    const BitsOut out = BitsOut(turn % 5);
    const int parts = out == BitsOut::i32 ? 0
                      : turn == 7         ? 16
                      : turn == 4         ? 1 + 2 + 4 + 8 + 16
                                          : 1 + 2 * (turn % 2) + 4 * (turn > 4) + 8 * (turn == 3);
    const Epilogue e(out, turn == 6 ? 0 : parts, kStored[1 + turn % 3], rows, columns, rng),
        thresholds(BitsOut::bits, 32, Dtype::f32, rows, columns, rng);
    if (out != BitsOut::bits) {
      std::vector<double> want;
      for (int64_t m = 0; m < rows; ++m)
        for (int64_t n = 0; n < columns; ++n)
          want.push_back(out == BitsOut::i32 ? double(dot(m, n)) : e.real(dot(m, n), m, n, columns));
      g.e = e.e;
      expect_run(kStored[int(out)], want, 0, 0, what, [&](void* data, const ParallelFor& pf) {
        g.e.data = data;
        bits_gemm(g, pf);
      });
      continue;
    }
    for (const Epilogue* with : {&e, &thresholds}) {
      const int64_t W = words_of(columns);
      std::vector<uint64_t> one(size_t(rows * W), ~uint64_t(0)), two(one);
      g.e = with->e;
      g.e.data = one.data();
      bits_gemm(g, serial_for);
      g.e.data = two.data();
      bits_gemm(g, threaded);
      bool ok = one == two;
      for (int64_t m = 0; m < rows; ++m)
        for (int64_t n = 0; n < 64 * W; ++n)
          ok &= (one[size_t(m * W + n / 64)] >> (n % 64) & 1) == uint64_t(n < columns && with->bit(dot(m, n), m, n, columns));
      expect(ok, what, "a wrong bit");
    }
  }
}

void test_matrix(int64_t M, int64_t N, int64_t K, int64_t P, int64_t G, bool batched, bool halve, Rng& rng) {
  char what[120];
  std::snprintf(what, sizeof what, "bits_gemm M %ld N %ld K %ld P %ld G %ld batched %d", long(M), long(N), long(K), long(P),
                long(G), int(batched));
  const Bits a((batched ? G : 1) * M, K, rng), b(P * G * N, K, rng);
  BitsGemmArgs g{};
  g.batched = batched;
  g.M = M;
  g.N = N;
  g.K = K;
  g.P = P;
  g.G = G;
  for (int64_t p = 0; p < P; ++p) {
    g.coef[p] = int32_t(2 * rng.below(4) - 3);
    g.col[p] = int32_t(rng.below(3) - 1);
  }
  g.row = int32_t(rng.below(3) - 1);
  g.base = 4;
  g.halve = halve;
  g.a = a.words.data();
  g.b = b.words.data();
  std::vector<uint32_t> panels(size_t(P * G * panels_of(N) * 2 * a.W * kPanelRows));
  if (rng.below(2)) {
    bits_panels({P * G, N, a.W, b.words.data(), panels.data()}, threaded);
    g.panels = panels.data();
  }
  auto dot = [&](int64_t group, int64_t row, int64_t n) {
    int64_t sum = g.base;
    for (int64_t k = 0; k < K; ++k) {
      const int64_t u = a.at(row, k);
      sum += g.row * u;
      for (int64_t p = 0; p < P; ++p) {
        const int64_t w = b.at((p * G + group) * N + n, k);
        sum += g.coef[p] * (u ^ w) + g.col[p] * w;
      }
    }
    return sum >> int(halve);
  };
  if (batched) {  // results [G, M, N]
    std::vector<double> want;
    for (int64_t i = 0; i < G * M; ++i)
      for (int64_t n = 0; n < N; ++n) want.push_back(double(dot(i / M, i, n)));
    expect_run(Dtype::i32, want, 0, 0, what, [&](void* data, const ParallelFor& pf) {
      g.e.data = data;
      bits_gemm(g, pf);
    });
    return;
  }
  if (G == 1) check_stored(g, M, N, what, rng, [&](int64_t m, int64_t n) { return dot(0, m, n); });
}

void test_convolution(int64_t C, int64_t G, int64_t O, const BitsWindow& w, Rng& rng) {
  char what[120];
  std::snprintf(what, sizeof what, "bits_conv C %ld G %ld O %ld pad %d stride %ld", long(C), long(G), long(O), int(w.pad),
                long(w.sh));
  const int64_t B = 2, Cg = C / G, K = w.kh * w.kw * Cg, rows = B * w.OH * w.OW;
  const Bits x(B * w.H * w.W, C, rng), f(O, K, rng);
  BitsGemmArgs g{};
  g.conv = true;
  g.M = rows;
  g.N = O / G;
  g.K = K;
  g.P = 1;
  g.G = G;
  g.coef[0] = -2;
  g.base = int32_t(K);
  g.win = w;
  g.a = x.words.data();
  g.b = f.words.data();
  check_stored(g, rows, O, what, rng, [&](int64_t m, int64_t o) {
    const int64_t b = m / (w.OH * w.OW), oh = m / w.OW % w.OH, ow = m % w.OW;
    int64_t sum = 0;
    for (int64_t k = 0; k < K; ++k) {
      const int64_t tap = k / Cg, ih = oh * w.sh - w.ph + tap / w.kw * w.dh, iw = ow * w.sw - w.pw + tap % w.kw * w.dw;
      const bool in = ih >= 0 && ih < w.H && iw >= 0 && iw < w.W;
      const int64_t outside = w.pad == BitsPad::zero ? 0 : w.pad == BitsPad::bit1 ? 1 : -1;
      sum += (in ? 2 * x.at((b * w.H + ih) * w.W + iw, o / g.N * Cg + k % Cg) - 1 : outside) * (2 * f.at(o, k) - 1);
    }
    return sum;
  });
}

BitsMixedArgs mixed_args(int64_t M, int64_t N, int64_t K, int64_t P, const Bits& b) {
  BitsMixedArgs m{};
  m.M = M;
  m.N = N;
  m.K = K;
  m.P = P;
  m.b = b.words.data();
  return m;
}

void test_mixed(int64_t M, int64_t N, int64_t K, int64_t P, Rng& rng) {
  char what[120];
  std::snprintf(what, sizeof what, "bits_mixed M %ld N %ld K %ld P %ld", long(M), long(N), long(K), long(P));
  const Bits b(P * N, K, rng);
  BitsMixedArgs m = mixed_args(M, N, K, P, b);
  std::vector<int8_t> x(size_t(M * K));
  for (int8_t& v : x) v = int8_t(rng.below(256) - 128);
  m.base = double(rng.below(3) - 1);
  for (int64_t p = 0; p < P; ++p) m.coef[p] = double(rng.below(5) - 2);
  std::vector<double> want;
  auto sum = [&](int64_t i, int64_t j, auto value, double zero) {
    double total = 0;
    for (int64_t k = 0; k < K; ++k) {
      total += m.base * value(i * K + k);
      for (int64_t p = 0; p < P; ++p) total += m.coef[p] * (b.at(p * N + j, k) ? 1 : zero) * value(i * K + k);
    }
    return total;
  };
  for (int64_t i = 0; i < M * N; ++i) want.push_back(sum(i / N, i % N, [&](int64_t k) { return double(x[size_t(k)]); }, 0));
  m.x = x.data();
  expect_run(Dtype::i32, want, 0, 0, what, [&](void* out, const ParallelFor& pf) {
    m.out = out;
    bits_w1a8(m, pf);
  });
  for (Dtype t : {Dtype::f32, Dtype::bf16, Dtype::f16}) {
    const Array real = random_array(t, M * K, rng, Values::quarters);
    m.dtype = t;
    m.x = real.data();
    want.clear();
    for (int64_t i = 0; i < M * N; ++i) want.push_back(sum(i / N, i % N, [&](int64_t k) { return real.get(k); }, -1));
    expect_run(Dtype::f32, want, 0, 0, what, [&](void* out, const ParallelFor& pf) {
      m.out = out;
      bits_w1a16(m, pf);
    });
  }
  // Values whose sums round: the order is one on every instruction set.
  std::vector<float> odd(x.size());
  for (float& v : odd) v = std::ldexp(float(rng.below(1 << 20)) - (1 << 19), int(rng.below(12)) - 24);
  m.dtype = Dtype::f32;
  m.x = odd.data();
  Array own(Dtype::f32, M * N), other(Dtype::f32, M * N);
  m.out = own.data();
  bits_w1a16(m, threaded);
  const Isa active = active_isa();
  for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (!set_isa(isa_name(isa))) continue;
    m.out = other.data();
    bits_w1a16(m, threaded);
    expect(!M || !N || !std::memcmp(own.data(), other.data(), size_t(own.size())), what,
           "an instruction set adds in another order");
  }
  set_isa(isa_name(active));
}

// int8 by planes of bits on every instruction set, in integers. extreme: every x is that value and every bit is 1.
void test_bytes(int64_t M, int64_t N, int64_t K, const std::vector<int64_t>& coef, int64_t base, Rng& rng, int extreme = 0) {
  char what[120];
  const int64_t P = int64_t(coef.size());
  std::snprintf(what, sizeof what, "bits_w1a8 M %ld N %ld K %ld P %ld, the first of %ld", long(M), long(N), long(K), long(P), long(coef[0]));
  Bits b(P * N, K, rng);
  std::vector<int8_t> x(size_t(M * K));
  for (int8_t& v : x) v = int8_t(extreme ? extreme : rng.below(256) - 128);
  if (extreme)
    for (int64_t r = 0; r < P * N; ++r)
      for (int64_t k = 0; k < K; ++k) b.words[size_t(r * b.W + k / 64)] |= uint64_t(1) << k % 64;
  BitsMixedArgs m = mixed_args(M, N, K, P, b);
  m.x = x.data();
  m.base = double(base);
  for (int64_t p = 0; p < P; ++p) m.coef[p] = double(coef[size_t(p)]);
  std::vector<double> want;
  for (int64_t j = 0; j < N; ++j)
    for (int64_t k = 0; k < K; ++k) {
      int64_t weight = base;
      for (int64_t p = 0; p < P; ++p) weight += coef[size_t(p)] * b.at(p * N + j, k);
      want.push_back(double(weight));
    }
  const std::vector<double> weights = std::move(want);
  want.clear();
  for (int64_t i = 0; i < M; ++i)
    for (int64_t j = 0; j < N; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < K; ++k) sum += weights[size_t(j * K + k)] * x[size_t(i * K + k)];
      want.push_back(sum);
    }
  const Isa active = active_isa();
  for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (!set_isa(isa_name(isa))) continue;
    expect_run(Dtype::i32, want, 0, 0, what, [&](void* out, const ParallelFor& pf) {
      m.out = out;
      bits_w1a8(m, pf);
    });
  }
  set_isa(isa_name(active));
}

}  // namespace

void test_bits_layers_all(Rng& rng) {
  int turn = 0;
  for (int64_t M : {0, 1, 5, 18})
    for (int64_t N : {1, 7, 64, 65, 130})
      for (int64_t K : {0, 1, 63, 65, 200}) {
        ++turn;
        test_matrix(M, N, K, 1 + turn % 3, 1, false, turn % 4 == 0, rng);
        test_matrix(M, N, K, 1 + turn % 2, 2, true, false, rng);
        test_mixed(M, N, K, 1 + turn % 3, rng);
      }
  for (int64_t M : {7, 8, 15, 16, 17, 21})  // around the rows from which bits are taken apart ahead, one plane and more
    for (int64_t N : {3, 64, 65})
      for (int64_t K : {1, 33, 512, 513, 1100}) {
        test_bytes(M, N, K, {2}, -1, rng);
        test_bytes(M, N, K, {1, -2}, 3, rng);
      }
  for (int64_t M : {127, 128, 129, 262}) test_bytes(M, 70, 70, {1, -1}, 0, rng);
  const std::vector<int64_t> planes[] = {{1}, {-1}, {2}, {3}, {127}, {-127}, {64, -63}, {1, 2, 4, -8, 16, -32, 32, 32}, {0, 5},
                                         {128}, {-64, 64}, {100, 100}, {1000, -7}};  // the last four do not fit a byte
  for (const auto& coef : planes) {
    test_bytes(17, 70, 1100, coef, 5, rng);
    for (int extreme : {-128, 127}) test_bytes(17, 5, 1100, coef, -1, rng, extreme);
  }
  const int64_t cases[][3] = {{1, 1, 1},  {3, 1, 65},  {64, 1, 5},
                              {70, 2, 6}, {12, 3, 66}, {128, 2, 70}};  // channels, groups, filters
  const BitsWindow windows[] = {{7, 6, 4, 4, 3, 2, 2, 1, 1, 0, 1, 2, BitsPad::zero},
                                {3, 5, 3, 5, 1, 1, 1, 1, 0, 0, 1, 1, BitsPad::zero},
                                {3, 5, 3, 5, 3, 3, 1, 1, 1, 1, 1, 1, BitsPad::zero},
                                {8, 3, 2, 1, 5, 3, 3, 2, 0, 0, 1, 1, BitsPad::zero}};
  for (const auto& c : cases)
    for (BitsWindow w : windows)
      for (BitsPad pad : {BitsPad::zero, BitsPad::bit0, BitsPad::bit1}) {
        w.pad = pad;
        test_convolution(c[0], c[1], c[2], w, rng);
      }
}

}  // namespace structops::tests
