// CPU scatter. The contract is scatter.h. Two ways, chosen by the shape alone:
//
// private: few groups and narrow rows. The edges are cut into kParts parts, each reduced into accumulators of its own
//          that stay in L2, and the parts are merged in order. Fixed parts, so the sum does not depend on threads.
// owned:   otherwise task t of n owns output rows [N t / n, N (t+1) / n) and reads the whole index; a block of indices is
//          filtered without branches into the edges it owns. Every group is reduced in order of e.
#include "core/memory.h"
#include "core/simd.h"
#include "sparse/scatter.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kBlock = 1024, kAhead = 16, kParts = 4;

enum class Kind { sum, prod, min, max };

template <class A, Kind K> constexpr A identity() {
  if (K == Kind::sum) return A(0);
  if (K == Kind::prod) return A(1);
  if constexpr (__is_same(A, float) || __is_same(A, double)) return K == Kind::min ? A(INFINITY) : A(-INFINITY);
  else return K == Kind::min ? A(A(~A(0)) ^ (A(1) << (sizeof(A) * 8 - 1))) : A(A(1) << (sizeof(A) * 8 - 1));
}

// Accumulators of one task: values, winners' edges for min and max with arg, and whether a group received anything.
template <class A> struct Cells {
  A* value;         // [rows, F]
  Int<A>* winner;   // [rows, F], -1 while none; or null
  int32_t* count;   // [rows] or null; of the mean, otherwise 1 where a group received anything
};

// m at (edge e) into n features at o. NaN as in spmm.h.
template <class T, Kind K, bool arg, int n>
STRUCTOPS_INLINE void combine(const Cells<Acc<T>>& c, const T* src, int64_t o, Int<Acc<T>> e, bool skip_nan) {
  using A = Acc<T>;
  using I = Int<A>;
  using V = Lanes<A, n>;
  using VI = Lanes<I, n>;
  auto get = [](const A* p) __attribute__((always_inline)) {
    V r{};
    if constexpr (n == 1) r[0] = *p; else __builtin_memcpy(&r, p, sizeof r);
    return r;
  };
  V m, v = get(c.value + o);
  if constexpr (sizeof(T) == sizeof(A)) {
    m = get(reinterpret_cast<const A*>(src));
  } else {
    A lane[n];
    for (int i = 0; i < n; ++i) lane[i] = widen(src[i]);
    m = get(lane);
  }
  if constexpr (K == Kind::sum) v = v + m;
  if constexpr (K == Kind::prod) v = v * m;
  if constexpr (K == Kind::min || K == Kind::max) {
    const VI is_nan = m != m, better = K == Kind::max ? m > v : m < v;
    if constexpr (arg) {
      VI w{};
      if constexpr (n == 1) w[0] = c.winner[o]; else __builtin_memcpy(&w, c.winner + o, sizeof w);
      const VI keep_nan = VI{} - I(!skip_nan);
      const VI take = better | ((w < 0) & ~is_nan) | (is_nan & (v == v) & keep_nan);
      v = take ? m : v;
      w = take ? VI{} + e : w;
      if constexpr (n == 1) c.winner[o] = w[0]; else __builtin_memcpy(c.winner + o, &w, sizeof w);
    } else {
      v = (better | is_nan) ? m : v;
    }
  }
  if constexpr (n == 1) c.value[o] = v[0]; else __builtin_memcpy(c.value + o, &v, sizeof v);
}

template <class T, Kind K, bool arg, int F>  // F = 0: any number of features
STRUCTOPS_INLINE void add_row(const Cells<Acc<T>>& c, const T* src, int64_t row, int64_t e, int64_t features, bool skip_nan) {
  using A = Acc<T>;
  const Int<A> ei = Int<A>(e);
  if constexpr (F > 0) {
    combine<T, K, arg, F>(c, src, row * F, ei, skip_nan);
  } else {
    constexpr int L = W<A>;
    int64_t f = 0;
    const int64_t o = row * features;
    for (; f + L <= features; f += L) combine<T, K, arg, L>(c, src + f, o + f, ei, skip_nan);
    const int64_t left = features - f;
    if constexpr (L > 8) if (left & 8) { combine<T, K, arg, 8>(c, src + f, o + f, ei, skip_nan); f += 8; }
    if constexpr (L > 4) if (left & 4) { combine<T, K, arg, 4>(c, src + f, o + f, ei, skip_nan); f += 4; }
    if constexpr (L > 2) if (left & 2) { combine<T, K, arg, 2>(c, src + f, o + f, ei, skip_nan); f += 2; }
    if (left & 1) combine<T, K, arg, 1>(c, src + f, o + f, ei, skip_nan);
  }
}

template <class A, Kind K> void reset(const Cells<A>& c, int64_t rows, int64_t F) {
  for (int64_t i = 0; i < rows * F; ++i) c.value[i] = identity<A, K>();
  if (c.winner) for (int64_t i = 0; i < rows * F; ++i) c.winner[i] = -1;
  if (c.count) for (int64_t r = 0; r < rows; ++r) c.count[r] = 0;
}

