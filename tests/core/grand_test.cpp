#include "tree/grand.h"

#include "listed.h"
#include "tests.h"

namespace structops::tests {
namespace {

double log_add(double x, double y) {
  const double top = std::max(x, y);
  return top == -kInf ? -kInf : top + std::log(std::exp(x - top) + std::exp(y - top));
}
double greater(double x, double y) { return std::max(x, y); }

struct Scores {
  Array arc, grand, sib;
};

// The recurrences of grand.h as they stand there.
struct Recurrence {
  const Scores& x;
  int64_t b, N, n;
  bool second, multi;
  double (*plus)(double, double);

  double score(int64_t d, int64_t h, int64_t g) const {
    const int64_t at = (b * N + d) * N + h;
    return x.arc.get(at) + (h ? x.grand.get(at * N + g) : 0);
  }
  double sib(int64_t d, int64_t h, int64_t s) const { return x.sib.get(((b * N + d) * N + h) * N + s); }
  double total() const {
    if (n == 0) return 0;
    const int64_t P = n + 1;
    std::vector<double> memory(size_t(5 * P * P * P), -kInf);
    enum { IR, IL, CR, CL, S };
    auto at = [&](int item, int64_t g, int64_t i, int64_t j) -> double& {
      return memory[size_t(((item * P + g) * P + i) * P + j)];
    };
    for (int64_t i = 0; i <= n; ++i)
      for (int64_t g = 0; g <= n; ++g) at(CR, g, i, i) = at(CL, g, i, i) = 0;
    for (int64_t w = 1; w <= n; ++w) {
      for (int64_t i = 0, j = w; j <= n; ++i, ++j)
        for (int64_t g = 0; g <= n; ++g) {
          if (i == 0 ? g > 0 : g >= i && g <= j) continue;
          double all = -kInf, right = -kInf, left = -kInf;
          for (int64_t r = i; r < j; ++r) {
            all = plus(all, at(CR, g, i, r) + at(CL, g, r + 1, j));
            right = plus(right, at(CR, g, i, r) + at(CL, i, r + 1, j));
            left = plus(left, at(CR, j, i, r) + at(CL, g, r + 1, j));
          }
          if (second) {
            right = at(CR, g, i, i) + at(CL, i, i + 1, j);
            left = at(CR, j, i, j - 1) + at(CL, g, j, j);
            for (int64_t r = i + 1; r < j; ++r) {
              if (i > 0 || multi) right = plus(right, at(IR, g, i, r) + at(S, i, r, j) + sib(j, i, r));
              if (i > 0) left = plus(left, at(S, j, i, r) + at(IL, g, r, j) + sib(i, j, r));
            }
          }
          if (i > 0) at(S, g, i, j) = all;
          if (i > 0) at(IL, g, i, j) = left + score(i, j, g);
          at(IR, g, i, j) = right + score(j, i, g);
        }
      for (int64_t i = 0, j = w; j <= n; ++i, ++j)
        for (int64_t g = 0; g <= n; ++g) {
          if (i == 0 ? g > 0 : g >= i && g <= j) continue;
          for (int64_t r = i + 1; r <= j; ++r) at(CR, g, i, j) = plus(at(CR, g, i, j), at(IR, g, i, r) + at(CR, i, r, j));
          for (int64_t r = i; r < j; ++r) at(CL, g, i, j) = plus(at(CL, g, i, j), at(CL, j, i, r) + at(IL, g, r, j));
          if (i == 0 && j < n && !multi) at(CR, g, i, j) = -kInf;
        }
    }
    return at(CR, 0, 0, n);
  }
};

std::vector<int64_t> parts_of(const std::vector<int64_t>& h, int64_t b, int64_t N, int64_t B, bool second) {
  std::vector<int64_t> parts;
  for (int64_t d = 1; d < int64_t(h.size()); ++d) {
    const int64_t head = h[size_t(d)], at = (b * N + d) * N + head, s = second ? sibling(h, d) : -1;
    parts.push_back(at);
    if (head) parts.push_back(B * N * N + at * N + h[size_t(head)]);
    if (s >= 0) parts.push_back(B * N * N * (1 + N) + at * N + s);
  }
  return parts;
}

struct Case {
  int64_t B, N;
  bool second, multi;
};

void test_one(const Case& c, Dtype t, Rng& rng) {
  char what[120];
  std::snprintf(what, sizeof what, "grand %s N %ld sib %d multiroot %d", kNames[int(t)], long(c.N), int(c.second),
                int(c.multi));
  const int64_t B = c.B, N = c.N, plane = B * N * N, cube = plane * N;
  const Dtype sums = accumulator(t);
  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < B; ++b) lengths.push_back(b == 0 ? N - 1 : rng.below(N));
  auto make = [&] {
    return Scores{random_array(t, plane, rng, Values::quarters), random_array(t, cube, rng, Values::quarters),
                  random_array(t, c.second ? cube : 0, rng, Values::quarters)};
  };
  Scores x = make();
  const Scores v = make();
  for (Array* a : {&x.arc, &x.grand, &x.sib})
    for (int64_t i = 0; i < a->n; ++i)
      if (rng.below(20) == 0) a->set(i, -kInf);
  for (int64_t b = 0; b < B; ++b)  // what lies past the sentence is not read
    for (int64_t d = 0; d < N; ++d)
      for (int64_t h = 0; h < N; ++h)
        if (d == 0 || d == h || std::max(d, h) > lengths[size_t(b)]) x.arc.set((b * N + d) * N + h, kNan);
  const Array weight = random_array(sums, B, rng, Values::quarters);

