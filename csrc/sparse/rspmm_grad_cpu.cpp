// CPU backward of relational_spmm. The contract is rspmm.h.
//
// 1. min, max (and those of pna): only N * F messages got a gradient. A task owns a batch entry and a block of features, and
//    scatters their winners in order of the rows: no two tasks write to one place.
// 2. The other reductions walk the reversed edges: x[u] and d_x[u] stay in registers, grad[v] is the one row gathered, and d_rel
//    is added to a partial of the task's own, small enough for the cache. Partials are merged in order.
#include "core/memory.h"
#include "sparse/rspmm_rows.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kAhead = 8;      // prefetch distance, edges
constexpr int64_t kParts = 16;  // tasks worth having
enum Kind { linear, lse, moments };

template <class A> struct Job {
  const RspmmArgs* a;
  const A* inverse;  // [N] 1 / n, or null: 1
  A* d_x;            // accumulators [B, M, F] or null; the output itself where it has their type
  A* d_weight;       // [E] or null
  A* partial;        // [parts + 1, B, R, F] or null; the last is of the winners
  int64_t parts;
  bool seeded;       // d_x already holds what the winners gave
};

// ---- winners ---------------------------------------------------------------------------------------------------------

// d (x) / d x and d (x) / d rel of one feature.
template <class A> STRUCTOPS_INLINE void slopes(RelMul m, A r, A x, A* to_x, A* to_rel) {
  if (m == RelMul::mul) { *to_x = r; *to_rel = x; return; }
  if (m == RelMul::min) { *to_x = x < r ? A(1) : x == r ? A(0.5) : A(0); *to_rel = A(1) - *to_x; return; }
  *to_x = 1;
  *to_rel = 1;
}

// Calls fn(k, f, g, planes) for every winner of rows [v0, v1) and features [f0, f1).
template <class T, class Fn> STRUCTOPS_INLINE void
each_winner(const RspmmArgs& a, int64_t b, int64_t v0, int64_t v1, int64_t f0, int64_t f1, Fn fn) {
  const int64_t plane = a.B * a.N * a.F;
  const bool pna = a.reduce == RelReduce::pna;
  for (int64_t v = v0; v < v1; ++v)
    for (int p = 0; p < (pna ? 2 : 1); ++p) {
      const int64_t at = (b * a.N + v) * a.F;
      const T* const g = static_cast<const T*>(a.grad) + (pna ? (2 + p) * plane : 0) + at;
      const Index arg{static_cast<const char*>(a.arg) + (p * plane + at) * (a.rowptr.wide ? 8 : 4), a.rowptr.wide};
      for (int64_t f = f0; f < f1; ++f) {
        const int64_t k = arg[f];
        if (k < a.E) fn(k, f, widen(g[f]));
      }
    }
}

template <class T> void scatter_winners(const Job<Acc<T>>& job, int64_t b, int64_t f0, int64_t f1) {
  using A = Acc<T>;
  const RspmmArgs& a = *job.a;
  const T* const weight = static_cast<const T*>(a.weight);
  const T* const x = static_cast<const T*>(a.x) + b * a.M * a.F;
  const T* const rel = a.rel ? static_cast<const T*>(a.rel) + b * a.R * a.F : nullptr;
  A* const d_x = job.d_x ? job.d_x + b * a.M * a.F : nullptr;
  A* const d_rel = job.partial ? job.partial + (job.parts * a.B + b) * a.R * a.F : nullptr;
  const int64_t half = a.F / 2;
  auto one = [&](int64_t k, int64_t f, A g) __attribute__((always_inline)) {
    const int64_t u = a.col[k] * a.F + f, r = a.type[k] * a.F + f;
    const A t = weight ? g * widen(weight[a.eid ? a.eid[k] : k]) : g;
    if (a.mul == RelMul::rotate) {
      const int64_t o = f < half ? half : -half;
      const A sign = f < half ? A(-1) : A(1);  // real: x rel - xo relo; imaginary: x relo + xo rel, with o the other half
      const A xs = widen(x[u]), xo = widen(x[u + o]), rs = widen(rel[r]), ro = widen(rel[r + o]);
      if (f < half) {
        if (d_x) { d_x[u] += t * rs; d_x[u + o] += sign * t * ro; }
        if (d_rel) { d_rel[r] += t * xs; d_rel[r + o] += sign * t * xo; }
      } else {
        if (d_x) { d_x[u] += t * ro; d_x[u + o] += t * rs; }
        if (d_rel) { d_rel[r] += t * xo; d_rel[r + o] += t * xs; }
      }
      return;
    }
    A to_x, to_rel;
    slopes<A>(a.mul, rel ? widen(rel[r]) : A(0), widen(x[u]), &to_x, &to_rel);
    if (d_x) d_x[u] += t * to_x;
    if (d_rel) d_rel[r] += t * to_rel;
  };
  each_winner<T>(a, b, 0, a.N, f0, f1, one);
  if (a.mul == RelMul::rotate) each_winner<T>(a, b, 0, a.N, f0 + half, f1 + half, one);
}

