#include "tests.h"

#include "sparse/segment_order.h"
#include "support.h"

namespace structops::tests {
namespace {

void test_one(const Structure& s, Dtype t, int64_t B, int64_t F, int64_t K, bool largest, bool ranked, bool wide, Rng& rng) {
  char what[120];
  std::snprintf(what, sizeof what, "segment_order %s F %ld K %ld largest %d ranked %d", kNames[int(t)], long(F), long(K), int(largest), int(ranked));
  const Array src = random_array(t, B * s.E * F, rng, ranked ? Values::quarters : Values::spiked);
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < s.N * K; ++i) chosen.push_back(rng.below(12) - 2);
  const IndexArray rank(chosen);
  SegmentOrderArgs a{};
  a.dtype = t; a.largest = largest; a.B = B; a.N = s.N; a.E = s.E; a.F = F; a.K = K;
  a.rowptr = s.rowptr.index(wide);
  if (ranked) a.rank = rank.index(wide);
  a.src = src.data();
  const Dtype index = wide ? Dtype::i64 : Dtype::i32;
  Array out(index, B * s.N * K * F), again(index, B * s.N * K * F);
  a.out = out.data();
  expect(segment_order_fwd(a, serial_for), what, "no memory");
  a.out = again.data();
  expect(segment_order_fwd(a, threaded), what, "no memory");
  std::vector<double> want(size_t(out.n), -1);
  for (int64_t b = 0; b < B; ++b)
    for (int64_t v = 0; v < s.N; ++v)
      for (int64_t f = 0; f < F; ++f) {
        std::vector<int64_t> order;
        for (int64_t k = s.rowptr[v]; k < s.rowptr[v + 1]; ++k) order.push_back(k);
        const auto at = [&](int64_t k) { return src.get((b * s.E + k) * F + f); };
        const auto less = [](double x, double y) { return x != x ? false : y != y ? true : x < y; };  // NaN last
        std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) { return largest ? less(at(j), at(i)) : less(at(i), at(j)); });
        for (int64_t j = 0; j < K; ++j) {
          const int64_t r = ranked ? rank[v * K + j] : j;
          if (r >= 0 && r < int64_t(order.size())) want[size_t((b * s.N * K + v * K + j) * F + f)] = double(order[size_t(r)]);
        }
      }
  expect_result(out, again, want, 0, 0, what);
}

}  // namespace

void test_segment_order_all(Rng& rng) {
  const Structure small = random_structure(23, 17, 150, 30, rng), hub = random_structure(9, 5, 40, 1500, rng);
  int turn = 0;
  for (Dtype t : kAll)
    for (int64_t F : {1, 3, 17})
      for (int64_t K : {1, 4, 40}) {
        ++turn;
        test_one(small, t, 1 + turn % 2, F, K, turn % 2, turn % 3 == 0, turn % 5 < 2, rng);
        if (F < 4) test_one(hub, t, 1, F, K, turn % 2 == 0, turn % 3 == 1, turn % 5 > 2, rng);
      }
}

}  // namespace structops::tests
