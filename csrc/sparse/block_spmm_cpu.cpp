// CPU block-sparse products. The contract is block_spmm.h.
//
// block_spmm: a tile of P block rows times NV vectors of features stays in registers over the edges of a row; every vector of
// x[u] that is loaded feeds P multiply-adds. block_sddmm: a tile of P x Q dots shares its loads. With the batch first, block_spmm
// transposes x into panels of kPanel features, and every row of its result back; block_sddmm sums outer products in place.
#include "core/simd.h"
#include "core/transpose.h"
#include "sparse/block_spmm.h"
#include "sparse/product_tile.h"
#include "sparse/row_pieces.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kAhead = 6;  // edges between a prefetch and its use

// Vectors of features of a tile of P rows, by what the registers hold.
template <int P> constexpr int kWide = STRUCTOPS_VBYTES == 64 ? (P <= 5 ? 4 : 2) : P <= 3 ? 4 : P <= 6 ? 2 : 1;

template <class T> constexpr int kPanel = 4 * W<Acc<T>>;

// A line of columns after the other: every line that is read or written is so at once.
template <class T> void transpose_by_lines(const T* from, int64_t from_step, int64_t rows, int64_t columns, T* to, int64_t to_step) {
  for (int64_t c = 0; c < columns; c += 16)
    transpose(from + c, from_step, rows, columns - c < 16 ? columns - c : 16, to + c * to_step, to_step);
}

// Of a product: its edges, where a block's entry (i, j) is, and f features of x, whose rows are `step` apart, as the result's are.
template <class T> struct Row {
  const BlockSpmmArgs* a;
  int64_t v, begin, end, si, sj;
  const T* x;
  int64_t f, step;
};

template <class T, int P, int NV>
STRUCTOPS_INLINE void add_block(Vec<Acc<T>> (&acc)[P][NV], const T* m, int64_t si, int64_t sj, const T* x, const T* next, int64_t q, int64_t step, int n) {
  using A = Acc<T>;
  for (int64_t j = 0; j < q; ++j) {
    Vec<A> xv[NV];
#pragma GCC unroll 4
    for (int t = 0; t < NV; ++t) {
      xv[t] = NV > 1 || n == W<A> ? load(x + j * step + t * W<A>) : load_n(x + j * step, n);
      __builtin_prefetch(next + j * step + t * W<A>);
    }
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i) {
      const A c = widen(m[i * si + j * sj]);
#pragma GCC unroll 4
      for (int t = 0; t < NV; ++t) acc[i][t] += c * xv[t];
    }
  }
}

// Block rows i0 .. i0 + P and features f0 .. f0 + NV vectors (one vector of n lanes if NV is 1) of one row.
template <class T, int P, int NV> void tile(const Row<T>& r, int64_t i0, int64_t f0, int n, T* out) {
  using A = Acc<T>;
  const BlockSpmmArgs& a = *r.a;
  const int64_t width = a.q * r.step, size = a.p * a.q;
  const T* const x = r.x + f0;
  const T* const m = static_cast<const T*>(a.blocks) + i0 * r.si;
  Vec<A> acc[P][NV] = {};
  for (int64_t k = r.begin; k < r.end; ++k) {
    const int64_t ahead = k + kAhead < a.E ? k + kAhead : k;
    const T* const here = x + (a.col ? a.col[k] : k) * width;
    const T* const next = x + (a.col ? a.col[ahead] : ahead) * width;
    __builtin_prefetch(m + (a.eid ? a.eid[ahead] : ahead) * size);
    __builtin_prefetch(m + ((a.eid ? a.eid[ahead] : ahead) + 1) * size - 1);
    add_block<T, P, NV>(acc, m + (a.eid ? a.eid[k] : k) * size, r.si, r.sj, here, next, a.q, r.step, n);
  }
#pragma GCC unroll 8
  for (int i = 0; i < P; ++i)
#pragma GCC unroll 4
    for (int t = 0; t < NV; ++t) acc[i][t] *= A(a.alpha);
  if (a.diag) {
    const T* const own = x + r.v * width;
    add_block<T, P, NV>(acc, static_cast<const T*>(a.diag) + r.v * size + i0 * r.si, r.si, r.sj, own, own, a.q, r.step, n);
  }
  out += f0;
#pragma GCC unroll 8
  for (int i = 0; i < P; ++i)
#pragma GCC unroll 4
    for (int t = 0; t < NV; ++t) {
      if (NV > 1 || n == W<A>) store(out + i * r.step + t * W<A>, acc[i][t]);
      else store_n(out + i * r.step, acc[i][t], n);
    }
}