// An edge belongs to one row, so tasks of rows write to places of their own.
template <class T> void weigh_winners(const Job<Acc<T>>& job, int64_t v0, int64_t v1) {
  using A = Acc<T>;
  const RspmmArgs& a = *job.a;
  const int64_t half = a.F / 2;
  for (int64_t b = 0; b < a.B; ++b) {
    const T* const x = static_cast<const T*>(a.x) + b * a.M * a.F;
    const T* const rel = a.rel ? static_cast<const T*>(a.rel) + b * a.R * a.F : nullptr;
    each_winner<T>(a, b, v0, v1, 0, a.F, [&](int64_t k, int64_t f, A g) {
      const int64_t u = a.col[k] * a.F + f, r = a.type[k] * a.F + f;
      const A xs = widen(x[u]), rs = rel ? widen(rel[r]) : A(0);
      A m;
      switch (a.mul) {
        case RelMul::mul: m = rs * xs; break;
        case RelMul::add: m = rs + xs; break;
        case RelMul::min: m = xs < rs || xs != xs ? xs : rs; break;
        case RelMul::copy: m = xs; break;
        default:
          m = f < half ? xs * rs - widen(x[u + half]) * widen(rel[r + half]) : widen(x[u - half]) * rs + xs * widen(rel[r - half]);
      }
      job.d_weight[a.eid ? a.eid[k] : k] += g * m;
    });
  }
}

// ---- the reversed edges ----------------------------------------------------------------------------------------------

// D of one vector: g0 the gradient (of the mean), g1 that of the variance, o the forward result (the mean, less rest).
template <class A, Kind kind> STRUCTOPS_INLINE Vec<A> message_grad(Vec<A> g0, Vec<A> g1, Vec<A> o, Vec<A> rest, Vec<A> m, A inverse) {
  if (kind == linear) return g0 * inverse;
  if (kind == lse) return o == A(-INFINITY) ? Vec<A>{} : g0 * vexp<A>(m - o);
  return (g0 + A(2) * g1 * (m - o - rest)) * inverse;
}

