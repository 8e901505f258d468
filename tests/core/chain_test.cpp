#include "tree/chain.h"

#include <functional>
#include <tuple>

#include "listed.h"
#include "tests.h"

namespace structops::tests {
namespace {

constexpr size_t kScores = 6;  // emit, segment, duration, trans, start, end

struct Shape {
  Trans kind;
  int64_t B, N, T, K;
  bool given[kScores];
};

struct Chain : Shape {
  Dtype dtype;
  std::vector<Array> score, v;
  std::vector<int64_t> lengths;
  int64_t first[kScores + 1] = {};  // of each score among all parameters

  std::vector<int64_t> sizes() const {
    const int64_t square = T * T, gaps = N > 0 ? N - 1 : 0;
    const int64_t trans[] = {0, square, B * square, B * gaps * square, B * gaps * K * square};
    return {B * N * T, B * N * K * T, K * T, trans[int(kind)], T, T};
  }
  Chain(const Shape& s, Dtype t, Rng& rng) : Shape(s), dtype(t) {
    for (int64_t b = 0; b < B; ++b) lengths.push_back(b == 0 ? N : rng.below(N + 1));
    for (size_t k = 0; k < kScores; ++k) {
      const int64_t n = given[k] ? sizes()[k] : 0;
      score.push_back(random_array(t, n, rng, Values::quarters));
      v.push_back(random_array(t, n, rng, Values::quarters));
      first[k + 1] = first[k] + n;
      for (int64_t i = 0; i < n; ++i)
        if (rng.below(16) == 0) score[k].set(i, -kInf);
    }
    for (int64_t b = 0; b < B; ++b)  // what lies past the sentence is not read
      for (int64_t p = lengths[size_t(b)]; p < N && given[0]; ++p)
        for (int64_t i = 0; i < T; ++i) score[0].set((b * N + p) * T + i, kNan);
  }
  template <class A>
  auto in(A& a, size_t k) const {
    return given[k] ? a[k].data() : nullptr;
  }
  ChainScores scores(const std::vector<Array>& a) const { return {in(a, 0), in(a, 1), in(a, 2), in(a, 3), in(a, 4), in(a, 5)}; }
  ChainArgs args() const {
    ChainArgs a{};
    a.dtype = dtype;
    a.kind = kind;
    a.B = B;
    a.N = N;
    a.T = T;
    a.K = K;
    a.score = scores(score);
    a.v = scores(v);
    a.lengths = lengths.data();
    return a;
  }
  std::vector<double> flat(const std::vector<Array>& a) const { return values_of({&a[0], &a[1], &a[2], &a[3], &a[4], &a[5]}); }

