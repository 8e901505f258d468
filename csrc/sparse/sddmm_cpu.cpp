// CPU sddmm. The contract is sddmm.h. Edges are walked in CSR order, so that a row's own operand stays in L1 and only
// the column operand is gathered (prefetched kAhead edges before use). Items are merge-path cuts, as in spmm_cpu.cpp.
#include "core/simd.h"
#include "sparse/sddmm.h"
#include "sparse/spmm.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kAhead = 12;

template <class A> STRUCTOPS_INLINE A scalar_op(EdgeOp op, A l, A r) {
  switch (op) {
    case EdgeOp::add: return l + r;
    case EdgeOp::sub: return l - r;
    case EdgeOp::mul: return l * r;
    case EdgeOp::div: return l / r;
    default: return l;
  }
}

// Sums of neighbouring lanes: those of a, then those of b.
template <class A, int n> STRUCTOPS_INLINE Lanes<A, n> pair_sums(Lanes<A, n> a, Lanes<A, n> b) {
#ifdef __clang__
  Lanes<A, n> r;
  for (int i = 0; i < n; ++i) r[i] = i < n / 2 ? a[2 * i] + a[2 * i + 1] : b[2 * i - n] + b[2 * i - n + 1];
  return r;
#else
  Lanes<Int<A>, n> even;
  for (int i = 0; i < n; ++i) even[i] = 2 * i;
  return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, even + 1);
#endif
}

// Lane i becomes the sum of v[i], by n - 1 pair sums in place of n horizontal ones.
template <class A, int n> STRUCTOPS_INLINE Lanes<A, n> hsums(Lanes<A, n>* v) {
#pragma GCC unroll 4
  for (int left = n / 2; left >= 1; left /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < left; ++i) v[i] = pair_sums<A, n>(v[2 * i], v[2 * i + 1]);
  return v[0];
}

// sum_f l[f] * r[f], both contiguous.
template <class T> STRUCTOPS_INLINE Acc<T> dot(const T* l, const T* r, int64_t n) {
  using A = Acc<T>;
  constexpr int L = W<A>;
  Vec<A> s0{}, s1{}, s2{}, s3{};
  int64_t f = 0;
  for (; f + 4 * L <= n; f += 4 * L) {
    s0 += load(l + f) * load(r + f);
    s1 += load(l + f + L) * load(r + f + L);
    s2 += load(l + f + 2 * L) * load(r + f + 2 * L);
    s3 += load(l + f + 3 * L) * load(r + f + 3 * L);
  }
  for (; f + L <= n; f += L) s0 += load(l + f) * load(r + f);
  if (f < n) s1 += load_n(l + f, int(n - f)) * load_n(r + f, int(n - f));
  return hsum<A>((s0 + s1) + (s2 + s3));
}

// l[f] * r[f] of n lanes, F of them in use.
template <class T, int n> STRUCTOPS_INLINE Lanes<Acc<T>, n> products(const T* l, const T* r, int F) {
  if constexpr (n == W<Acc<T>>) {
    return load_n(l, F) * load_n(r, F);
  } else {
    Lanes<Acc<T>, n> x, y;
    __builtin_memcpy(&x, l, sizeof x);
    __builtin_memcpy(&y, r, sizeof y);
    return x * y;
  }
}

template <class T> STRUCTOPS_INLINE void
elementwise(EdgeOp op, const T* l, bool l_one, const T* r, bool r_one, T* out, int64_t F) {
  using A = Acc<T>;
  constexpr int L = W<A>;
  auto piece = [&](int64_t f, int n) __attribute__((always_inline)) {
    auto get = [&](const T* p, bool one) __attribute__((always_inline)) {
      return one ? splat<A>(widen(*p)) : n == L ? load(p + f) : load_n(p + f, n);
    };
    const Vec<A> x = get(l, l_one);
    Vec<A> y = x;
    if (op != EdgeOp::copy) {
      const Vec<A> z = get(r, r_one);
      y = op == EdgeOp::mul ? x * z : op == EdgeOp::add ? x + z : op == EdgeOp::sub ? x - z : x / z;
    }
    if (n == L) store(out + f, y); else store_n(out + f, y, n);
  };
  int64_t f = 0;
  for (; f + L <= F; f += L) piece(f, L);
  if (f < F) piece(f, int(F - f));
}

