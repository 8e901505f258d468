#include "tree/pcfg.h"

#include <functional>

#include "support.h"
#include "tests.h"

namespace structops::tests {
namespace {

struct Grammar {
  int64_t B, N, NT, T;
  bool shared;
  Array term, rule, root, span;
  int64_t S() const { return NT + T; }

  Grammar(Dtype t, int64_t B, int64_t N, int64_t NT, int64_t T, bool shared, bool spans, Rng& rng)
      : B(B), N(N), NT(NT), T(T), shared(shared), term(random_array(t, B * N * T, rng, Values::quarters)),
        rule(random_array(t, (shared ? 1 : B) * NT * (NT + T) * (NT + T), rng, Values::quarters)), root(random_array(t, B * NT, rng, Values::quarters)),
        span(random_array(t, spans ? B * (N + 1) * (N + 1) * NT : 0, rng, Values::quarters)) {
    for (Array* a : {&rule, &span})
      for (int64_t i = 0; i < a->n; ++i)
        if (rng.below(10) == 0) a->set(i, -kInf);
  }
  double rule_at(int64_t b, int64_t a, int64_t l, int64_t r) const { return rule.get((((shared ? 0 : b) * NT + a) * S() + l) * S() + r); }
  double span_at(int64_t b, int64_t i, int64_t j, int64_t a) const { return span.n ? span.get(((b * (N + 1) + i) * (N + 1) + j) * NT + a) : 0; }
  void point(PcfgArgs& a) const {
    a.B = B; a.N = N; a.NT = NT; a.T = T; a.shared = shared; a.dtype = term.dtype;
    a.term = term.data(); a.rule = rule.data(); a.root = root.data();
    a.span = span.n ? span.data() : nullptr;
  }
};

// The recurrences of pcfg.h as they stand there, over a semiring of logarithms.
double total(const Grammar& g, int64_t b, int64_t n, double (*plus)(double, double)) {
  if (n < 2) return n ? -kInf : 0;
  std::vector<double> chart(size_t((n + 1) * (n + 1) * g.S()), -kInf);
  auto V = [&](int64_t i, int64_t j, int64_t a) -> double& { return chart[size_t((i * (n + 1) + j) * g.S() + a)]; };
  for (int64_t i = 0; i < n; ++i)
    for (int64_t t = 0; t < g.T; ++t) V(i, i + 1, g.NT + t) = g.term.get((b * g.N + i) * g.T + t);
  for (int64_t w = 2; w <= n; ++w)
    for (int64_t i = 0; i + w <= n; ++i)
      for (int64_t a = 0; a < g.NT; ++a) {
        double x = -kInf;
        for (int64_t r = i + 1; r < i + w; ++r)
          for (int64_t l = 0; l < g.S(); ++l)
            for (int64_t c = 0; c < g.S(); ++c) x = plus(x, g.rule_at(b, a, l, c) + V(i, r, l) + V(r, i + w, c));
        V(i, i + w, a) = x + g.span_at(b, i, i + w, a);
      }
  double z = -kInf;
  for (int64_t a = 0; a < g.NT; ++a) z = plus(z, V(0, n, a) + g.root.get(b * g.NT + a));
  return z;
}

double log_sum(double x, double y) {
  const double top = std::max(x, y);
  return top == -kInf ? -kInf : top + std::log(std::exp(x - top) + std::exp(y - top));
}
double greater(double x, double y) { return std::max(x, y); }

// What the rows of a parse of n words score; -inf if they are no parse.
double score(const Grammar& g, int64_t b, int64_t n, const int64_t* rows) {
  int64_t at = 0;
  double sum = g.root.get(b * g.NT + rows[2]);
  std::function<bool(int64_t, int64_t)> visit = [&](int64_t i, int64_t j) {
    const int64_t* const row = rows + 3 * at++;
    if (row[0] != i || row[1] != j || (j - i == 1) != (row[2] >= g.NT)) return false;
    if (j - i == 1) {
      sum += g.term.get((b * g.N + i) * g.T + row[2] - g.NT);
      return true;
    }
    const int64_t left = at, split = rows[3 * left + 1];
    if (split <= i || split >= j || !visit(i, split)) return false;
    const int64_t right = at;
    sum += g.rule_at(b, row[2], rows[3 * left + 2], rows[3 * right + 2]) + g.span_at(b, i, j, row[2]);
    return visit(split, j);
  };
  return visit(0, n) && at == 2 * n - 1 ? sum : -kInf;
}

void test_grammar(Rng& rng, Dtype dtype, int64_t N, int64_t NT, int64_t T, bool shared, bool spans) {
  const Dtype sums = accumulator(dtype);
  const int64_t B = 4, S = NT + T, K = 3, size = N > 0 ? 3 * (2 * N - 1) : 0;
  const Grammar g(dtype, B, N, NT, T, shared, spans, rng), v(dtype, B, N, NT, T, shared, false, rng);
  Array v_rule = random_array(dtype, v.rule.n, rng, Values::quarters), v_span = random_array(dtype, B * (N + 1) * (N + 1) * NT, rng, Values::quarters);
  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < B; ++b) lengths.push_back(b == 0 ? N : rng.below(N + 1));
  std::vector<double> want, best;
  for (int64_t b = 0; b < B; ++b) {
    want.push_back(total(g, b, lengths[size_t(b)], log_sum));
    best.push_back(total(g, b, lengths[size_t(b)], greater));
  }
  const double terms = 16.0 * double(N);

