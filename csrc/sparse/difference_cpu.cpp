// CPU powers of differences. The contract is difference.h.
#include "core/vmath.h"
#include "sparse/difference.h"
#include "sparse/row_pieces.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kAhead = 8;  // edges between a prefetch and its use

enum class Power : int { zero, one, two, any };

template <class A> constexpr A kSmallest = sizeof(A) == 4 ? A(0x1p-126) : A(0x1p-1022);

// |d|^a, times the sign of d if odd.
template <class A, Power P> STRUCTOPS_INLINE Vec<A> term(Vec<A> d, A a, bool odd) {
  const Vec<A> size = d < 0 ? -d : d;
  if constexpr (P == Power::zero) {
    const Vec<A> one = splat(A(1));
    return odd ? (d > 0 ? one : d < 0 ? -one : d) : (d == d ? one : d);
  } else if constexpr (P == Power::one) {
    return odd ? d : size;
  } else if constexpr (P == Power::two) {
    return odd ? d * size : d * d;
  } else {
    const Vec<A> p = vexp<A>(a * vlog<A>(size));
    const Vec<A> t = size < kSmallest<A> ? Vec<A>{} : odd ? (d < 0 ? -p : p) : p;
    return d == d ? t : d;
  }
}

// NV vectors of features (one vector of n lanes if NV is 1) of row v.
template <class T, Power P, int NV> STRUCTOPS_INLINE void
row_tile(const DifferenceArgs& a, bool odd, int64_t v, int64_t begin, int64_t end, int64_t f, int n) {
  using A = Acc<T>;
  constexpr int L = W<A>;
  auto get = [&](const T* p, int t) __attribute__((always_inline)) { return NV > 1 || n == L ? load(p + t * L) : load_n(p, n); };
  const T* const x = static_cast<const T*>(a.x) + f;
  const T* const hu = a.hu ? static_cast<const T*>(a.hu) + f : nullptr;
  const T* const w = static_cast<const T*>(a.weight);
  Vec<A> y[NV], acc[NV];
  for (int t = 0; t < NV; ++t) {
    y[t] = get(static_cast<const T*>(a.y) + v * a.F + f, t);
    acc[t] = Vec<A>{};
  }
  for (int64_t k = begin; k < end; ++k) {
    const int64_t u = (a.col ? a.col[k] : k) * a.F;
    const int64_t ahead = k + kAhead < a.E ? k + kAhead : k;
    const T* const next = x + (a.col ? a.col[ahead] : ahead) * a.F;
    const A c = w ? A(widen(w[a.eid ? a.eid[k] : k])) : A(1);
#pragma GCC unroll 4
    for (int t = 0; t < NV; ++t) {
      __builtin_prefetch(next + t * L);
      Vec<A> m = c * term<A, P>(y[t] - get(x + u, t), A(a.power), odd);
      if (hu) m *= get(hu + u, t);
      acc[t] += m;
    }
  }
  T* const out = static_cast<T*>(a.out) + v * a.F + f;
  for (int t = 0; t < NV; ++t) {
    if (NV > 1 || n == L) store(out + t * L, acc[t]); else store_n(out, acc[t], n);
  }
}

template <class T, Power P> void rows(const DifferenceArgs& a, bool odd, int64_t first, int64_t last) {
  constexpr int L = W<Acc<T>>;
  for (int64_t v = first; v < last; ++v) {
    const int64_t begin = a.rowptr[v], end = a.rowptr[v + 1];
    int64_t f = 0;
    for (; f + 4 * L <= a.F; f += 4 * L) row_tile<T, P, 4>(a, odd, v, begin, end, f, L);
    for (; f < a.F; f += L) row_tile<T, P, 1>(a, odd, v, begin, end, f, int(a.F - f < L ? a.F - f : L));
  }
}

template <class T, Power P> void edges(const DifferenceArgs& a, bool odd, int64_t first, int64_t last) {
  using A = Acc<T>;
  constexpr int L = W<A>, line = 64 / sizeof(T);
  const T* const x = static_cast<const T*>(a.x);
  for (int64_t v = first; v < last; ++v) {
    const T* const y = static_cast<const T*>(a.y) + v * a.F;
    const T* const hv = a.hv ? static_cast<const T*>(a.hv) + v * a.F : nullptr;
    for (int64_t k = a.rowptr[v]; k < a.rowptr[v + 1]; ++k) {
      const int64_t u = (a.col ? a.col[k] : k) * a.F;
      const T* const hu = a.hu ? static_cast<const T*>(a.hu) + u : nullptr;
      if (a.col && k + kAhead < a.E)
        for (int64_t f = 0; f < a.F; f += line) __builtin_prefetch(x + a.col[k + kAhead] * a.F + f);
      Vec<A> sum{};
      for (int64_t f = 0; f < a.F; f += L) {
        const int n = int(a.F - f < L ? a.F - f : L);
        auto get = [&](const T* p) __attribute__((always_inline)) { return n == L ? load(p + f) : load_n(p + f, n); };
        Vec<A> m = term<A, P>(get(y) - get(x + u), A(a.power), odd);
        if (hv) m *= get(hv);
        if (hu) m *= get(hu);
        if (n < L) for (int i = n; i < L; ++i) m[i] = 0;  // 0^0 of the lanes beyond F
        sum += m;
      }
      narrow_to(static_cast<T*>(a.out) + (a.eid ? a.eid[k] : k), hsum<A>(sum));
    }
  }
}

template <class T, bool by_edge, Power P> void walk(const DifferenceArgs& a, int64_t first, int64_t last) {
  if constexpr (by_edge) edges<T, P>(a, a.odd, first, last); else rows<T, P>(a, a.odd, first, last);
}

template <class T, bool by_edge> void power(const DifferenceArgs& a, int64_t first, int64_t last) {
  if (a.power == 0) return walk<T, by_edge, Power::zero>(a, first, last);
  if (a.power == 1) return walk<T, by_edge, Power::one>(a, first, last);
  if (a.power == 2) return walk<T, by_edge, Power::two>(a, first, last);
  walk<T, by_edge, Power::any>(a, first, last);
}

template <bool by_edge> void launch(const DifferenceArgs& a, const ParallelFor& pf) {
  const int64_t cost = a.F * (a.power == 0 || a.power == 1 || a.power == 2 ? 1 : 8);
  for_row_pieces(a.rowptr, a.N, a.E, cost, pf, [&](int64_t, int64_t first, int64_t last) {
    with_dtype(a.dtype, [&](auto* t) {
      using T = Pointee<decltype(t)>;
      if constexpr (is_float_storage<T>) power<T, by_edge>(a, first, last);
    });
  });
}

}  // namespace

void difference_rows_fwd(const DifferenceArgs& a, const ParallelFor& pf) {
  if (a.N > 0 && a.F > 0) launch<false>(a, pf);
}

void difference_edges_fwd(const DifferenceArgs& a, const ParallelFor& pf) {
  if (a.E > 0) launch<true>(a, pf);
}

}  // namespace structops::STRUCTOPS_ISA
