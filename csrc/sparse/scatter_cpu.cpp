// CPU scatter. The contract is scatter.h. Task t of n owns output rows [N t / n, N (t+1) / n) and reads the whole index:
// a block of indices is filtered without branches into the edges it owns, then their rows are reduced with the output
// rows prefetched.
#include <cstdlib>

#include "sparse/reduce_ops.h"
#include "sparse/scatter.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kBlock = 1024, kAhead = 8;

struct Owned { int64_t row; int64_t e; };

template <class T, class Op> struct Scatter {
  using A = Acc<T>;
  using V = Vec<A>;
  using VI = Vec<Int<A>>;
  const ScatterArgs& a;
  A* acc;           // [B, N, F], the output itself where T is its own accumulator
  Int<A>* lane;     // [B, N, F] winners, -1 while none; min and max only
  int32_t* count;   // [B, N], or null where neither the mean nor the fill needs it

  // Reduces edge e into accumulator row o (element offset).
  STRUCTOPS_INLINE void row(const Scatter& s, const T* src, int64_t e, int64_t o, VI nan) {
    const int64_t F = s.a.F;
    if (F == 1) {  // scalar: a vector would only add latency
      const A m = widen(*src);
      if constexpr (Op::has_arg) {
        const A v = s.acc[o];
        const bool is_nan = m != m;
        const bool wins = Op::better(m, v) || (s.lane[o] < 0 && !is_nan) || (is_nan && v == v && !s.a.skip_nan);
        if (wins) { s.acc[o] = m; s.lane[o] = Int<A>(e); }
      } else {
        s.acc[o] = Op::one(s.acc[o], m);
      }
      return;
    }
    constexpr int L = W<A>;
    auto piece = [&](int64_t f, int n) __attribute__((always_inline)) {
      V st[Op::C];
      const V m = n == L ? load(src + f) : load_n(src + f, n);
      st[0] = n == L ? load(s.acc + o + f) : load_n(s.acc + o + f, n);
      if constexpr (Op::has_arg)
        st[1] = bitcast<V>(n == L ? load(s.lane + o + f) : load_n(s.lane + o + f, n));
      Op::step(st, m, Int<A>(e), 0, nan);
      if (n == L) store(s.acc + o + f, st[0]); else store_n(s.acc + o + f, st[0], n);
      if constexpr (Op::has_arg) {
        const VI l = bitcast<VI>(st[1]);
        if (n == L) store(s.lane + o + f, l); else store_n(s.lane + o + f, l, n);
      }
    };
    int64_t f = 0;
    for (; f + L <= F; f += L) piece(f, L);
    if (f < F) piece(f, int(F - f));
  }

  template <class I> bool walk(int64_t batch, int64_t r0, int64_t r1) const {
    const int64_t F = a.F;
    const I* const index = static_cast<const I*>(a.index.data);
    const T* const src = static_cast<const T*>(a.src) + batch * a.E * F;
    const int64_t base = batch * a.N * F;
    const VI nan = splat(Int<A>(a.skip_nan ? 0 : -1));
    bool ok = true;
    Owned own[kBlock + kAhead];
    for (int64_t e0 = 0; e0 < a.E; e0 += kBlock) {
      const int64_t stop = e0 + kBlock < a.E ? e0 + kBlock : a.E;
      int n = 0;
      for (int64_t e = e0; e < stop; ++e) {
        const int64_t r = index[e];
        own[n] = {r, e};
        n += r >= r0 && r < r1;
        ok &= uint64_t(r) < uint64_t(a.N);
      }
      for (int i = 0; i < kAhead; ++i) own[n + i] = own[n ? n - 1 : 0];
      if (n == 0) continue;
      for (int i = 0; i < n; ++i) {
        if (F > 1)
          for (int64_t f = 0; f < F; f += 64 / int64_t(sizeof(A))) {
            __builtin_prefetch(acc + base + own[i + kAhead].row * F + f, 1);
            __builtin_prefetch(src + own[i + kAhead].e * F + f);
          }
        if (count) ++count[batch * a.N + own[i].row];
        row(*this, src + own[i].e * F, own[i].e, base + own[i].row * F, nan);
      }
    }
    return ok;
  }

  void init(int64_t batch, int64_t r0, int64_t r1) const {
    const int64_t lo = (batch * a.N + r0) * a.F, hi = (batch * a.N + r1) * a.F;
    V st[Op::C];
    Op::init(st);
    for (int64_t i = lo; i < hi; ++i) acc[i] = st[0][0];
    if constexpr (Op::has_arg) for (int64_t i = lo; i < hi; ++i) lane[i] = -1;
    if (count) std::memset(count + batch * a.N + r0, 0, size_t(r1 - r0) * sizeof(int32_t));
  }

  void finish(int64_t batch, int64_t r0, int64_t r1) const {
    T* const out = static_cast<T*>(a.out);
    const bool mean = a.reduce == Reduce::mean;
    const A fill = A(a.fill);
    for (int64_t r = batch * a.N + r0; r < batch * a.N + r1; ++r)
      for (int64_t i = r * a.F; i < (r + 1) * a.F; ++i) {
        A v = acc[i];
        if constexpr (Op::has_arg) {
          if (lane[i] < 0) v = fill;
          if (a.arg) a.arg[i] = lane[i] < 0 ? a.E : int64_t(lane[i]);
        } else if (count) {
          v = count[r] == 0 ? fill : mean ? v / A(count[r]) : v;
        }
        narrow_to(out + i, v);
      }
  }
};

