#include "sparse/poly.h"

#include "support.h"
#include "tests.h"

namespace structops::tests {
namespace {

struct Case {
  int64_t C, K;
  bool weighted, per_channel, gated, permuted, wide;
  int absent;  // bit k: the coefficients of term k (a, b, c) are 0
};

using Plane = std::vector<double>;  // [N, C]

void test_one(const Structure& edges, const Case& c, Dtype t, Rng& rng) {
  const Structure s = numbered(edges, c.permuted);
  char what[120];
  std::snprintf(what, sizeof what, "poly %s N %ld C %ld K %ld gate %d absent %d", kNames[int(t)], long(s.N), long(c.C),
                long(c.K), int(c.gated), c.absent);
  const Structure back = reversed(s);
  const int64_t N = s.N, C = c.C, K = c.K, Cp = c.per_channel ? C : 1, cells = N * C;
  const Dtype acc = accumulator(t);
  const Array x = random_array(t, cells, rng, Values::quarters), grad = random_array(t, cells, rng, Values::quarters),
              dot = random_array(t, cells, rng, Values::quarters);
  Array weight(t, c.weighted ? s.E : 0), alpha = random_array(acc, (K + 1) * Cp, rng, Values::quarters), recur(acc, 3 * K * Cp),
                                         gate(acc, c.gated ? C + 1 : 0);
  for (int64_t i = 0; i < weight.n; ++i) weight.set(i, double(rng.below(5) - 2) / 16);
  for (int64_t i = 0; i < recur.n; ++i) recur.set(i, c.absent >> (i / (K * Cp)) & 1 ? 0 : double(rng.below(7) - 3) / 8);
  for (int64_t i = 0; i < gate.n; ++i) gate.set(i, double(rng.below(5) - 2) / 8);

  auto A = [&](int64_t k, int64_t j) { return alpha.get(k * Cp + (Cp > 1 ? j : 0)); };
  auto coefficient = [&](int64_t which, int64_t k, int64_t j) {
    return k < 0 || k >= K ? 0 : recur.get((which * K + k) * Cp + (Cp > 1 ? j : 0));
  };
  auto at = [&](int64_t k) { return c.weighted ? weight.get(s.eid[k]) : 1; };
  auto apply = [&](const Plane& h) {
    Plane y(h.size(), 0);
    for (int64_t v = 0; v < N; ++v)
      for (int64_t k = s.rowptr[v]; k < s.rowptr[v + 1]; ++k)
        for (int64_t j = 0; j < C; ++j) y[size_t(v * C + j)] += at(k) * h[size_t(s.col[k] * C + j)];
    return y;
  };
  auto apply_back = [&](const Plane& l) {
    Plane y(l.size(), 0);
    for (int64_t v = 0; v < N; ++v)
      for (int64_t k = s.rowptr[v]; k < s.rowptr[v + 1]; ++k)
        for (int64_t j = 0; j < C; ++j) y[size_t(s.col[k] * C + j)] += at(k) * l[size_t(v * C + j)];
    return y;
  };
  std::vector<Plane> h(size_t(K + 1), Plane(size_t(cells), 0)), l(size_t(K + 2), Plane(size_t(cells), 0));
  for (int64_t i = 0; i < cells; ++i) h[0][size_t(i)] = x.get(i);
  for (int64_t k = 0; k < K; ++k) {
    const Plane p = apply(h[size_t(k)]);
    for (int64_t i = 0; i < cells; ++i)
      h[size_t(k) + 1][size_t(i)] = coefficient(0, k, i % C) * p[size_t(i)] +
                                    coefficient(1, k, i % C) * h[size_t(k)][size_t(i)] +
                                    (k ? coefficient(2, k, i % C) * h[size_t(k) - 1][size_t(i)] : 0);
  }
  Plane out(size_t(cells), 0), dots(size_t((K + 1) * C), 0), d_alpha = dots, d_recur(size_t(3 * K * C), 0),
                                                             d_gate(size_t(gate.n), 0), d_weight(size_t(s.E), 0);
  for (int64_t k = K; k >= 0; --k) {
    const Plane& hk = h[size_t(k)];
    Plane& lk = l[size_t(k)];
    const Plane& next = l[size_t(k) + 1];
    const Plane p = apply_back(next);
    for (int64_t v = 0; v < N; ++v) {
      double z = c.gated ? gate.get(C) : 0, inner = 0;
      for (int64_t j = 0; j < C; ++j) {
        if (c.gated) z += gate.get(j) * hk[size_t(v * C + j)];
        inner += grad.get(v * C + j) * A(k, j) * hk[size_t(v * C + j)];
      }
      const double q = c.gated ? 1 / (1 + std::exp(-z)) : 1, dq = c.gated ? q * (1 - q) * inner : 0;
      for (int64_t j = 0; j < C; ++j) {
        const size_t i = size_t(v * C + j);
        const double g = grad.get(int64_t(i));
        out[i] += A(k, j) * q * hk[i];
        dots[size_t(k * C + j)] += dot.get(int64_t(i)) * hk[i];
        d_alpha[size_t(k * C + j)] += q * g * hk[i];
        if (c.gated) d_gate[size_t(j)] += dq * hk[i];
        lk[i] = A(k, j) * q * g + (c.gated ? dq * gate.get(j) : 0) + coefficient(0, k, j) * p[i] +
                coefficient(1, k, j) * next[i] + (k + 2 <= K ? coefficient(2, k + 1, j) * l[size_t(k) + 2][i] : 0);
        if (k == K) continue;
        d_recur[size_t(k * C + j)] += p[i] * hk[i];
        d_recur[size_t((K + k) * C + j)] += next[i] * hk[i];
        if (k) d_recur[size_t((2 * K + k) * C + j)] += next[i] * h[size_t(k) - 1][i];
      }
      if (c.gated) d_gate[size_t(C)] += dq;
      for (int64_t e = s.rowptr[v]; e < s.rowptr[v + 1] && k < K; ++e)
        for (int64_t j = 0; j < C; ++j)
          d_weight[size_t(s.eid[e])] += coefficient(0, k, j) * hk[size_t(s.col[e] * C + j)] * next[size_t(v * C + j)];
    }
  }

  PolyArgs a{};
  a.dtype = t;
  a.N = N;
  a.E = s.E;
  a.C = C;
  a.K = K;
  a.Ca = a.Cr = Cp;
  a.x = x.data();
  a.weight = c.weighted ? weight.data() : nullptr;
  a.rowptr = s.rowptr.index(c.wide);
  a.col = s.col.index(c.wide);
  if (c.permuted) a.eid = s.eid.index(c.wide);
  a.colptr = back.rowptr.index(c.wide);
  a.row_t = back.col.index(c.wide);
  a.eid_t = back.eid.index(c.wide);
  a.alpha = alpha.data();
  a.recur = recur.data();
  a.gate = c.gated ? gate.data() : nullptr;
  a.grad = grad.data();
  double magnitude = 4;
  for (const Plane& p : h)
    for (double v : p) magnitude = std::max(magnitude, std::fabs(v));
  for (const Plane& p : l)
    for (double v : p) magnitude = std::max(magnitude, std::fabs(v));
  const double terms = 8 * double(K + 1) + double(s.E) / 4;
  Array sums(acc, dots.size() ? int64_t(dots.size()) : 0), sums2(acc, sums.n);
  expect_run(t, out, terms, magnitude, what, [&](void* to, const ParallelFor& pf) {
    a.out = to;
    a.dot = c.gated ? nullptr : dot.data();
    a.dots = c.gated ? nullptr : (pf.threads > 1 ? sums2 : sums).data();
    poly_fwd(a, pf);
  });
  const double all = double(N * (K + 1) + s.E) * magnitude;
  if (!c.gated) expect_result(sums, sums2, dots, 4, all, what);

  struct Grads {
    Array alpha, recur, gate, weight;
  };
  auto make = [&] { return Grads{Array(acc, (K + 1) * C), Array(acc, 3 * K * C), Array(acc, gate.n), Array(t, weight.n)}; };
  Grads one = make(), two = make();
  a.dot = nullptr;
  expect_run(t, l[0], terms, magnitude * 4, what, [&](void* to, const ParallelFor& pf) {
    Grads& g = pf.threads > 1 ? two : one;
    a.out = to;
    a.dots = g.alpha.data();
    a.d_recur = g.recur.data();
    a.d_gate = c.gated ? g.gate.data() : nullptr;
    a.d_weight = c.weighted ? g.weight.data() : nullptr;
    poly_bwd(a, pf);
  });
  expect_result(one.alpha, two.alpha, d_alpha, 4, all, what);
  expect_result(one.recur, two.recur, d_recur, 16, all, what);
  if (c.gated) expect_result(one.gate, two.gate, d_gate, 16, all, what);
  if (c.weighted) expect_result(one.weight, two.weight, d_weight, 16, all, what);
}

}  // namespace

void test_poly_all(Rng& rng) {
  const Structure small = random_structure(19, 19, 60, 12, rng), hub = random_structure(7, 7, 30, 300, rng),
                  none = random_structure(4, 4, 0, 0, rng);
  const Structure one = random_structure(1, 1, 3, 0, rng), empty = random_structure(0, 0, 0, 0, rng);
  int turn = 0;
  for (Dtype t : kFloats)
    for (int64_t C : {1, 3, 8, 16, 17, 33, 70})
      for (int64_t K : {0, 1, 2, 5}) {
        ++turn;
        const Case c{C, K, turn % 4 != 0, turn % 2 == 0, false, turn % 3 != 0, turn % 5 < 2, turn % 8};
        test_one(small, c, t, rng);
        Case gated = c;
        gated.gated = true;
        test_one(small, gated, t, rng);
        if (turn % 3 == 0) test_one(hub, turn % 2 ? c : gated, t, rng);
        if (turn % 3 == 1) test_one(none, turn % 2 ? c : gated, t, rng);
        if (turn % 5 == 2) test_one(one, turn % 2 ? c : gated, t, rng);
        if (turn % 5 == 3) test_one(empty, c, t, rng);
      }
}

}  // namespace structops::tests