template <class T, Kind kind, bool product, int NV, bool masked>
void tile(const Job<Acc<T>>& job, int64_t b, int64_t part, int64_t row_begin, int64_t row_end, int64_t f, int n) {
  using A = Acc<T>;
  using V = Vec<A>;
  constexpr int L = W<A>;
  const RspmmArgs& a = *job.a;
  const int64_t plane = a.B * a.N * a.F, base = b * a.N * a.F + f;
  const T* const weight = static_cast<const T*>(a.weight);
  const T* const x = static_cast<const T*>(a.x) + b * a.M * a.F + f;
  const T* const rel = a.rel ? static_cast<const T*>(a.rel) + b * a.R * a.F + f : nullptr;
  const T* const g0 = static_cast<const T*>(a.grad) + base;
  const T* const g1 = g0 + (kind == moments ? plane : 0);
  const T* const out = kind == linear ? g0 : static_cast<const T*>(a.out) + base;
  const T* const rest = kind == moments ? static_cast<const T*>(a.rest) + base : g0;
  A* const d_x = job.d_x ? job.d_x + b * a.M * a.F + f : nullptr;
  A* const d_rel = job.partial ? job.partial + (part * a.B + b) * a.R * a.F + f : nullptr;
  auto get = [&](const auto* p) __attribute__((always_inline)) { return masked ? load_n(p, n) : load(p); };
  auto put = [&](A* p, V v) __attribute__((always_inline)) { if (masked) store_n(p, v, n); else store(p, v); };
  for (int64_t u = row_begin; u < row_end; ++u) {
    V xv[NV], dx[NV];
#pragma GCC unroll 2
    for (int i = 0; i < NV; ++i) {
      xv[i] = get(x + u * a.F + i * L);
      dx[i] = job.seeded && d_x ? get(d_x + u * a.F + i * L) : V{};
    }
    for (int64_t k = a.colptr[u], end = a.colptr[u + 1]; k < end; ++k) {
      const int64_t j = a.eid_t[k];
      if (k + kAhead < a.E) {
        const int64_t next = a.row_t[k + kAhead] * a.F;
        __builtin_prefetch(g0 + next);
        if (kind != linear) __builtin_prefetch(out + next);
        if (kind == moments) __builtin_prefetch(rest + next);
      }
      if (a.mask && !a.mask[j]) continue;
      const int64_t v = a.row_t[k], r = product || rel ? a.type_t[k] * a.F : 0;
      const A w = weight ? widen(weight[j]) : A(1), inverse = job.inverse ? job.inverse[v] : A(1);
      V dw{};
#pragma GCC unroll 2
      for (int i = 0; i < NV; ++i) {
        const V rv = product || rel ? get(rel + r + i * L) : V{};
        const V q = combine<A, product>(a.mul, rv, xv[i]);
        const int64_t at = v * a.F + i * L;
        const V D = message_grad<A, kind>(get(g0 + at), kind == moments ? get(g1 + at) : V{}, kind == linear ? V{} : get(out + at),
                                          kind == moments ? get(rest + at) : V{}, q * w, inverse);
        const V t = D * w;
        V to_x = t * rv, to_rel = t * xv[i];
        if (!product && a.mul != RelMul::mul) {
          to_x = to_rel = t;
          if (a.mul == RelMul::min) {
            to_x = xv[i] < rv ? t : xv[i] == rv ? t * A(0.5) : V{};
            to_rel = t - to_x;
          }
        }
        dx[i] += to_x;
        if (d_rel) put(d_rel + r + i * L, get(d_rel + r + i * L) + to_rel);
        if (job.d_weight) {
          const V c = D * q;
          for (int l = 0; masked && l < L; ++l) dw[l] += l < n ? c[l] : A(0);
          if (!masked) dw += c;
        }
      }
      if (job.d_weight) job.d_weight[j] += hsum<A>(dw);
    }
    if (d_x)
#pragma GCC unroll 2
      for (int i = 0; i < NV; ++i) put(d_x + u * a.F + i * L, dx[i]);
  }
}