template <class T, int P> void rows_of_block(const Row<T>& r, int64_t i0, T* out) {
  constexpr int L = W<Acc<T>>, NV = kWide<P>;
  int64_t f = 0;
  for (; f + NV * L <= r.f; f += NV * L) tile<T, P, NV>(r, i0, f, L, out);
  for (; f < r.f; f += L) tile<T, P, 1>(r, i0, f, int(r.f - f < L ? r.f - f : L), out);
}

// Rows i .. i + 8 of a block row, those that there are.
template <class T> void rows_of_block(const Row<T>& r, int64_t i, T* out) {
  switch (r.a->p - i) {
    case 1: return rows_of_block<T, 1>(r, i, out);
    case 2: return rows_of_block<T, 2>(r, i, out);
    case 3: return rows_of_block<T, 3>(r, i, out);
    case 4: return rows_of_block<T, 4>(r, i, out);
    case 5: return rows_of_block<T, 5>(r, i, out);
    case 6: return rows_of_block<T, 6>(r, i, out);
    case 7: return rows_of_block<T, 7>(r, i, out);
    default: return rows_of_block<T, 8>(r, i, out);
  }
}

template <class T> Row<T> row_of(const BlockSpmmArgs& a, int64_t v, const T* x, int64_t f, int64_t step) {
  return {&a, v, a.rowptr[v], a.rowptr[v + 1], a.transpose ? 1 : a.q, a.transpose ? a.p : 1, x, f, step};
}

template <class T> void product(const BlockSpmmArgs& a, int64_t first, int64_t last) {
  for (int64_t v = first; v < last; ++v) {
    const Row<T> r = row_of(a, v, static_cast<const T*>(a.x), a.f, a.f);
    for (int64_t i = 0; i < a.p; i += 8) rows_of_block(r, i, static_cast<T*>(a.out) + (v * a.p + i) * a.f);
  }
}

// A batch in panels of `step` features, [count, Nu q, step].
template <class T> struct Panels {
  const BlockSpmmArgs& a;
  const int64_t width = a.Nu * a.q, step = a.f < kPanel<T> ? a.f : kPanel<T>;
  const int64_t count = (a.f + step - 1) / step;
  int64_t features(int64_t panel) const { return a.f - panel * step < step ? a.f - panel * step : step; }
};

// The same of one panel of a batch.
template <class T> void panel_product(const Panels<T>& s, const T* panels, int64_t panel, int64_t first, int64_t last) {
  constexpr int64_t most = 32;  // block rows at a time
  const BlockSpmmArgs& a = s.a;
  const int64_t f0 = panel * s.step, n = s.features(panel);
  T rows[most * kPanel<T>];
  for (int64_t v = first; v < last; ++v) {
    const Row<T> r = row_of(a, v, panels + f0 * s.width, n, s.step);
    for (int64_t i0 = 0; i0 < a.p; i0 += most) {
      const int64_t count = a.p - i0 < most ? a.p - i0 : most;
      for (int64_t i = 0; i < count; i += 8) rows_of_block(r, i0 + i, rows + i * s.step);
      transpose_by_lines(rows, s.step, count, n, static_cast<T*>(a.out) + (f0 * a.N + v) * a.p + i0, a.N * a.p);
    }
  }
}

// Columns [begin, end) of x into its panels; the last one's tail is left as it is.
template <class T> void pack_panels(const Panels<T>& s, T* panels, int64_t begin, int64_t end) {
  for (int64_t panel = 0; panel < s.count; ++panel) {
    const int64_t at = panel * s.step * s.width;
    transpose_by_lines(static_cast<const T*>(s.a.x) + at + begin, s.width, s.features(panel), end - begin, panels + at + begin * s.step, s.step);
  }
}

