#include "tests.h"

#include "sparse/softmax.h"
#include "support.h"

namespace structops::tests {

namespace {

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
  expect_result(out, again, want, 16 + std::sqrt(longest), 1, what);
  expect_result(back, back2, dwant, longest, 4, what);
}

}  // namespace

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

}  // namespace structops::tests
