#include "tests.h"

#include "binary/bag.h"
#include "binary/mixed.h"
#include "support.h"

namespace structops::tests {
namespace {

std::vector<uint64_t> random_words(int64_t rows, int64_t K, Rng& rng) {
  const int64_t W = words_of(K);
  std::vector<uint64_t> words(size_t(rows * W));
  for (uint64_t& w : words) w = rng.next();
  if (K % 64)
    for (int64_t r = 0; r < rows; ++r) words[size_t(r * W + W - 1)] &= (uint64_t(1) << K % 64) - 1;
  return words;
}

int64_t bit(const std::vector<uint64_t>& words, int64_t row, int64_t W, int64_t k) { return int64_t(words[size_t(row * W + k / 64)] >> (k % 64)) & 1; }

void test_pack(Rng& rng) {
  for (Dtype t : kAll)
    for (int64_t K : {1, 63, 64, 65, 200})
      for (int64_t S : {1, 5, 33}) {
        const int64_t A = 3, W = words_of(K);
        const Array x = random_array(t, A * K * S, rng, Values::quarters);
        std::vector<uint64_t> one(size_t(A * S * W)), two(one.size());
        BitsPackArgs a{t, BitTest::ge, false, 0, A, K, S, x.data(), nullptr, one.data()};
        bits_pack(a, serial_for);
        a.words = two.data();
        bits_pack(a, threaded);
        bool ok = one == two;
        for (int64_t n = 0; n < A; ++n)
          for (int64_t s = 0; s < S; ++s)
            for (int64_t k = 0; k < 64 * W; ++k)
              ok &= bit(one, n * S + s, W, k) == (k < K && x.get((n * K + k) * S + s) >= 0);
        expect(ok, "bits_pack", kNames[int(t)]);
        Array back(t, A * K * S);
        bits_unpack({t, -1, 1, A, K, S, one.data(), back.data()}, threaded);
        ok = true;
        for (int64_t i = 0; i < A * K * S; ++i) ok &= back.get(i) == (x.get(i) >= 0 ? 1 : -1);
        expect(ok, "bits_unpack", kNames[int(t)]);
      }
}

void test_products(Rng& rng) {
  for (int64_t M : {1, 6, 70})
    for (int64_t N : {1, 9, 64, 130})
      for (int64_t K : {0, 1, 64, 129, 4200}) {
        const int64_t W = words_of(K);
        const auto a = random_words(M, K, rng), b = random_words(2 * N, K, rng);
        std::vector<int32_t> out(size_t(M * N)), again(out.size()), eight(out.size());
        BitsGemmArgs g{};
        g.M = M; g.N = N; g.K = K; g.P = 2; g.G = 1;
        g.coef[0] = -1; g.coef[1] = 3; g.col[1] = 2; g.row = 5; g.base = 7;
        g.a = a.data(); g.b = b.data();
        g.e.data = out.data();
        bits_gemm(g, serial_for);
        g.e.data = again.data();
        bits_gemm(g, threaded);
        std::vector<int8_t> x(size_t(M * K));
        std::vector<float> real(x.size()), sums(out.size());
        for (size_t i = 0; i < x.size(); ++i) real[i] = float(x[i] = int8_t(rng.below(256) - 128));
        BitsMixedArgs m{};
        m.M = M; m.N = N; m.K = K; m.P = 1; m.coef[0] = 2; m.base = -1;
        m.x = x.data(); m.b = b.data(); m.out = eight.data();
        bits_w1a8(m, threaded);
        m.dtype = Dtype::f32; m.coef[0] = 1; m.base = 0; m.x = real.data(); m.out = sums.data();
        bits_w1a16(m, threaded);
        bool ok = out == again, ok8 = true, ok16 = true;
        for (int64_t i = 0; i < M; ++i)
          for (int64_t j = 0; j < N; ++j) {
            int64_t want = 7, dot = 0;
            for (int64_t k = 0; k < K; ++k) {
              const int64_t u = bit(a, i, W, k), p = bit(b, j, W, k), q = bit(b, N + j, W, k);
              want += 5 * u - (u ^ p) + 3 * (u ^ q) + 2 * q;
              dot += (2 * p - 1) * x[size_t(i * K + k)];
            }
            const size_t at = size_t(i * N + j);
            ok &= out[at] == want;
            ok8 &= eight[at] == dot;
            ok16 &= sums[at] == float(dot);  // integers below 2^24: exact in any order
          }
        expect(ok, "bits_gemm", "");
        expect(ok8, "bits_w1a8", "");
        expect(ok16, "bits_w1a16", "");
      }
}

void test_windows(Rng& rng) {
  const int64_t cases[][3] = {{3, 1, 5}, {64, 1, 66}, {70, 70, 140}, {12, 3, 6}, {128, 2, 20}};  // channels, groups, filters
  for (const auto& c : cases)
    for (BitsPad pad : {BitsPad::zero, BitsPad::bit0, BitsPad::bit1}) {
      const int64_t C = c[0], G = c[1], O = c[2], Cg = C / G, B = 2;
      BitsWindow w{7, 6, 4, 4, 3, 2, 2, 1, 1, 0, 1, 2, pad};
      const int64_t K = w.kh * w.kw * Cg, W = words_of(C), Wk = words_of(K);
      const auto x = random_words(B * w.H * w.W, C, rng), f = random_words(O, K, rng);
      std::vector<int32_t> out(size_t(B * w.OH * w.OW * O));
      BitsGemmArgs g{};
      g.conv = true;
      g.M = B * w.OH * w.OW; g.N = O / G; g.K = K; g.P = 1; g.G = G;
      g.coef[0] = -2; g.base = int32_t(K); g.win = w;
      g.a = x.data(); g.b = f.data();
      g.e.data = out.data();
      bits_gemm(g, threaded);
      std::vector<uint64_t> bits(size_t(B * w.OH * w.OW * words_of(O)));
      g.e.out = BitsOut::bits;
      g.e.data = bits.data();
      bits_gemm(g, threaded);
      bool ok = true;
      for (int64_t m = 0; m < g.M; ++m)
        for (int64_t o = 0; o < O; ++o) {
          const int64_t b = m / (w.OH * w.OW), oh = m / w.OW % w.OH, ow = m % w.OW;
          int64_t want = 0;
          for (int64_t i = 0; i < w.kh; ++i)
            for (int64_t j = 0; j < w.kw; ++j)
              for (int64_t k = 0; k < Cg; ++k) {
                const int64_t ih = oh * w.sh - w.ph + i * w.dh, iw = ow * w.sw - w.pw + j * w.dw;
                const bool in = ih >= 0 && ih < w.H && iw >= 0 && iw < w.W;
                const int64_t outside = pad == BitsPad::zero ? 0 : pad == BitsPad::bit1 ? 1 : -1;
                const int64_t v = in ? 2 * bit(x, (b * w.H + ih) * w.W + iw, W, o / g.N * Cg + k) - 1 : outside;
                want += v * (2 * bit(f, o, Wk, (i * w.kw + j) * Cg + k) - 1);
              }
          ok &= out[size_t(m * O + o)] == want && bit(bits, m, words_of(O), o) == (want >= 0);
        }
      expect(ok, "bits_conv", "");
    }
}

void test_bags(Rng& rng) {
  for (int64_t K : {1, 64, 130, 449, 777}) {
    const int64_t N = 23, W = words_of(K);
    const auto table = random_words(N, K, rng);
    std::vector<int64_t> offsets{0};
    for (int64_t n : {0, 1, 7, 8, 9, 248, 249, 700, 0}) offsets.push_back(offsets.back() + n);
    const int64_t B = int64_t(offsets.size()) - 1, E = offsets.back();
    std::vector<int64_t> index(static_cast<size_t>(E));
    for (int64_t& i : index) i = int64_t(rng.below(N));
    std::vector<float> out(size_t(B * K)), again(out.size());
    for (BagReduce reduce : {BagReduce::sum, BagReduce::mean, BagReduce::max}) {
      for (int32_t one : {1, -1}) {
        BitsBagArgs a{reduce, -one, one, B, E, K, {offsets.data(), true}, {index.data(), true}, table.data(), out.data()};
        bits_bag(a, serial_for);
        a.out = again.data();
        bits_bag(a, threaded);
        bool ok = out == again;
        for (int64_t v = 0; v < B; ++v)
          for (int64_t k = 0; k < K; ++k) {
            const int64_t n = offsets[size_t(v + 1)] - offsets[size_t(v)];
            int64_t sum = 0;
            for (int64_t e = offsets[size_t(v)]; e < offsets[size_t(v + 1)]; ++e) sum += bit(table, index[size_t(e)], W, k) ? one : -one;
            const float most = n ? (sum > -n ? 1.f : -1.f) : 0.f, mean = n ? float(sum) / float(n) : 0.f;
            ok &= out[size_t(v * K + k)] == (reduce == BagReduce::sum ? float(sum) : reduce == BagReduce::mean ? mean : most);
          }
        expect(ok, "bits_bag", "");
      }
    }
  }
}

}  // namespace

void test_bits_all(Rng& rng) {
  test_pack(rng);
  test_products(rng);
  test_windows(rng);
  test_bags(rng);
}

}  // namespace structops::tests
