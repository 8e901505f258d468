// CPU segment_softmax. The contract is softmax.h.
//
// Narrow features (F divides the lanes): a row is one flat run of deg * F numbers, lane i holding feature i mod F, so one
// head is as well vectorised as sixteen. Permuted rows are first copied to a small buffer. Otherwise one vector of
// features walks the row.
#include "core/vmath.h"
#include "sparse/softmax.h"
#include "sparse/row_pieces.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kFlat = 2048;  // numbers of a row that the flat path buffers

// Folds lanes with equal (lane mod F) together, leaving the result in every lane.
template <class A, class Fn> STRUCTOPS_INLINE Vec<A> fold(Vec<A> v, int F, Fn fn) {
  A lane[W<A>];
  __builtin_memcpy(lane, &v, sizeof v);
  for (int w = W<A> / 2; w >= F; w /= 2)
    for (int i = 0; i < w; ++i) lane[i] = fn(lane[i], lane[i + w]);
  for (int i = F; i < W<A>; ++i) lane[i] = lane[i - F];
  __builtin_memcpy(&v, lane, sizeof v);
  return v;
}

template <class A> STRUCTOPS_INLINE Vec<A> nan_max(Vec<A> m, Vec<A> v) { return (v > m) | (v != v) ? v : m; }

template <class A> STRUCTOPS_INLINE Vec<A> keep(Vec<A> v, int n, A other) {  // lanes >= n become `other`
  for (int i = n; i < W<A>; ++i) v[i] = other;
  return v;
}

// In place on accumulators: buf [n], n = deg * F.
template <class A> void flat_fwd(A* buf, int n, int F, bool log) {
  constexpr int L = W<A>;
  auto at = [&](int i, A pad) __attribute__((always_inline)) {
    return i + L <= n ? load(buf + i) : keep<A>(load_n(buf + i, n - i), n - i, pad);
  };
  auto put = [&](int i, Vec<A> v) __attribute__((always_inline)) {
    if (i + L <= n) store(buf + i, v); else store_n(buf + i, v, n - i);
  };
  Vec<A> m = splat(A(-INFINITY));
  for (int i = 0; i < n; i += L) m = nan_max<A>(m, at(i, A(-INFINITY)));
  m = fold<A>(m, F, [](A a, A b) { return b > a || b != b ? b : a; });
  Vec<A> s{};
  for (int i = 0; i < n; i += L) {
    const Vec<A> e = vexp<A>(at(i, A(-INFINITY)) - m);
    s += e;  // beyond the row exp(-inf)
    if (!log) put(i, e);
  }
  s = fold<A>(s, F, [](A a, A b) { return a + b; });
  if (log) {
    const Vec<A> log_sum = vlog<A>(s);  // x - m first: m + log(sum) would round log(sum) away beside a large m
    for (int i = 0; i < n; i += L) put(i, (at(i, 0) - m) - log_sum);
  } else {
    const Vec<A> inv = A(1) / s;
    for (int i = 0; i < n; i += L) put(i, at(i, 0) * inv);
  }
}

template <class A> void flat_bwd(const A* out, A* grad, int n, int F, bool log) {
  constexpr int L = W<A>;
  auto at = [&](const A* p, int i) __attribute__((always_inline)) { return i + L <= n ? load(p + i) : load_n(p + i, n - i); };
  Vec<A> s{};
  for (int i = 0; i < n; i += L) s += log ? at(grad, i) : at(out, i) * at(grad, i);
  s = fold<A>(s, F, [](A a, A b) { return a + b; });
  for (int i = 0; i < n; i += L) {
    const Vec<A> y = at(out, i), g = at(grad, i);
    const Vec<A> r = log ? g - vexp<A>(y) * s : y * (g - s);
    if (i + L <= n) store(grad + i, r); else store_n(grad + i, r, n - i);
  }
}