  const std::vector<double> all = values_of({&x.arc, &x.grand, &x.sib}), directions = values_of({&v.arc, &v.grand, &v.sib});
  const bool listed = N <= 6;
  std::vector<double> logz, best, along, post(all.size(), 0), curve = post, through(size_t(plane), -kInf);
  std::vector<std::vector<double>> ranked;
  for (int64_t b = 0; b < B; ++b) {
    const int64_t n = lengths[size_t(b)];
    logz.push_back(Recurrence{x, b, N, n, c.second, c.multi, log_add}.total());
    best.push_back(Recurrence{x, b, N, n, c.second, c.multi, greater}.total());
    if (!listed) continue;
    Listed list{all};
    for (const auto& h : all_trees(n, c.multi))
      if (projective(h)) list.structure.push_back(parts_of(h, b, N, B, c.second));
    along.push_back(list.add(weight.get(b), directions, post, curve));
    ranked.push_back(list.descending());
    for (int64_t i = b * N * N; i < (b + 1) * N * N; ++i) through[size_t(i)] = list.best_through(i);
  }

  GrandArgs a{};
  a.dtype = t;
  a.multiroot = c.multi;
  a.B = B;
  a.N = N;
  auto in = [](const Array& s) { return s.n ? s.data() : nullptr; };
  a.arc = x.arc.data();
  a.grand = x.grand.data();
  a.sib = in(x.sib);
  a.v = v.arc.data();
  a.v_grand = v.grand.data();
  a.v_sib = in(v.sib);
  a.lengths = lengths.data();
  a.weight = weight.data();
  const double terms = 8.0 * double(N);
  expect_run(sums, logz, terms, 4, what, [&](void* out, const ParallelFor& pf) {
    a.logz = out;
    grand_logz(a, pf);
  });
  for (bool hvp : {false, true}) {
    Scores one{Array(t, plane), Array(t, cube), Array(t, x.sib.n)}, two{Array(t, plane), Array(t, cube), Array(t, x.sib.n)};
    Array z(sums, B), z2(sums, B);
    auto run = [&](Scores& to, Array& value, const ParallelFor& pf) {
      a.logz = value.data();
      a.post = to.arc.data();
      a.post_grand = to.grand.data();
      a.post_sib = c.second ? to.sib.data() : nullptr;
      (hvp ? grand_hvp : grand_marginals)(a, pf);
    };
    run(one, z, serial_for);
    run(two, z2, threaded);
    expect_same(z, z2, what);
    expect_same(one.arc, two.arc, what);
    expect_same(one.grand, two.grand, what);
    expect_same(one.sib, two.sib, what);
    if (!hvp) expect_close(z, logz, terms, 4, what);
    if (listed) {
      if (hvp) expect_close(z, along, 64, 8, what);
      const std::vector<double>& want = hvp ? curve : post;
      const auto from = want.begin();
      expect_close(one.arc, {from, from + plane}, 64, 8, what);
      expect_close(one.grand, {from + plane, from + plane + cube}, 64, 8, what);
      expect_close(one.sib, {from + plane + cube, want.end()}, 64, 8, what);
      continue;
    }
    for (int64_t b = 0; b < B; ++b)  // every word has one head, whose head is one
      for (int64_t d = 1; d <= lengths[size_t(b)] && logz[size_t(b)] > -kInf; ++d) {
        double heads = 0, grands = 0;
        for (int64_t h = 0; h < N; ++h) {
          heads += one.arc.get((b * N + d) * N + h);
          grands += h ? 0 : one.arc.get((b * N + d) * N);
          for (int64_t g = 0; g < N; ++g) grands += one.grand.get(((b * N + d) * N + h) * N + g);
        }
        const double want = hvp ? 0 : weight.get(b), error = double(N * N) * storage_eps(t) + 1e-4;
        expect(std::fabs(heads - want) < error && std::fabs(grands - want) < error, what, "posteriors do not add up");
      }
  }

