#include "tests.h"

#include "support.h"
#include "tree/chart.h"

namespace structops::tests {
namespace {

double log_add(double x, double y) {
  const double top = std::max(x, y);
  return top == -kInf ? -kInf : top + std::log(std::exp(x - top) + std::exp(y - top));
}
double best_of(double x, double y) { return std::max(x, y); }

// The recurrences of chart.h as they stand there.
struct Naive {
  const Array &score, &sib;
  int64_t b, N, n;
  Chart kind;
  bool second;
  double (*plus)(double, double);

  double s(int64_t i, int64_t j) const { return score.get((b * N + i) * N + j); }
  double t(int64_t i, int64_t j, int64_t k) const { return sib.get(((b * N + i) * N + j) * N + k); }

  double total() const {
    std::vector<std::vector<double>> T(size_t(N), std::vector<double>(size_t(N), -kInf)), IL = T, IR = T, CL = T, CR = T;
    auto at = [](auto& c, int64_t i, int64_t j) -> double& { return c[size_t(i)][size_t(j)]; };
    if (n == 0) return 0;
    for (int64_t i = 0; i <= n; ++i) at(CL, i, i) = at(CR, i, i) = 0;
    for (int64_t w = 1; w <= n; ++w)
      for (int64_t i = 0, j = w; j <= n; ++i, ++j) {
        double x = -kInf;
        if (kind == Chart::span) {
          for (int64_t r = i + 1; r < j; ++r) x = plus(x, at(T, i, r) + at(T, r, j));
          at(T, i, j) = s(i, j) + (w == 1 ? 0 : x);
          continue;
        }
        for (int64_t r = i; r < j; ++r) x = plus(x, at(CR, i, r) + at(CL, r + 1, j));
        at(T, i, j) = x;
        double left = x, right = x;
        if (second) {
          left = at(CR, i, j - 1) + at(CL, j, j);
          right = at(CR, i, i) + at(CL, i + 1, j);
          for (int64_t r = i + 1; r < j; ++r) {
            if (i > 0) left = plus(left, at(T, i, r) + at(IL, r, j) + t(i, j, r));
            if (i > 0 || kind == Chart::dep_multi) right = plus(right, at(IR, i, r) + at(T, r, j) + t(j, i, r));
          }
        }
        at(IL, i, j) = i > 0 ? left + s(i, j) : -kInf;
        at(IR, i, j) = right + s(j, i);
        for (int64_t r = i; r < j; ++r) at(CL, i, j) = plus(at(CL, i, j), at(CL, i, r) + at(IL, r, j));
        for (int64_t r = i + 1; r <= j; ++r) at(CR, i, j) = plus(at(CR, i, j), at(IR, i, r) + at(CR, r, j));
        if (i == 0 && j < n && kind == Chart::dep_single && !second) at(CR, i, j) = -kInf;
      }
    return kind == Chart::span ? at(T, 0, n) : at(CR, 0, n);
  }
};

void test_batch(Rng& rng, Dtype dtype, Chart kind, bool second, int64_t B, int64_t N) {
  const Dtype sums = accumulator(dtype);
  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < B; ++b) lengths.push_back(b % 5 == 4 ? rng.below(N) : N - 1 - rng.below(N > 3 ? 3 : 1));
  Array score = random_array(dtype, B * N * N, rng, Values::quarters);
  const Array none(dtype, 0), sib = second ? random_array(dtype, B * N * N * N, rng, Values::quarters) : Array(dtype, 0);
  const Array v = random_array(dtype, B * N * N, rng, Values::quarters), v_sib = second ? random_array(dtype, B * N * N * N, rng, Values::quarters) : Array(dtype, 0);
  for (int64_t i = 0; i < score.n; ++i)
    if (rng.below(12) == 0) score.set(i, -kInf);
  Array logz(sums, B), post(dtype, B * N * N), post2(dtype, B * N * N), post_sib(dtype, second ? B * N * N * N : 0);
  ChartArgs a{};
  a.dtype = dtype; a.kind = kind; a.B = B; a.N = N;
  a.score = score.data(); a.sib = second ? sib.data() : nullptr;
  a.lengths = lengths.data();
  a.logz = logz.data();
  chart_logz(a, threaded);
  std::vector<double> want, best;
  for (int64_t b = 0; b < B; ++b) {
    want.push_back(Naive{score, sib, b, N, lengths[size_t(b)], kind, second, log_add}.total());
    best.push_back(Naive{score, sib, b, N, lengths[size_t(b)], kind, second, best_of}.total());
  }
  expect_close(logz, want, 8.0 * double(N), 4, "chart_logz");
  a.post = post.data();
  a.post_sib = second ? post_sib.data() : nullptr;
  chart_marginals(a, serial_for);
  expect_close(logz, want, 8.0 * double(N), 4, "chart_marginals");
  a.post = post2.data();
  chart_marginals(a, threaded);
  expect_same(post, post2, "chart_marginals");
  for (int64_t b = 0; b < B && kind != Chart::span; ++b)  // every word has one head
    for (int64_t d = 1; d <= lengths[size_t(b)] && want[size_t(b)] > -kInf; ++d) {
      double sum = 0;
      for (int64_t h = 0; h < N; ++h) sum += post.get((b * N + d) * N + h);
      expect(std::fabs(sum - 1) < 2 * double(N) * storage_eps(dtype) + 1e-5, "chart_marginals", "heads do not sum to one");
    }
  double along = 0;  // hvp's first result is <posterior, v>
  for (int64_t i = 0; i < post.n; ++i) along += post.get(i) * v.get(i);
  for (int64_t i = 0; i < post_sib.n; ++i) along += post_sib.get(i) * v_sib.get(i);
  a.v = v.data();
  a.v_sib = second ? v_sib.data() : nullptr;
  chart_hvp(a, threaded);
  double got = 0;
  for (int64_t b = 0; b < B; ++b) got += logz.get(b);
  expect(std::fabs(got - along) < 1e-3 * double(B * N) + double(B * N * N) * storage_eps(dtype), "chart_hvp", "not <posterior, v>");

