// Non-projective trees: the best, the K best, checks of given ones, sums and samples.
#include "listed.h"
#include "tests.h"
#include "tree/arborescence.h"
#include "tree/matrix_tree.h"

namespace structops::tests {
namespace {

std::vector<int64_t> arcs_of(const std::vector<int64_t>& h, int64_t b, int64_t N) {
  std::vector<int64_t> parts;
  for (int64_t d = 1; d < int64_t(h.size()); ++d) parts.push_back((b * N + d) * N + h[size_t(d)]);
  return parts;
}

// Whether heads [N] hold a tree of n words, -1 at the root and past them.
bool is_tree(const int64_t* heads, int64_t n, int64_t N, bool multi) {
  if (heads[0] != -1) return false;
  int64_t roots = 0;
  for (int64_t d = 1; d < N; ++d) {
    if (d > n ? heads[d] != -1 : heads[d] < 0 || heads[d] > n) return false;
    roots += d <= n && heads[d] == 0;
  }
  for (int64_t d = 1; d <= n; ++d) {
    int64_t at = d, steps = 0;
    while (at && steps++ <= n) at = heads[at];
    if (at) return false;
  }
  return multi || n == 0 || roots == 1;
}

struct Case {
  int64_t B, N;
  bool multi;
};

struct Batch : Case {
  Dtype dtype, sums;
  std::vector<int64_t> lengths;
  Array score;