  // The parameters that the segment [i, i + d) of tag t after tag s (-1: none) reads.
  void read(int64_t b, int64_t i, int64_t d, int64_t s, int64_t t, std::vector<int64_t>& to) const {
    auto part = [&](size_t k, int64_t at) {
      if (given[k]) to.push_back(first[k] + at);
    };
    for (int64_t p = i; p < i + d; ++p) part(0, (b * N + p) * T + t);
    part(1, ((b * N + i) * K + d - 1) * T + t);
    part(2, (d - 1) * T + t);
    if (s < 0)
      part(4, t);
    else if (kind != Trans::none) {
      const int64_t at = b * (N - 1) + i - 1, block[] = {0, 0, b, at, at * K + d - 1};
      part(3, (block[int(kind)] * T + s) * T + t);
    }
    if (i + d == lengths[size_t(b)]) part(5, t);
  }
  int64_t longest(int64_t i) const { return i == 0 && kind == Trans::full ? 1 : K; }
  Listed paths(int64_t b, const std::vector<double>& all) const {
    Listed list{all};
    std::vector<int64_t> parts;
    const int64_t n = lengths[size_t(b)];
    std::function<void(int64_t, int64_t)> go = [&](int64_t i, int64_t s) {
      if (i == n) return list.structure.push_back(parts);
      for (int64_t d = 1; d <= longest(i) && i + d <= n; ++d)
        for (int64_t t = 0; t < T; ++t) {
          const size_t before = parts.size();
          read(b, i, d, s, t, parts);
          go(i + d, t);
          parts.resize(before);
        }
    };
    go(0, -1);
    return list;
  }
  // The parameters of tags [N], empty if they are no path.
  bool follow(int64_t b, const int64_t* tags, std::vector<int64_t>& parts) const {
    const int64_t n = lengths[size_t(b)];
    for (int64_t p = n; p < N; ++p)
      if (tags[p] != -1) return false;
    int64_t i = 0, s = -1;
    while (i < n) {
      int64_t d = 1;
      while (i + d < n && tags[i + d] < 0) ++d;
      if (tags[i] < 0 || tags[i] >= T || d > longest(i)) return false;
      read(b, i, d, s, tags[i], parts);
      s = tags[i];
      i += d;
    }
    return true;
  }
};

void test_paths(const Chain& c, const std::vector<double>& all, const std::vector<std::vector<double>>& ranked,
                const char* what, Rng& rng) {
  const Dtype sums = accumulator(c.dtype);
  auto tree_of = [&](int64_t b, const std::vector<int64_t>& tags, int64_t row) {
    std::vector<int64_t> parts;
    return c.follow(b, tags.data() + row * c.N, parts) ? Listed{all}.of(parts) : kNan;
  };
  for (int64_t M : {1, 4, 9}) {
    std::vector<double> want;
    for (const auto& r : ranked)
      for (int64_t m = 0; m < M; ++m) want.push_back(m < int64_t(r.size()) ? r[size_t(m)] : -kInf);
    std::vector<int64_t> tags(size_t(c.B * M * c.N), 7), again = tags;
    ChainPathArgs p{c.args(), M, nullptr, nullptr, nullptr};
    expect_run(sums, want, 16, 4, what, [&](void* out, const ParallelFor& pf) {
      p.value = out;
      p.tags = pf.threads > 1 ? again.data() : tags.data();
      chain_best(p, pf);
    });
    expect(tags == again, what, "threads change the paths");
    for (int64_t i = 0; i < c.B * M; ++i) {
      if (want[size_t(i)] > -kInf)
        expect(close(tree_of(i / M, tags, i), want[size_t(i)], sums, 16, 4), what, "a path scores something else");
      else
        expect(std::count(tags.data() + i * c.N, tags.data() + (i + 1) * c.N, -1) == c.N, what, "tags of no path");
      for (int64_t j = i / M * M; j < i && want[size_t(i)] > -kInf; ++j)
        expect(c.lengths[size_t(i / M)] == 0 ||
                   !std::equal(tags.data() + i * c.N, tags.data() + (i + 1) * c.N, tags.data() + j * c.N),
               what, "a path twice");
    }
  }
  const int64_t M = 3, uses = c.K == 1 ? c.N : 2 * c.N;
  std::vector<int64_t> tags(size_t(M * c.B * c.N), 7), again = tags;
  std::vector<double> uniform(size_t(M * c.B * uses));
  for (double& u : uniform) u = double(rng.below(1 << 20)) / (1 << 20);
  ChainPathArgs p{c.args(), M, nullptr, uniform.data(), tags.data()};
  chain_sample(p, serial_for);
  p.tags = again.data();
  chain_sample(p, threaded);
  expect(tags == again, what, "threads change the samples");
  for (int64_t i = 0; i < M * c.B; ++i) {
    const int64_t b = i % c.B;
    if (ranked[size_t(b)].empty())
      expect(std::count(tags.data() + i * c.N, tags.data() + (i + 1) * c.N, -1) == c.N, what, "samples of no path");
    else
      expect(tree_of(b, tags, i) > -kInf, what, "a sample is no path");
  }
}

void test_one(const Shape& shape, Dtype t, bool weighted, Rng& rng) {
  const Chain c(shape, t, rng);
  char what[120];
  std::snprintf(what, sizeof what, "chain %s kind %d N %ld T %ld K %ld", kNames[int(t)], int(c.kind), long(c.N), long(c.T),
                long(c.K));
  const Dtype sums = accumulator(t);
  const Array weight = random_array(sums, c.B, rng, Values::quarters);
  const std::vector<double> all = c.flat(c.score), v = c.flat(c.v);
  std::vector<double> logz, along, post(all.size(), 0), curve(all.size(), 0);
  std::vector<std::vector<double>> ranked;
  for (int64_t b = 0; b < c.B; ++b) {
    const Listed list = c.paths(b, all);
    logz.push_back(list.logz());
    ranked.push_back(list.descending());
    along.push_back(list.add(weighted ? weight.get(b) : 1, v, post, curve));
  }
  ChainArgs a = c.args();
  a.weight = weighted ? weight.data() : nullptr;
  const auto with = [&](void (*op)(const ChainArgs&, const ParallelFor&)) {
    return [&a, op](void* out, const ParallelFor& pf) {
      a.logz = out;
      op(a, pf);
    };
  };
  expect_run(sums, logz, 16, 4, what, with(chain_logz));
  for (auto [op, z, result] : {std::tuple(&chain_marginals, &logz, &post), std::tuple(&chain_hvp, &along, &curve)}) {
    std::vector<Array> one, two;
    for (const Array& s : c.score) {
      one.emplace_back(t, s.n);
      two.emplace_back(t, s.n);
    }
    expect_run(sums, *z, 32, 4, what, [&, op = op](void* out, const ParallelFor& pf) {
      std::vector<Array>& to = pf.threads > 1 ? two : one;
      a.logz = out;
      a.post = {c.in(to, 0), c.in(to, 1), c.in(to, 2), c.in(to, 3), c.in(to, 4), c.in(to, 5)};
      op(a, pf);
    });
    for (size_t k = 0; k < kScores; ++k)
      expect_result(one[k], two[k], {result->begin() + c.first[k], result->begin() + c.first[k + 1]}, 64, 8, what);
  }
  test_paths(c, all, ranked, what, rng);
}

// Samples of one sentence, against the posteriors of its tags.
void test_frequency(Rng& rng) {
  const int64_t draws = 3000;
  for (int64_t K : {1, 3}) {
    const Chain c({Trans::shared, 1, 4, 3, K, {true, K > 1, K > 1, true, true, true}}, Dtype::f32, rng);
    const std::vector<double> all = c.flat(c.score);
    std::vector<double> post(all.size(), 0), curve(all.size(), 0), uniform(size_t(draws * (K == 1 ? 4 : 8))),
        count(all.size(), 0);
    c.paths(0, all).add(1, all, post, curve);
    for (double& u : uniform) u = double(rng.below(1 << 20)) / (1 << 20);
    std::vector<int64_t> tags(size_t(draws * c.N));
    chain_sample({c.args(), draws, nullptr, uniform.data(), tags.data()}, threaded);
    for (int64_t i = 0; i < draws; ++i) {
      std::vector<int64_t> parts;
      expect(c.follow(0, tags.data() + i * c.N, parts), "chain_sample", "no path");
      for (int64_t k : parts) count[size_t(k)] += 1;
    }
    for (int64_t k = c.first[0]; k < c.first[3]; ++k)
      if (post[size_t(k)] < 1) expect_frequency(count[size_t(k)], double(draws), post[size_t(k)], "chain_sample");
  }
}

}  // namespace

void test_chain_all(Rng& rng) {
  const int64_t sizes[][3] = {{1, 1, 1},  {2, 33, 1}, {3, 17, 1}, {5, 4, 1}, {8, 2, 1},
                              {2, 19, 2}, {3, 9, 3},  {6, 2, 4},  {5, 3, 2}, {1, 5, 3}};  // N, T, K
  int turn = 0;
  for (Dtype t : kFloats) {
    for (Trans kind : {Trans::none, Trans::shared, Trans::batch, Trans::position, Trans::full})
      for (const auto& s : sizes) {
        ++turn;
        const bool segments = s[2] > 1;
        test_one({kind,
                  5,
                  s[0],
                  s[1],
                  s[2],
                  {true, segments && turn % 4 != 1, segments && turn % 2, kind != Trans::none, turn % 3 != 0, turn % 3 != 1}},
                 t, turn % 2 == 0, rng);
      }
    test_one({Trans::shared, 0, 3, 4, 1, {true, false, false, true, true, true}}, t, false, rng);
    test_one({Trans::shared, 3, 0, 4, 1, {true, false, false, true, true, true}}, t, false, rng);
  }
  test_frequency(rng);
}

}  // namespace structops::tests