// Offsets of an operand's rows of F elements, for the edges [k, k + count); v is the row of edge k.
template <class I> void row_offsets(const SddmmArgs& a, Target t, int64_t F, int64_t k, int count, int64_t v, int64_t* o) {
  const Index& index = t == Target::u ? a.col : a.eid;
  if (t == Target::v) {
    for (int i = 0; i < count; ++v)
      for (const int64_t left = a.rowptr[v + 1] - k; i < count && i < left; ++i) o[i] = v * F;
  } else if (index) {
    const I* const p = static_cast<const I*>(index.data) + k;
    for (int i = 0; i < count; ++i) o[i] = p[i] * F;
  } else {
    for (int i = 0; i < count; ++i) o[i] = (k + i) * F;
  }
}

// dot of whole rows, the common case: blocks of edges whose every decision is taken outside the loop over them. Rows of n < W
// features, or of at most n = W, are taken n edges at a time, so that n horizontal sums cost n - 1 pair sums. n = 1: any rows.
template <class T, int n, class I> void dots(const SddmmArgs& a, const T* lhs, const T* rhs, T* out, Cut from, Cut to) {
  using A = Acc<T>;
  constexpr int kBlock = 256, line = 64 / sizeof(T);
  const I* const eid = static_cast<const I*>(a.eid.data);
  const int64_t F = n > 1 && n < W<A> ? n : a.R;
  const bool l_gathers = a.lhs_target == Target::u, prefetch = a.col && F > 1 && (l_gathers || a.rhs_target == Target::u);
  const T* const gathered = l_gathers ? lhs : rhs;
  int64_t lo[kBlock + kAhead], ro[kBlock + kAhead];
  A buffer[kBlock];
  int64_t v = from.row;
  for (int64_t k = from.k; k < to.k; k += kBlock) {
    const int count = to.k - k < kBlock ? int(to.k - k) : kBlock;
    while (a.rowptr[v + 1] <= k) ++v;
    const int ahead = a.E - k < count + kAhead ? int(a.E - k) : count + kAhead;
    row_offsets<I>(a, a.lhs_target, F, k, ahead, v, lo);
    row_offsets<I>(a, a.rhs_target, F, k, ahead, v, ro);
    for (int i = ahead; i < kBlock + kAhead; ++i) { lo[i] = lo[ahead - 1]; ro[i] = ro[ahead - 1]; }
    const int64_t* const next = (l_gathers ? lo : ro) + kAhead;
    const bool direct = sizeof(A) == sizeof(T) && !eid && count % n == 0;
    A* const sums = direct ? reinterpret_cast<A*>(out + k) : buffer;
    for (int q = 0; q < count; q += n) {
      if constexpr (n == 1) {
        if (prefetch) for (int64_t f = 0; f < F; f += line) __builtin_prefetch(gathered + next[q] + f);
        sums[q] = F == 1 ? A(widen(lhs[lo[q]]) * widen(rhs[ro[q]])) : dot(lhs + lo[q], rhs + ro[q], F);
      } else {
        Lanes<A, n> p[n];
#pragma GCC unroll 16
        for (int u = 0; u < n; ++u) {
          if (prefetch) __builtin_prefetch(gathered + next[q + u]);
          p[u] = products<T, n>(lhs + lo[q + u], rhs + ro[q + u], int(F));
        }
        const Lanes<A, n> s = hsums<A, n>(p);
        __builtin_memcpy(sums + q, &s, sizeof s);
      }
    }
    for (int i = 0; i < count && !direct; ++i) {
      asm volatile("");  // a vector scatter is slower than stores
      narrow_to(out + (eid ? int64_t(eid[k + i]) : k + i), sums[i]);
    }
  }
}

template <class T, class I> void dots(const SddmmArgs& a, const T* lhs, const T* rhs, T* out, Cut from, Cut to) {
  constexpr int L = W<Acc<T>>;
  if (a.R == 1 || a.R > L) return dots<T, 1, I>(a, lhs, rhs, out, from, to);
  if constexpr (__is_same(T, float)) {
    if constexpr (L > 2) if (a.R == 2) return dots<T, 2, I>(a, lhs, rhs, out, from, to);
    if constexpr (L > 4) if (a.R == 4) return dots<T, 4, I>(a, lhs, rhs, out, from, to);
    if constexpr (L > 8) if (a.R == 8) return dots<T, 8, I>(a, lhs, rhs, out, from, to);
  }
  dots<T, L, I>(a, lhs, rhs, out, from, to);
}

