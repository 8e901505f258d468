#include "tests.h"

#include "sparse/scatter.h"
#include "support.h"

namespace structops::tests {

namespace {

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
  expect_result(out, again, want, longest, 2, what);
  expect(same, what, "winners differ");
}

}  // namespace

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

}  // namespace structops::tests
