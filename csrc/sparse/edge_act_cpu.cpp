// CPU edge activations. The contract is edge_act.h. A block of feature vectors walks the edges of a row, or of a source by the
// reversed edges, or those of a part of it, with the held end in registers.
#include "core/vmath.h"
#include "sparse/edge_act.h"
#include "sparse/row_pieces.h"
#include "sparse/row_vectors.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr Act kChosen = Act(kActs);
constexpr int kAhead = 8;  // prefetch distance, edges

template <class A> STRUCTOPS_INLINE Vec<A> vabs(Vec<A> z) { return z < 0 ? -z : z; }

// Of float to 4e-7: 1 - t P(t) exp(-z^2) with t = 1 / (1 + 0.34 |z|), P fitted to erfc on [0, 6] for the least largest error (7e-10).
template <class A> STRUCTOPS_INLINE Vec<A> erf(Vec<A> z) {
  if constexpr (sizeof(A) == 8) {
    for (int i = 0; i < W<A>; ++i) z[i] = __builtin_erf(z[i]);
    return z;
  }
  const Vec<A> x = vabs<A>(z), t = A(1) / (A(1) + A(0.34) * x);
  constexpr double coefficients[] = {1.087609173, -1.25098199, 1.211182447, -0.2860338432, 0.305058511, 0.1801480488};
  Vec<A> p = splat(A(-0.2469823473));
#pragma GCC unroll 6
  for (const double c : coefficients) p = p * t + A(c);
  const Vec<A> r = A(1) - p * t * vexp<A>(-x * x);
  return z < 0 ? -r : r;
}

template <class A> struct Both { Vec<A> value, slope; };

// The activation and its derivative. Those of a few instructions, and the most common other one, have loops of their own; the rest
// choose inside the loop.
template <class A, Act fixed> STRUCTOPS_INLINE Both<A> activate(Act chosen, Vec<A> z, A slope) {
  const Vec<A> one = splat(A(1)), zero = {};
  switch (fixed == kChosen ? chosen : fixed) {
    case Act::identity: return {z, one};
    case Act::relu: return {z > 0 ? z : z != z ? z : zero, z > 0 ? one : z != z ? z : zero};
    case Act::leaky: return {z > 0 ? z : slope * z, z > 0 ? one : splat(slope)};
    case Act::elu: {
      const Vec<A> e = slope * vexp<A>(z);
      return {z > 0 ? z : e - slope, z > 0 ? one : e};
    }
    case Act::sigmoid: {
      const Vec<A> s = vsigmoid<A>(z);
      return {s, s * (one - s)};
    }
    case Act::tanh: {
      const Vec<A> s = vsigmoid<A>(A(2) * z);
      return {A(2) * s - one, A(4) * s * (one - s)};
    }
    case Act::silu: {
      const Vec<A> s = vsigmoid<A>(z);
      return {z * s, s * (one + z * (one - s))};
    }
    case Act::softplus: return {(z > 0 ? z : z != z ? z : zero) + vlog<A>(one + vexp<A>(-vabs<A>(z))), vsigmoid<A>(z)};
    case Act::gelu: {
      const Vec<A> phi = A(0.5) * (one + erf<A>(z * A(0.70710678118654752440)));
      return {z * phi, phi + z * A(0.39894228040143267794) * vexp<A>(A(-0.5) * z * z)};
    }
    case Act::gelu_tanh: {
      const A c = A(0.79788456080286535588), k = A(0.044715);
      const Vec<A> s = vsigmoid<A>(A(2) * c * z * (one + k * z * z));
      return {z * s, s + z * s * (one - s) * A(2) * c * (one + A(3) * k * z * z)};
    }
  }
  return {z, one};
}

enum class Pass { forward, rows, sources };