  const int64_t K = 3, size = kind == Chart::span ? (N > 1 ? 2 * (2 * N - 3) : 0) : N;
  std::vector<int64_t> tree(size_t(B * K * size), 7);
  Array value(sums, B), values(sums, B * K);
  ChartTreeArgs t{};
  t.in = a;
  t.tree = tree.data();
  t.K = 1;
  t.value = value.data();
  chart_best(t, threaded);
  expect_close(value, best, 8.0 * double(N), 4, "chart_best");
  t.K = K;
  t.value = values.data();
  chart_best(t, threaded);
  for (int64_t b = 0; b < B; ++b) expect(close(values.get(b * K), best[size_t(b)], sums, 8.0 * double(N), 4), "chart_best", "the first of several");
  std::vector<double> uniform(size_t(K * B * 3 * N));
  for (double& u : uniform) u = double(rng.below(1 << 20)) / (1 << 20);
  t.uniform = uniform.data();
  chart_sample(t, threaded);
  for (int64_t i = 0; kind != Chart::span && i < K * B; ++i)
    for (int64_t d = 1; d <= lengths[size_t(i % B)] && want[size_t(i % B)] > -kInf; ++d) {
      const int64_t h = tree[size_t(i * size + d)];
      expect(h >= 0 && h <= lengths[size_t(i % B)] && score.get(((i % B) * N + d) * N + h) > -kInf, "chart_sample", "a forbidden arc");
    }
}

}  // namespace

void test_chart_all(Rng& rng) {
  for (Dtype dtype : kFloats)
    for (Chart kind : {Chart::dep_multi, Chart::dep_single, Chart::span})
      for (bool second : {false, true}) {
        if (second && kind == Chart::span) continue;
        for (int64_t N : {1, 2, 3, 9, 19}) {
          test_batch(rng, dtype, kind, second, 1, N);
          test_batch(rng, dtype, kind, second, 21, N);
        }
      }
}

}  // namespace structops::tests
