#include "tests.h"

#include "sparse/attention.h"
#include "support.h"

namespace structops::tests {
namespace {

constexpr const char* kScores[] = {"additive", "gatv2", "dot"};
constexpr double kSlope = 0.25, kScale = 0.5;

struct Grads { Array key, query, value, edge, att; };

// Blocks of 8 where they fill the width, else one block of half the width and ones.
HeadBlocks several_blocks(int64_t width) {
  HeadBlocks b{};
  const auto add = [&](int64_t w, int64_t repeat) {
    b.width[b.count] = int32_t(w);
    b.repeat[b.count++] = int32_t(repeat);
  };
  if (width % 8 == 0) {
    add(8, width / 8);
  } else {
    add(width / 2, 1);
    add(1, width - width / 2);
  }
  return b;
}

// [H * width]: where feature j of head h lies in a row.
std::vector<int64_t> positions(const HeadBlocks& b, int64_t H, int64_t width) {
  std::vector<int64_t> at(size_t(H * width));
  int64_t block = 0, j = 0;
  for (int i = 0; i < b.count; ++i)
    for (int r = 0; r < b.repeat[i]; ++r, block += H * b.width[i], j += b.width[i])
      for (int64_t h = 0; h < H; ++h)
        for (int64_t k = 0; k < b.width[i]; ++k) at[size_t(h * width + j + k)] = block + h * b.width[i] + k;
  return at;
}

void test_one(const Structure& s, Score score, Dtype t, int64_t H, int64_t K, int64_t D, bool has_edge, bool wide, bool blocked, Rng& rng) {
  char what[120];
  std::snprintf(what, sizeof what, "attention %s %s H %ld K %ld D %ld E %ld%s", kScores[int(score)], kNames[int(t)], long(H), long(K), long(D),
                long(s.E), blocked ? " in blocks" : "");
  const Structure back = reversed(s);
  const Dtype acc = accumulator(t);
  const int64_t per_edge = has_edge ? (score == Score::gatv2 ? H * K : H) : 0, n_att = score == Score::gatv2 ? H * K : 0;
  const Array key = random_array(t, s.M * H * K, rng, Values::quarters), query = random_array(t, s.N * H * K, rng, Values::quarters);
  const Array value = random_array(t, s.M * H * D, rng, Values::quarters), edge = random_array(t, s.E * per_edge, rng, Values::quarters);
  const Array att = random_array(t, n_att, rng, Values::quarters), grad = random_array(t, s.N * H * D, rng, Values::quarters);
  AttentionArgs a{};
  a.score = score; a.dtype = t; a.N = s.N; a.M = s.M; a.E = s.E; a.H = H; a.K = K; a.D = D; a.slope = kSlope; a.scale = kScale;
  a.key_blocks = blocked && score == Score::dot ? several_blocks(K) : one_block(K);
  a.value_blocks = blocked ? several_blocks(D) : one_block(D);
  const std::vector<int64_t> key_at = positions(a.key_blocks, H, K), value_at = positions(a.value_blocks, H, D);
  const auto at_key = [&](int64_t row, int64_t h, int64_t j) { return row * H * K + key_at[size_t(h * K + j)]; };
  const auto at_value = [&](int64_t row, int64_t h, int64_t d) { return row * H * D + value_at[size_t(h * D + d)]; };
  a.rowptr = s.rowptr.index(wide); a.col = s.col.index(wide); a.eid = s.eid.index(wide);
  a.colptr = back.rowptr.index(wide); a.row_t = back.col.index(wide); a.eid_t = back.eid.index(wide);
  a.key = key.data(); a.query = query.data(); a.value = value.data();
  a.edge = has_edge ? edge.data() : nullptr;
  a.att = n_att ? att.data() : nullptr;
  Array out(t, s.N * H * D), lse(acc, s.N * H), out2(t, s.N * H * D), lse2(acc, s.N * H), delta(acc, s.N * H);
  a.out = out2.data(); a.lse = lse2.data();
  attention_fwd(a, threaded);
  a.out = out.data(); a.lse = lse.data();
  attention_fwd(a, serial_for);
  a.forward_out = out.data(); a.grad = grad.data(); a.delta = delta.data();
  auto backward = [&](const ParallelFor& pf) {
    Grads g{Array(t, s.M * H * K), Array(t, s.N * H * K), Array(t, s.M * H * D), Array(t, s.E * per_edge), Array(t, n_att)};
    a.d_key = g.key.data(); a.d_query = g.query.data(); a.d_value = g.value.data();
    a.d_edge = has_edge ? g.edge.data() : nullptr;
    a.d_att = n_att ? g.att.data() : nullptr;
    attention_bwd(a, pf);
    return g;
  };
  const Grads got = backward(serial_for), again = backward(threaded);

  std::vector<double> want = zeros(out), dk = zeros(got.key), dq = zeros(got.query), dv = zeros(got.value), de = zeros(got.edge), da = zeros(got.att);
  double longest = 1;
  for (int64_t v = 0; v < s.N; ++v)
    for (int64_t h = 0; h < H; ++h) {
      const int64_t begin = s.rowptr[v], n = s.rowptr[v + 1] - begin;
      longest = std::max(longest, double(n));
      std::vector<double> p(size_t(n), 0);
      double top = -kInf, total = 0, own = 0;
      const auto inner = [&](int64_t k, int64_t j) {
        return key.get(at_key(s.col[k], h, j)) + query.get(at_key(v, h, j)) +
               (!has_edge ? 0 : score == Score::gatv2 ? edge.get((s.eid[k] * H + h) * K + j) : edge.get(s.eid[k] * H + h));
      };
      for (int64_t i = 0; i < n; ++i) {
        const int64_t k = begin + i;
        double& x = p[size_t(i)];
        if (score == Score::dot) {
          for (int64_t j = 0; j < K; ++j) x += kScale * key.get(at_key(s.col[k], h, j)) * query.get(at_key(v, h, j));
          if (has_edge) x += edge.get(s.eid[k] * H + h);
        } else {
          for (int64_t j = 0; j < K; ++j) {
            const double z = inner(k, j);
            x += (n_att ? att.get(h * K + j) : 1) * (z > 0 ? z : kSlope * z);
          }
        }
        top = std::max(top, x);
      }
      for (double& x : p) { x = std::exp(x - top); total += x; }
      for (int64_t d = 0; d < D; ++d) own += out.get(at_value(v, h, d)) * grad.get(at_value(v, h, d));
      for (int64_t i = 0; i < n; ++i) {
        const int64_t k = begin + i, u = s.col[k];
        const double w = p[size_t(i)] / total;
        double ds = -own;
        for (int64_t d = 0; d < D; ++d) {
          const double g = grad.get(at_value(v, h, d));
          want[size_t(at_value(v, h, d))] += w * value.get(at_value(u, h, d));
          dv[size_t(at_value(u, h, d))] += w * g;
          ds += g * value.get(at_value(u, h, d));
        }
        ds *= w;
        if (has_edge && score == Score::dot) de[size_t(s.eid[k] * H + h)] = ds;
        for (int64_t j = 0; j < K; ++j) {
          const size_t to_k = size_t(at_key(u, h, j)), to_q = size_t(at_key(v, h, j));
          if (score == Score::dot) {
            dk[to_k] += kScale * ds * query.get(int64_t(to_q));
            dq[to_q] += kScale * ds * key.get(int64_t(to_k));
            continue;
          }
          const double z = inner(k, j), d = ds * (n_att ? att.get(h * K + j) : 1) * (z > 0 ? 1 : kSlope);
          dk[to_k] += d;
          dq[to_q] += d;
          if (has_edge) de[size_t((s.eid[k] * H + h) * K + j)] = d;
          if (n_att) da[size_t(h * K + j)] += ds * (z > 0 ? z : kSlope * z);
        }
      }
    }
  const double terms = longest + double(K + D + 32);
  expect_result(out, out2, want, terms, 4, what);
  expect_result(got.key, again.key, dk, terms, 64, what);
  expect_result(got.query, again.query, dq, terms, 64, what);
  expect_result(got.value, again.value, dv, terms, 16, what);
  expect_result(got.edge, again.edge, de, terms, 16, what);
  expect_result(got.att, again.att, da, double(s.E), 64, what);
  expect_same(lse, lse2, what);
}

}  // namespace

void test_attention_all(Rng& rng) {
  // Rows and sources of more edges than a piece of the work: their parts are merged.
  const Structure small = random_structure(23, 17, 150, 70, rng), row_hub = random_structure(11, 200, 100, 2500, rng);
  const Structure source_hub = random_structure(300, 2, 1500, 0, rng), none = random_structure(4, 3, 0, 0, rng);
  int turn = 0;
  for (Dtype t : kFloats)
    for (Score score : {Score::additive, Score::gatv2, Score::dot})
      for (int64_t width : {1, 5, 16, 33}) {
        const int64_t K = score == Score::additive ? 1 : width;
        const bool edge = ++turn % 2, wide = turn % 3 == 0;
        test_one(small, score, t, 1 + turn % 4, K, 34 - width, edge, wide, false, rng);
        if (score != Score::gatv2) test_one(small, score, t, 1 + turn % 4, K, 33 - width, edge, wide, true, rng);
        if (width == 5) test_one(row_hub, score, t, 2, K, 7, edge, wide, score == Score::dot, rng);
        if (width == 5) test_one(source_hub, score, t, 2, K, 7, edge, wide, score == Score::dot, rng);
        if (width == 1) test_one(none, score, t, 2, K, 3, edge, wide, false, rng);
      }
}

}  // namespace structops::tests
