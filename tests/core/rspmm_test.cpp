#include "sparse/rspmm.h"

#include "support.h"
#include "tests.h"

namespace structops::tests {
namespace {

struct Case {
  RelMul mul;
  RelReduce reduce;
  int64_t B, R, F;
  bool weighted, masked, permuted, wide;
};

std::vector<int64_t> types_of(const Structure& s, const std::vector<int64_t>& by_edge) {
  std::vector<int64_t> t;
  for (int64_t k = 0; k < s.E; ++k) t.push_back(by_edge[size_t(s.eid[k])]);
  return t;
}

void test_one(const Structure& edges, const Case& c, Dtype t, Rng& rng) {
  const Structure s = numbered(edges, c.permuted);
  char what[120];
  std::snprintf(what, sizeof what, "rspmm %s mul %d reduce %d B %ld F %ld E %ld", kNames[int(t)], int(c.mul), int(c.reduce),
                long(c.B), long(c.F), long(s.E));
  const Structure back = reversed(s);
  const int64_t B = c.B, R = c.R, F = c.F, half = F / 2, cells = B * s.N * F;
  const bool pna = c.reduce == RelReduce::pna, extreme = rspmm_extreme(c.reduce), copy = c.mul == RelMul::copy;
  std::vector<int64_t> by_edge;
  for (int64_t e = 0; e < s.E; ++e) by_edge.push_back(rng.below(R));
  const IndexArray type(types_of(s, by_edge)), type_t(types_of(back, by_edge));
  const Array x = random_array(t, B * s.M * F, rng, Values::quarters),
              rel = random_array(t, copy ? 0 : B * R * F, rng, Values::quarters);
  const Array weight = random_array(t, c.weighted ? s.E : 0, rng, Values::signs),
              grad = random_array(t, (pna ? 4 : 1) * cells, rng, Values::quarters);
  std::unique_ptr<uint8_t[]> mask(new uint8_t[size_t(s.E)]);
  for (int64_t e = 0; e < s.E; ++e) mask[size_t(e)] = uint8_t(rng.below(4) != 0);
  if (s.E > 1000)  // nothing is left of the first part of the hub, nor of the third
    for (int64_t i = 0; i < 800; ++i)
      if (i < 280 || i >= 490) mask[size_t(s.eid[s.rowptr[1] + i])] = 0;

  RspmmArgs a{};
  a.dtype = t;
  a.mul = c.mul;
  a.reduce = c.reduce;
  a.fill = -3;
  a.B = B;
  a.N = s.N;
  a.M = s.M;
  a.R = R;
  a.E = s.E;
  a.F = F;
  a.x = x.data();
  a.rel = copy ? nullptr : rel.data();
  a.weight = c.weighted ? weight.data() : nullptr;
  a.mask = c.masked ? mask.get() : nullptr;
  a.rowptr = s.rowptr.index(c.wide);
  a.col = s.col.index(c.wide);
  a.type = type.index(c.wide);
  if (c.permuted) a.eid = s.eid.index(c.wide);
  a.colptr = back.rowptr.index(c.wide);
  a.row_t = back.col.index(c.wide);
  a.eid_t = back.eid.index(c.wide);
  a.type_t = type_t.index(c.wide);

  // The product of an edge in one feature, and what it passes back to its operands for a cotangent d of the message.
  auto X = [&](int64_t b, int64_t u, int64_t f) { return x.get((b * s.M + u) * F + f); };
  auto L = [&](int64_t b, int64_t r, int64_t f) { return copy ? 0 : rel.get((b * R + r) * F + f); };
  auto product = [&](int64_t b, int64_t u, int64_t r, int64_t f) {
    switch (c.mul) {
      case RelMul::mul:
        return L(b, r, f) * X(b, u, f);
      case RelMul::add:
        return L(b, r, f) + X(b, u, f);
      case RelMul::min:
        return std::min(L(b, r, f), X(b, u, f));
      case RelMul::copy:
        return X(b, u, f);
      default:
        return f < half ? L(b, r, f) * X(b, u, f) - L(b, r, f + half) * X(b, u, f + half)
                        : L(b, r, f - half) * X(b, u, f) + L(b, r, f) * X(b, u, f - half);
    }
  };
  std::vector<double> want(size_t(grad.n), 0), winner(size_t(pna ? 2 * cells : extreme ? cells : 0), double(s.E));
  std::vector<double> dx(size_t(x.n), 0), dr(size_t(rel.n), 0), dw(size_t(s.E), 0);
  double longest = 1;
  for (int64_t b = 0; b < B; ++b)
    for (int64_t v = 0; v < s.N; ++v)
      for (int64_t f = 0; f < F; ++f) {
        std::vector<double> m;
        std::vector<int64_t> at;
        for (int64_t k = s.rowptr[v]; k < s.rowptr[v + 1]; ++k) {
          if (c.masked && !mask[size_t(s.eid[k])]) continue;
          m.push_back((c.weighted ? weight.get(s.eid[k]) : 1) * product(b, s.col[k], type[k], f));
          at.push_back(k);
        }
        longest = std::max(longest, double(m.size()));
        const int64_t o = (b * s.N + v) * F + f;
        const double fill = pna ? 0 : a.fill, n = double(m.size());
        auto reduced = [&](Reduce r) { return reduce_row(m, r, fill, false, false); };
        auto place = [&](Reduced r) { return r.winner < 0 ? s.E : at[size_t(r.winner)]; };
        const Reduced plain[] = {reduced(Reduce::sum), reduced(Reduce::mean), reduced(Reduce::min), reduced(Reduce::max),
                                 reduced(Reduce::logsumexp)};
        const Reduced var = reduced(Reduce::var);
        if (pna) {
          const Reduced planes[] = {plain[1], var, plain[3], plain[2]};
          for (int64_t p = 0; p < 4; ++p) want[size_t(p * cells + o)] = planes[p].value;
          winner[size_t(o)] = double(place(plain[3]));
          winner[size_t(cells + o)] = double(place(plain[2]));
        } else {
          want[size_t(o)] = plain[int(c.reduce)].value;
          if (extreme) winner[size_t(o)] = double(place(plain[int(c.reduce)]));
        }
        for (size_t i = 0; i < m.size(); ++i) {
          const int64_t k = at[i], u = s.col[k], r = type[k];
          const double g = grad.get(o), w = c.weighted ? weight.get(s.eid[k]) : 1;
          double d = 0;
          switch (c.reduce) {
            case RelReduce::sum:
              d = g;
              break;
            case RelReduce::mean:
              d = g / n;
              break;
            case RelReduce::logsumexp:
              d = g * std::exp(m[i] - want[size_t(o)]);
              break;
            case RelReduce::pna:
              d = (g + 2 * grad.get(cells + o) * (m[i] - plain[1].value)) / n;
              if (place(plain[3]) == k) d += grad.get(2 * cells + o);
              if (place(plain[2]) == k) d += grad.get(3 * cells + o);
              break;
            default:
              d = place(plain[int(c.reduce)]) == k ? g : 0;
          }
          dw[size_t(s.eid[k])] += d * product(b, u, r, f);
          d *= w;
          auto to_x = [&](int64_t j, double q) { dx[size_t((b * s.M + u) * F + j)] += d * q; };
          auto to_r = [&](int64_t j, double q) {
            if (!copy) dr[size_t((b * R + r) * F + j)] += d * q;
          };
          const double l = L(b, r, f), y = X(b, u, f);
          switch (c.mul) {
            case RelMul::mul:
              to_x(f, l);
              to_r(f, y);
              break;
            case RelMul::add:
              to_x(f, 1);
              to_r(f, 1);
              break;
            case RelMul::min:
              to_x(f, y < l ? 1 : y == l ? 0.5 : 0);
              to_r(f, l < y ? 1 : y == l ? 0.5 : 0);
              break;
            case RelMul::copy:
              to_x(f, 1);
              break;
            default: {
              const int64_t j = f < half ? f + half : f - half;  // the other part of both numbers
              const double sign = f < half ? -1 : 1;
              if (f < half) {
                to_x(f, l);
                to_r(f, y);
                to_x(j, sign * L(b, r, j));
                to_r(j, sign * X(b, u, j));
              } else {
                to_x(f, L(b, r, j));
                to_r(j, y);
                to_x(j, l);
                to_r(f, X(b, u, j));
              }
            }
          }
        }
      }

  const Dtype index = c.wide ? Dtype::i64 : Dtype::i32;
  Array out(t, grad.n), out2(t, grad.n), arg(index, int64_t(winner.size())), arg2(index, arg.n);
  Array rest(t, pna ? cells : 0), rest2(t, rest.n);
  auto forward = [&](Array& to, Array& places, Array& left, const ParallelFor& pf) {
    a.out = to.data();
    a.rest = left.n ? left.data() : nullptr;
    a.arg = places.n ? places.data() : nullptr;
    rspmm_fwd(a, pf);
  };
  forward(out2, arg2, rest2, threaded);
  forward(out, arg, rest, serial_for);
  expect_result(out, out2, want, longest, 8, what);
  expect_result(arg, arg2, winner, 0, 0, what);
  expect_same(rest, rest2, what);
  for (int64_t i = 0; i < rest.n; ++i) {
    const double bound = 16 * (storage_eps(t) * storage_eps(t) + longest * accumulator_eps(t));
    expect(std::abs(out.get(i) + rest.get(i) - want[size_t(i)]) <= bound, what, "rest is not what rounding took from the mean");
  }

  a.grad = grad.data();
  struct Grads {
    Array x, rel, weight;
  };
  auto backward = [&](const ParallelFor& pf) {
    Grads g{Array(t, x.n), Array(t, rel.n), Array(t, c.weighted ? s.E : 0)};
    a.d_x = g.x.data();
    a.d_rel = copy ? nullptr : g.rel.data();
    a.d_weight = c.weighted ? g.weight.data() : nullptr;
    rspmm_bwd(a, pf);
    return g;
  };
  const Grads got = backward(serial_for), again = backward(threaded);
  // logsumexp reads the rounded result: half a unit of a number of up to 16 shifts every exponent.
  const double terms = double(s.E) + 16,
               magnitude = 32 + (c.reduce == RelReduce::logsumexp || pna ? 16 * storage_eps(t) / accumulator_eps(t) : 0);
  expect_result(got.x, again.x, dx, terms, magnitude, what);
  expect_result(got.rel, again.rel, dr, terms, magnitude, what);
  if (c.weighted) expect_result(got.weight, again.weight, dw, terms + double(B * F), magnitude, what);
}

}  // namespace

void test_rspmm_all(Rng& rng) {
  const Structure small = random_structure(23, 17, 150, 40, rng), hub = random_structure(7, 5, 40, 1200, rng),
                  none = random_structure(4, 3, 0, 0, rng);
  const Structure wide = random_structure(3, 300, 500, 0, rng), empty = random_structure(0, 3, 0, 0, rng);
  const int64_t features[] = {1, 2, 5, 8, 16, 17, 34, 65};
  int turn = 0;
  for (Dtype t : kFloats)
    for (int mul = 0; mul < 5; ++mul)
      for (int reduce = 0; reduce < 6; ++reduce)
        for (int k = 0; k < 3; ++k, ++turn) {
          const int64_t F = RelMul(mul) == RelMul::rotate ? features[turn % 8] / 2 * 2 + 2 : features[turn % 8];
          const Case c{RelMul(mul),   RelReduce(reduce), 1 + turn % 2,  1 + turn % 5, F,
                       turn % 3 != 0, turn % 5 < 2,      turn % 4 != 0, turn % 7 < 3};
          test_one(small, c, t, rng);
          if (k == 0) test_one(hub, c, t, rng);
          if (k == 1) test_one(wide, c, t, rng);
          if (k == 2) test_one(turn % 2 ? none : empty, c, t, rng);
        }
}

}  // namespace structops::tests
