#include "tests.h"

#include <array>
#include <tuple>

#include "so2/bilinear.h"
#include "so2/symmetric_contraction.h"
#include "so2/tp.h"
#include "support.h"

namespace structops::tests {
namespace {

// As long as the list, so that reads beyond it are seen.
template <class T> std::unique_ptr<T[]> exact(const std::vector<T>& v) {
  std::unique_ptr<T[]> p(new T[v.size()]);
  std::copy(v.begin(), v.end(), p.get());
  return p;
}

// ---- sparse_bilinear -------------------------------------------------------------------------------------------------

struct Term {
  std::array<int32_t, 3> slot;
  double coef;
};

void test_bilinear(Dtype t, int role, int64_t C, bool last, bool total, bool one_a, Rng& rng) {
  const int64_t N = 7;
  const std::array<int64_t, 3> dims{5, 3, 4};
  std::vector<Term> terms;
  for (int32_t i = 0; i < dims[0]; ++i)
    for (int32_t j = 0; j < dims[1]; ++j)
      for (int32_t k = 0; k < dims[2]; ++k)
        if (k != 1 && rng.below(3) == 0) terms.push_back({{i, j, k}, double(rng.below(7) - 3) / 2});  // k = 1: no term
  const int sa = (role + 1) % 3, sb = (role + 2) % 3;
  std::sort(terms.begin(), terms.end(), [&](const Term& x, const Term& y) {
    return std::tuple(x.slot[role], x.slot[sa], x.slot[sb]) < std::tuple(y.slot[role], y.slot[sa], y.slot[sb]);
  });
  std::vector<int32_t> row_ptr{0}, pairs, second;
  std::vector<double> coef;
  size_t at = 0;
  for (int32_t r = 0; r < dims[role]; ++r) {
    for (; at < terms.size() && terms[at].slot[role] == r; ++at) {
      const bool fresh = at == 0 || terms[at - 1].slot[role] != r || terms[at - 1].slot[sa] != terms[at].slot[sa];
      if (fresh) pairs.insert(pairs.end(), {terms[at].slot[sa], 0});
      pairs.back() = int32_t(at + 1);
      second.push_back(terms[at].slot[sb]);
      coef.push_back(terms[at].coef);
    }
    row_ptr.push_back(int32_t(pairs.size() / 2));
  }
  std::vector<int32_t> flat(row_ptr);
  flat.insert(flat.end(), pairs.begin(), pairs.end());
  flat.insert(flat.end(), second.begin(), second.end());
  const auto lists = exact(flat);
  const auto numbers = exact(coef);
  const int64_t A = dims[size_t(sa)], B = dims[size_t(sb)], R = dims[size_t(role)], rows = one_a ? 1 : N;
  const Array a = random_array(t, rows * A * C, rng, Values::quarters), b = random_array(t, N * B * C, rng, Values::quarters);
  Array out(t, (total ? 1 : N) * R * C), out2(t, out.n);
  BilinearArgs args{t, last, total, N, C, rows, N, A, B, R, int64_t(terms.size()), int64_t(pairs.size() / 2), lists.get(),
                    numbers.get(), a.data(), b.data(), out.data()};
  sparse_bilinear(args, serial_for);
  args.out = out2.data();
  sparse_bilinear(args, threaded);
  auto place = [&](int64_t n, int64_t dim, int64_t d, int64_t c) { return last ? (n * C + c) * dim + d : (n * dim + d) * C + c; };
  std::vector<double> want(size_t(out.n), 0);
  for (int64_t n = 0; n < N; ++n)
    for (const Term& term : terms)
      for (int64_t c = 0; c < C; ++c)
        want[size_t(place(total ? 0 : n, R, term.slot[size_t(role)], c))] +=
            term.coef * a.get(place(one_a ? 0 : n, A, term.slot[size_t(sa)], c)) * b.get(place(n, B, term.slot[size_t(sb)], c));
  expect_result(out, out2, want, double(terms.size() * (total ? N : 1)), 8, "sparse_bilinear");
}

// ---- tp_conv, tp_conv_edge -------------------------------------------------------------------------------------------

struct Entry {
  int32_t i, j, k;
  double value;
};
struct PathOf {
  int32_t x, o, w;
  std::vector<Entry> entries;  // sorted by k, i, j
};

struct Product {
  std::vector<TpBlock> x, o;
  std::vector<PathOf> paths;
  int64_t xdim, odim, ydim, wdim;
  std::vector<int32_t> data;
  std::vector<double> cg;
};

// Two blocks each way, one of channels and one of components fastest; y of 4 columns; the third path has no weights.
Product make_product(int32_t mul, Rng& rng) {
  Product p;
  p.x = {{mul, 3, 0, 3, 1}, {mul, 1, 3 * mul, 1, mul}};
  p.o = {{mul, 2, 0, 1, mul}, {mul, 3, 2 * mul, 3, 1}};
  p.xdim = 4 * mul, p.odim = 5 * mul, p.ydim = 4, p.wdim = 2 * mul + 1;
  for (auto [x, o, w] : {std::array<int32_t, 3>{0, 1, 1}, {1, 0, mul + 1}, {0, 0, -1}}) {
    PathOf path{x, o, w, {}};
    for (int32_t k = 0; k < p.o[size_t(o)].d; ++k)
      for (int32_t i = 0; i < p.x[size_t(x)].d; ++i)
        for (int32_t j = 0; j < 4; ++j)
          if (rng.below(2)) path.entries.push_back({i, j, k, double(rng.below(5) - 2) / 2});
    p.paths.push_back(path);
  }
  std::vector<int32_t> rows, ptr{0}, columns, runs, items;
  for (const PathOf& path : p.paths) {
    std::vector<std::array<int32_t, 3>> pairs;  // k, i, pair
    const int32_t run = int32_t(runs.size() / 3);
    for (size_t n = 0; n < path.entries.size(); ++n) {
      const Entry& e = path.entries[n];
      if (pairs.empty() || pairs.back()[0] != e.k || pairs.back()[1] != e.i) {
        if (pairs.empty() || pairs.back()[0] != e.k) runs.insert(runs.end(), {e.k, int32_t(items.size() / 2), 0});
        pairs.push_back({e.k, e.i, int32_t(ptr.size()) - 1});
        items.insert(items.end(), {e.i, pairs.back()[2]});
        ptr.push_back(ptr.back());
      }
      runs.back() = int32_t(items.size() / 2);
      columns.push_back(e.j);
      p.cg.push_back(e.value);
      ptr.back() = int32_t(columns.size());
    }
    const int32_t run_t = int32_t(runs.size() / 3);
    for (int32_t i = 0; i < p.x[size_t(path.x)].d; ++i) {
      const int32_t begin = int32_t(items.size() / 2);
      for (const auto& q : pairs)
        if (q[1] == i) items.insert(items.end(), {q[0], q[2]});
      if (int32_t(items.size() / 2) > begin) runs.insert(runs.end(), {i, begin, int32_t(items.size() / 2)});
    }
    rows.insert(rows.end(), {path.x, path.o, path.w, 1, run, run_t, run_t, int32_t(runs.size() / 3)});
  }
  std::vector<int32_t> blocks;
  for (const auto* side : {&p.x, &p.o})
    for (const TpBlock& b : *side) blocks.insert(blocks.end(), {b.mul, b.d, b.offset, b.channel, b.component});
  p.data = {2, 2, int32_t(p.paths.size()), int32_t(ptr.size()) - 1, int32_t(columns.size()), int32_t(p.xdim), int32_t(p.ydim),
            int32_t(p.odim), int32_t(p.wdim)};
  int32_t at = kTpHeader;
  for (const auto* part : {&blocks, &rows, &ptr, &columns, &runs, &items}) p.data.push_back(at), at += int32_t(part->size());
  p.data.push_back(at);
  for (const auto* part : {&blocks, &rows, &ptr, &columns, &runs, &items}) p.data.insert(p.data.end(), part->begin(), part->end());
  return p;
}

void test_tp(const Structure& s, Dtype t, int32_t mul, bool weighted, bool wide, Rng& rng) {
  const Product p = make_product(mul, rng);
  const auto data = exact(p.data);
  const auto cg = exact(p.cg);
  const Array y = random_array(t, s.E * p.ydim, rng, Values::quarters), w = random_array(t, s.E * p.wdim, rng, Values::quarters);
  TpArgs a{};
  a.dtype = t;
  a.rows = s.M, a.E = s.E, a.N = s.N;
  a.plan = {data.get()};
  a.nx = 2, a.no = 2, a.paths = int64_t(p.paths.size()), a.pairs = p.data[tp_pairs], a.entries = p.data[tp_entries];
  a.xdim = p.xdim, a.ydim = p.ydim, a.odim = p.odim, a.wdim = p.wdim, a.plan_size = int64_t(p.data.size());
  a.cg = cg.get(), a.y = y.data(), a.w = weighted ? w.data() : nullptr;
  a.rowptr = s.rowptr.index(wide), a.col = s.col.index(wide), a.eid = s.eid.index(wide);
  auto place = [](const TpBlock& b, int32_t u, int32_t c) { return int64_t(b.offset) + int64_t(u) * b.channel + int64_t(c) * b.component; };
  auto weight = [&](const PathOf& path, int64_t e, int32_t u) { return weighted && path.w >= 0 ? w.get(e * p.wdim + path.w + u) : 1.0; };
  const double terms = double(s.E) * 48;
  for (bool transpose : {false, true}) {
    const int64_t in = transpose ? p.odim : p.xdim, size = transpose ? p.xdim : p.odim;
    const Array x = random_array(t, s.M * in, rng, Values::quarters);
    Array out(t, s.N * size), out2(t, s.N * size);
    a.transpose = transpose, a.x = x.data(), a.out = out.data();
    tp_conv(a, serial_for);
    a.out = out2.data();
    tp_conv(a, threaded);
    std::vector<double> want(size_t(out.n), 0);
    for (int64_t v = 0; v < s.N; ++v)
      for (int64_t k = s.rowptr[v]; k < s.rowptr[v + 1]; ++k)
        for (const PathOf& path : p.paths)
          for (const Entry& e : path.entries)
            for (int32_t u = 0; u < mul; ++u) {
              const int64_t xi = place(p.x[size_t(path.x)], u, e.i), oi = place(p.o[size_t(path.o)], u, e.k);
              want[size_t(v * size + (transpose ? xi : oi))] += weight(path, s.eid[k], u) * e.value *
                  x.get(s.col[k] * in + (transpose ? oi : xi)) * y.get(s.eid[k] * p.ydim + e.j);
            }
    expect_result(out, out2, want, terms, 8, "tp_conv");
  }
  const Array x = random_array(t, s.M * p.xdim, rng, Values::quarters), g = random_array(t, s.N * p.odim, rng, Values::quarters);
  Array gy(t, s.E * p.ydim), gw(t, s.E * p.wdim), gy2(t, gy.n), gw2(t, gw.n);
  // The column of weights that no path has is the caller's.
  for (Array* q : {&gw, &gw2})
    for (int64_t e = 0; e < s.E; ++e) q->set(e * p.wdim, 0);
  a.transpose = false, a.x = x.data(), a.g = g.data(), a.out = nullptr;
  a.gy = gy.data(), a.gw = weighted ? gw.data() : nullptr;
  tp_conv_edge(a, serial_for);
  a.gy = gy2.data(), a.gw = weighted ? gw2.data() : nullptr;
  tp_conv_edge(a, threaded);
  std::vector<double> want_y(size_t(gy.n), 0), want_w(size_t(gw.n), 0);
  for (int64_t v = 0; v < s.N; ++v)
    for (int64_t k = s.rowptr[v]; k < s.rowptr[v + 1]; ++k)
      for (const PathOf& path : p.paths)
        for (const Entry& e : path.entries)
          for (int32_t u = 0; u < mul; ++u) {
            const double both = e.value * x.get(s.col[k] * p.xdim + place(p.x[size_t(path.x)], u, e.i)) *
                                g.get(v * p.odim + place(p.o[size_t(path.o)], u, e.k));
            want_y[size_t(s.eid[k] * p.ydim + e.j)] += weight(path, s.eid[k], u) * both;
            if (path.w >= 0) want_w[size_t(s.eid[k] * p.wdim + path.w + u)] += both * y.get(s.eid[k] * p.ydim + e.j);
          }
  expect_result(gy, gy2, want_y, 48.0 * mul, 8, "tp_conv_edge y");
  if (!weighted) return;
  expect_result(gw, gw2, want_w, 48, 8, "tp_conv_edge w");
}

// ---- symmetric_contraction -------------------------------------------------------------------------------------------

struct Monomial {
  int32_t out;
  std::vector<int32_t> vars;
  std::vector<std::pair<int32_t, double>> entries;  // path, coefficient
};

void test_symmetric(Dtype t, int64_t N, int64_t C, bool last, bool wide, Rng& rng) {
  const int64_t D = 3, O = 2, P = 3, Z = 3;  // element 1 has no nodes
  const std::vector<Monomial> terms{{0, {0}, {{0, 2}}}, {0, {1, 2}, {{0, 1}, {1, -0.5}}}, {0, {0, 0, 2}, {{2, 1.5}}},
                                    {1, {2, 2}, {{1, 1}}}, {1, {0, 1, 2}, {{1, 0.5}, {2, -1}}}};
  std::vector<int32_t> out_ptr{0}, factors, vars, outs, pairs, term_ptr{0}, entry_path, path_ptr, entry_term, use_ptr{0}, use;
  std::vector<double> by_term, by_path;
  for (int32_t o = 0; o < O; ++o) {
    int32_t last_term = out_ptr.back();
    while (last_term < int32_t(terms.size()) && terms[size_t(last_term)].out == o) ++last_term;
    out_ptr.push_back(last_term);
  }
  for (const Monomial& m : terms) {
    if (m.vars.size() == 3) {
      pairs.insert(pairs.end(), {1 + m.vars[0], 1 + m.vars[1]});
      factors.insert(factors.end(), {int32_t(D + pairs.size() / 2), 1 + m.vars[2]});
    } else {
      factors.insert(factors.end(), {1 + m.vars[0], m.vars.size() == 2 ? 1 + m.vars[1] : 0});
    }
    for (size_t i = 0; i < 4; ++i) vars.push_back(i < m.vars.size() ? m.vars[i] : -1);
    outs.push_back(m.out);
    for (const auto& e : m.entries) entry_path.push_back(e.first), by_term.push_back(e.second);
    term_ptr.push_back(int32_t(entry_path.size()));
  }
  for (int32_t p = 0; p < P; ++p) {
    path_ptr.push_back(int32_t(entry_term.size()));
    for (size_t n = 0; n < terms.size(); ++n)
      for (const auto& e : terms[n].entries)
        if (e.first == p) entry_term.push_back(int32_t(n)), by_path.push_back(e.second);
  }
  path_ptr.push_back(int32_t(entry_term.size()));
  for (int32_t d = 0; d < D; ++d) {
    for (size_t n = 0; n < terms.size(); ++n)
      for (size_t i = 0; i < terms[n].vars.size(); ++i)
        if (terms[n].vars[i] == d) use.push_back(int32_t(4 * n + i));
    use_ptr.push_back(int32_t(use.size()));
  }
  std::vector<int32_t> flat;
  for (const auto* part : {&out_ptr, &factors, &vars, &outs, &pairs, &term_ptr, &entry_path, &path_ptr, &entry_term, &use_ptr, &use})
    flat.insert(flat.end(), part->begin(), part->end());
  std::vector<double> both(by_term);
  both.insert(both.end(), by_path.begin(), by_path.end());
  const auto lists = exact(flat);
  const auto coef = exact(both);
  const int64_t sizes[] = {D, O, P, int64_t(terms.size()), int64_t(pairs.size() / 2), int64_t(entry_path.size()), int64_t(use.size())};
  expect(SymmetricPlan::numbers(sizes) == int64_t(flat.size()), "symmetric_contraction", "length of the lists");

  std::vector<int64_t> element, ptr{0}, nodes;
  for (int64_t n = 0; n < N; ++n) element.push_back(rng.below(3) ? 0 : 2);
  for (int64_t z = 0; z < Z; ++z) {
    for (int64_t n = 0; n < N; ++n)
      if (element[size_t(n)] == z) nodes.push_back(n);
    ptr.push_back(int64_t(nodes.size()));
  }
  const IndexArray starts(ptr), order(nodes);
  SymmetricArgs a{};
  a.dtype = t, a.components_last = last, a.N = N, a.C = C, a.Z = Z;
  a.plan = SymmetricPlan::make(sizes, lists.get(), coef.get());
  a.ptr = starts.index(wide), a.nodes = order.index(wide);
  std::vector<Array> xs, ws, gs;
  for (int i = 0; i < 3; ++i) {
    xs.push_back(random_array(t, N * D * C, rng, Values::quarters));
    ws.push_back(random_array(t, Z * P * C, rng, Values::quarters));
    gs.push_back(random_array(t, N * O * C, rng, Values::quarters));
  }
  for (int order_of = 0; order_of <= kSymmetricOrder; ++order_of) {
    a.order = order_of;
    for (int i = 0; i < 3; ++i) {
      a.x[i] = i <= order_of ? xs[size_t(i)].data() : nullptr;
      a.w[i] = i <= order_of ? ws[size_t(i)].data() : nullptr;
      a.g[i] = i <= order_of ? gs[size_t(i)].data() : nullptr;
    }
    Array gx(t, N * D * C), gw(t, Z * P * C), gg(t, N * O * C), gx2(t, gx.n), gw2(t, gw.n), gg2(t, gg.n);
    a.gx = gx2.data(), a.gw = gw2.data(), a.gg = gg2.data();
    symmetric_contraction(a, threaded);
    a.gx = gx.data(), a.gw = gw.data(), a.gg = gg.data();
    symmetric_contraction(a, serial_for);
    expect_same(gx, gx2, "symmetric_contraction x"), expect_same(gw, gw2, "symmetric_contraction w");
    expect_same(gg, gg2, "symmetric_contraction g");
    // The derivative along directions in the algebra with e_j e_j = 0: numbers of 4 parts, one for each set of directions.
    using Jet = std::array<double, 4>;
    auto times = [](const Jet& p, const Jet& q) {
      Jet r{};
      for (int s = 0; s < 4; ++s)
        for (int u = 0; u < 4; ++u)
          if ((u & s) == u) r[size_t(s)] += p[size_t(u)] * q[size_t(s ^ u)];
      return r;
    };
    auto jet = [&](const std::vector<Array>& of, int64_t i) {
      return Jet{of[0].get(i), order_of > 0 ? of[1].get(i) : 0, order_of > 1 ? of[2].get(i) : 0, 0};
    };
    auto place = [&](int64_t n, int64_t dim, int64_t d, int64_t c) { return last ? (n * C + c) * dim + d : (n * dim + d) * C + c; };
    const size_t top = size_t((1 << order_of) - 1);
    std::vector<double> want_x(size_t(gx.n), 0), want_w(size_t(gw.n), 0), want_g(size_t(gg.n), 0);
    for (int64_t n = 0; n < N; ++n)
      for (int64_t c = 0; c < C; ++c)
        for (const Monomial& m : terms)
          for (const auto& e : m.entries) {
            const int64_t wi = (element[size_t(n)] * P + e.first) * C + c, gi = place(n, O, m.out, c);
            const Jet u = times(jet(ws, wi), Jet{e.second, 0, 0, 0}), g = jet(gs, gi);
            auto product = [&](size_t skip) {
              Jet r{1, 0, 0, 0};
              for (size_t i = 0; i < m.vars.size(); ++i)
                if (i != skip) r = times(r, jet(xs, place(n, D, m.vars[i], c)));
              return r;
            };
            want_g[size_t(gi)] += times(u, product(9))[top];
            want_w[size_t(wi)] += e.second * times(g, product(9))[top];
            for (size_t i = 0; i < m.vars.size(); ++i)
              want_x[size_t(place(n, D, m.vars[i], c))] += times(times(u, g), product(i))[top];
          }
    expect_close(gg, want_g, 200, 8, "symmetric_contraction g");
    expect_close(gx, want_x, 200, 8, "symmetric_contraction x");
    expect_close(gw, want_w, 200.0 * double(N), 8, "symmetric_contraction w");
  }
}

}  // namespace

void test_so2_products_all(Rng& rng) {
  int turn = 0;
  for (Dtype t : kFloats)
    for (int64_t C : {1, 3, 17, 70})
      for (int role = 0; role < 3; ++role, ++turn) {
        test_bilinear(t, role, C, turn % 2, false, turn % 3 == 0, rng);
        test_bilinear(t, role, C, turn % 2, true, false, rng);
      }
  const Structure s = random_structure(11, 5, 30, 40, rng), none = random_structure(3, 2, 0, 0, rng);
  for (Dtype t : kFloats) {
    for (int32_t mul : {1, 3, 16, 37, 130}) test_tp(s, t, mul, mul != 3, mul % 2, rng);
    test_tp(none, t, 3, true, false, rng);
    for (int64_t N : {0, 1, 5, 300}) test_symmetric(t, N, N == 300 ? 3 : 21, N % 2, N == 5, rng);
  }
}

}  // namespace structops::tests
