// CPU block-sparse products. The contract is block_spmm.h.
//
// block_spmm: a tile of P block rows times NV vectors of features stays in registers over the edges of a row; every vector of
// x[u] that is loaded feeds P multiply-adds. block_sddmm: a tile of P x Q dots shares its loads.
#include "core/simd.h"
#include "sparse/block_spmm.h"
#include "sparse/row_pieces.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kAhead = 6;  // edges between a prefetch and its use

// Vectors of features of a tile of P rows, by what the registers hold.
template <int P> constexpr int kWide = STRUCTOPS_VBYTES == 64 ? (P <= 5 ? 4 : 2) : P <= 3 ? 4 : P <= 6 ? 2 : 1;

template <class T> struct Row {  // of a product: its edges, and where a block's entry (i, j) is
  const BlockSpmmArgs* a;
  int64_t v, begin, end, si, sj;
};

template <class T, int P, int NV>
STRUCTOPS_INLINE void add_block(Vec<Acc<T>> (&acc)[P][NV], const T* m, int64_t si, int64_t sj, const T* x, const T* next, int64_t q, int64_t f, int n) {
  using A = Acc<T>;
  for (int64_t j = 0; j < q; ++j) {
    Vec<A> xv[NV];
#pragma GCC unroll 4
    for (int t = 0; t < NV; ++t) {
      xv[t] = NV > 1 || n == W<A> ? load(x + j * f + t * W<A>) : load_n(x + j * f, n);
      __builtin_prefetch(next + j * f + t * W<A>);
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
template <class T, int P, int NV> void tile(const Row<T>& r, int64_t i0, int64_t f0, int n) {
  using A = Acc<T>;
  const BlockSpmmArgs& a = *r.a;
  const int64_t width = a.q * a.f, size = a.p * a.q;
  const T* const x = static_cast<const T*>(a.x) + f0;
  const T* const m = static_cast<const T*>(a.blocks) + i0 * r.si;
  Vec<A> acc[P][NV] = {};
  for (int64_t k = r.begin; k < r.end; ++k) {
    const int64_t ahead = k + kAhead < a.E ? k + kAhead : k;
    const T* const here = x + (a.col ? a.col[k] : k) * width;
    const T* const next = x + (a.col ? a.col[ahead] : ahead) * width;
    __builtin_prefetch(m + (a.eid ? a.eid[ahead] : ahead) * size);
    __builtin_prefetch(m + ((a.eid ? a.eid[ahead] : ahead) + 1) * size - 1);
    add_block<T, P, NV>(acc, m + (a.eid ? a.eid[k] : k) * size, r.si, r.sj, here, next, a.q, a.f, n);
  }
#pragma GCC unroll 8
  for (int i = 0; i < P; ++i)
#pragma GCC unroll 4
    for (int t = 0; t < NV; ++t) acc[i][t] *= A(a.alpha);
  if (a.diag) {
    const T* const own = x + r.v * width;
    add_block<T, P, NV>(acc, static_cast<const T*>(a.diag) + r.v * size + i0 * r.si, r.si, r.sj, own, own, a.q, a.f, n);
  }
  T* const out = static_cast<T*>(a.out) + (r.v * a.p + i0) * a.f + f0;
#pragma GCC unroll 8
  for (int i = 0; i < P; ++i)
#pragma GCC unroll 4
    for (int t = 0; t < NV; ++t) {
      if (NV > 1 || n == W<A>) store(out + i * a.f + t * W<A>, acc[i][t]);
      else store_n(out + i * a.f, acc[i][t], n);
    }
}

template <class T, int P> void rows_of_block(const Row<T>& r, int64_t i0) {
  constexpr int L = W<Acc<T>>, NV = kWide<P>;
  int64_t f = 0;
  for (; f + NV * L <= r.a->f; f += NV * L) tile<T, P, NV>(r, i0, f, L);
  for (; f < r.a->f; f += L) tile<T, P, 1>(r, i0, f, int(r.a->f - f < L ? r.a->f - f : L));
}

template <class T> void product(const BlockSpmmArgs& a, int64_t first, int64_t last) {
  for (int64_t v = first; v < last; ++v) {
    const Row<T> r{&a, v, a.rowptr[v], a.rowptr[v + 1], a.transpose ? 1 : a.q, a.transpose ? a.p : 1};
    for (int64_t i = 0; i < a.p; i += 8) switch (a.p - i) {
      case 1: rows_of_block<T, 1>(r, i); break;
      case 2: rows_of_block<T, 2>(r, i); break;
      case 3: rows_of_block<T, 3>(r, i); break;
      case 4: rows_of_block<T, 4>(r, i); break;
      case 5: rows_of_block<T, 5>(r, i); break;
      case 6: rows_of_block<T, 6>(r, i); break;
      case 7: rows_of_block<T, 7>(r, i); break;
      default: rows_of_block<T, 8>(r, i);
    }
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

}  // namespace

void block_spmm_fwd(const BlockSpmmArgs& a, const ParallelFor& pf) {
  if (a.N == 0 || a.p == 0 || a.f == 0) return;
  for_row_pieces(a.rowptr, a.N, a.E, a.p * a.q * a.f, pf, [&](int64_t, int64_t first, int64_t last) __attribute__((always_inline)) {
    with_dtype(a.dtype, [&](auto* t) {
      using T = Pointee<decltype(t)>;
      if constexpr (is_float_storage<T>) product<T>(a, first, last);
    });
  });
}

void block_sddmm_fwd(const BlockSddmmArgs& a, const ParallelFor& pf) {
  if (a.E == 0 || a.p == 0 || a.q == 0) return;
  for_row_pieces(a.rowptr, a.N, a.E, a.p * a.q * a.f, pf, [&](int64_t, int64_t first, int64_t last) __attribute__((always_inline)) {
    with_dtype(a.dtype, [&](auto* t) {
      using T = Pointee<decltype(t)>;
      if constexpr (is_float_storage<T>) outer<T>(a, first, last);
    });
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