template <class T, Kind kind>
void rotate_tile(const Job<Acc<T>>& job, int64_t b, int64_t part, int64_t row_begin, int64_t row_end, int64_t f, int n) {
  using A = Acc<T>;
  using V = Vec<A>;
  const RspmmArgs& a = *job.a;
  const int64_t plane = a.B * a.N * a.F, base = b * a.N * a.F + f, half = a.F / 2;
  const T* const weight = static_cast<const T*>(a.weight);
  const T* const x = static_cast<const T*>(a.x) + b * a.M * a.F + f;
  const T* const rel = static_cast<const T*>(a.rel) + b * a.R * a.F + f;
  const T* const g0 = static_cast<const T*>(a.grad) + base;
  const T* const g1 = g0 + (kind == moments ? plane : 0);
  const T* const out = kind == linear ? g0 : static_cast<const T*>(a.out) + base;
  const T* const rest = kind == moments ? static_cast<const T*>(a.rest) + base : g0;
  A* const d_x = job.d_x ? job.d_x + b * a.M * a.F + f : nullptr;
  A* const d_rel = job.partial ? job.partial + (part * a.B + b) * a.R * a.F + f : nullptr;
  for (int64_t u = row_begin; u < row_end; ++u) {
    const V xr = load_n(x + u * a.F, n), xi = load_n(x + u * a.F + half, n);
    V dr{}, di{};
    if (job.seeded && d_x) { dr = load_n(d_x + u * a.F, n); di = load_n(d_x + u * a.F + half, n); }
    for (int64_t k = a.colptr[u], end = a.colptr[u + 1]; k < end; ++k) {
      const int64_t j = a.eid_t[k];
      if (a.mask && !a.mask[j]) continue;
      const int64_t at = a.row_t[k] * a.F, r = a.type_t[k] * a.F;
      const A w = weight ? widen(weight[j]) : A(1), inverse = job.inverse ? job.inverse[a.row_t[k]] : A(1);
      const V rr = load_n(rel + r, n), ri = load_n(rel + r + half, n), qr = xr * rr - xi * ri, qi = xr * ri + xi * rr;
      auto grad = [&](int64_t o, V q) __attribute__((always_inline)) {
        return message_grad<A, kind>(load_n(g0 + o, n), kind == moments ? load_n(g1 + o, n) : V{},
                                     kind == linear ? V{} : load_n(out + o, n),
                                     kind == moments ? load_n(rest + o, n) : V{}, q * w, inverse);
      };
      const V Dr = grad(at, qr), Di = grad(at + half, qi), tr = Dr * w, ti = Di * w;
      dr += tr * rr + ti * ri;
      di += ti * rr - tr * ri;
      if (d_rel) {
        store_n(d_rel + r, load_n(d_rel + r, n) + (tr * xr + ti * xi), n);
        store_n(d_rel + r + half, load_n(d_rel + r + half, n) + (ti * xr - tr * xi), n);
      }
      if (job.d_weight) {
        const V c = Dr * qr + Di * qi;
        A total = 0;
        for (int l = 0; l < n; ++l) total += c[l];
        job.d_weight[j] += total;
      }
    }
    if (d_x) { store_n(d_x + u * a.F, dr, n); store_n(d_x + u * a.F + half, di, n); }
  }
}

template <class T, Kind kind> void part_of(const Job<Acc<T>>& job, int64_t b, int64_t part, int64_t r0, int64_t r1) {
  constexpr int L = W<Acc<T>>;
  const RspmmArgs& a = *job.a;
  int64_t f = 0;
  if (a.mul == RelMul::rotate) {
    for (; f < a.F / 2; f += L) rotate_tile<T, kind>(job, b, part, r0, r1, f, int(a.F / 2 - f < L ? a.F / 2 - f : L));
    return;
  }
  const bool product = a.mul == RelMul::mul;
  for (; a.F - f >= 2 * L; f += 2 * L) (product ? tile<T, kind, true, 2, false> : tile<T, kind, false, 2, false>)(job, b, part, r0, r1, f, L);
  for (; f < a.F; f += L)
    (product ? tile<T, kind, true, 1, true> : tile<T, kind, false, 1, true>)(job, b, part, r0, r1, f, int(a.F - f < L ? a.F - f : L));
}

// ---- the whole -------------------------------------------------------------------------------------------------------

template <class T> void narrow_all(const Acc<T>* from, T* to, int64_t n, const ParallelFor& pf) {
  auto body = [&](int64_t begin, int64_t end) { for (int64_t i = begin; i < end; ++i) narrow_to(to + i, from[i]); };
  parallel_for(pf, n, 32768, body);
}

