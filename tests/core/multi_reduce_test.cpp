#include "tests.h"

#include "sparse/multi_reduce.h"
#include "support.h"

namespace structops::tests {
namespace {

constexpr Reduce kList[] = {Reduce::max, Reduce::std, Reduce::sum, Reduce::min, Reduce::mean, Reduce::var};
constexpr double kEps = 0.25;

void test_one(const Structure& s, Dtype t, int64_t F, int n, bool has_x, bool has_edge, bool wide, Rng& rng) {
  const Structure back = reversed(s);
  const Dtype acc = accumulator(t);
  const Array x = random_array(t, s.M * F, rng, Values::quarters), edge = random_array(t, s.E * F, rng, Values::quarters);
  const Array y = random_array(t, s.N * F, rng, Values::quarters), scale = random_array(acc, 2 * s.N, rng, Values::quarters);
  MultiReduceArgs a{};
  a.dtype = t;
  for (int i = 0; i < n; ++i) a.list.push(kList[i]);
  a.N = s.N; a.M = has_x ? s.M : 0; a.E = s.E; a.F = F; a.S = 2; a.eps = kEps;
  a.rowptr = s.rowptr.index(wide); a.col = s.col.index(wide); a.eid = s.eid.index(wide);
  a.colptr = back.rowptr.index(wide); a.row_t = back.col.index(wide); a.eid_t = back.eid.index(wide);
  a.x = has_x ? x.data() : nullptr;
  a.edge = has_edge ? edge.data() : nullptr;
  a.y = y.data();
  a.scale = scale.data();
  const int64_t cells = s.N * F, outputs = 2 * n * cells, stats = moments(a.list) ? 1 + has(a.list, Reduce::std) : 0;
  Array out(t, outputs), stat(acc, stats * cells), arg(wide ? Dtype::i64 : Dtype::i32, extremes(a.list) * cells), out2(t, outputs);
  if (stats) a.stat = stat.data();
  if (extremes(a.list)) a.arg = arg.data();
  a.out = out2.data();
  multi_reduce_fwd(a, threaded);
  a.out = out.data();
  multi_reduce_fwd(a, serial_for);

  const Array grad = random_array(t, outputs, rng, Values::quarters);
  Array dx(t, s.M * F), dy(t, cells), de(t, s.E * F), dx2(t, s.M * F), dy2(t, cells), de2(t, s.E * F);
  a.grad = grad.data();
  auto backward = [&](Array& to_x, Array& to_y, Array& to_edge, const ParallelFor& pf) {
    a.d_x = has_x ? to_x.data() : nullptr;
    a.d_y = to_y.data();
    a.d_edge = has_edge ? to_edge.data() : nullptr;
    multi_reduce_bwd(a, pf);
  };
  backward(dx2, dy2, de2, threaded);
  backward(dx, dy, de, serial_for);

  std::vector<double> want(size_t(outputs), 0), want_x(size_t(s.M * F), 0), want_y(size_t(cells), 0), want_edge(size_t(s.E * F), 0);
  for (int64_t v = 0; v < s.N; ++v)
    for (int64_t f = 0; f < F; ++f) {
      std::vector<double> m;
      const int64_t begin = s.rowptr[v];
      for (int64_t k = begin; k < s.rowptr[v + 1]; ++k)
        m.push_back((has_x ? x.get(s.col[k] * F + f) : 0) + (has_edge ? edge.get(s.eid[k] * F + f) : 0));
      const double count = double(m.size()), own = m.empty() ? 0 : y.get(v * F + f);
      std::vector<double> d(m.size(), 0);
      for (int i = 0; i < n; ++i) {
        const Reduce r = kList[i];
        const Reduced value = reduce_row(m, r == Reduce::std ? Reduce::var : r, 0, false, false);
        const double mean = m.empty() ? 0 : reduce_row(m, Reduce::mean, 0, false, false).value, root = std::sqrt(value.value + kEps);
        double g = 0;
        for (int64_t j = 0; j < 2; ++j) {
          const size_t at = size_t(((v * 2 + j) * n + i) * F + f);
          const double w = scale.get(j * s.N + v), plus = r == Reduce::sum ? count * own : r == Reduce::var ? 0 : own;
          want[at] = w * (r == Reduce::std ? root : value.value + plus);
          g += w * grad.get(int64_t(at));
        }
        for (size_t k = 0; k < m.size(); ++k) {
          const double spread = 2 * (m[k] - mean) / count;
          d[k] += g * (r == Reduce::sum ? 1 : r == Reduce::mean ? 1 / count : r == Reduce::var ? spread
                       : r == Reduce::std ? spread / (2 * root) : int64_t(k) == value.winner);
        }
      }
      for (size_t k = 0; k < d.size(); ++k) {
        const int64_t at = begin + int64_t(k);
        want_y[size_t(v * F + f)] += d[k];
        want_x[size_t(s.col[at] * F + f)] += d[k];
        want_edge[size_t(s.eid[at] * F + f)] = d[k];
      }
    }
  expect_result(out, out2, want, double(s.E), 8, "multi_reduce");
  expect_result(dy, dy2, want_y, double(s.E), 16, "multi_reduce_bwd y");
  if (has_x) expect_result(dx, dx2, want_x, double(s.E), 16, "multi_reduce_bwd x");
  if (has_edge) expect_result(de, de2, want_edge, double(s.E), 16, "multi_reduce_bwd edge");
}

}  // namespace

void test_multi_reduce_all(Rng& rng) {
  const Structure s = random_structure(23, 9, 60, 200, rng), none = random_structure(4, 3, 0, 0, rng);
  int turn = 0;
  for (Dtype t : kFloats)
    for (int64_t F : {1, 5, 16, 70})
      for (int n = 1; n <= 6; ++n, ++turn) test_one(s, t, F, n, turn % 3 != 1, turn % 3 != 0, turn % 2, rng);
  test_one(none, Dtype::f32, 5, 6, true, true, false, rng);
  // Rows of more edges than a piece of the work, whose parts are merged, and sources of as many.
  const Structure row_hub = random_structure(11, 200, 100, 2500, rng), source_hub = random_structure(300, 2, 1500, 0, rng);
  for (Dtype t : kFloats)
    for (int n = 1; n <= 6; ++n, ++turn) {
      test_one(row_hub, t, turn % 2 ? 5 : 70, n, turn % 3 != 1, turn % 3 != 0, turn % 2, rng);
      test_one(source_hub, t, turn % 2 ? 70 : 5, n, true, turn % 3 != 0, turn % 2, rng);
    }
}

}  // namespace structops::tests
