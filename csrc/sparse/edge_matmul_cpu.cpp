// CPU products with a matrix per edge. The contract is edge_matmul.h.
//
// A tile is some rows and a range of k. Its sums of outer products [rows, k, I] are themselves products, h^T x over the edges of a
// row, and fit the second-level cache; then they meet the packed matrices.
#include "sparse/edge_matmul.h"
#include "sparse/product_tile.h"
#include "sparse/row_pieces.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int64_t kEdges = kTile;         // edges gathered at a time: a multiple of every kMR
constexpr int64_t kTileNumbers = 131072;  // of a tile's sums

// The cuts of K and of the rows.
struct Plan {
  int64_t kc, chunks, rows;  // k of a chunk; chunks; rows of a tile
};

template <class A>
Plan plan(const EdgeMatmulArgs& a) {
  Plan p;
  const int64_t wide = a.I > 0 ? a.I : 1, fit = kTileNumbers / (kTile * wide);
  p.kc = fit < 1 ? 1 : least(fit, a.K > 0 ? a.K : 1);
  p.chunks = (a.K + p.kc - 1) / p.kc;
  p.rows = kTile;
  return p;
}

// The first row that begins at or after piece i of n pieces of equal rows plus edges.
int64_t first_row(const EdgeMatmulArgs& a, int64_t i, int64_t n) {
  return piece_row(a.rowptr, a.N, a.E, (a.N + a.E + n - 1) / n, i);
}

template <class T>
struct Tiles {
  using A = Acc<T>;
  const EdgeMatmulArgs& a;
  Plan p;
  int64_t ldh, ldx, lds, ldo;

  explicit Tiles(const EdgeMatmulArgs& args) : a(args), p(plan<A>(args)) {
    ldh = padded<A>(p.kc);
    ldx = padded<A>(a.I);
    lds = padded<A>(p.kc * a.I);
    ldo = padded<A>(a.O);
  }

  int64_t scratch() const { return kEdges * (ldh + ldx) + p.rows * (lds + ldo) + 4 * kSlack; }
  A* h_at(A* s) const { return s; }
  A* x_at(A* s) const { return s + kEdges * ldh + kSlack; }
  A* sums_at(A* s) const { return x_at(s) + kEdges * ldx + kSlack; }
  A* rows_at(A* s) const { return sums_at(s) + p.rows * lds + kSlack; }
  int64_t k_begin(int64_t c) const { return c * p.kc; }
  int64_t k_count(int64_t c) const { return least(p.kc, a.K - c * p.kc); }
  int64_t edge(int64_t j) const { return a.eid ? a.eid[j] : j; }

  void gather_x(int64_t j0, int64_t n, A* x) const {
    const T* const from = static_cast<const T*>(a.x);
    for (int64_t i = 0; i < n; ++i) add_row<T>(x + i * ldx, from + a.col[j0 + i] * a.I, a.I, 1, true);
  }

  // sums[v - v0, k, i] of the rows v0 .. v1 and the chunk c.
  void outer(int64_t v0, int64_t v1, int64_t c, A* s) const {
    const int64_t k0 = k_begin(c), kn = k_count(c);
    A *const h = h_at(s), *const x = x_at(s), *const sums = sums_at(s);
    const T* const from = static_cast<const T*>(a.h);
    for (int64_t v = v0; v < v1; ++v) {
      A* const sum = sums + (v - v0) * lds;
      __builtin_memset(sum, 0, size_t(kn * a.I) * sizeof(A));
      for (int64_t j = a.rowptr[v], end = a.rowptr[v + 1]; j < end; j += kEdges) {
        const int64_t n = least(end - j, kEdges);
        for (int64_t i = 0; i < n; ++i) add_row<T>(h + i * ldh, from + edge(j + i) * a.K + k0, kn, 1, true);
        gather_x(j, n, x);
        gemm_transposed<A>(kn, a.I, n, h, ldh, x, ldx, sum, a.I, 1);
      }
    }
  }
};

template <class T>
void forward(const EdgeMatmulArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  const Tiles<T> t(a);
  const int64_t panel_count = panels<A>(a.O), size = packed_floats<A>(t.p.kc * a.I, a.O);
  const Memory<A> packed(t.p.chunks * size + kSlack);
  auto pack = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t c = i / panel_count, depth = t.k_count(c) * a.I;
      pack_panel<A>(packed.p + c * size, i % panel_count, depth, a.O, static_cast<const T*>(a.w) + t.k_begin(c) * a.I * a.O, 1, a.O, A(1), 0, depth);
    }
  };
  parallel_for(pf, t.p.chunks * panel_count, 4, pack);
  const int64_t items = 1 + (a.N + a.E) / 2048, tasks = task_count(pf, items);
  const Memory<A> scratch(tasks * t.scratch());
  T* const out = static_cast<T*>(a.out);
  in_tasks(pf, items, tasks, [&](int64_t task, int64_t begin, int64_t end) {
    A* const s = scratch.p + task * t.scratch();
    const int64_t last = first_row(a, end, items);
    for (int64_t v = first_row(a, begin, items); v < last; v += t.p.rows) {
      const int64_t m = least(last - v, t.p.rows);
      A* const rows = t.rows_at(s);
      for (int64_t c = 0; c < t.p.chunks; ++c) {
        t.outer(v, v + m, c, s);
        gemm<A>(whole<A>(m), a.O, t.k_count(c) * a.I, t.sums_at(s), t.lds, packed.p + c * size, rows, t.ldo, 1, c > 0);
      }
      for (int64_t i = 0; i < m; ++i) {
        if (t.p.chunks == 0) __builtin_memset(rows, 0, size_t(a.O) * sizeof(A));
        copy_out<T>(out + (v + i) * a.O, rows + (t.p.chunks ? i * t.ldo : 0), a.O);
      }
    }
  });
}