  GrandTreeArgs g{};
  g.in = a;
  auto score_of = [&](const int64_t* heads, int64_t b) {
    std::vector<int64_t> h(heads, heads + lengths[size_t(b)] + 1);
    h[0] = 0;
    for (int64_t d = 1; d < int64_t(h.size()); ++d)
      if (h[size_t(d)] < 0 || h[size_t(d)] >= int64_t(h.size())) return kNan;
    return projective(h) ? Listed{all}.of(parts_of(h, b, N, B, c.second)) : kNan;
  };
  for (int64_t K : {1, 5}) {
    std::vector<int64_t> tree(size_t(B * K * N), 7), again = tree;
    Array value(sums, B * K), value2(sums, B * K);
    g.K = K;
    for (const ParallelFor* pf : {&serial_for, &threaded}) {
      g.value = (pf == &serial_for ? value : value2).data();
      g.tree = (pf == &serial_for ? tree : again).data();
      grand_best(g, *pf);
    }
    expect_same(value, value2, what);
    expect(tree == again, what, "threads change the trees");
    for (int64_t i = 0; i < B * K; ++i) {
      const int64_t b = i / K, rank = i % K;
      const double x = value.get(i);
      if (rank == 0) expect(close(x, best[size_t(b)], sums, terms, 4), what, "not the best tree");
      if (listed)
        expect(close(x, rank < int64_t(ranked[size_t(b)].size()) ? ranked[size_t(b)][size_t(rank)] : -kInf, sums, terms, 4),
               what, "the wrong values");
      if (x > -kInf) expect(close(score_of(tree.data() + i * N, b), x, sums, terms, 4), what, "a tree scores something else");
      for (int64_t d = x > -kInf ? lengths[size_t(b)] + 1 : 0; d < N; ++d)
        expect(tree[size_t(i * N + d)] == -1, what, "heads past the sentence");
    }
  }
  const int64_t K = 3;
  std::vector<int64_t> tree(size_t(K * B * N), 7), again = tree;
  std::vector<double> uniform(size_t(K * B * 3 * N));
  for (double& u : uniform) u = double(rng.below(1 << 20)) / (1 << 20);
  g.K = K;
  g.uniform = uniform.data();
  g.tree = tree.data();
  grand_sample(g, serial_for);
  g.tree = again.data();
  grand_sample(g, threaded);
  expect(tree == again, what, "threads change the samples");
  for (int64_t i = 0; i < K * B; ++i)
    if (logz[size_t(i % B)] > -kInf)
      expect(score_of(tree.data() + i * N, i % B) > -kInf, what, "a sample is no tree");
    else
      expect(std::count(tree.data() + i * N, tree.data() + (i + 1) * N, -1) == N, what, "samples of no tree");

  GrandMaxArgs m{};
  m.in = a;
  m.in.post = m.in.post_grand = m.in.post_sib = nullptr;
  Array got(sums, plane), got2(sums, plane);
  m.through = got.data();
  grand_max_marginals(m, serial_for);
  m.through = got2.data();
  grand_max_marginals(m, threaded);
  expect_same(got, got2, what);
  if (listed) expect_close(got, through, terms, 4, what);
  for (int64_t b = 0; b < B; ++b)
    for (int64_t d = 1; d <= lengths[size_t(b)]; ++d) {
      double top = -kInf;
      for (int64_t h = 0; h < N; ++h) top = std::max(top, got.get((b * N + d) * N + h));
      expect(close(top, best[size_t(b)], sums, terms, 4), what, "the best arc of a word is not in the best tree");
    }
}

}  // namespace

void test_grand_all(Rng& rng) {
  for (Dtype t : kFloats)
    for (bool second : {false, true})
      for (bool multi : {false, true}) {
        for (int64_t N : {1, 2, 3, 4, 5}) test_one({4, N, second, multi}, t, rng);
        test_one({2, 6, second, multi}, t, rng);
        test_one({3, second ? 11 : 18, second, multi}, t, rng);
        test_one({0, 4, second, multi}, t, rng);
      }
}

}  // namespace structops::tests