  Batch(const Case& c, Dtype t, int64_t forbidden, Rng& rng)
      : Case(c), dtype(t), sums(accumulator(t)), score(random_array(t, B * N * N, rng, Values::quarters)) {
    for (int64_t b = 0; b < B; ++b) lengths.push_back(b == 0 ? N - 1 : rng.below(N));
    for (int64_t i = 0; i < score.n; ++i) {
      const int64_t d = i / N % N, h = i % N;
      if (rng.below(20) < forbidden) score.set(i, -kInf);
      if (d == 0 || d == h || std::max(d, h) > lengths[size_t(i / (N * N))]) score.set(i, kNan);  // not read
    }
  }
  bool listed() const { return N <= 6; }
  Listed trees(int64_t b, const std::vector<double>& all) const {
    Listed list{all};
    for (const auto& h : all_trees(lengths[size_t(b)], multi)) list.structure.push_back(arcs_of(h, b, N));
    return list;
  }
  double score_of(const int64_t* heads, int64_t b) const {
    double sum = 0;
    for (int64_t d = 1; d <= lengths[size_t(b)]; ++d) sum += score.get((b * N + d) * N + heads[d]);
    return sum;
  }
  void expect_tree(const int64_t* heads, int64_t b, double value, const char* what) const {
    if (value > -kInf) {
      const bool tree = is_tree(heads, lengths[size_t(b)], N, multi);
      expect(tree, what, "not a tree");
      if (tree) expect(close(score_of(heads, b), value, sums, double(N), 4), what, "a tree scores something else");
    } else {
      expect(std::count(heads, heads + N, -1) == N, what, "heads of no tree");
    }
  }
};

void test_best(const Batch& c, Rng& rng) {
  char what[120];
  std::snprintf(what, sizeof what, "arborescence %s N %ld multiroot %d", kNames[int(c.dtype)], long(c.N), int(c.multi));
  const int64_t B = c.B, N = c.N;
  const std::vector<double> all = values_of({&c.score});
  std::vector<std::vector<double>> ranked;
  for (int64_t b = 0; b < B && c.listed(); ++b) ranked.push_back(c.trees(b, all).descending());
  ArborescenceArgs a{c.dtype, c.multi, B, N, c.score.data(), c.lengths.data(), nullptr, nullptr};
  Array first(c.sums, B);
  for (int64_t K : {0, 1, 2, 7, 30}) {  // 0: arborescence
    const int64_t rows = std::max<int64_t>(K, 1);
    if (!c.listed() && K > 7) continue;
    std::vector<int64_t> heads(size_t(B * rows * N), 7), again = heads;
    Array value(c.sums, B * rows), value2(c.sums, B * rows);
    auto run = [&](Array& v, std::vector<int64_t>& h, const ParallelFor& pf) {
      a.value = v.data();
      a.heads = h.data();
      if (K)
        arborescence_kbest({a, K}, pf);
      else
        arborescence(a, pf);
    };
    run(value, heads, serial_for);
    run(value2, again, threaded);
    expect_same(value, value2, what);
    expect(heads == again, what, "threads change the trees");
    if (!K) std::memcpy(first.data(), value.data(), size_t(first.size()));
    for (int64_t i = 0; i < B * rows; ++i) {
      const int64_t b = i / rows, rank = i % rows;
      const double x = value.get(i);
      const int64_t* const own = heads.data() + i * N;
      c.expect_tree(own, b, x, what);
      if (c.listed()) {
        const auto& r = ranked[size_t(b)];
        expect(close(x, rank < int64_t(r.size()) ? r[size_t(rank)] : -kInf, c.sums, double(N), 4), what, "the wrong value");
      }
      if (rank == 0)
        expect(x == first.get(b), what, "the first of several is not the best");
      else
        expect(!(x > value.get(i - 1)), what, "values rise");
      for (int64_t j = b * rows; j < i && x > -kInf; ++j)
        expect(!std::equal(own, own + N, heads.data() + j * N), what, "a tree twice");
    }
    for (int64_t b = 0; b < B && !c.listed(); ++b) {  // another head of one word makes no better tree
      std::vector<int64_t> h(heads.begin() + b * rows * N, heads.begin() + (b * rows + 1) * N);
      for (int turn = 0; turn < 200 && c.lengths[size_t(b)] > 1 && first.get(b) > -kInf; ++turn) {
        const int64_t d = 1 + rng.below(c.lengths[size_t(b)]), head = rng.below(c.lengths[size_t(b)] + 1), keep = h[size_t(d)];
        if (head == d) continue;
        h[size_t(d)] = head;
        if (is_tree(h.data(), c.lengths[size_t(b)], N, c.multi))
          expect(!(c.score_of(h.data(), b) > first.get(b) + 1e-3), what, "a neighbour is better");
        h[size_t(d)] = keep;
      }
    }
  }
}

void test_check() {
  for (int64_t n : {0, 1, 2, 3, 4}) {
    const int64_t N = n + 2, values = n + 3;
    int64_t count = 1;
    for (int64_t i = 0; i < n; ++i) count *= values;
    std::vector<int64_t> heads(size_t(count * N), 99), lengths(size_t(count), n), flags(lengths), again(lengths);
    for (int64_t k = 0; k < count; ++k)
      for (int64_t d = 1, rest = k; d <= n; ++d, rest /= values) heads[size_t(k * N + d)] = rest % values - 1;
    tree_check({count, N, heads.data(), lengths.data(), flags.data()}, serial_for);
    tree_check({count, N, heads.data(), lengths.data(), again.data()}, threaded);
    bool ok = flags == again;
    for (int64_t k = 0; k < count; ++k) {
      std::vector<int64_t> h(heads.begin() + k * N, heads.begin() + k * N + n + 1);
      h[0] = -1;
      int64_t want = 0;
      if (is_tree(h.data(), n, n + 1, true)) {
        want = kTree;
        if (is_tree(h.data(), n, n + 1, false)) want |= kSingleRoot;
        h[0] = 0;
        if (projective(h)) want |= kProjective;
      }
      ok &= flags[size_t(k)] == want;
    }
    expect(ok, "tree_check", "a wrong flag");
  }
}

void test_sums(const Batch& c, bool weighted, Rng& rng) {
  char what[120];
  std::snprintf(what, sizeof what, "matrix_tree %s N %ld multiroot %d", kNames[int(c.dtype)], long(c.N), int(c.multi));
  const int64_t B = c.B, N = c.N;
  const Array weight = random_array(c.sums, B, rng, Values::quarters),
              v = random_array(c.dtype, B * N * N, rng, Values::quarters);
  const std::vector<double> all = values_of({&c.score}), directions = values_of({&v});
  std::vector<double> logz, along, post(all.size(), 0), curve = post;
  for (int64_t b = 0; b < B && c.listed(); ++b) {
    const Listed list = c.trees(b, all);
    logz.push_back(list.logz());
    along.push_back(list.add(weighted ? weight.get(b) : 1, directions, post, curve));
  }
  MatrixTreeArgs a{};
  a.dtype = c.dtype;
  a.multiroot = c.multi;
  a.B = B;
  a.N = N;
  a.score = c.score.data();
  a.lengths = c.lengths.data();
  a.v = v.data();
  a.weight = weighted ? weight.data() : nullptr;
  Array z(c.sums, B), z2(c.sums, B), z3(c.sums, B), got(c.dtype, B * N * N), got2(c.dtype, B * N * N), d(c.dtype, B * N * N),
      d2(c.dtype, B * N * N);
  auto run = [&](void (*op)(const MatrixTreeArgs&, const ParallelFor&), Array& value, Array& to, const ParallelFor& pf) {
    a.logz = value.data();
    a.post = to.data();
    op(a, pf);
  };
  run(matrix_tree_logz, z, got, serial_for);
  run(matrix_tree_logz, z2, got, threaded);
  expect_same(z, z2, what);
  run(matrix_tree_marginals, z2, got, serial_for);
  run(matrix_tree_marginals, z3, got2, threaded);
  expect_same(z, z2, what);
  expect_same(z, z3, what);
  expect_same(got, got2, what);
  if (c.listed()) {
    expect_close(z, logz, 8, 4, what);
    expect_close(got, post, 8, 4, what);
  }
  run(matrix_tree_hvp, z2, d, serial_for);
  run(matrix_tree_hvp, z3, d2, threaded);
  expect_same(z2, z3, what);
  expect_same(d, d2, what);
  if (c.listed()) {
    expect_close(z2, along, 64, 8, what);
    expect_close(d, curve, 64, 8, what);
  }
  for (int64_t b = 0; b < B; ++b)
    for (int64_t w = 1; w <= c.lengths[size_t(b)] && z.get(b) > -kInf; ++w) {
      double heads = 0, changes = 0;
      for (int64_t h = 0; h < N; ++h) {
        heads += got.get((b * N + w) * N + h);
        changes += d.get((b * N + w) * N + h);
      }
      const double error = double(N) * storage_eps(c.dtype) * 4 + 1e-4;
      expect(std::fabs(heads - (weighted ? weight.get(b) : 1)) < error && std::fabs(changes) < 4 * error, what,
             "posteriors do not add up");
    }

  const int64_t S = 3;
  std::vector<int64_t> heads(size_t(S * B * N), 7), again = heads, seed(size_t(S * B));
  for (int64_t i = 0; i < S * B; ++i) seed[size_t(i)] = i < 2 * B ? 17 + i % B : -i;  // the first two draws alike
  MatrixTreeSampleArgs s{a, S, seed.data(), heads.data()};
  matrix_tree_sample(s, serial_for);
  s.heads = again.data();
  matrix_tree_sample(s, threaded);
  expect(heads == again, what, "threads change the samples");
  expect(std::equal(heads.begin(), heads.begin() + B * N, heads.begin() + B * N), what, "equal seeds, other trees");
  for (int64_t i = 0; i < S * B; ++i) {
    const int64_t* const own = heads.data() + i * N;
    const int64_t b = i % B;
    if (z.get(b) > -kInf)
      expect(is_tree(own, c.lengths[size_t(b)], N, c.multi) && c.score_of(own, b) > -kInf, what, "a sample is no tree");
    else
      expect(std::count(own, own + N, -1) == N, what, "samples of no tree");
  }
}

void test_frequency(bool multi, Rng& rng) {
  const int64_t draws = 4000;
  const Batch c({1, 5, multi}, Dtype::f32, 1, rng);
  const std::vector<double> all = values_of({&c.score});
  std::vector<double> post(all.size(), 0), curve = post, count = post;
  c.trees(0, all).add(1, all, post, curve);
  std::vector<int64_t> seed(static_cast<size_t>(draws)), heads(size_t(draws * c.N));
  for (int64_t& s : seed) s = int64_t(rng.next());
  MatrixTreeSampleArgs s{};
  s.in.dtype = c.dtype;
  s.in.multiroot = multi;
  s.in.B = 1;
  s.in.N = c.N;
  s.in.score = c.score.data();
  s.in.lengths = c.lengths.data();
  s.S = draws;
  s.seed = seed.data();
  s.heads = heads.data();
  matrix_tree_sample(s, threaded);
  for (int64_t i = 0; i < draws; ++i)
    for (int64_t d = 1; d < c.N; ++d) count[size_t(d * c.N + std::max<int64_t>(heads[size_t(i * c.N + d)], 0))] += 1;
  for (size_t i = 0; i < all.size(); ++i)
    expect_frequency(count[i], double(draws), std::min(post[i], 1.0), "matrix_tree_sample");
}

}  // namespace

void test_spanning_all(Rng& rng) {
  int turn = 0;
  for (Dtype t : kFloats)
    for (bool multi : {true, false}) {
      for (int64_t N : {1, 2, 3, 4, 5, 6, 9, 18, 40})
        for (int64_t forbidden : {0, 1, 8}) {
          if (N > 6 && forbidden == 8) continue;
          const Batch c({N > 9 ? 2 : 4, N, multi}, t, forbidden, rng);
          test_best(c, rng);
          test_sums(c, ++turn % 2, rng);
        }
      const Batch none({0, 4, multi}, t, 0, rng);
      test_best(none, rng);
      test_sums(none, false, rng);
    }
  test_check();
  for (bool multi : {true, false}) test_frequency(multi, rng);
}

}  // namespace structops::tests
