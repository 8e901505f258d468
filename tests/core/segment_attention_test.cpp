#include "tests.h"

#include "sparse/segment_attention.h"
#include "support.h"

namespace structops::tests {
namespace {

struct Case { std::vector<int64_t> nq, nk; int64_t H, K, D; bool biased; };

IndexArray running_sum(const std::vector<int64_t>& n) {
  std::vector<int64_t> ptr{0};
  for (int64_t i : n) ptr.push_back(ptr.back() + i);
  return IndexArray(ptr);
}

void test_one(const Case& c, Dtype t, bool wide, Rng& rng) {
  char what[120];
  std::snprintf(what, sizeof what, "segment_attention %s H %ld K %ld D %ld bias %d", kNames[int(t)], long(c.H), long(c.K), long(c.D), int(c.biased));
  std::vector<int64_t> count;
  for (size_t i = 0; i < c.nq.size(); ++i) count.push_back(c.nq[i] * c.nk[i]);
  const IndexArray qptr = running_sum(c.nq), kptr = running_sum(c.nk), offset = running_sum(count);
  const int64_t S = int64_t(c.nq.size()), Nq = qptr[S], Nk = kptr[S], P = offset[S], H = c.H, K = c.K, D = c.D;
  const Dtype acc = accumulator(t);
  const Array q = random_array(t, Nq * H * K, rng, Values::quarters), k = random_array(t, Nk * H * K, rng, Values::quarters);
  const Array v = random_array(t, Nk * H * D, rng, Values::quarters), grad = random_array(t, Nq * H * D, rng, Values::quarters);
  Array bias = random_array(t, P * H, rng, Values::quarters);
  for (int64_t i = 0; i < P * H; i += 3) bias.set(i, -kInf);
  for (int64_t i = 0; i < (P ? c.nk[0] * H : 0); ++i) bias.set(i, -kInf);  // the first query sees nothing

  SegmentAttentionArgs a{};
  a.dtype = t; a.S = S; a.Nq = Nq; a.Nk = Nk; a.H = H; a.K = K; a.D = D; a.scale = 0.5;
  a.qptr = qptr.index(wide); a.kptr = kptr.index(wide);
  a.query = q.data(); a.key = k.data(); a.value = v.data();
  if (c.biased) { a.bias = bias.data(); a.offset = offset.index(!wide); }
  Array out(t, Nq * H * D), lse(acc, Nq * H), out2(t, Nq * H * D), lse2(acc, Nq * H);
  a.out = out2.data(); a.lse = lse2.data();
  segment_attention_fwd(a, threaded);
  a.out = out.data(); a.lse = lse.data();
  segment_attention_fwd(a, serial_for);

  a.forward_out = out.data();
  a.grad = grad.data();
  struct Grads { Array delta, q, k, v, bias; };
  auto backward = [&](const ParallelFor& pf) {
    Grads g{Array(acc, Nq * H), Array(t, Nq * H * K), Array(t, Nk * H * K), Array(t, Nk * H * D), Array(t, c.biased ? P * H : 0)};
    a.delta = g.delta.data(); a.d_query = g.q.data(); a.d_key = g.k.data(); a.d_value = g.v.data();
    a.d_bias = c.biased ? g.bias.data() : nullptr;
    segment_attention_bwd(a, pf);
    return g;
  };
  const Grads got = backward(serial_for), again = backward(threaded);

  std::vector<double> want(size_t(Nq * H * D), 0), want_lse(size_t(Nq * H), -kInf), dq(size_t(Nq * H * K), 0), dk(size_t(Nk * H * K), 0),
      dv(size_t(Nk * H * D), 0), db(size_t(c.biased ? P * H : 0), 0);
  for (int64_t s = 0; s < S; ++s)
    for (int64_t i = qptr[s]; i < qptr[s + 1]; ++i)
      for (int64_t h = 0; h < H; ++h) {
        const int64_t n = kptr[s + 1] - kptr[s], first = offset[s] + (i - qptr[s]) * n;
        std::vector<double> score(size_t(n), 0);
        double top = -kInf, total = 0, delta = 0;
        for (int64_t j = 0; j < n; ++j) {
          double& x = score[size_t(j)];
          for (int64_t d = 0; d < K; ++d) x += 0.5 * q.get((i * H + h) * K + d) * k.get(((kptr[s] + j) * H + h) * K + d);
          if (c.biased) x += bias.get((first + j) * H + h);
          top = std::max(top, x);
        }
        if (top == -kInf) continue;
        for (double& x : score) { x = std::exp(x - top); total += x; }
        want_lse[size_t(i * H + h)] = top + std::log(total);
        for (int64_t j = 0; j < n; ++j)
          for (int64_t d = 0; d < D; ++d)
            want[size_t((i * H + h) * D + d)] += score[size_t(j)] / total * v.get(((kptr[s] + j) * H + h) * D + d);
        for (int64_t d = 0; d < D; ++d) delta += out.get((i * H + h) * D + d) * grad.get((i * H + h) * D + d);
        for (int64_t j = 0; j < n; ++j) {
          const double p = score[size_t(j)] / total;
          const int64_t u = (kptr[s] + j) * H + h;
          double ds = -delta;
          for (int64_t d = 0; d < D; ++d) {
            ds += grad.get((i * H + h) * D + d) * v.get(u * D + d);
            dv[size_t(u * D + d)] += p * grad.get((i * H + h) * D + d);
          }
          ds *= p;
          if (c.biased) db[size_t((first + j) * H + h)] = ds;
          for (int64_t d = 0; d < K; ++d) {
            dq[size_t((i * H + h) * K + d)] += 0.5 * ds * k.get(u * K + d);
            dk[size_t(u * K + d)] += 0.5 * ds * q.get((i * H + h) * K + d);
          }
        }
      }
  const double terms = double(K + D + 64);
  expect_result(out, out2, want, terms, 4, what);
  expect_result(lse, lse2, want_lse, terms, 4, what);
  expect_result(got.q, again.q, dq, terms, 64, what);
  expect_result(got.k, again.k, dk, terms, 64, what);
  expect_result(got.v, again.v, dv, terms, 64, what);
  expect_result(got.bias, again.bias, db, terms, 64, what);
}

}  // namespace

void test_segment_attention_all(Rng& rng) {
  const Case cases[] = {
      {{3, 0, 1, 97, 4, 30}, {5, 2, 0, 150, 1, 11}, 2, 33, 21, true},  // beyond a tile and a block, and several in a tile
      {{1, 2, 3, 4, 90}, {4, 3, 2, 1, 91}, 1, 1, 1, false},
      {{85}, {129}, 3, 16, 40, true},
      {{200}, {7}, 1, 5, 64, false},
      {{2, 3}, {6, 1}, 2, 0, 3, true},
      {{2, 3}, {6, 1}, 2, 3, 0, false},
      {{}, {}, 2, 3, 4, false},
  };
  int turn = 0;
  for (Dtype t : kFloats)
    for (const Case& c : cases) test_one(c, t, ++turn % 2, rng);
}

}  // namespace structops::tests