  PcfgArgs a{};
  g.point(a);
  a.lengths = lengths.data();
  Array logz(sums, B);
  a.logz = logz.data();
  pcfg_logz(a, threaded);
  expect_close(logz, want, terms, 4, "pcfg_logz");
  const int64_t counts[] = {B * N * T, B * NT * S * S, B * NT, B * (N + 1) * (N + 1) * NT};
  std::vector<Array> post, again, through;
  for (int64_t n : counts) { post.emplace_back(dtype, n); again.emplace_back(dtype, n); through.emplace_back(sums, n); }
  char none = 0;
  auto parts = [&](std::vector<Array>& to) {
    a.post_term = to[0].n ? to[0].data() : &none;
    a.post_rule = to[1].data(); a.post_root = to[2].data(); a.post_span = to[3].data();
  };
  parts(post);
  pcfg_marginals(a, serial_for);
  expect_close(logz, want, terms, 4, "pcfg_marginals");
  parts(again);
  pcfg_marginals(a, threaded);
  for (size_t i = 0; i < 4; ++i) expect_same(post[i], again[i], "pcfg_marginals");
  for (int64_t b = 0; b < B; ++b) {  // n - 1 rules and spans of two words and more, n words, one root
    const double n = double(lengths[size_t(b)]), parse = want[size_t(b)] > -kInf && n > 0 ? 1 : 0, sizes[] = {n, n - 1, 1, n - 1};
    for (size_t i = 0; i < 4; ++i) {
      const int64_t each = post[i].n / B;
      double sum = 0;
      for (int64_t k = 0; k < each; ++k) sum += post[i].get(b * each + k);
      expect(std::fabs(sum - parse * sizes[i]) < 1e-4 * (n + 1) + double(each) * storage_eps(dtype), "pcfg_marginals", "counts do not add up");
    }
  }
  a.v_term = v.term.data(); a.v_rule = v_rule.data(); a.v_root = v.root.data(); a.v_span = v_span.data();
  double along = 0, got = 0;  // hvp's first result is <counts, v>
  for (int64_t i = 0; i < post[0].n; ++i) along += post[0].get(i) * v.term.get(i);
  for (int64_t i = 0; i < post[1].n; ++i) along += post[1].get(i) * v_rule.get(shared ? i % v_rule.n : i);
  for (int64_t i = 0; i < post[2].n; ++i) along += post[2].get(i) * v.root.get(i);
  for (int64_t i = 0; i < post[3].n; ++i) along += post[3].get(i) * v_span.get(i);
  pcfg_hvp(a, threaded);
  for (int64_t b = 0; b < B; ++b) got += logz.get(b);
  expect(std::fabs(got - along) < 1e-3 * double(B * (N + 1)) + double(post[1].n) * storage_eps(dtype), "pcfg_hvp", "not <counts, v>");

  parts(through);
  a.logz = nullptr;
  pcfg_max_marginals(a, threaded);
  for (int64_t b = 0; b < B; ++b)
    for (int64_t i = 0; i < 4 && lengths[size_t(b)] > 0; ++i) {  // of every kind of part the best parse has one
      const Array& x = through[size_t(i)];
      double top = -kInf;
      for (int64_t k = 0; k < x.n / B; ++k) top = std::max(top, x.get(b * (x.n / B) + k));
      expect(close(top, best[size_t(b)], sums, terms, 4), "pcfg_max_marginals", "the largest is not the best parse");
    }

  PcfgTreeArgs t{};
  g.point(t.in);
  t.in.lengths = lengths.data();
  for (int64_t k : {int64_t(1), K}) {
    std::vector<int64_t> tree(size_t(B * k * size), 7);
    Array value(sums, B * k);
    t.K = k;
    t.tree = tree.data();
    t.value = value.data();
    pcfg_best(t, threaded);
    for (int64_t i = 0; i < B * k; ++i) {
      const int64_t b = i / k, n = lengths[size_t(b)];
      const double x = value.get(i);
      if (i % k == 0) expect(close(x, best[size_t(b)], sums, terms, 4), "pcfg_best", "not the best");
      else expect(!(x > value.get(i - 1)), "pcfg_best", "values rise");
      if (n > 0 && x > -kInf) expect(close(x, score(g, b, n, tree.data() + i * size), sums, terms, 4), "pcfg_best", "the parse scores something else");
      for (int64_t r = n > 0 && x > -kInf ? 3 * (2 * n - 1) : 0; r < size; ++r) expect(tree[size_t(i * size + r)] == -1, "pcfg_best", "rows past the parse");
    }
  }
  std::vector<int64_t> tree(size_t(K * B * size), 7);
  std::vector<double> uniform(size_t(K * B * 2 * N));
  for (double& u : uniform) u = double(rng.below(1 << 20)) / (1 << 20);
  t.K = K;
  t.tree = tree.data();
  t.uniform = uniform.data();
  pcfg_sample(t, threaded);
  for (int64_t i = 0; i < K * B; ++i) {
    const int64_t n = lengths[size_t(i % B)];
    if (n > 1 && want[size_t(i % B)] > -kInf) expect(score(g, i % B, n, tree.data() + i * size) > -kInf, "pcfg_sample", "no parse");
  }
}

}  // namespace

void test_pcfg_all(Rng& rng) {
  for (Dtype dtype : kFloats)
    for (int64_t N : {0, 1, 2, 3, 7, 18})
      for (bool shared : {false, true})
        for (bool spans : {false, true}) {
          test_grammar(rng, dtype, N, 1, 1, shared, spans);
          if (N < 18) test_grammar(rng, dtype, N, 5, 4, shared, spans);
        }
}

}  // namespace structops::tests