template <class T>
void h_grad(const EdgeMatmulArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  const Tiles<T> t(a);
  // Columns of a chunk in the order (i, k), so that a row's product [I, k] multiplies the gathered x from the right.
  const int64_t size = packed_floats<A>(a.O, t.p.kc * a.I);
  const Memory<A> packed(t.p.chunks * size + kSlack);
  auto pack = [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t kn = t.k_count(c), columns = kn * a.I;
      const T* const w = static_cast<const T*>(a.w) + t.k_begin(c) * a.I * a.O;
      for (int64_t n = 0; n < panels<A>(columns) * kNR<A>; ++n) {
        A* const to = packed.p + c * size + n / kNR<A> * a.O * kNR<A> + n % kNR<A>;
        const T* const from = w + ((n % kn) * a.I + n / kn) * a.O;
        for (int64_t o = 0; o < a.O; ++o) to[o * kNR<A>] = n < columns ? A(widen(from[o])) : A(0);
      }
    }
  };
  parallel_for(pf, t.p.chunks, 1, pack);
  const int64_t items = 1 + (a.N + a.E) / 2048, tasks = task_count(pf, items);
  const Memory<A> scratch(tasks * t.scratch());
  const T* const y = static_cast<const T*>(a.y);
  T* const out = static_cast<T*>(a.out);
  in_tasks(pf, items, tasks, [&](int64_t task, int64_t begin, int64_t end) {
    A* const s = scratch.p + task * t.scratch();
    A *const rows = t.rows_at(s), *const products = t.sums_at(s), *const x = t.x_at(s), *const h = t.h_at(s);
    const int64_t last = first_row(a, end, items);
    for (int64_t v = first_row(a, begin, items); v < last; v += t.p.rows) {
      const int64_t m = least(last - v, t.p.rows);
      if (a.rowptr[v] == a.rowptr[v + m]) continue;
      for (int64_t i = 0; i < m; ++i) add_row<T>(rows + i * t.ldo, y + (v + i) * a.O, a.O, 1, true);
      for (int64_t c = 0; c < t.p.chunks; ++c) {
        const int64_t k0 = t.k_begin(c), kn = t.k_count(c);
        gemm<A>(whole<A>(m), kn * a.I, a.O, rows, t.ldo, packed.p + c * size, products, t.lds, 1, false);
        for (int64_t i = 0; i < m; ++i)
          for (int64_t j = a.rowptr[v + i], stop = a.rowptr[v + i + 1]; j < stop; j += kEdges) {
            const int64_t n = least(stop - j, kEdges);
            t.gather_x(j, n, x);
            for (int64_t e = 0; e < n; e += kMR<A>)
              for (int64_t k = 0; k < kn; k += kNR<A>)
                micro<A, false>(a.I, x + e * t.ldx, t.ldx, products + i * t.lds + k, kn, h + e * t.ldh + k, t.ldh, int(least(n - e, kMR<A>)),
                                int(least(kn - k, kNR<A>)), 1, false);
            for (int64_t e = 0; e < n; ++e) copy_out<T>(out + t.edge(j + e) * a.K + k0, h + e * t.ldh, kn);
          }
      }
    }
  });
}

template <class T>
void w_grad(const EdgeMatmulArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  const Tiles<T> t(a);
  const int64_t numbers = a.K * a.I * a.O, wanted = t.p.chunks >= 16 ? 1 : (16 + t.p.chunks - 1) / t.p.chunks;
  const int64_t most = (a.N + a.E) / (4 * kTile), splits = most < 1 ? 1 : least(wanted, most);
  const int64_t items = t.p.chunks * splits, tasks = task_count(pf, items);
  const Memory<A> scratch(tasks * t.scratch()), parts(splits * numbers);
  const T* const y = static_cast<const T*>(a.y);
  in_tasks(pf, items, tasks, [&](int64_t task, int64_t begin, int64_t end) {
    A *const s = scratch.p + task * t.scratch(), *const rows = t.rows_at(s);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t c = item % t.p.chunks, split = item / t.p.chunks, depth = t.k_count(c) * a.I;
      A* const part = parts.p + split * numbers + t.k_begin(c) * a.I * a.O;
      __builtin_memset(part, 0, size_t(depth * a.O) * sizeof(A));
      const int64_t last = first_row(a, split + 1, splits);
      for (int64_t v = first_row(a, split, splits); v < last; v += t.p.rows) {
        const int64_t m = least(last - v, t.p.rows);
        if (a.rowptr[v] == a.rowptr[v + m]) continue;
        t.outer(v, v + m, c, s);
        for (int64_t i = 0; i < m; ++i) add_row<T>(rows + i * t.ldo, y + (v + i) * a.O, a.O, 1, true);
        gemm_transposed<A>(depth, a.O, m, t.sums_at(s), t.lds, rows, t.ldo, part, a.O, 1);
      }
    }
  });
  sum_parts<T>(pf, parts.p, splits, numbers, static_cast<T*>(a.out));
}

}  // namespace

void edge_matmul_fwd(const EdgeMatmulArgs& a, const ParallelFor& pf) {
  if (a.N == 0 || a.O == 0) return;
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) forward<T>(a, pf);
  });
}

void edge_matmul_hgrad(const EdgeMatmulArgs& a, const ParallelFor& pf) {
  if (a.E == 0 || a.K == 0) return;
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) h_grad<T>(a, pf);
  });
}

void edge_matmul_wgrad(const EdgeMatmulArgs& a, const ParallelFor& pf) {
  if (a.K == 0 || a.I == 0 || a.O == 0) return;
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) w_grad<T>(a, pf);
  });
}

}  // namespace structops::STRUCTOPS_ISA
