#include "tests.h"

#include "so2/edge_block.h"
#include "so2/eigh_small.h"
#include "so2/sph.h"
#include "support.h"

namespace structops::tests {
namespace {

#ifdef STRUCTOPS_FEW_DTYPES
constexpr Dtype kReals[] = {Dtype::f32};
#else
constexpr Dtype kReals[] = {Dtype::f32, Dtype::f64};
#endif

// Exact +-y first, then vectors of quarters; none is zero.
Array directions(Dtype t, int64_t E, Rng& rng) {
  Array v = random_array(t, E * 3, rng, Values::quarters);
  for (int64_t e = 0; e < E && e < 2; ++e)
    for (int64_t a = 0; a < 3; ++a) v.set(e * 3 + a, a == 1 ? (e ? -0.5 : 1.5) : 0);
  return v;
}

double norm(const Array& v, int64_t e) { return std::hypot(v.get(e * 3), v.get(e * 3 + 1), v.get(e * 3 + 2)); }

// ---- spherical harmonics ---------------------------------------------------------------------------------------------

// sum_m Y_lm^2 = |x|^2l (2 l + 1), and x . grad Y_lm = l Y_lm, by both derivatives.
void test_harmonics(Dtype t, int lmax, int64_t N, Rng& rng) {
  const int64_t S = int64_t(lmax + 1) * (lmax + 1);
  const Array x = directions(t, N, rng), g = random_array(t, N * S, rng, Values::quarters);
  Array y(t, N * S), y2(t, N * S), gx(t, N * 3), gx2(t, N * 3), jet(t, N * S), dy(t, N * 3 * S), d2y(t, N * 9 * S);
  SphArgs a{t, SphNorm::component, false, lmax, N, x.data(), g.data(), y2.data(), nullptr, nullptr};
  spherical_harmonics(a, threaded);
  a.y = y.data();
  spherical_harmonics(a, serial_for);
  a.y = gx2.data();
  spherical_harmonics_bwd(a, threaded);
  a.y = gx.data();
  spherical_harmonics_bwd(a, serial_for);
  a.y = jet.data(), a.dy = dy.data(), a.d2y = d2y.data();
  spherical_harmonics_jet(a, serial_for);
  expect_same(y, y2, "spherical_harmonics");
  expect_same(gx, gx2, "spherical_harmonics_bwd");
  Array sums(t, N * (lmax + 1)), euler(t, N * S), radial(t, N), laplace(t, N * S);
  std::vector<double> want_sums, want_euler, want_radial(size_t(N), 0), zero(size_t(N * S), 0);
  double large = 1;
  for (int64_t n = 0; n < N; ++n) {
    const double r = norm(x, n);
    large = std::max(large, std::pow(r, 2 * lmax) * (2 * lmax + 1) * (lmax + 1) * (lmax + 1));
    double along = 0;
    for (int64_t c = 0; c < 3; ++c) along += x.get(n * 3 + c) * gx.get(n * 3 + c);
    radial.set(n, along);
    for (int l = 0; l <= lmax; ++l) {
      double sum = 0;
      for (int64_t s = int64_t(l) * l; s < int64_t(l + 1) * (l + 1); ++s) {
        const double value = y.get(n * S + s);
        sum += value * value;
        want_radial[size_t(n)] += l * value * g.get(n * S + s);
        double slope = 0, trace = 0;
        for (int64_t c = 0; c < 3; ++c) slope += x.get(n * 3 + c) * dy.get((n * 3 + c) * S + s), trace += d2y.get((n * 9 + 4 * c) * S + s);
        euler.set(n * S + s, slope);
        laplace.set(n * S + s, trace);
        want_euler.push_back(l * value);
      }
      sums.set(n * (lmax + 1) + l, sum);
      want_sums.push_back(std::pow(r, 2 * l) * (2 * l + 1));
    }
  }
  expect_close(sums, want_sums, 40, large, "spherical_harmonics: sums of squares");
  expect_close(euler, want_euler, 40, large, "spherical_harmonics_jet: slope along x");
  expect_close(laplace, zero, 40, large, "spherical_harmonics_jet: Laplacian");
  expect_close(radial, want_radial, 40, large, "spherical_harmonics_bwd: slope along x");
  expect_same(y, jet, "spherical_harmonics_jet: value");
}

// ---- eigen-decompositions --------------------------------------------------------------------------------------------

void test_eigh(Dtype t, int n, int64_t B, Rng& rng) {
  const int64_t nn = int64_t(n) * n;
  const Array m = random_array(t, B * nn, rng, Values::quarters), gw = random_array(t, B * n, rng, Values::quarters);
  Array w(t, B * n), v(t, B * nn), w2(t, B * n), v2(t, B * nn), ga(t, B * nn), ga2(t, B * nn);
  eigh_small({t, n, B, m.data(), w.data(), v.data()}, serial_for);
  eigh_small({t, n, B, m.data(), w2.data(), v2.data()}, threaded);
  expect_same(w, w2, "eigh_small values"), expect_same(v, v2, "eigh_small vectors");
  eigh_small_bwd({t, n, B, w.data(), v.data(), gw.data(), nullptr, ga.data()}, serial_for);
  eigh_small_bwd({t, n, B, w.data(), v.data(), gw.data(), nullptr, ga2.data()}, threaded);
  expect_same(ga, ga2, "eigh_small_bwd");
  Array product(t, B * nn), gram(t, B * nn);
  std::vector<double> want(size_t(B * nn), 0), eye(size_t(B * nn), 0), back(size_t(B * nn), 0);
  for (int64_t b = 0; b < B; ++b)
    for (int i = 0; i < n; ++i)
      for (int k = 0; k < n; ++k) {
        const int64_t at = b * nn + i * n + k;
        double sum = 0, dot = 0;
        for (int j = 0; j < n; ++j) {
          const double s = (m.get(b * nn + i * n + j) + m.get(b * nn + j * n + i)) / 2;
          sum += s * v.get(b * nn + j * n + k);
          dot += v.get(b * nn + j * n + i) * v.get(b * nn + j * n + k);
          back[size_t(at)] += v.get(b * nn + i * n + j) * gw.get(b * n + j) * v.get(b * nn + k * n + j);
        }
        product.set(at, sum), gram.set(at, dot);
        want[size_t(at)] = w.get(b * n + k) * v.get(b * nn + i * n + k), eye[size_t(at)] = i == k;
      }
  expect_close(product, want, 16, 4, "eigh_small: S v = w v");
  expect_close(gram, eye, 16, 1, "eigh_small: orthonormal");
  expect_close(ga, back, 16, 4, "eigh_small_bwd of values");
}

// ---- Wigner matrices, convolutions, the block ------------------------------------------------------------------------

// Where (l, r, c) of a packed matrix lies, r the number of the kept row.
int64_t packed_at(int M, int l, int r, int c) {
  int64_t at = 0;
  for (int i = 0; i < l; ++i) at += int64_t(kept_rows(i, M)) * (2 * i + 1);
  return at + int64_t(r) * (2 * l + 1) + c;
}

void test_rotations(Dtype t, int L, int M, int64_t C, int64_t E, Rng& rng) {
  const int64_t R = packed_size(L, M), S = int64_t(L + 1) * (L + 1), n = frame_rows(L, M);
  const Array vec = directions(t, E, rng), x = random_array(t, E * S * C, rng, Values::quarters);
  const Array z = random_array(t, E * n * C, rng, Values::quarters);
  Array d(t, E * R), turned(t, E * n * C), back(t, E * S * C), outer(t, E * R);
  Array d2(t, d.n), turned2(t, turned.n), back2(t, back.n), outer2(t, outer.n);
  auto run = [&](Array& D, Array& to, Array& from, Array& both, const ParallelFor& pf) {
    WignerArgs a{t, E, L, M, C, vec.data(), nullptr, nullptr, nullptr, nullptr, D.data()};
    wigner_fwd(a, pf);
    a.d = D.data(), a.x = x.data(), a.out = to.data();
    rotate_fwd(a, pf);
    a.z = z.data(), a.out = from.data();
    rotate_back(a, pf);
    a.out = both.data();
    rotate_outer(a, pf);
  };
  run(d2, turned2, back2, outer2, threaded);
  run(d, turned, back, outer, serial_for);
  expect_same(d, d2, "so2_wigner"), expect_same(turned, turned2, "so2_rotate");
  expect_same(back, back2, "so2_rotate_back"), expect_same(outer, outer2, "so2_rotate_outer");
  std::vector<double> want_z(size_t(turned.n), 0), want_x(size_t(back.n), 0), want_d(size_t(E * R), 0), eye;
  std::vector<double> products;
  for (int64_t e = 0; e < E; ++e)
    for (int l = 0; l <= L; ++l) {
      const int kept = kept_rows(l, M), top = kept / 2;
      for (int r = 0; r < kept; ++r) {
        const int64_t row = frame_row(L, l, r - top);
        for (int s = 0; s < 2 * l + 1; ++s) {
          const int64_t at = e * R + packed_at(M, l, r, s);
          for (int64_t c = 0; c < C; ++c) {
            const int64_t zi = (e * n + row) * C + c, xi = (e * S + int64_t(l) * l + s) * C + c;
            want_z[size_t(zi)] += d.get(at) * x.get(xi);
            want_x[size_t(xi)] += d.get(at) * z.get(zi);
            want_d[size_t(at)] += z.get(zi) * x.get(xi);
          }
        }
        for (int q = 0; q < kept; ++q) {
          double sum = 0;
          for (int s = 0; s < 2 * l + 1; ++s) sum += d.get(e * R + packed_at(M, l, r, s)) * d.get(e * R + packed_at(M, l, q, s));
          products.push_back(sum), eye.push_back(q == r);
        }
      }
      if (l == 1)  // the middle row is the direction
        for (int s = 0; s < 3; ++s) {
          products.push_back(d.get(e * R + packed_at(M, 1, kept / 2, s)));
          eye.push_back(vec.get(e * 3 + s) / norm(vec, e));
        }
    }
  Array gram(t, int64_t(products.size()));
  for (size_t i = 0; i < products.size(); ++i) gram.set(int64_t(i), products[i]);
  expect_close(gram, eye, 32, 1, "so2_wigner: orthonormal rows");
  expect_close(turned, want_z, 2 * L + 1, 4, "so2_rotate");
  expect_close(back, want_x, 2 * L + 1, 4, "so2_rotate_back");
  expect_close(outer, want_d, double(C), 4, "so2_rotate_outer");
}

// One edge of the map, in double; x and y rows as so2_conv.h lays them out.
std::vector<double> linear(const So2Shape& s, const Array& w, const double* bias, const std::vector<double>& x) {
  std::vector<double> y(size_t(s.out()), 0);
  for (int m = 0; m <= s.mmax; ++m)
    for (int64_t o = 0; o < s.N(m); ++o) {
      const int64_t K = s.K(m), at = s.weight_at(m) + o * K, second = s.weight_at(m) + (s.N(m) + o) * K;
      if (m == 0 && bias) y[size_t(o)] = bias[o];
      for (int64_t k = 0; k < K; ++k) {
        const size_t plus = size_t(s.in_at(m) + k);
        double* const to = &y[size_t(s.out_at(m) + o)];
        to[0] += w.get(at + k) * x[plus];
        if (m == 0) continue;
        to[0] -= w.get(second + k) * x[plus + size_t(K)];
        to[s.N(m)] += w.get(at + k) * x[plus + size_t(K)] + w.get(second + k) * x[plus];
      }
    }
  return y;
}

std::vector<double> values_of(const Array& a, int64_t at, int64_t n) {
  std::vector<double> v;
  for (int64_t i = 0; i < n; ++i) v.push_back(a.get(at + i));
  return v;
}

void test_conv(Dtype t, const So2Shape& s, int64_t E, Rng& rng) {
  const Array x = random_array(t, E * s.in(), rng, Values::quarters), g = random_array(t, E * s.out(), rng, Values::quarters);
  const Array w = random_array(t, s.weights(), rng, Values::quarters), bias = random_array(t, s.N(0), rng, Values::quarters);
  const std::vector<double> b = values_of(bias, 0, s.N(0));
  std::vector<double> want, want_back(size_t(E * s.in()), 0), want_w(size_t(s.weights()), 0);
  for (int64_t e = 0; e < E; ++e) {
    const auto y = linear(s, w, b.data(), values_of(x, e * s.in(), s.in()));
    want.insert(want.end(), y.begin(), y.end());
    for (int m = 0; m <= s.mmax; ++m)
      for (int64_t o = 0; o < s.N(m); ++o)
        for (int64_t k = 0; k < s.K(m); ++k) {
          const int64_t xi = e * s.in() + s.in_at(m) + k, gi = e * s.out() + s.out_at(m) + o, at = s.weight_at(m) + o * s.K(m) + k;
          const int64_t second = at + s.N(m) * s.K(m), K = s.K(m), N = s.N(m);
          want_back[size_t(xi)] += w.get(at) * g.get(gi);
          want_w[size_t(at)] += x.get(xi) * g.get(gi);
          if (m == 0) continue;
          want_back[size_t(xi + K)] += w.get(at) * g.get(gi + N) - w.get(second) * g.get(gi);
          want_back[size_t(xi)] += w.get(second) * g.get(gi + N);
          want_w[size_t(at)] += x.get(xi + K) * g.get(gi + N);
          want_w[size_t(second)] += x.get(xi) * g.get(gi + N) - x.get(xi + K) * g.get(gi);
        }
  }
  for (bool three : {false, true}) {
    Array y(t, E * s.out()), y2(t, y.n), back(t, E * s.in()), back2(t, back.n), gw(t, s.weights()), gw2(t, gw.n);
    auto run = [&](Array& to, Array& from, Array& weight, const ParallelFor& pf) {
      So2ConvArgs a{t, E, s, false, three, x.data(), g.data(), w.data(), bias.data(), to.data()};
      so2_conv_fwd(a, pf);
      a.transpose = true, a.x = g.data(), a.bias = nullptr, a.out = from.data();
      so2_conv_fwd(a, pf);
      a.transpose = false, a.x = x.data(), a.out = weight.data();
      so2_conv_wgrad(a, pf);
    };
    run(y2, back2, gw2, threaded);
    run(y, back, gw, serial_for);
    const double terms = 8.0 * double(s.K(0) + s.N(0));
    expect_result(y, y2, want, terms, 4, "so2_conv");
    expect_result(back, back2, want_back, terms, 4, "so2_conv transposed");
    expect_result(gw, gw2, want_w, 8.0 * double(E), 4, "so2_conv_wgrad");
  }
}

// The steps one after the other, from the kernels above and loops; the gradient of the envelope is <g, D^T o>.
void test_block(const Structure& s, Dtype t, int L, int M, int64_t C, int64_t H, bool wide, Rng& rng) {
  EdgeBlockArgs a{};
  a.dtype = t, a.N = s.N, a.E = s.E, a.C = C, a.H = H, a.lmax = L, a.mmax = M;
  const So2Shape one = a.conv1(), two = a.conv2();
  const int64_t S = a.S(), n = frame_rows(L, M), widths = a.scales();
  auto draw = [&](int64_t count) { return random_array(t, count, rng, Values::quarters); };
  auto small = [&](int64_t count, double by) {
    Array w = draw(count);
    for (int64_t i = 0; i < count; ++i) w.set(i, w.get(i) / by);
    return w;
  };
  const Array x = draw(s.N * S * C), vec = directions(t, s.E, rng), radial = draw(s.E * widths), env = draw(s.E);
  const Array w1 = small(one.weights(), double(one.K(0))), w2 = small(two.weights(), double(two.K(0)));
  const Array b1 = draw(one.N(0)), b2 = draw(two.N(0));
  const Array grad = draw(s.N * S * C);
  a.Kr = widths, a.rowptr = s.rowptr.index(wide), a.col = s.col.index(wide), a.eid = s.eid.index(wide);
  a.x = x.data(), a.vec = vec.data(), a.radial = radial.data(), a.env = env.data();
  a.w1 = w1.data(), a.b1 = b1.data(), a.w2 = w2.data(), a.b2 = b2.data(), a.grad = grad.data();

  std::vector<double> want(size_t(s.N * S * C), 0), want_env(size_t(s.E), 0);
  Array D(t, s.E * packed_size(L, M));
  wigner_fwd({t, s.E, L, M, 0, vec.data(), nullptr, nullptr, nullptr, nullptr, D.data()}, serial_for);
  const std::vector<double> bias1 = values_of(b1, 0, b1.n), bias2 = values_of(b2, 0, b2.n);
  for (int64_t v = 0; v < s.N; ++v)
    for (int64_t k = s.rowptr[v]; k < s.rowptr[v + 1]; ++k) {
      const int64_t u = s.col[k], j = s.eid[k];
      auto entry = [&](int l, int r, int c) { return D.get(j * packed_size(L, M) + packed_at(M, l, r, c)); };
      std::vector<double> z(size_t(n * 2 * C), 0);
      for (int l = 0; l <= L; ++l)
        for (int r = 0; r < kept_rows(l, M); ++r) {
          const int m = r - kept_rows(l, M) / 2, order = m < 0 ? -m : m;
          int64_t scale = 0;  // rows of the scale before (order, l)
          for (int i = 0; i < order; ++i) scale += L + 1 - i;
          scale += l - order;
          for (int64_t c = 0; c < 2 * C; ++c) {
            double sum = 0;
            for (int q = 0; q < 2 * l + 1; ++q)
              sum += entry(l, r, q) * x.get(((c < C ? u : v) * S + int64_t(l) * l + q) * C + c % C);
            z[size_t(frame_row(L, l, m) * 2 * C + c)] = sum * radial.get(j * widths + scale * 2 * C + c);
          }
        }
      const std::vector<double> p = linear(one, w1, bias1.data(), z);
      auto sigmoid = [](double q) { return 1 / (1 + std::exp(-q)); };
      std::vector<double> h(size_t(n * H), 0);
      for (int l = 0; l <= L; ++l)
        for (int r = 0; r < kept_rows(l, M); ++r)
          for (int64_t c = 0; c < H; ++c) {
            const int64_t row = frame_row(L, l, r - kept_rows(l, M) / 2) * H + c;
            const double q = p[size_t(L * H + row)];
            h[size_t(row)] = q * sigmoid(l ? p[size_t((l - 1) * H + c)] : q);
          }
      const std::vector<double> o = linear(two, w2, bias2.data(), h);
      for (int l = 0; l <= L; ++l)
        for (int r = 0; r < kept_rows(l, M); ++r)
          for (int q = 0; q < 2 * l + 1; ++q)
            for (int64_t c = 0; c < C; ++c) {
              const int64_t at = (v * S + int64_t(l) * l + q) * C + c;
              const double value = entry(l, r, q) * o[size_t(frame_row(L, l, r - kept_rows(l, M) / 2) * C + c)];
              want[size_t(at)] += env.get(j) * value;
              want_env[size_t(j)] += grad.get(at) * value;
            }
    }
  const double terms = 8.0 * double(one.K(0) + s.E);
  for (bool three : {false, true}) {
    a.three = three;
    Array out(t, s.N * S * C), out2(t, out.n), pre(t, s.E * one.out()), mid(t, s.E * n * C);
    a.out = out2.data();
    edge_block_fwd(a, threaded);
    a.out = out.data(), a.pre = pre.data(), a.mid = mid.data();
    edge_block_fwd(a, serial_for);
    expect_result(out, out2, want, terms, 8, "edge_block");
    std::vector<Array> first, second;
    for (auto* to : {&first, &second}) {
      for (int64_t count : {x.n, vec.n, radial.n, env.n, w1.n, b1.n, w2.n, b2.n}) to->emplace_back(t, count);
      void** const slots[] = {&a.d_x, &a.d_vec, &a.d_radial, &a.d_env, &a.d_w1, &a.d_b1, &a.d_w2, &a.d_b2};
      for (size_t i = 0; i < 8; ++i) *slots[i] = (*to)[i].data();
      edge_block_bwd(a, to == &first ? serial_for : threaded);
    }
    expect_close(first[3], want_env, terms, 64, "edge_block_bwd env");
    for (size_t i = 0; i < 8; ++i) {
      expect_same(first[i], second[i], "edge_block_bwd");
      bool finite = true;
      for (int64_t k = 0; k < first[i].n; ++k) finite = finite && std::isfinite(first[i].get(k));
      expect(finite, "edge_block_bwd", "a gradient that is not finite");
    }
    a.pre = a.mid = nullptr;  // recomputed
    Array again(t, env.n);
    a.d_env = again.data();
    edge_block_bwd(a, serial_for);
    expect_close(again, want_env, terms, 64, "edge_block_bwd env, recomputed");
  }
}

}  // namespace

void test_so2_frames_all(Rng& rng) {
  for (Dtype t : kFloats)
    for (int lmax : {0, 1, 3, 6})
      for (int64_t N : {0, 1, 37})
        if (t == Dtype::f32 || t == Dtype::f64) test_harmonics(t, lmax, N, rng);
  const Structure s = random_structure(7, 7, 20, 90, rng), none = random_structure(3, 3, 0, 0, rng);
  int turn = 0;
  for (Dtype t : kReals) {
    for (int n : {2, 3, 4, 8})
      for (int64_t B : {0, 1, 37}) test_eigh(t, n, B, rng);
    for (auto [L, M] : {std::pair<int, int>{0, 0}, {2, 2}, {3, 1}, {6, 2}})
      for (int64_t C : {1, 3, 17}) test_rotations(t, L, M, C, C == 3 ? 0 : 19, rng);
    for (const So2Shape& shape : {So2Shape{0, 0, 3, 2, 1}, {2, 2, 5, 7, 3}, {3, 1, 17, 4, 0}})
      for (int64_t E : {0, 1, 21, 100}) test_conv(t, shape, E, rng);
    for (auto [L, M] : {std::pair<int, int>{2, 2}, {3, 1}, {0, 0}})
      for (int64_t C : {1, 3}) test_block(s, t, L, M, C, 5, turn++ % 2, rng);
    test_block(none, t, 2, 1, 3, 2, true, rng);
  }
}

}  // namespace structops::tests
