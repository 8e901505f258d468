#include "binary/quantize.h"

#include "support.h"
#include "tests.h"

namespace structops::tests {
namespace {

constexpr int kForwards = int(Forward::count), kSlopes = int(Slope::count);

double sign_of(double u, double zero) { return u != u ? u : u > 0 ? 1 : u < 0 ? -1 : zero; }
double clamp01(double u) { return u < 0 ? 0 : u > 1 ? 1 : u; }

struct Vectors {
  Array shift, gain, scale, extra;
};

struct Case {
  Forward forward;
  Slope slope;
  int64_t outer, C, inner;
  int code_bits;
  bool save_sign, with_vectors, learned_step;
};

// F(u) without scale, but for prelu and tanh_levels.
double value(const QuantizeArgs& a, double u, double scale, double extra, bool has_extra) {
  switch (a.forward) {
    case Forward::sign:
      return sign_of(u, a.zero);
    case Forward::heaviside:
      return u != u ? u : u > 0 ? 1 : u < 0 ? 0 : a.zero;
    case Forward::ternary: {
      const double limit = has_extra ? extra : a.t, z = std::fabs(u);
      return u != u ? u : (a.zero == 0 ? z > limit : z >= limit) ? sign_of(u, 0) : 0;
    }
    case Forward::levels:
      return u != u ? u : std::nearbyint(clamp01(u) * a.t) / a.t;
    case Forward::hardtanh:
      return u != u ? u : u < -1 ? -1 : u > 1 ? 1 : u;
    case Forward::sine:
      return std::sin(a.t * u);
    case Forward::square:
      return sign_of(std::sin(a.t * u), a.zero);
    case Forward::prelu:
      return (u > 0 ? u : scale * u) + (has_extra ? extra : 0);
    case Forward::tanh_levels:
      return u != u ? u : 2 * std::nearbyint(clamp01(std::tanh(u) * scale / 2 + 0.5) * a.t) / a.t - 1;
    default:
      return u;
  }
}

double derivative(const QuantizeArgs& a, double u, double scale, double limit) {
  const double p = a.p, z = std::fabs(u);
  switch (a.slope) {
    case Slope::clip:
      return z <= limit;
    case Slope::clip_strict:
      return z < p;
    case Slope::box:
      return u >= 0 && u <= p;
    case Slope::poly:
      return std::max(0.0, 2 - 2 * z);
    case Slope::swish:
      return p * (2 - p * u * std::tanh(p * u / 2)) / (1 + std::cosh(p * u));
    case Slope::bell:
      return a.q * p * (1 - std::tanh(p * u) * std::tanh(p * u));
    case Slope::fourier: {
      double sum = 0;
      for (int64_t i = 0; i <= a.terms; ++i) sum += std::cos(double(2 * i + 1) * p * u);
      return z <= 1 ? 4 * p / M_PI * sum : 0;
    }
    case Slope::cosine:
      return p * std::cos(p * u);
    case Slope::prelu:
      return u > 0 ? 1 : scale;
    default:
      return 1;
  }
}

void test_one(const Case& c, Dtype t, Rng& rng) {
  char what[120];
  std::snprintf(what, sizeof what, "quantize %s forward %d slope %d shape %ld %ld %ld codes %d", kNames[int(t)], int(c.forward),
                int(c.slope), long(c.outer), long(c.C), long(c.inner), c.code_bits);
  const Dtype acc = accumulator(t);
  const int64_t n = c.outer * c.C * c.inner, C = c.C;
  const bool prelu = c.forward == Forward::prelu || c.slope == Slope::prelu,
             special = c.forward == Forward::prelu || c.forward == Forward::tanh_levels;
  auto make = [&](bool wanted) { return random_array(acc, wanted ? C : 0, rng, Values::quarters); };
  const bool extra_used = c.forward == Forward::prelu || c.forward == Forward::ternary || c.forward == Forward::sign;
  Vectors v{make(c.with_vectors), make(c.with_vectors), make(c.with_vectors || prelu || c.learned_step),
            make(c.with_vectors && extra_used)};
  for (int64_t i = 0; i < v.extra.n && c.forward != Forward::prelu; ++i) v.extra.set(i, std::fabs(v.extra.get(i)));
  Array x = random_array(t, n, rng, Values::quarters);
  for (int64_t i = 0; i < n; i += 7) x.set(i, 0);
  const Array grad = random_array(t, n, rng, Values::quarters);
  const auto in = [](const Array& a) { return a.n ? a.data() : nullptr; };

  QuantizeArgs a{};
  a.dtype = t;
  a.forward = c.forward;
  a.slope = c.slope;
  a.numel = n;
  a.C = C;
  a.inner = c.inner;
  a.zero = double(rng.below(3) - 1);
  a.t = c.forward == Forward::ternary ? 0.5 : 3;
  a.p = c.slope == Slope::box ? 1.5 : 1.25;
  a.q = 0.75;
  a.terms = 4;
  a.code_bits = c.code_bits;
  a.save_sign = c.save_sign;
  a.scaled = !special && c.with_vectors;
  a.learned_step = c.learned_step;
  a.x = x.data();
  a.shift = in(v.shift);
  a.gain = in(v.gain);
  a.scale = in(v.scale);
  a.extra = in(v.extra);

  auto of = [&](const Array& vec, int64_t i, double none) { return vec.n ? vec.get(i / c.inner % C) : none; };
  auto u_of = [&](int64_t i) { return (x.get(i) + of(v.shift, i, 0)) * of(v.gain, i, 1); };
  auto scale_of = [&](int64_t i) { return of(v.scale, i, 1); };
  auto F = [&](int64_t i) { return value(a, u_of(i), scale_of(i), of(v.extra, i, 0), v.extra.n > 0); };
  auto S = [&](int64_t i) {
    return derivative(a, u_of(i), scale_of(i), c.forward == Forward::sign ? of(v.extra, i, a.p) : a.p);
  };
  std::vector<double> want, sums[3], dx;
  for (int64_t i = 0; i < n; ++i) want.push_back(special ? F(i) : scale_of(i) * F(i));

  const int64_t first = code_bytes(n, c.code_bits);
  std::vector<uint8_t> codes(size_t(first + (c.save_sign ? code_bytes(n, 1) : 0)), 0xa5), again(codes);
  expect_run(t, want, 64, 4, what, [&](void* out, const ParallelFor& pf) {
    a.out = out;
    a.codes = (pf.threads > 1 ? again : codes).data();
    quantize_fwd(a, pf);
  });
  expect(codes == again, what, "threads change the codes");
  const bool offset = changes_sign(c.slope);
  const int levels = c.code_bits ? (1 << (c.code_bits - int(offset))) - 1 : 1;
  const double top = slope_top(a);
  std::vector<double> coded;  // the slopes that backward reads
  bool ok = true;
  for (int64_t i = 0; i < n; ++i) {
    if (c.code_bits) {
      const int64_t at = i * c.code_bits;
      const int code = codes[size_t(at / 8)] >> (at % 8) & ((1 << c.code_bits) - 1);
      if (c.slope == Slope::prelu) {
        ok &= code == (u_of(i) > 0);
        coded.push_back(code ? 1 : scale_of(i));
      } else {
        ok &= std::fabs(S(i) / top * levels - (code - (offset ? levels : 0))) <= 0.5 + 1e-3;
        coded.push_back(top / levels * (code - (offset ? levels : 0)));
      }
    } else {
      coded.push_back(S(i));
    }
    if (c.save_sign) ok &= (codes[size_t(first + i / 8)] >> (i % 8) & 1) == (F(i) > 0);
  }
  if (n % 8 && c.code_bits) ok &= codes[size_t(first - 1)] >> (n * c.code_bits % 8 ? n * c.code_bits % 8 : 8) == 0;
  expect(ok, what, "a wrong code");

  // A code keeps which side of 0 the output is on: backward with it knows no third value.
  a.codes_in = codes.data();
  a.grad = grad.data();
  const bool x_read = !c.code_bits || !c.save_sign || c.learned_step;
  a.x = x_read ? x.data() : nullptr;
  for (auto& s : sums) s.assign(size_t(C), 0);
  double magnitude = 4;
  for (int64_t i = 0; i < n; ++i) {
    const size_t ch = size_t(i / c.inner % C);
    const double g = grad.get(i), u = u_of(i), d = g * coded[size_t(i)] * of(v.gain, i, 1) * (a.scaled ? scale_of(i) : 1);
    double f = F(i);
    if (c.save_sign) f = f > 0 ? 1 : c.forward == Forward::heaviside ? 0 : -1;
    if (c.forward == Forward::prelu)
      f = std::min(u, 0.0);
    else if (c.learned_step)
      f -= u * coded[size_t(i)];
    dx.push_back(d);
    magnitude = std::max(magnitude, std::fabs(d));
    sums[0][ch] += d;
    sums[1][ch] += g * f;
    sums[2][ch] += g;
  }
  const bool wants_scale = v.scale.n && c.forward != Forward::tanh_levels,
             wants_extra = c.forward == Forward::prelu && v.extra.n;
  Array one[3] = {Array(acc, C), Array(acc, wants_scale ? C : 0), Array(acc, wants_extra ? C : 0)};
  Array two[3] = {Array(acc, C), Array(acc, wants_scale ? C : 0), Array(acc, wants_extra ? C : 0)};
  expect_run(t, dx, 64, magnitude, what, [&](void* out, const ParallelFor& pf) {
    Array* const to = pf.threads > 1 ? two : one;
    a.out = out;
    a.d_shift = to[0].data();
    a.d_scale = wants_scale ? to[1].data() : nullptr;
    a.d_extra = wants_extra ? to[2].data() : nullptr;
    quantize_bwd(a, pf);
  });
  for (int k = 0; k < 3; ++k)
    if (one[k].n) expect_result(one[k], two[k], sums[k], double(n) + 64, magnitude, what);
}

void test_stats(Dtype t, int64_t outer, int64_t C, int64_t inner, bool shifted, bool paired, Rng& rng) {
  const Dtype acc = accumulator(t);
  const int64_t n = outer * C * inner;
  const Array x = random_array(t, n, rng, Values::quarters), y = random_array(t, n, rng, Values::quarters),
              shift = random_array(acc, C, rng, Values::quarters);
  std::vector<double> want(size_t(5 * C), 0);
  for (int64_t i = 0; i < n; ++i) {
    const size_t c = size_t(i / inner % C), stride = size_t(C);
    const double v = x.get(i) + (shifted ? shift.get(int64_t(c)) : 0);
    want[c] += v;
    want[stride + c] += std::fabs(v);
    want[2 * stride + c] += v * v;
    want[3 * stride + c] = std::max(want[3 * stride + c], std::fabs(v));
    if (paired) want[4 * stride + c] += v * y.get(i);
  }
  ChannelStatsArgs a{t, n, C, inner, x.data(), paired ? y.data() : nullptr, shifted ? shift.data() : nullptr, nullptr};
  expect_run(acc, want, 0, 0, "channel_stats", [&](void* out, const ParallelFor& pf) {
    a.out = out;
    channel_stats(a, pf);
  });
}

}  // namespace

void test_quantize_all(Rng& rng) {
  const int64_t shapes[][3] = {{0, 3, 2},  {1, 1, 1},   {5, 1, 13},  {3, 7, 1},
                               {2, 3, 37}, {9, 130, 1}, {3, 5, 700}, {40, 1, 5000}};
  int turn = 0;
  for (Dtype t : kFloats) {
    for (int k = 0; k < kForwards * kSlopes; ++k) {
      const Forward forward = Forward(k / kSlopes);
      const Slope slope = Slope(k % kSlopes);
      if ((forward == Forward::prelu) != (slope == Slope::prelu)) continue;  // only together
      ++turn;
      for (int s = 0; s < 2; ++s) {
        const auto& shape = shapes[(turn + 3 * s) % 7];
        const int bits[] = {0, 1, 2, 4, 8}, coded = bits[(turn + s) % 5];
        const bool binary = forward == Forward::sign || forward == Forward::heaviside || forward == Forward::square;
        test_one({forward, slope, shape[0], shape[1], shape[2], changes_sign(slope) && coded == 1 ? 2 : coded,
                  binary && turn % 2 == s, turn % 3 != 0, forward == Forward::levels && turn % 2},
                 t, rng);
      }
    }
    for (const auto& s : shapes) {
      ++turn;
      test_stats(t, s[0], s[1], s[2], turn % 2, turn % 3, rng);
    }
    const auto& large = shapes[7];
    test_one({Forward::sign, Slope::clip, large[0], large[1], large[2], 1, true, true, false}, t, rng);
  }
}

}  // namespace structops::tests
