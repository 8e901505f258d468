#include "tests.h"

#include "sparse/edge_act.h"
#include "support.h"

namespace structops::tests {
namespace {

constexpr double kSlope = 0.25;
struct Value { double y, d; };

Value activate(Act act, double z) {
  const double s = 1 / (1 + std::exp(-z));
  switch (act) {
    case Act::identity: return {z, 1};
    case Act::relu: return {z > 0 ? z : 0, double(z > 0)};
    case Act::leaky: return {z > 0 ? z : kSlope * z, z > 0 ? 1 : kSlope};
    case Act::elu: return {z > 0 ? z : kSlope * std::expm1(z), z > 0 ? 1 : kSlope * std::exp(z)};
    case Act::sigmoid: return {s, s * (1 - s)};
    case Act::tanh: return {std::tanh(z), 1 - std::tanh(z) * std::tanh(z)};
    case Act::silu: return {z * s, s * (1 + z * (1 - s))};
    case Act::softplus: return {std::log1p(std::exp(z)), s};
    case Act::gelu: {
      const double phi = 0.5 * std::erfc(-z / std::sqrt(2.0));
      return {z * phi, phi + z * std::exp(-z * z / 2) / std::sqrt(2 * M_PI)};
    }
    default: {
      const double c = std::sqrt(2 / M_PI), u = c * (z + 0.044715 * z * z * z), h = std::tanh(u);
      return {0.5 * z * (1 + h), 0.5 * (1 + h) + 0.5 * z * (1 - h * h) * c * (1 + 3 * 0.044715 * z * z)};
    }
  }
}

// operands: bit 0 y, 1 edge, 2 value, 3 scalar and direction
void test_one(const Structure& s, Act act, Dtype t, int64_t F, int operands, bool wide, Rng& rng) {
  char what[120];
  std::snprintf(what, sizeof what, "edge_act %d %s F %ld operands %d E %ld", int(act), kNames[int(t)], long(F), operands, long(s.E));
  const Structure back = reversed(s);
  const bool has_y = operands & 1, has_edge = operands & 2, has_value = operands & 4, has_scalar = operands & 8;
  const Dtype acc = accumulator(t);
  const auto make = [&](int64_t n, bool there = true) { return random_array(t, there ? n : 0, rng, Values::quarters); };
  const Array x = make(s.M * F), y = make(s.N * F, has_y), edge = make(s.E * F, has_edge), value = make(s.M * F, has_value);
  const Array scalar = make(s.E, has_scalar), direction = make(F, has_scalar), grad = make(s.N * F);
  EdgeActArgs a{};
  a.act = act; a.dtype = t; a.N = s.N; a.M = s.M; a.E = s.E; a.F = F; a.slope = kSlope;
  a.rowptr = s.rowptr.index(wide); a.col = s.col.index(wide); a.eid = s.eid.index(wide);
  a.colptr = back.rowptr.index(wide); a.row_t = back.col.index(wide); a.eid_t = back.eid.index(wide);
  const auto in = [](const Array& v, bool there) { return there ? v.data() : nullptr; };
  a.x = x.data(); a.y = in(y, has_y); a.edge = in(edge, has_edge); a.value = in(value, has_value);
  a.scalar = in(scalar, has_scalar); a.direction = in(direction, has_scalar);
  Array out(t, s.N * F), out2(t, s.N * F), slopes(acc, out.n), slopes2(acc, out.n);
  a.out = out2.data(); a.slopes = slopes2.data();
  edge_act_fwd(a, threaded);
  a.out = out.data(); a.slopes = slopes.data();
  edge_act_fwd(a, serial_for);
  a.slopes = nullptr;
  a.out = out2.data();
  edge_act_fwd(a, threaded);
  expect_same(out, out2, what);
  a.grad = grad.data();
  struct Grads { Array x, y, edge, value, scalar, direction; };
  auto backward = [&](const ParallelFor& pf) {
    Grads g{Array(t, x.n), Array(t, y.n), Array(t, edge.n), Array(t, value.n), Array(acc, scalar.n), Array(acc, has_scalar ? s.N * F : 0)};
    const auto to = [](Array& v, bool there) { return there ? v.data() : nullptr; };
    a.d_x = g.x.data(); a.d_y = to(g.y, has_y); a.d_edge = to(g.edge, has_edge); a.d_value = to(g.value, has_value);
    a.d_scalar = to(g.scalar, has_scalar); a.d_direction = to(g.direction, has_scalar);
    edge_act_bwd(a, pf);
    return g;
  };
  const Grads got = backward(serial_for), again = backward(threaded);
  std::vector<double> want = zeros(out), steep = zeros(out), dx = zeros(x), dy = zeros(y), de = zeros(edge), dv = zeros(value), ds = zeros(scalar), dd = zeros(got.direction);
  for (int64_t v = 0; v < s.N; ++v)
    for (int64_t k = s.rowptr[v]; k < s.rowptr[v + 1]; ++k)
      for (int64_t f = 0; f < F; ++f) {
        const int64_t u = s.col[k] * F + f, r = v * F + f, e = s.eid[k];
        const double z = x.get(u) + (has_y ? y.get(r) : 0) + (has_edge ? edge.get(e * F + f) : 0) + (has_scalar ? scalar.get(e) * direction.get(f) : 0);
        const Value w = activate(act, z);
        const double scale = has_value ? value.get(u) : 1, g = grad.get(r), d = w.d * g * scale;
        want[size_t(r)] += w.y * scale;
        steep[size_t(r)] += w.d * scale;
        dx[size_t(u)] += d;
        if (has_y) dy[size_t(r)] += d;
        if (has_edge) de[size_t(e * F + f)] = d;
        if (has_value) dv[size_t(u)] += w.y * g;
        if (has_scalar) {
          ds[size_t(e)] += d * direction.get(f);
          dd[size_t(r)] += d * scalar.get(e);
        }
      }
  const double terms = double(s.E);
  expect_result(out, out2, want, terms, 4, what);
  expect_result(slopes, slopes2, steep, terms, 4, what);
  expect_result(got.x, again.x, dx, terms, 4, what);
  expect_result(got.y, again.y, dy, terms, 4, what);
  expect_result(got.edge, again.edge, de, 16, 16, what);
  expect_result(got.value, again.value, dv, terms, 4, what);
  expect_result(got.scalar, again.scalar, ds, double(F) + 16, 16, what);
  expect_result(got.direction, again.direction, dd, terms, 4, what);
}

}  // namespace

void test_edge_act_all(Rng& rng) {
  const Structure s = random_structure(23, 9, 60, 200, rng), none = random_structure(4, 3, 0, 0, rng);
  int turn = 0;
  for (Dtype t : kFloats)
    for (int act = 0; act < kActs; ++act)
      for (int64_t F : {1, 5, 16, 70}) {
        ++turn;
        test_one(s, Act(act), t, F, turn % 16, turn % 2, rng);
      }
  test_one(none, Act::silu, Dtype::f32, 5, 15, false, rng);
  // Rows and sources of more edges than a piece of the work: the sums of their parts are added.
  const Structure row_hub = random_structure(11, 200, 100, 2500, rng), source_hub = random_structure(300, 2, 1500, 0, rng);
  for (Dtype t : kFloats)
    for (int64_t F : {3, 70})
      for (int operands = 0; operands < 16; operands += 5) {
        test_one(row_hub, Act::silu, t, F, operands, operands % 2, rng);
        test_one(source_hub, Act::gelu, t, F, operands, operands % 2, rng);
      }
}

}  // namespace structops::tests
