// Conditional networks, and masks of the largest scores.
#include "binary/fff.h"

#include "binary/mask.h"
#include "support.h"
#include "tests.h"

namespace structops::tests {
namespace {

void test_descend(Dtype t, int64_t B, int64_t I, int depth, bool strict, bool biased, Rng& rng) {
  const int64_t nodes = (int64_t(1) << depth) - 1;
  const Array x = random_array(t, B * I, rng, Values::quarters), weight = random_array(t, nodes * I, rng, Values::quarters);
  Array bias = random_array(t, biased ? nodes : 0, rng, Values::quarters);
  for (int64_t i = 0; i < bias.n; i += 5) bias.set(i, kNan);
  DescendArgs a{t, B, I, depth, strict, x.data(), weight.data(), biased ? bias.data() : nullptr, nullptr, nullptr};
  std::vector<double> logit;
  std::vector<int64_t> want;
  for (int64_t b = 0; b < B; ++b) {
    int64_t n = 0;
    for (int d = 0; d < depth; ++d) {
      double z = biased ? bias.get(n) : 0;
      for (int64_t i = 0; i < I; ++i) z += x.get(b * I + i) * weight.get(n * I + i);  // sixteenths: exact
      logit.push_back(z);
      n = 2 * n + 1 + (strict ? z > 0 : z >= 0);
    }
    want.push_back(n - nodes);
  }
  std::vector<int64_t> leaf(size_t(B), -1), again(size_t(B), -1);
  expect_run(t, logit, 0, 0, "fff_descend", [&](void* out, const ParallelFor& pf) {
    a.logit = out;
    a.leaf = pf.threads > 1 ? again.data() : leaf.data();
    fff_descend(a, pf);
  });
  expect(leaf == want && again == want, "fff_descend", "another leaf");
}

double activate(Activation act, double x, double* slope) {
  switch (act) {
    case Activation::relu:
      *slope = x > 0;
      return x > 0 ? x : 0;
    case Activation::gelu: {
      const double phi = 0.5 * std::erfc(-x / std::sqrt(2.0));
      *slope = phi + x * std::exp(-x * x / 2) / std::sqrt(2 * M_PI);
      return x * phi;
    }
    case Activation::silu: {
      const double s = 1 / (1 + std::exp(-x));
      *slope = s * (1 + x * (1 - s));
      return x * s;
    }
    default:
      *slope = 1;
      return x;
  }
}

void test_leaf(Dtype t, Activation act, int64_t B, int64_t I, int64_t H, int64_t O, int64_t L, bool biased, Rng& rng) {
  char what[120];
  std::snprintf(what, sizeof what, "fff_leaf %s act %d B %ld I %ld H %ld O %ld L %ld", kNames[int(t)], int(act), long(B),
                long(I), long(H), long(O), long(L));
  std::vector<int64_t> ptr(size_t(L + 1), 0), perm(static_cast<size_t>(B)), count(size_t(L + 1), 0);
  for (int64_t b = 0; b < B; ++b) {
    perm[size_t(b)] = b;
    count[size_t(rng.below(L) / 2 * 2)] += 1;
  }
  for (int64_t i = B - 1; i > 0; --i) std::swap(perm[size_t(i)], perm[size_t(rng.below(i + 1))]);
  for (int64_t l = 0; l < L; ++l) ptr[size_t(l) + 1] = ptr[size_t(l)] + count[size_t(l)];
  auto make = [&](int64_t n) { return random_array(t, n, rng, Values::quarters); };
  const Array x = make(B * I), w1 = make(L * I * H), w2 = make(L * H * O), b1 = make(biased ? L * H : 0),
              b2 = make(biased ? L * O : 0), grad = make(B * O);
  std::vector<double> y(size_t(B * O), 0), dx = zeros(x), dw1 = zeros(w1), dw2 = zeros(w2), db1 = zeros(b1), db2 = zeros(b2);
  double magnitude = 4;
  for (int64_t l = 0; l < L; ++l)
    for (int64_t k = ptr[size_t(l)]; k < ptr[size_t(l) + 1]; ++k) {
      const int64_t b = perm[size_t(k)];
      for (int64_t o = 0; o < O; ++o) {
        y[size_t(b * O + o)] += biased ? b2.get(l * O + o) : 0;
        if (biased) db2[size_t(l * O + o)] += grad.get(b * O + o);
      }
      for (int64_t h = 0; h < H; ++h) {
        double a = biased ? b1.get(l * H + h) : 0, slope, d = 0;
        for (int64_t i = 0; i < I; ++i) a += x.get(b * I + i) * w1.get((l * I + i) * H + h);
        const double v = activate(act, a, &slope);
        magnitude = std::max(magnitude, std::fabs(v));
        for (int64_t o = 0; o < O; ++o) {
          const int64_t at = (l * H + h) * O + o;
          y[size_t(b * O + o)] += v * w2.get(at);
          d += grad.get(b * O + o) * w2.get(at);
          dw2[size_t(at)] += v * grad.get(b * O + o);
        }
        magnitude = std::max(magnitude, std::fabs(d));
        d *= slope;
        if (biased) db1[size_t(l * H + h)] += d;
        for (int64_t i = 0; i < I; ++i) {
          dx[size_t(b * I + i)] += d * w1.get((l * I + i) * H + h);
          dw1[size_t((l * I + i) * H + h)] += d * x.get(b * I + i);
        }
      }
    }
  LeafArgs a{};
  a.dtype = t;
  a.activation = act;
  a.B = B;
  a.I = I;
  a.H = H;
  a.O = O;
  a.L = L;
  a.rowptr = ptr.data();
  a.perm = perm.data();
  a.x = x.data();
  a.w1 = w1.data();
  a.w2 = w2.data();
  a.grad = grad.data();
  a.b1 = biased ? b1.data() : nullptr;
  a.b2 = biased ? b2.data() : nullptr;
  const double terms = double(I + H + O + B);
  expect_run(t, y, terms, magnitude, what, [&](void* out, const ParallelFor& pf) {
    a.out = out;
    fff_leaf(a, pf);
  });
  struct Grads {
    Array w1, b1, w2, b2;
  };
  auto shaped = [&] { return Grads{Array(t, w1.n), Array(t, b1.n), Array(t, w2.n), Array(t, b2.n)}; };
  Grads one = shaped(), two = shaped();
  expect_run(t, dx, terms, magnitude, what, [&](void* out, const ParallelFor& pf) {
    Grads& g = pf.threads > 1 ? two : one;
    a.d_x = out;
    a.d_w1 = g.w1.data();
    a.d_w2 = g.w2.data();
    a.d_b1 = biased ? g.b1.data() : nullptr;
    a.d_b2 = biased ? g.b2.data() : nullptr;
    fff_leaf_bwd(a, pf);
  });
  expect_result(one.w1, two.w1, dw1, terms, magnitude, what);
  expect_result(one.w2, two.w2, dw2, terms, magnitude, what);
  expect_result(one.b1, two.b1, db1, terms, magnitude, what);
  expect_result(one.b2, two.b2, db2, terms, magnitude, what);
}

void test_masks(Dtype t, int64_t n, bool magnitude, Values kind, Rng& rng) {
  const Array score = random_array(t, n, rng, kind);
  std::vector<int64_t> order;
  for (int64_t i = 0; i < n; ++i) order.push_back(i);
  auto key = [&](int64_t i) { return magnitude ? std::fabs(score.get(i)) : score.get(i); };
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t i, int64_t j) { return key(i) == key(i) && (key(j) != key(j) || key(i) > key(j)); });
  for (int64_t keep : {int64_t(0), int64_t(1), n / 3, n - 1, n}) {
    if (keep < 0 || keep > n) continue;
    std::vector<uint8_t> want(size_t((n + 7) / 8), 0), one(want.size(), 0xff), two(one);
    for (int64_t k = 0; k < keep; ++k) want[size_t(order[size_t(k)] / 8)] |= uint8_t(1 << order[size_t(k)] % 8);
    topk_mask({t, magnitude, n, keep, score.data(), one.data()}, serial_for);
    topk_mask({t, magnitude, n, keep, score.data(), two.data()}, threaded);
    expect(one == want && two == want, "topk_mask", kNames[int(t)]);
    std::vector<double> kept;
    for (int64_t i = 0; i < n; ++i) kept.push_back(want[size_t(i / 8)] >> (i % 8) & 1 ? score.get(i) : 0);
    MaskApplyArgs m{t, n, score.data(), want.data(), nullptr};
    expect_run(t, kept, 0, 0, "mask_apply", [&](void* out, const ParallelFor& pf) {
      m.out = out;
      mask_apply(m, pf);
    });
  }
}

}  // namespace

void test_fff_all(Rng& rng) {
  int turn = 0;
  for (Dtype t : kFloats) {
    for (int depth : {0, 1, 4})
      for (int64_t I : {0, 1, 7, 16, 33})
        for (int64_t B : {0, 1, 37}) {
          ++turn;
          test_descend(t, B, I, depth, turn % 2, turn % 3, rng);
        }
    for (int act = 0; act < int(Activation::count); ++act)
      for (int64_t width : {1, 5, 16, 35}) {
        ++turn;
        test_leaf(t, Activation(act), 41, width, 1 + turn % 19, 36 - width, 5, turn % 2, rng);
        test_leaf(t, Activation(act), turn % 3, 3, width, 9, 4, turn % 2 == 0, rng);
      }
    for (int64_t n : {0, 1, 7, 8, 65, 1001, 70'000})
      for (bool magnitude : {false, true}) {
        test_masks(t, n, magnitude, Values::quarters, rng);
        test_masks(t, n, magnitude, Values::spiked, rng);
      }
  }
}

}  // namespace structops::tests