// Writes what row (or source) r sums over its edges, n features from f. second: of the forward slopes, of rows the gradient of
// direction, of sources that of value.
template <class T, Pass pass>
STRUCTOPS_INLINE void finish(const EdgeActArgs& a, int64_t r, int64_t f, int64_t n, Vec<Acc<T>> sum, Vec<Acc<T>> second) {
  using A = Acc<T>;
  const int64_t at = r * a.F + f;
  const auto give = [&](auto* to, Vec<A> v) __attribute__((always_inline)) { put(to + at, v, n); };
  if constexpr (pass == Pass::forward) {
    give(static_cast<T*>(a.out), sum);
    if (a.slopes) give(static_cast<A*>(a.slopes), second);
  } else if constexpr (pass == Pass::rows) {
    if (a.d_y) give(static_cast<T*>(a.d_y), sum);
    if (a.d_scalar) give(static_cast<A*>(a.d_direction), second);
  } else {
    give(static_cast<T*>(a.d_x), a.value ? sum * get(static_cast<const T*>(a.value) + at, n) : sum);
    if (a.d_value) give(static_cast<T*>(a.d_value), second);
  }
}

// The edges [begin, end) of row (or source) r, features f to f + V vectors; left: how many features there are. The sums go to `part`
// [2, F], or finish the row where that is null.
// keep: the forward may be asked for slopes.
template <class T, Act act, Pass pass, int V, bool keep = true>
void block(const EdgeActArgs& a, int64_t r, int64_t begin, int64_t end, int64_t f, int64_t left, Acc<T>* part) {
  using A = Acc<T>;
  constexpr int L = W<A>;
  constexpr bool by_row = pass != Pass::sources;
  const int64_t F = a.F;
  const A slope = A(a.slope);
  auto at = [&](const void* p, int64_t row) { return static_cast<const T*>(p) + row * F + f; };
  auto to = [&](void* p, int64_t row) { return static_cast<T*>(p) + row * F + f; };
  auto vector = [&](const T* p, int v) __attribute__((always_inline)) { return V == 1 ? get(p, left) : load(p + v * L); };
  Vec<A> held[V], grad[V], direction[V], sum[V] = {}, second[V] = {};
  const void *const own = by_row ? a.y : a.x, *const far = by_row ? a.x : a.y;
  for (int v = 0; v < V; ++v) {
    held[v] = own ? vector(at(own, r), v) : Vec<A>{};
    grad[v] = pass == Pass::rows ? vector(at(a.grad, r), v) : Vec<A>{};
    direction[v] = a.scalar ? vector(at(a.direction, 0), v) : Vec<A>{};
  }
  const Index &other = by_row ? a.col : a.row_t, &eid = by_row ? a.eid : a.eid_t;
  for (int64_t k = begin; k < end; ++k) {
    const int64_t o = other[k], e = a.edge || a.scalar ? (eid ? eid[k] : k) : 0;
    const Vec<A> scalar = splat(a.scalar ? A(widen(static_cast<const T*>(a.scalar)[e])) : A(0));
    Vec<A> along{};
    if (k + kAhead < end) {
      const int64_t next = other[k + kAhead];
#pragma GCC unroll 4
      for (int i = 0; i < V * L; i += 64 / int(sizeof(T))) {
        if (far) __builtin_prefetch(at(far, next) + i);
        if (pass == Pass::sources) __builtin_prefetch(at(a.grad, next) + i);
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      Vec<A> z = held[v];
      if (far) z += vector(at(far, o), v);
      if (a.edge) z += vector(at(a.edge, e), v);
      if (a.scalar) z += scalar * direction[v];
      if constexpr (pass == Pass::forward) {
        Both<A> m = activate<A, act>(a.act, z, slope);
        if (a.value) {
          const Vec<A> times = vector(at(a.value, o), v);
          m.value *= times;
          m.slope *= times;
        }
        sum[v] += m.value;
        if (keep && a.slopes) second[v] += m.slope;
      } else if constexpr (pass == Pass::rows) {
        Vec<A> d = activate<A, act>(a.act, z, slope).slope * grad[v];
        if (a.value) d *= vector(at(a.value, o), v);
        sum[v] += d;
        if (a.d_edge) put(to(a.d_edge, e) + v * L, d, V == 1 ? left : L);
        if (a.d_scalar) {
          along += d * direction[v];
          second[v] += d * scalar;
        }
      } else {
        const Vec<A> g = vector(at(a.grad, o), v);
        const Both<A> m = activate<A, act>(a.act, z, slope);
        sum[v] += m.slope * g;
        if (a.value) second[v] += m.value * g;
      }
    }
    if (pass == Pass::rows && a.d_scalar) {
      A& d = static_cast<A*>(a.d_scalar)[e];  // blocks of features of one row come one after another
      d = f == 0 ? hsum<A>(along) : d + hsum<A>(along);
    }
  }
  for (int v = 0; v < V; ++v) {
    const int64_t n = V == 1 ? left : L, at_f = f + v * L;
    if (!part) {
      finish<T, pass>(a, r, at_f, n, sum[v], second[v]);
      continue;
    }
    put(part + at_f, sum[v], n);
    put(part + F + at_f, second[v], n);
  }
}

template <class T, Act act, Pass pass> void walk(const EdgeActArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  constexpr int L = W<A>;
  constexpr bool by_row = pass != Pass::sources;
  const int64_t n_rows = by_row ? a.N : a.M;
  const Slots<A> slots(n_rows, a.E, 2 * a.F);
  for_cut_rows(by_row ? a.rowptr : a.colptr, n_rows, a.E, 4 * a.F, pf, [&](int64_t, auto rows) {
    rows([&](int64_t r, int64_t begin, int64_t end, int64_t slot) {
      A* const part = slot < 0 ? nullptr : slots[slot];
      int64_t f = 0;
      for (; f + 4 * L <= a.F; f += 4 * L) {
        if constexpr (pass == Pass::forward)
          if (a.slopes) { block<T, act, pass, 4>(a, r, begin, end, f, 4 * L, part); continue; }
        block<T, act, pass, 4, false>(a, r, begin, end, f, 4 * L, part);
      }
      for (; f < a.F; f += L) block<T, act, pass, 1>(a, r, begin, end, f, a.F - f, part);
    });
  }, [&](int64_t r, int64_t first, int64_t last) {
    const A* const sum = slots.sum(first, last);
    for (int64_t f = 0; f < a.F; f += L) finish<T, pass>(a, r, f, a.F - f, get(sum + f, a.F - f), get(sum + a.F + f, a.F - f));
  });
}

template <class T, Act act> void run(const EdgeActArgs& a, bool backward, const ParallelFor& pf) {
  if (!backward) return walk<T, act, Pass::forward>(a, pf);
  if (a.d_scalar && a.F == 0)
    for (int64_t e = 0; e < a.E; ++e) static_cast<Acc<T>*>(a.d_scalar)[e] = 0;
  if (a.d_y || a.d_edge || a.d_scalar) walk<T, act, Pass::rows>(a, pf);
  walk<T, act, Pass::sources>(a, pf);
}

template <class T> void with_act(const EdgeActArgs& a, bool backward, const ParallelFor& pf) {
  switch (a.act) {
    case Act::silu: return run<T, Act::silu>(a, backward, pf);
    case Act::relu: return run<T, Act::relu>(a, backward, pf);
    case Act::leaky: return run<T, Act::leaky>(a, backward, pf);
    default: return run<T, kChosen>(a, backward, pf);
  }
}

void dispatch(const EdgeActArgs& a, bool backward, const ParallelFor& pf) {
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) with_act<T>(a, backward, pf);
  });
}

}  // namespace

void edge_act_fwd(const EdgeActArgs& a, const ParallelFor& pf) { dispatch(a, false, pf); }
void edge_act_bwd(const EdgeActArgs& a, const ParallelFor& pf) { dispatch(a, true, pf); }

}  // namespace structops::STRUCTOPS_ISA