template <class A> struct SumAt : SumOp<A> { STRUCTOPS_INLINE A one(A a, A m) { return a + m; } };
template <class A> struct ProdAt : ProdOp<A> { STRUCTOPS_INLINE A one(A a, A m) { return a * m; } };
template <class A, bool Max> struct ArgAt : ArgOp<A, Max> {
  STRUCTOPS_INLINE bool better(A m, A v) { return Max ? m > v : m < v; }
};

template <class T, class Op> bool run(const ScatterArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  const size_t cells = size_t(a.B * a.N * a.F);
  const bool own_acc = sizeof(A) != sizeof(T);
  const bool counts = a.reduce == Reduce::mean || (!Op::has_arg && (a.reduce == Reduce::prod ? a.fill != 1 : a.fill != 0));
  Scatter<T, Op> s{a, own_acc ? static_cast<A*>(std::malloc(cells * sizeof(A))) : static_cast<A*>(a.out),
                   Op::has_arg ? static_cast<Int<A>*>(std::malloc(cells * sizeof(Int<A>))) : nullptr,
                   counts ? static_cast<int32_t*>(std::malloc(size_t(a.B * a.N) * sizeof(int32_t))) : nullptr};
  const int64_t parts = a.E * a.F < 65536 ? 1 : pf.threads;
  bool ok = true;
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t batch = task / parts, part = task % parts;
      const int64_t r0 = a.N * part / parts, r1 = a.N * (part + 1) / parts;
      s.init(batch, r0, r1);
      const bool fine = a.index.wide ? s.template walk<int64_t>(batch, r0, r1) : s.template walk<int32_t>(batch, r0, r1);
      if (!fine) __atomic_store_n(&ok, false, __ATOMIC_RELAXED);
      if (own_acc || counts || Op::has_arg) s.finish(batch, r0, r1);
    }
  };
  parallel_for(pf, a.B * parts, a.B * a.E * a.F < 65536 ? a.B * parts : 1, body);
  if (own_acc) std::free(s.acc);
  std::free(s.lane);
  std::free(s.count);
  return ok;
}

}  // namespace

bool scatter_fwd(const ScatterArgs& a, const ParallelFor& pf) {
  bool ok = true;
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    using A = Acc<T>;
    switch (a.reduce) {
      case Reduce::prod: ok = run<T, ProdAt<A>>(a, pf); break;
      case Reduce::min: ok = run<T, ArgAt<A, false>>(a, pf); break;
      case Reduce::max: ok = run<T, ArgAt<A, true>>(a, pf); break;
      default: ok = run<T, SumAt<A>>(a, pf); break;
    }
  });
  return ok;
}

}  // namespace structops::STRUCTOPS_ISA