template <class T> void run(const SddmmArgs& a, int64_t batch, Cut from, Cut to) {
  using A = Acc<T>;
  const T* const lhs = static_cast<const T*>(a.lhs) + batch * a.lhs_batch;
  const T* const rhs = a.rhs ? static_cast<const T*>(a.rhs) + batch * a.rhs_batch : nullptr;
  T* const out = static_cast<T*>(a.out) + batch * a.E * a.Fo;
  const bool tables = a.l_off || a.r_off;
  if (a.op == EdgeOp::mul && a.Fo == 1 && !tables && a.Fl == a.R && a.Fr == a.R) {
    if (a.rowptr.wide) dots<T, int64_t>(a, lhs, rhs, out, from, to); else dots<T, int32_t>(a, lhs, rhs, out, from, to);
    return;
  }
  const bool l_one = a.Fl == 1, r_one = a.Fr == 1;
  const bool gathers_l = a.lhs_target == Target::u, gathers_r = rhs && a.rhs_target == Target::u;
  const int64_t line = 64 / sizeof(T);
  int64_t k = from.k;
  for (int64_t v = from.row; k < to.k; ++v) {
    const int64_t row_end = a.rowptr[v + 1], stop = row_end < to.k ? row_end : to.k;
    for (; k < stop; ++k) {
      const int64_t j = a.eid ? a.eid[k] : k, u = a.col ? a.col[k] : k;
      auto row_of = [&](Target t) { return t == Target::v ? v : t == Target::u ? u : j; };
      if (a.col && (gathers_l || gathers_r) && k + kAhead < a.E) {
        const int64_t next = a.col[k + kAhead];
        const T* p = gathers_l ? lhs + next * a.Fl : rhs + next * a.Fr;
        for (int64_t f = 0; f < (gathers_l ? a.Fl : a.Fr); f += line) __builtin_prefetch(p + f);
      }
      const T* l = lhs + row_of(a.lhs_target) * a.Fl;
      const T* r = rhs ? rhs + row_of(a.rhs_target) * a.Fr : nullptr;
      T* o = out + j * a.Fo;
      if (tables) {
        for (int64_t fo = 0; fo < a.Fo; ++fo) {
          A sum = 0;
          for (int64_t f = fo * a.R; f < (fo + 1) * a.R; ++f)
            sum += scalar_op<A>(a.op, widen(l[a.l_off ? a.l_off[f] : l_one ? 0 : f]),
                                rhs ? A(widen(r[a.r_off ? a.r_off[f] : r_one ? 0 : f])) : A(0));
          narrow_to(o + fo, sum);
        }
      } else if (a.R == 1) {
        elementwise(a.op, l, l_one, r, r_one, o, a.Fo);
      } else if (a.op == EdgeOp::mul && !l_one && !r_one) {
        for (int64_t fo = 0; fo < a.Fo; ++fo) narrow_to(o + fo, dot(l + fo * a.R, r + fo * a.R, a.R));
      } else {
        for (int64_t fo = 0; fo < a.Fo; ++fo) {
          A sum = 0;
          for (int64_t f = fo * a.R; f < (fo + 1) * a.R; ++f)
            sum += scalar_op<A>(a.op, widen(l[l_one ? 0 : f]), rhs ? A(widen(r[r_one ? 0 : f])) : A(0));
          narrow_to(o + fo, sum);
        }
      }
    }
  }
}

}  // namespace

void sddmm_fwd(const SddmmArgs& a, const ParallelFor& pf) {
  if (a.B == 0 || a.E == 0 || a.Fo == 0) return;
  const int64_t chunk = spmm_chunk(a.N, a.E), items = (a.N + a.E + chunk - 1) / chunk;
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t i = task % items;
      const Cut from = spmm_cut(a.rowptr, a.N, a.E, chunk, i), to = spmm_cut(a.rowptr, a.N, a.E, chunk, i + 1);
      with_dtype(a.dtype, [&](auto* t) { run<Pointee<decltype(t)>>(a, task / items, from, to); });
    }
  };
  const int64_t work = (a.N + a.E) / items * a.Fo * a.R + 1;
  parallel_for(pf, a.B * items, (32768 + work - 1) / work, body);
}

}  // namespace structops::STRUCTOPS_ISA