template <class T, Kind K, bool arg> struct Run {
  using A = Acc<T>;
  const ScatterArgs& a;
  Cells<A> cells;  // [B * N, F]

  // Reduces the edges [e0, e1) of rows [r0, r1) into c, whose row 0 is r0.
  template <class I, int F> bool walk(const Cells<A>& c, const T* src, int64_t e0, int64_t e1, int64_t r0, int64_t r1) const {
    const I* const index = static_cast<const I*>(a.index.data);
    const int64_t features = F ? F : a.F;
    const bool all = r0 == 0 && r1 == a.N, mean = a.reduce == Reduce::mean;
    bool ok = true;
    if (all) {
      for (int64_t e = e0; e < e1; ++e) {
        const int64_t r = index[e];
        if (uint64_t(r) >= uint64_t(a.N)) { ok = false; continue; }
        if (F == 0 && e + kAhead < e1) {
          const int64_t next = index[e + kAhead];
          for (int64_t f = 0; f < features; f += 64 / int64_t(sizeof(A))) __builtin_prefetch(c.value + next * features + f, 1);
        } else if (F > 1 && e + kAhead < e1) {
          __builtin_prefetch(c.value + index[e + kAhead] * F, 1);
        }
        if (c.count) c.count[r] = mean ? c.count[r] + 1 : 1;
        add_row<T, K, arg, F>(c, src + e * features, r, e, features, a.skip_nan);
      }
      return ok;
    }
    struct Owned { int64_t row, e; } own[kBlock + kAhead];
    for (int64_t b = e0; b < e1; b += kBlock) {
      const int64_t stop = b + kBlock < e1 ? b + kBlock : e1;
      int n = 0;
      for (int64_t e = b; e < stop; ++e) {
        const int64_t r = index[e];
        own[n] = {r - r0, e};
        n += r >= r0 && r < r1;
        ok &= uint64_t(r) < uint64_t(a.N);
      }
      for (int i = 0; i < kAhead; ++i) own[n + i] = own[n ? n - 1 : 0];
      for (int i = 0; i < n; ++i) {
        for (int64_t f = 0; f < features; f += 64 / int64_t(sizeof(A))) {
          __builtin_prefetch(c.value + own[i + kAhead].row * features + f, 1);
          __builtin_prefetch(src + own[i + kAhead].e * features + f);
        }
        if (c.count) c.count[own[i].row] = mean ? c.count[own[i].row] + 1 : 1;
        add_row<T, K, arg, F>(c, src + own[i].e * features, own[i].row, own[i].e, features, a.skip_nan);
      }
    }
    return ok;
  }

  bool walk(const Cells<A>& c, int64_t batch, int64_t e0, int64_t e1, int64_t r0, int64_t r1) const {
    const T* const src = static_cast<const T*>(a.src) + batch * a.E * a.F;
    auto with = [&](auto* i) {
      using I = Pointee<decltype(i)>;
      if (a.F == 1) return walk<I, 1>(c, src, e0, e1, r0, r1);
      if constexpr (K == Kind::sum || (K != Kind::prod && sizeof(T) > 2)) {
        if (a.F == 2) return walk<I, 2>(c, src, e0, e1, r0, r1);
        if (a.F == 4) return walk<I, 4>(c, src, e0, e1, r0, r1);
        if (a.F == 8) return walk<I, W<A> >= 8 ? 8 : 0>(c, src, e0, e1, r0, r1);
      }
      return walk<I, 0>(c, src, e0, e1, r0, r1);
    };
    return a.index.wide ? with(static_cast<int64_t*>(nullptr)) : with(static_cast<int32_t*>(nullptr));
  }

  Cells<A> at(const Cells<A>& c, int64_t row) const {
    return {c.value + row * a.F, c.winner ? c.winner + row * a.F : nullptr, c.count ? c.count + row : nullptr};
  }

  // Group `row` of `later` into c; later edges lose ties.
  void merge(const Cells<A>& c, const Cells<A>& later, int64_t begin, int64_t end) const {
    for (int64_t i = begin * a.F; i < end * a.F; ++i) {
      const A m = later.value[i];
      A& v = c.value[i];
      if constexpr (K == Kind::sum) v += m;
      if constexpr (K == Kind::prod) v *= m;
      if constexpr (K == Kind::min || K == Kind::max) {
        const bool better = K == Kind::max ? m > v : m < v;
        if constexpr (arg) {
          const bool take = later.winner[i] >= 0 && (better || c.winner[i] < 0 || (m != m && v == v && !a.skip_nan));
          v = take ? m : v;
          c.winner[i] = take ? later.winner[i] : c.winner[i];
        } else {
          v = better || m != m ? m : v;
        }
      }
    }
    if (c.count) for (int64_t r = begin; r < end; ++r) c.count[r] += later.count[r];
  }

  // Rows [begin, end) of all batches from accumulators to outputs.
  void finish(int64_t begin, int64_t end) const {
    T* const out = static_cast<T*>(a.out);
    const A fill = A(a.fill);
    for (int64_t r = begin; r < end; ++r)
      for (int64_t i = r * a.F; i < (r + 1) * a.F; ++i) {
        A v = cells.value[i];
        if constexpr (arg) {
          if (cells.winner[i] < 0) v = fill;
          if (a.arg) a.arg[i] = cells.winner[i] < 0 ? a.E : int64_t(cells.winner[i]);
        } else if (cells.count) {
          v = cells.count[r] == 0 ? fill : a.reduce == Reduce::mean ? v / A(cells.count[r]) : v;
        }
        narrow_to(out + i, v);
      }
  }

  bool run(const ParallelFor& pf) const {
    const bool needs_finish = sizeof(A) != sizeof(T) || cells.count || arg;
    const bool is_private = a.F <= 8 && a.E >= 65536 && a.N * kParts <= a.E;
    bool ok = true;
    if (is_private) {
      const int64_t cells_n = a.N * a.F;
      const int64_t extra = a.B * (kParts - 1);
      A* const value = allocate<A>(size_t(extra * cells_n));
      Int<A>* const winner = arg ? allocate<Int<A>>(size_t(extra * cells_n)) : nullptr;
      int32_t* const count = cells.count ? allocate<int32_t>(size_t(extra * a.N)) : nullptr;
      auto part = [&](int64_t batch, int64_t p) -> Cells<A> {  // part 0 works in place
        if (p == 0) return at(cells, batch * a.N);
        return at({value, winner, count}, (batch * (kParts - 1) + p - 1) * a.N);
      };
      auto body = [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) {
          const int64_t batch = task / kParts, p = task % kParts;
          const Cells<A> c = part(batch, p);
          reset<A, K>(c, a.N, a.F);
          if (!walk(c, batch, a.E * p / kParts, a.E * (p + 1) / kParts, 0, a.N)) __atomic_store_n(&ok, false, __ATOMIC_RELAXED);
        }
      };
      parallel_for(pf, a.B * kParts, 1, body);
      auto join = [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end;) {
          const int64_t batch = r / a.N, first = r % a.N, last = first + (end - r) < a.N ? first + (end - r) : a.N;
          for (int64_t p = 1; p < kParts; ++p) merge(part(batch, 0), part(batch, p), first, last);
          if (needs_finish) finish(batch * a.N + first, batch * a.N + last);
          r += last - first;
        }
      };
      parallel_for(pf, a.B * a.N, 8192, join);
      std::free(value);
      std::free(winner);
      std::free(count);
      return ok;
    }
    const int64_t parts = a.E * a.F < 65536 ? 1 : pf.threads;
    auto body = [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t batch = task / parts, r0 = a.N * (task % parts) / parts, r1 = a.N * (task % parts + 1) / parts;
        const Cells<A> c = at(cells, batch * a.N + r0);
        reset<A, K>(c, r1 - r0, a.F);
        if (!walk(c, batch, 0, a.E, r0, r1)) __atomic_store_n(&ok, false, __ATOMIC_RELAXED);
        if (needs_finish) finish(batch * a.N + r0, batch * a.N + r1);
      }
    };
    parallel_for(pf, a.B * parts, a.B * a.E * a.F < 65536 ? a.B * parts : 1, body);
    return ok;
  }
};

