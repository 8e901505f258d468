// Products with a matrix per edge, per edge as a combination, and per type.
#include "tests.h"

#include "sparse/block_spmm.h"
#include "sparse/edge_matmul.h"
#include "sparse/typed_matmul.h"
#include "support.h"

namespace structops::tests {
namespace {

void test_blocks(const Structure& s, Dtype t, int64_t p, int64_t q, int64_t f, bool transpose, bool batch_first, bool diag, bool wide,
                 Rng& rng) {
  const Array x = random_array(t, s.M * q * f, rng, Values::quarters), lhs = random_array(t, s.N * p * f, rng, Values::quarters);
  const Array m = random_array(t, s.E * p * q, rng, Values::quarters), d = random_array(t, s.N * p * q, rng, Values::quarters);
  const auto at = [&](int64_t e, int64_t i, int64_t j) { return transpose ? (e * q + j) * p + i : (e * p + i) * q + j; };
  BlockSpmmArgs a{};
  // Number i of row r of n, each of c, in either layout.
  const auto in = [&](int64_t r, int64_t n, int64_t i, int64_t c, int64_t k) { return batch_first ? (k * n + r) * c + i : (r * c + i) * f + k; };
  a.dtype = t; a.transpose = transpose; a.batch_first = batch_first; a.alpha = 0.5; a.Nu = s.M; a.N = s.N; a.E = s.E; a.p = p; a.q = q; a.f = f;
  a.rowptr = s.rowptr.index(wide); a.col = s.col.index(wide); a.eid = s.eid.index(wide);
  a.x = x.data(); a.blocks = m.data(); a.diag = diag ? d.data() : nullptr;
  BlockSddmmArgs b{};
  b.dtype = t; b.transpose = transpose; b.batch_first = batch_first; b.alpha = 0.5; b.Nu = s.M; b.N = s.N; b.E = s.E; b.p = p; b.q = q; b.f = f;
  b.rowptr = a.rowptr; b.col = a.col; b.eid = a.eid;
  b.lhs = lhs.data(); b.rhs = x.data();
  std::vector<double> want(size_t(s.N * p * f), 0), outer(size_t(s.E * p * q), 0);
  for (int64_t v = 0; v < s.N; ++v)
    for (int64_t i = 0; i < p; ++i)
      for (int64_t c = 0; c < f; ++c) {
        double& w = want[size_t(in(v, s.N, i, p, c))];
        // The diagonal's vectors are x[v]: rows that have one.
        for (int64_t j = 0; diag && j < q; ++j) w += d.get(at(v, i, j)) * x.get(in(v, s.M, j, q, c));
        for (int64_t k = s.rowptr[v]; k < s.rowptr[v + 1]; ++k)
          for (int64_t j = 0; j < q; ++j) {
            const int64_t u = in(s.col[k], s.M, j, q, c);
            w += 0.5 * m.get(at(s.eid[k], i, j)) * x.get(u);
            outer[size_t(at(s.eid[k], i, j))] += 0.5 * lhs.get(in(v, s.N, i, p, c)) * x.get(u);
          }
      }
  expect_run(t, want, double(s.E), 4, "block_spmm", [&](void* to, auto pf) { a.out = to; block_spmm_fwd(a, pf); });
  expect_run(t, outer, double(f), 4, "block_sddmm", [&](void* to, auto pf) { b.out = to; block_sddmm_fwd(b, pf); });
}

void test_block_products(Dtype t, int64_t p, int64_t q, int64_t r, int flags, Rng& rng) {
  const int64_t E = 14;
  std::vector<int64_t> other;
  for (int64_t e = 0; e < E; ++e) other.push_back(e ^ 1);
  const IndexArray pair(other);
  const Array x = random_array(t, E * p * r, rng, Values::quarters), y = random_array(t, E * r * q, rng, Values::quarters);
  BlockMatmulArgs a{};
  a.dtype = t; a.E = E; a.p = p; a.q = q; a.r = r;
  a.pair_a = flags & 1; a.pair_b = flags & 2; a.transpose_a = flags & 4; a.transpose_b = flags & 8;
  if (flags & 3) a.pair = pair.index(flags & 4);
  a.a = x.data(); a.b = y.data();
  std::vector<double> want(size_t(E * p * q), 0);
  for (int64_t e = 0; e < E; ++e)
    for (int64_t i = 0; i < p; ++i)
      for (int64_t j = 0; j < q; ++j)
        for (int64_t k = 0; k < r; ++k) {
          const int64_t ea = a.pair_a ? pair[e] : e, eb = a.pair_b ? pair[e] : e;
          want[size_t((e * p + i) * q + j)] += x.get(a.transpose_a ? (ea * r + k) * p + i : (ea * p + i) * r + k) *
                                               y.get(a.transpose_b ? (eb * q + j) * r + k : (eb * r + k) * q + j);
        }
  expect_run(t, want, double(r), 4, "block_matmul", [&](void* to, auto pf) { a.out = to; block_matmul_fwd(a, pf); });
}

void test_edge(const Structure& s, Dtype t, int64_t K, int64_t I, int64_t O, bool wide, Rng& rng) {
  const Array x = random_array(t, s.M * I, rng, Values::quarters), h = random_array(t, s.E * K, rng, Values::quarters);
  const Array w = random_array(t, K * I * O, rng, Values::quarters), y = random_array(t, s.N * O, rng, Values::quarters);
  EdgeMatmulArgs a{};
  a.dtype = t; a.N = s.N; a.M = s.M; a.E = s.E; a.K = K; a.I = I; a.O = O;
  a.rowptr = s.rowptr.index(wide); a.col = s.col.index(wide); a.eid = s.eid.index(wide);
  a.x = x.data(); a.h = h.data(); a.w = w.data(); a.y = y.data();
  std::vector<double> by_y(size_t(y.n), 0), by_h(size_t(h.n), 0), by_w(size_t(w.n), 0);
  for (int64_t v = 0; v < s.N; ++v)
    for (int64_t j = s.rowptr[v]; j < s.rowptr[v + 1]; ++j)
      for (int64_t k = 0; k < K; ++k)
        for (int64_t i = 0; i < I; ++i)
          for (int64_t o = 0; o < O; ++o) {
            const int64_t e = s.eid[j] * K + k, at = (k * I + i) * O + o, r = v * O + o;
            const double xs = x.get(s.col[j] * I + i);
            by_y[size_t(r)] += h.get(e) * xs * w.get(at);
            by_h[size_t(e)] += xs * w.get(at) * y.get(r);
            by_w[size_t(at)] += h.get(e) * xs * y.get(r);
          }
  expect_run(t, by_y, double(s.E * K * I), 4, "edge_matmul", [&](void* to, auto pf) { a.out = to; edge_matmul_fwd(a, pf); });
  expect_run(t, by_h, double(I * O), 4, "edge_matmul_hgrad", [&](void* to, auto pf) { a.out = to; edge_matmul_hgrad(a, pf); });
  expect_run(t, by_w, double(s.E), 4, "edge_matmul_wgrad", [&](void* to, auto pf) { a.out = to; edge_matmul_wgrad(a, pf); });
}

// Gathered rows to a permutation of rows; `summed`: sums of gathered rows, added to rows that types share.
void test_typed(Dtype t, int64_t K, int64_t N, bool summed, bool wide, Rng& rng) {
  const std::vector<int64_t> sizes{3, 0, 170, 1, 26};
  const int64_t R = int64_t(sizes.size()), x_rows = 37;
  std::vector<int64_t> ptr{0}, types, group{0}, gather, scatter;
  for (int64_t r = 0; r < R; ++r)
    for (int64_t i = 0; i < sizes[size_t(r)]; ++i) {
      types.push_back(r);
      for (int64_t n = summed ? 1 + rng.below(3) : 1; n > 0; --n) gather.push_back(rng.below(x_rows));
      group.push_back(int64_t(gather.size()));
      scatter.push_back(summed ? i : int64_t(scatter.size()));
    }
  for (int64_t n : sizes) ptr.push_back(ptr.back() + n);
  const int64_t P = ptr.back(), rows = summed ? 180 : P;
  if (!summed)
    for (int64_t i = P - 1; i > 0; --i) std::swap(scatter[size_t(i)], scatter[size_t(rng.below(i + 1))]);
  const IndexArray ptrs(ptr), groups(group), from(gather), to(scatter), blocks({0, R}), block_rows({0, rows});
  const Dtype acc = accumulator(t);
  const Array x = random_array(t, x_rows * K, rng, Values::quarters), w = random_array(t, R * K * N, rng, Values::quarters);
  const Array bias = random_array(t, R * N, rng, Values::quarters), grad = random_array(t, rows * N, rng, Values::quarters);
  const Array scale = random_array(acc, int64_t(gather.size()), rng, Values::quarters);
  TypedArgs a{};
  a.dtype = t; a.S = R; a.P = P; a.B = summed ? 1 : 0; a.R = R; a.K = K; a.N = N; a.x_rows = x_rows; a.rows = rows;
  a.ptr = ptrs.index(wide); a.gather = from.index(wide); a.scatter = to.index(wide);
  if (summed) { a.blocks = blocks.index(wide); a.block_rows = block_rows.index(wide); a.gptr = groups.index(wide); a.scale = scale.data(); }
  a.x = x.data(); a.w = w.data();
  a.bias = summed ? nullptr : bias.data();
  std::vector<double> want(size_t(rows * N), 0), want_w(size_t(w.n), 0);
  for (int64_t p = 0; p < P; ++p)
    for (int64_t n = 0; n < N; ++n) {
      const int64_t r = types[size_t(p)];
      if (!summed) want[size_t(to[p] * N + n)] += bias.get(r * N + n);
      for (int64_t k = groups[p]; k < groups[p + 1]; ++k)
        for (int64_t j = 0; j < K; ++j) {
          const double c = (summed ? scale.get(k) : 1) * x.get(from[k] * K + j);
          want[size_t(to[p] * N + n)] += c * w.get((r * K + j) * N + n);
          want_w[size_t((r * K + j) * N + n)] += c * grad.get(to[p] * N + n);
        }
    }
  expect_run(t, want, double(K * 16), 4, "typed_matmul", [&](void* out, auto pf) { a.out = out; typed_matmul_fwd(a, pf); });
  a.grad = grad.data();
  expect_run(t, want_w, double(P), 4, "typed_matmul_wgrad", [&](void* out, auto pf) { a.out = out; typed_matmul_wgrad(a, pf); });
}

}  // namespace

void test_products_all(Rng& rng) {
  const Structure s = random_structure(13, 17, 80, 150, rng), none = random_structure(4, 5, 0, 0, rng);
  int turn = 0;
  for (Dtype t : kFloats) {
    for (int64_t p : {1, 2, 3, 5})
      for (int64_t f : {1, 4, 19}) {
        ++turn;
        test_blocks(s, t, p, p, f, turn % 2, turn % 7 > 3, turn % 3, turn % 5 < 2, rng);
        test_blocks(s, t, p, 3, f, turn % 2 == 0, turn % 7 < 3, false, turn % 5 > 2, rng);
        test_block_products(t, p, 1 + turn % 4, 2, turn % 16, rng);
      }
    test_edge(s, t, 3, 5, 7, false, rng);
    test_edge(s, t, 1, 17, 33, true, rng);
    test_edge(none, t, 2, 3, 4, true, rng);
    for (int64_t K : {1, 16, 33})
      for (int64_t N : {1, 20, 70}) {
        ++turn;
        test_typed(t, K, N, turn % 2, turn % 3 == 0, rng);
      }
    test_typed(t, 16, 70, true, true, rng);
  }
}

}  // namespace structops::tests