template <class T> void backward(const RspmmArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  if (a.B == 0 || a.F == 0) {
    if (a.d_weight) __builtin_memset(a.d_weight, 0, size_t(a.E) * sizeof(T));
    return;
  }
  constexpr bool own = __is_same(T, A);  // accumulate in the outputs themselves
  const bool winners = rspmm_extreme(a.reduce) || a.reduce == RelReduce::pna, dense = !rspmm_extreme(a.reduce);
  const int64_t xs = a.B * a.M * a.F, rs = a.B * a.R * a.F;
  Job<A> job{&a, nullptr, nullptr, nullptr, nullptr, 0, winners};
  auto buffer = [&](void* out, int64_t n, bool zero) -> A* {
    if (!out) return nullptr;
    A* const p = own ? static_cast<A*>(out) : allocate<A>(size_t(n));
    if (zero) __builtin_memset(p, 0, size_t(n) * sizeof(A));
    return p;
  };
  job.d_x = buffer(a.d_x, xs, winners);
  job.d_weight = buffer(a.d_weight, a.E, true);
  // With a gradient of the weights a task takes all batch entries of its rows, since they add to the same edges.
  const bool by_rows = a.d_weight != nullptr;
  int64_t parts = by_rows ? kParts : (kParts + a.B - 1) / a.B;
  const int64_t most = (a.M + a.E) / (a.R + 64) + 1;  // merging must stay small beside the edges
  job.parts = parts = !dense ? 0 : parts < most ? parts : most;
  if (a.d_rel) {
    job.partial = allocate<A>(size_t((parts + 1) * rs));
    if (winners) __builtin_memset(job.partial + parts * rs, 0, size_t(rs) * sizeof(A));
  }
  A* const inverse = a.reduce == RelReduce::mean || a.reduce == RelReduce::pna ? allocate<A>(size_t(a.N)) : nullptr;
  job.inverse = inverse;

  if (winners) {
    const int64_t span = a.mul == RelMul::rotate ? a.F / 2 : a.F, blocks = (span + 15) / 16;
    auto body = [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t f = task % blocks * 16;
        scatter_winners<T>(job, task / blocks, f, f + 16 < span ? f + 16 : span);
      }
    };
    if (a.d_x || a.d_rel) parallel_for(pf, a.B * blocks, 1 + 2048 / (a.N + 1), body);
    auto weigh = [&](int64_t begin, int64_t end) { weigh_winners<T>(job, begin, end); };
    if (a.d_weight) parallel_for(pf, a.N, 1 + 32768 / (a.B * a.F), weigh);
  }
  if (dense) {
    auto invert = [&](int64_t begin, int64_t end) {
      for (int64_t v = begin; v < end; ++v) {
        int64_t n = 0;
        if (!a.mask) n = a.rowptr[v + 1] - a.rowptr[v];
        else for (int64_t k = a.rowptr[v]; k < a.rowptr[v + 1]; ++k) n += a.mask[a.eid ? a.eid[k] : k] != 0;
        inverse[v] = A(1) / A(n ? n : 1);
      }
    };
    if (inverse) parallel_for(pf, a.N, 8192, invert);
    const int64_t chunk = (a.M + a.E + parts - 1) / parts;
    auto one = [&](int64_t part, int64_t b) {
      const int64_t r0 = piece_row(a.colptr, a.M, a.E, chunk, part), r1 = piece_row(a.colptr, a.M, a.E, chunk, part + 1);
      if (job.partial) __builtin_memset(job.partial + (part * a.B + b) * a.R * a.F, 0, size_t(a.R * a.F) * sizeof(A));
      switch (a.reduce) {
        case RelReduce::logsumexp: return part_of<T, lse>(job, b, part, r0, r1);
        case RelReduce::pna: return part_of<T, moments>(job, b, part, r0, r1);
        default: return part_of<T, linear>(job, b, part, r0, r1);
      }
    };
    auto body = [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        if (by_rows) for (int64_t b = 0; b < a.B; ++b) one(task, b);
        else one(task % parts, task / parts);
      }
    };
    const int64_t tasks = by_rows ? parts : parts * a.B, work = (a.M + a.E) * a.F * a.B / (tasks ? tasks : 1) + 1;
    parallel_for(pf, tasks, 1 + 16384 / work, body);
  }
  if (a.d_rel) {
    auto merge = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        A s = 0;
        for (int64_t p = dense ? 0 : parts; p < parts + (winners ? 1 : 0); ++p) s += job.partial[p * rs + i];
        narrow_to(static_cast<T*>(a.d_rel) + i, s);
      }
    };
    parallel_for(pf, rs, 8192, merge);
    std::free(job.partial);
  }
  std::free(inverse);
  if (!own) {
    if (a.d_x) narrow_all<T>(job.d_x, static_cast<T*>(a.d_x), xs, pf);
    if (a.d_weight) narrow_all<T>(job.d_weight, static_cast<T*>(a.d_weight), a.E, pf);
    std::free(job.d_x);
    std::free(job.d_weight);
  }
}

}  // namespace

void rspmm_bwd(const RspmmArgs& a, const ParallelFor& pf) {
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) backward<T>(a, pf);
  });
}

}  // namespace structops::STRUCTOPS_ISA
