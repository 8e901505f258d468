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

// dot of whole rows, the common case: every decision is taken outside the edge loop.
template <class T, class I> void dots(const SddmmArgs& a, const T* lhs, const T* rhs, T* out, Cut from, Cut to) {
  const I* const col = static_cast<const I*>(a.col.data);
  const I* const eid = static_cast<const I*>(a.eid.data);
  const int64_t F = a.R, line = 64 / int64_t(sizeof(T));
  const bool l_gathers = a.lhs_target == Target::u, r_gathers = a.rhs_target == Target::u;
  const T* const gathered = l_gathers ? lhs : rhs;
  const bool prefetch = col && (l_gathers || r_gathers) && F > 1;
  int64_t k = from.k;
  for (int64_t v = from.row; k < to.k; ++v) {
    const int64_t row_end = a.rowptr[v + 1], stop = row_end < to.k ? row_end : to.k;
    for (; k < stop; ++k) {
      const int64_t j = eid ? int64_t(eid[k]) : k, u = col ? int64_t(col[k]) : k;
      if (prefetch && k + kAhead < a.E)
        for (int64_t f = 0; f < F; f += line) __builtin_prefetch(gathered + col[k + kAhead] * F + f);
      const T* const l = lhs + (l_gathers ? u : a.lhs_target == Target::v ? v : j) * F;
      const T* const r = rhs + (r_gathers ? u : a.rhs_target == Target::v ? v : j) * F;
      narrow_to(out + j, F == 1 ? Acc<T>(widen(*l) * widen(*r)) : dot(l, r, F));
    }
  }
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