// Dots of P rows of l with Q rows of r, [P, Q] with strides si and sj.
template <class T, int P, int Q>
void dots(const T* l, const T* r, int64_t f, Acc<T> alpha, T* out, int64_t si, int64_t sj) {
  using A = Acc<T>;
  constexpr int L = W<A>;
  Vec<A> s[P][Q] = {};
  for (int64_t k = 0; k < f; k += L) {
    const int n = int(f - k < L ? f - k : L);
    Vec<A> rv[Q];
#pragma GCC unroll 4
    for (int j = 0; j < Q; ++j) rv[j] = n == L ? load(r + j * f + k) : load_n(r + j * f + k, n);
#pragma GCC unroll 4
    for (int i = 0; i < P; ++i) {
      const Vec<A> lv = n == L ? load(l + i * f + k) : load_n(l + i * f + k, n);
#pragma GCC unroll 4
      for (int j = 0; j < Q; ++j) s[i][j] += lv * rv[j];
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < P; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Q; ++j) narrow_to(out + i * si + j * sj, alpha * hsum<A>(s[i][j]));
}

template <class T, int P>
void dots_of(int64_t Q, const T* l, const T* r, int64_t f, Acc<T> alpha, T* out, int64_t si, int64_t sj) {
  for (int64_t j = 0; j < Q; j += 4) {
    T* const to = out + j * sj;
    const T* const at = r + j * f;
    switch (Q - j) {
      case 1: dots<T, P, 1>(l, at, f, alpha, to, si, sj); break;
      case 2: dots<T, P, 2>(l, at, f, alpha, to, si, sj); break;
      case 3: dots<T, P, 3>(l, at, f, alpha, to, si, sj); break;
      default: dots<T, P, 4>(l, at, f, alpha, to, si, sj);
    }
  }
}

template <class T> void outer(const BlockSddmmArgs& a, int64_t first, int64_t last) {
  const int64_t si = a.transpose ? 1 : a.q, sj = a.transpose ? a.p : 1, line = 64 / sizeof(T);
  const T* const rhs = static_cast<const T*>(a.rhs);
  const Acc<T> alpha = Acc<T>(a.alpha);
  for (int64_t v = first; v < last; ++v)
    for (int64_t k = a.rowptr[v]; k < a.rowptr[v + 1]; ++k) {
      const T* const r = rhs + (a.col ? a.col[k] : k) * a.q * a.f;
      if (a.col && k + kAhead < a.E) {
        const T* const next = rhs + a.col[k + kAhead] * a.q * a.f;
        for (int64_t i = 0; i < a.q * a.f; i += line) __builtin_prefetch(next + i);
      }
      T* const out = static_cast<T*>(a.out) + (a.eid ? a.eid[k] : k) * a.p * a.q;
      for (int64_t i = 0; i < a.p; i += 4) {
        const T* const l = static_cast<const T*>(a.lhs) + (v * a.p + i) * a.f;
        switch (a.p - i) {
          case 1: dots_of<T, 1>(a.q, l, r, a.f, alpha, out + i * si, si, sj); break;
          case 2: dots_of<T, 2>(a.q, l, r, a.f, alpha, out + i * si, si, sj); break;
          case 3: dots_of<T, 3>(a.q, l, r, a.f, alpha, out + i * si, si, sj); break;
          default: dots_of<T, 4>(a.q, l, r, a.f, alpha, out + i * si, si, sj);
        }
      }
    }
}

// P rows and NV vectors of columns (one of n lanes if NV is 1) of l^T r, [f, P] and [f, ..] with rows of l and r ld_l and ld_r apart.
template <class T, int P, int NV>
void outer_tile(const T* l, const T* r, int64_t f, int64_t ld_l, int64_t ld_r, int n, Acc<T> alpha, T* out, int64_t step) {
  using A = Acc<T>;
  Vec<A> acc[P][NV] = {};
  for (int64_t k = 0; k < f; ++k, l += ld_l, r += ld_r) {
    Vec<A> rv[NV];
#pragma GCC unroll 4
    for (int t = 0; t < NV; ++t) rv[t] = NV > 1 || n == W<A> ? load(r + t * W<A>) : load_n(r, n);
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i) {
      const A c = widen(l[i]);
#pragma GCC unroll 4
      for (int t = 0; t < NV; ++t) acc[i][t] += c * rv[t];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < P; ++i)
#pragma GCC unroll 4
    for (int t = 0; t < NV; ++t) {
      if (NV > 1 || n == W<A>) store(out + i * step + t * W<A>, alpha * acc[i][t]);
      else store_n(out + i * step, alpha * acc[i][t], n);
    }
}

template <class T, int P>
void outer_rows(const T* l, const T* r, int64_t f, int64_t ld_l, int64_t ld_r, int64_t columns, Acc<T> alpha, T* out) {
  constexpr int L = W<Acc<T>>, NV = kWide<P>;
  int64_t j = 0;
  for (; j + NV * L <= columns; j += NV * L) outer_tile<T, P, NV>(l, r + j, f, ld_l, ld_r, L, alpha, out + j, columns);
  for (; j < columns; j += L)
    outer_tile<T, P, 1>(l, r + j, f, ld_l, ld_r, int(columns - j < L ? columns - j : L), alpha, out + j, columns);
}

// A block's rows come from one operand, its columns from the other.
template <class T> void outer_of_batch(const BlockSddmmArgs& a, int64_t first, int64_t last) {
  const Acc<T> alpha = Acc<T>(a.alpha);
  const int64_t ld_l = a.N * a.p, ld_r = a.Nu * a.q;
  for (int64_t v = first; v < last; ++v)
    for (int64_t k = a.rowptr[v]; k < a.rowptr[v + 1]; ++k) {
      const T* const lhs = static_cast<const T*>(a.lhs) + v * a.p;
      const T* const rhs = static_cast<const T*>(a.rhs) + (a.col ? a.col[k] : k) * a.q;
      T* const out = static_cast<T*>(a.out) + (a.eid ? a.eid[k] : k) * a.p * a.q;
      const T *const l = a.transpose ? rhs : lhs, *const r = a.transpose ? lhs : rhs;
      const int64_t rows = a.transpose ? a.q : a.p, columns = a.transpose ? a.p : a.q;
      const int64_t sl = a.transpose ? ld_r : ld_l, sr = a.transpose ? ld_l : ld_r;
      int64_t i = 0;
      for (; i + 8 <= rows; i += 8) outer_rows<T, 8>(l + i, r, a.f, sl, sr, columns, alpha, out + i * columns);
      for (; i + 4 <= rows; i += 4) outer_rows<T, 4>(l + i, r, a.f, sl, sr, columns, alpha, out + i * columns);
      for (; i < rows; ++i) outer_rows<T, 1>(l + i, r, a.f, sl, sr, columns, alpha, out + i * columns);
    }
}

// D: the size of square factors, 0 for any.
template <class T, int D> void small(const BlockMatmulArgs& a, int64_t first, int64_t last) {
  using A = Acc<T>;
  const int64_t p = D ? D : a.p, q = D ? D : a.q, r = D ? D : a.r;
  const int64_t ai = a.transpose_a ? 1 : r, ar = a.transpose_a ? p : 1, br = a.transpose_b ? 1 : q, bj = a.transpose_b ? r : 1;
  for (int64_t k = first; k < last; ++k) {
    const int64_t other = a.pair ? a.pair[k] : k;
    const T* const x = static_cast<const T*>(a.a) + (a.pair_a ? other : k) * p * r;
    const T* const y = static_cast<const T*>(a.b) + (a.pair_b ? other : k) * r * q;
    T* const out = static_cast<T*>(a.out) + k * p * q;
    if constexpr (D > 0) {
      A xs[D * D], ys[D * D];
      for (int i = 0; i < D; ++i)
        for (int l = 0; l < D; ++l) {
          xs[i * D + l] = widen(x[i * ai + l * ar]);
          ys[i * D + l] = widen(y[i * br + l * bj]);
        }
      for (int i = 0; i < D; ++i)
        for (int j = 0; j < D; ++j) {
          A sum = 0;
          for (int l = 0; l < D; ++l) sum += xs[i * D + l] * ys[l * D + j];
          narrow_to(out + i * D + j, sum);
        }
    } else {
      for (int64_t i = 0; i < p; ++i)
        for (int64_t j = 0; j < q; ++j) {
          A sum = 0;
          for (int64_t l = 0; l < r; ++l) sum += widen(x[i * ai + l * ar]) * widen(y[l * br + j * bj]);
          narrow_to(out + i * q + j, sum);
        }
    }
  }
}

template <class T> void small(const BlockMatmulArgs& a, int64_t first, int64_t last) {
  switch (a.p == a.q && a.q == a.r ? a.p : 0) {
    case 1: return small<T, 1>(a, first, last);
    case 2: return small<T, 2>(a, first, last);
    case 3: return small<T, 3>(a, first, last);
    case 4: return small<T, 4>(a, first, last);
    case 5: return small<T, 5>(a, first, last);
    default: return small<T, 0>(a, first, last);
  }
}

// f(panel, first row, last row) for pieces of rows that are worth a task each: in graphs of few rows, fewer than spmm_chunk.
template <class Args, class F> void for_pieces(const Args& a, const ParallelFor& pf, F f, int64_t panels = 1) {
  const int64_t usual = spmm_chunk(a.N, a.E), least = (a.N + a.E) / 256 + 1, cost = a.p * a.q * a.f / panels + 1;
  const int64_t worth = 262144 / cost + 1, few = worth < least ? least : worth, chunk = few < usual ? few : usual;
  const int64_t pieces = (a.N + a.E + chunk - 1) / chunk;
  for_row_pieces(
      a.rowptr, a.N, a.E, cost, pf, [&](int64_t task, int64_t first, int64_t last) { f(task / pieces, first, last); }, panels, chunk);
}

template <class T> void batch_product(const BlockSpmmArgs& a, const ParallelFor& pf) {
  const Panels<T> s{a};
  const Memory<T> memory(s.count * s.step * s.width);
  T* const to = memory.p;
  auto pack = [&](int64_t begin, int64_t end) { pack_panels(s, to, begin, end); };
  parallel_for(pf, s.width, 32768 / a.f + 1, pack);
  for_pieces(
      a, pf, [&](int64_t panel, int64_t first, int64_t last) { panel_product(s, to, panel, first, last); }, s.count);
}

// Dots along the batch, of its transposes.
template <class T> void transposed_outer(const BlockSddmmArgs& a, const ParallelFor& pf) {
  const int64_t wl = a.N * a.p, wr = a.Nu * a.q;
  const Memory<T> l(a.f * wl), r(a.f * wr);
  const auto turn = [&](const void* from, T* to, int64_t width) {
    auto body = [&](int64_t begin, int64_t end) {
      transpose_by_lines(static_cast<const T*>(from) + begin, width, a.f, end - begin, to + begin * a.f, a.f);
    };
    parallel_for(pf, width, 32768 / (a.f + 1) + 1, body);
  };
  turn(a.lhs, l.p, wl);
  turn(a.rhs, r.p, wr);
  BlockSddmmArgs turned = a;
  turned.lhs = l.p;
  turned.rhs = r.p;
  for_pieces(a, pf, [&](int64_t, int64_t first, int64_t last) { outer<T>(turned, first, last); });
}

}  // namespace