// One vector of features f..f+n of a row.
template <class T, bool backward> void
column(const SoftmaxArgs& a, const T* src, const T* grad, T* out, int64_t begin, int64_t end, int64_t f, int n) {
  using A = Acc<T>;
  auto offset = [&](int64_t k) { return (a.eid ? a.eid[k] : k) * a.F + f; };
  auto get = [&](const T* p, int64_t o) __attribute__((always_inline)) { return n == W<A> ? load(p + o) : load_n(p + o, n); };
  auto put = [&](int64_t o, Vec<A> v) __attribute__((always_inline)) {
    if (n == W<A>) store(out + o, v); else store_n(out + o, v, n);
  };
  if constexpr (backward) {
    Vec<A> s{};
    for (int64_t k = begin; k < end; ++k) s += a.log ? get(grad, offset(k)) : get(src, offset(k)) * get(grad, offset(k));
    for (int64_t k = begin; k < end; ++k) {
      const Vec<A> y = get(src, offset(k)), g = get(grad, offset(k));
      put(offset(k), a.log ? g - vexp<A>(y) * s : y * (g - s));
    }
  } else {
    Vec<A> m = splat(A(-INFINITY)), s{};
    for (int64_t k = begin; k < end; ++k) m = nan_max<A>(m, get(src, offset(k)));
    for (int64_t k = begin; k < end; ++k) s += vexp<A>(get(src, offset(k)) - m);
    const Vec<A> log_sum = vlog<A>(s), inv = A(1) / s;
    for (int64_t k = begin; k < end; ++k) {
      const Vec<A> x = get(src, offset(k));
      put(offset(k), a.log ? (x - m) - log_sum : vexp<A>(x - m) * inv);
    }
  }
}

template <class T, bool backward> void rows(const SoftmaxArgs& a, int64_t batch, int64_t row_begin, int64_t row_end) {
  using A = Acc<T>;
  const int64_t base = batch * a.E * a.F;
  const T* const src = static_cast<const T*>(a.src) + base;
  const T* const grad = backward ? static_cast<const T*>(a.grad) + base : nullptr;
  T* const out = static_cast<T*>(a.out) + base;
  const int F = int(a.F);
  const bool narrow = a.F < W<A> && W<A> % F == 0;
  A x[kFlat], g[backward ? kFlat : 1];
  for (int64_t v = row_begin; v < row_end; ++v) {
    const int64_t begin = a.rowptr[v], end = a.rowptr[v + 1];
    if (narrow && (end - begin) * F <= kFlat) {
      const int n = int(end - begin) * F;
      auto each = [&](auto fn) __attribute__((always_inline)) {
        if (!a.eid) for (int i = 0; i < n; ++i) fn(i, begin * F + i);
        else for (int64_t k = begin; k < end; ++k)
          for (int f = 0; f < F; ++f) fn(int(k - begin) * F + f, a.eid[k] * F + f);
      };
      each([&](int i, int64_t o) { x[i] = widen(src[o]); });
      if constexpr (backward) {
        each([&](int i, int64_t o) { g[i] = widen(grad[o]); });
        flat_bwd<A>(x, g, n, F, a.log);
        each([&](int i, int64_t o) { narrow_to(out + o, g[i]); });
      } else {
        flat_fwd<A>(x, n, F, a.log);
        each([&](int i, int64_t o) { narrow_to(out + o, x[i]); });
      }
    } else {
      for (int64_t f = 0; f < a.F; f += W<A>)
        column<T, backward>(a, src, grad, out, begin, end, f, int(a.F - f < W<A> ? a.F - f : W<A>));
    }
  }
}

template <bool backward> void launch(const SoftmaxArgs& a, const ParallelFor& pf) {
  if (a.B == 0 || a.E == 0 || a.F == 0) return;
  const auto piece = [&](int64_t task, int64_t first, int64_t last) {
    with_dtype(a.dtype, [&](auto* t) {
      using T = Pointee<decltype(t)>;
      if constexpr (is_float_storage<T>) rows<T, backward>(a, task / row_pieces(a.N, a.E), first, last);
    });
  };
  for_row_pieces(a.rowptr, a.N, a.E, a.F * 8, pf, piece, a.B);
}

}  // namespace

void softmax_fwd(const SoftmaxArgs& a, const ParallelFor& pf) { launch<false>(a, pf); }
void softmax_bwd(const SoftmaxArgs& a, const ParallelFor& pf) { launch<true>(a, pf); }

}  // namespace structops::STRUCTOPS_ISA