template <class T, Kind K, bool arg> bool run(const ScatterArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  const size_t cells = size_t(a.B * a.N * a.F);
  const bool own = sizeof(A) != sizeof(T);
  const bool counts = a.reduce == Reduce::mean || (!arg && !(K == Kind::sum && a.fill == 0) && !(K == Kind::prod && a.fill == 1));
  Run<T, K, arg> r{a, {own ? allocate<A>(cells) : static_cast<A*>(a.out), arg ? allocate<Int<A>>(cells) : nullptr,
                       counts ? allocate<int32_t>(size_t(a.B * a.N)) : nullptr}};
  const bool ok = r.run(pf);
  if (own) std::free(r.cells.value);
  std::free(r.cells.winner);
  std::free(r.cells.count);
  return ok;
}

}  // namespace

bool scatter_fwd(const ScatterArgs& a, const ParallelFor& pf) {
  bool ok = true;
  const bool arg = a.arg || a.skip_nan;
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    switch (a.reduce) {
      case Reduce::prod: ok = run<T, Kind::prod, false>(a, pf); break;
      case Reduce::min: ok = arg ? run<T, Kind::min, true>(a, pf) : run<T, Kind::min, false>(a, pf); break;
      case Reduce::max: ok = arg ? run<T, Kind::max, true>(a, pf) : run<T, Kind::max, false>(a, pf); break;
      default: ok = run<T, Kind::sum, false>(a, pf); break;
    }
  });
  return ok;
}

}  // namespace structops::STRUCTOPS_ISA