void block_spmm_fwd(const BlockSpmmArgs& a, const ParallelFor& pf) {
  if (a.N == 0 || a.p == 0 || a.f == 0) return;
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) {
      if (a.batch_first) batch_product<T>(a, pf);
      else for_pieces(a, pf, [&](int64_t, int64_t first, int64_t last) { product<T>(a, first, last); });
    }
  });
}

void block_sddmm_fwd(const BlockSddmmArgs& a, const ParallelFor& pf) {
  if (a.E == 0 || a.p == 0 || a.q == 0) return;
  const int64_t columns = a.transpose ? a.p : a.q;
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) {
      // Columns of less than half a vector fill too few lanes.
      if (a.batch_first && columns < W<Acc<T>> / 2) transposed_outer<T>(a, pf);
      else if (a.batch_first) for_pieces(a, pf, [&](int64_t, int64_t first, int64_t last) { outer_of_batch<T>(a, first, last); });
      else for_pieces(a, pf, [&](int64_t, int64_t first, int64_t last) { outer<T>(a, first, last); });
    }
  });
}

void block_matmul_fwd(const BlockMatmulArgs& a, const ParallelFor& pf) {
  auto body = [&](int64_t first, int64_t last) {
    with_dtype(a.dtype, [&](auto* t) {
      using T = Pointee<decltype(t)>;
      if constexpr (is_float_storage<T>) small<T>(a, first, last);
    });
  };
  parallel_for(pf, a.E, 32768 / (a.p * a.q * a.r + 1) + 1, body);
}

}  // namespace structops::STRUCTOPS_ISA
