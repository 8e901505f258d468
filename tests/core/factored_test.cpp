#include "tree/factored.h"

#include "listed.h"
#include "tests.h"

namespace structops::tests {
namespace {

// Sibling scores [n + 1, n + 1, n + 1] of one sentence, and their derivative along v.
struct Factors {
  Array x, y, z;
  const Array& operator[](int k) const { return k == 0 ? x : k == 1 ? y : z; }
};

void test_one(Dtype t, int64_t B, int64_t N, int64_t D, bool multi, bool weighted, Rng& rng) {
  char what[120];
  std::snprintf(what, sizeof what, "factored %s B %ld N %ld D %ld multiroot %d", kNames[int(t)], long(B), long(N), long(D),
                int(multi));
  const int64_t plane = B * N * N, rows = B * N * D, cube = N * N * N;
  const Dtype sums = accumulator(t);
  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < B; ++b) lengths.push_back(b == 0 ? N - 1 : rng.below(N));
  auto make = [&] {
    return Factors{random_array(t, rows, rng, Values::quarters), random_array(t, rows, rng, Values::quarters),
                   random_array(t, rows, rng, Values::quarters)};
  };
  Factors f = make();
  const Factors v = make();
  Array arc = random_array(t, plane, rng, Values::quarters);
  const Array v_arc = random_array(t, plane, rng, Values::quarters), weight = random_array(sums, B, rng, Values::quarters);
  for (int64_t i = 0; i < plane; ++i)
    if (rng.below(20) == 0) arc.set(i, -kInf);
  for (int64_t b = 0; b < B; ++b)  // what lies past the sentence is not read
    for (int64_t i = (b * N + lengths[size_t(b)] + 1) * D; i < (b + 1) * N * D; ++i)
      for (Array* a : {&f.x, &f.y, &f.z}) a->set(i, kNan);

  std::vector<double> logz, along, post(size_t(plane), 0), curve = post, p_factor[3], d_factor[3];
  for (auto* p : {p_factor, d_factor})
    for (int k = 0; k < 3; ++k) p[k].assign(size_t(rows), 0);
  for (int64_t b = 0; b < B; ++b) {
    const int64_t n = lengths[size_t(b)];
    std::vector<double> all, direction;
    for (int64_t i = 0; i < N * N; ++i) {
      all.push_back(arc.get(b * N * N + i));
      direction.push_back(v_arc.get(b * N * N + i));
    }
    auto at = [&](const Array& a, int64_t i, int64_t d) { return a.get((b * N + i) * D + d); };
    for (int64_t i = 0; i < cube; ++i) {
      const int64_t place[] = {i / N / N, i / N % N, i % N};
      double s = 0, ds = 0;
      for (int64_t d = 0; d < D; ++d) {
        double x[3], dx[3];
        for (int k = 0; k < 3; ++k) {
          x[k] = at(f[k], place[k], d);
          dx[k] = at(v[k], place[k], d);
        }
        s += x[0] * x[1] * x[2];
        ds += dx[0] * x[1] * x[2] + x[0] * dx[1] * x[2] + x[0] * x[1] * dx[2];
      }
      all.push_back(s);
      direction.push_back(ds);
    }
    Listed list{all};
    for (const auto& h : all_trees(n, multi)) {
      if (!projective(h)) continue;
      std::vector<int64_t> parts;
      for (int64_t d = 1; d <= n; ++d) {
        const int64_t where = d * N + h[size_t(d)], s = sibling(h, d);
        parts.push_back(where);
        if (s >= 0) parts.push_back(N * N + where * N + s);
      }
      list.structure.push_back(parts);
    }
    std::vector<double> P(all.size(), 0), dP = P;
    logz.push_back(list.logz());
    along.push_back(list.add(weighted ? weight.get(b) : 1, direction, P, dP));
    for (int64_t i = 0; i < N * N; ++i) {
      post[size_t(b * N * N + i)] = P[size_t(i)];
      curve[size_t(b * N * N + i)] = dP[size_t(i)];
    }
    for (int64_t i = 0; i < cube; ++i) {
      const int64_t place[] = {i / N / N, i / N % N, i % N};
      const double p = P[size_t(N * N + i)], dp = dP[size_t(N * N + i)];
      if (p == 0) continue;
      for (int k = 0; k < 3; ++k)
        for (int64_t d = 0; d < D; ++d) {
          const int l = (k + 1) % 3, m = (k + 2) % 3;
          const double xl = at(f[l], place[l], d), xm = at(f[m], place[m], d);
          const size_t to = size_t((b * N + place[k]) * D + d);
          p_factor[k][to] += p * xl * xm;
          d_factor[k][to] += dp * xl * xm + p * (at(v[l], place[l], d) * xm + xl * at(v[m], place[m], d));
        }
    }
  }

  FactoredArgs a{};
  a.in.dtype = t;
  a.in.kind = multi ? Chart::dep_multi : Chart::dep_single;
  a.in.B = B;
  a.in.N = N;
  a.in.score = arc.data();
  a.in.lengths = lengths.data();
  a.in.v = v_arc.data();
  a.in.weight = weighted ? weight.data() : nullptr;
  a.D = D;
  a.x = f.x.data();
  a.y = f.y.data();
  a.z = f.z.data();
  a.v_x = v.x.data();
  a.v_y = v.y.data();
  a.v_z = v.z.data();
  expect_run(sums, logz, 64, 4, what, [&](void* out, const ParallelFor& pf) {
    a.in.logz = out;
    factored_logz(a, pf);
  });
  for (bool hvp : {false, true}) {
    Factors one{Array(t, rows), Array(t, rows), Array(t, rows)}, two{Array(t, rows), Array(t, rows), Array(t, rows)};
    Array z(sums, B), z2(sums, B);
    auto run = [&](Factors& to, Array& value, void* arcs, const ParallelFor& pf) {
      a.in.logz = value.data();
      a.in.post = arcs;
      a.post_x = to.x.data();
      a.post_y = to.y.data();
      a.post_z = to.z.data();
      (hvp ? factored_hvp : factored_marginals)(a, pf);
    };
    expect_run(t, hvp ? curve : post, 256, 8, what, [&](void* out, const ParallelFor& pf) {
      if (pf.threads > 1)
        run(two, z2, out, pf);
      else
        run(one, z, out, pf);
    });
    expect_result(z, z2, hvp ? along : logz, 256, 8, what);
    for (int k = 0; k < 3; ++k) expect_result(one[k], two[k], (hvp ? d_factor : p_factor)[k], 256, 8, what);
  }
}

}  // namespace

void test_factored_all(Rng& rng) {
  int turn = 0;
#ifdef STRUCTOPS_FEW_DTYPES
  for (Dtype t : {Dtype::f32})
#else
  for (Dtype t : {Dtype::f32, Dtype::f64})
#endif
    for (bool multi : {false, true})
      for (int64_t D : {0, 1, 3, 8, 17}) {
        for (int64_t N : {1, 2, 3, 4, 6}) {
          test_one(t, 3, N, D, multi, ++turn % 2, rng);
        }
        test_one(t, 0, 4, D, multi, false, rng);
        test_one(t, 19, 5, D, multi, true, rng);
      }
}

}  // namespace structops::tests
