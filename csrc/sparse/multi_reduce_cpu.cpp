// CPU forward of multi_reduce. The contract is multi_reduce.h.
//
// A block of feature vectors walks the edges of a row, or of a part of it, with the state of every reduction in registers.
#include "sparse/multi_reduce_rows.h"
#include "sparse/reduce_ops.h"

namespace structops::STRUCTOPS_ISA {
namespace {

template <class A> STRUCTOPS_INLINE Vec<A> root(Vec<A> v) {
  for (int i = 0; i < W<A>; ++i) v[i] = sizeof(A) == 4 ? A(__builtin_sqrtf(v[i])) : A(__builtin_sqrt(v[i]));
  return v;
}

// Sums of m - shift and of its square: over a run, and over the edges before it.
template <class A> struct Moments {
  Vec<A> shift = {}, run_sum = {}, run_square = {}, sum = {}, square = {};
  [[gnu::always_inline]] void add(Vec<A> m) {
    const Vec<A> d = m - shift;
    run_sum += d;
    run_square += d * d;
  }
  [[gnu::always_inline]] void end_run() {
    sum += run_sum;
    square += run_square;
    run_sum = run_square = Vec<A>{};
  }
  // To the mean of the n messages so far, as exactly as the sums are.
  [[gnu::always_inline]] void move_shift(A n) {
    const Vec<A> d = finite_or_0<A>(shift + sum / n) - shift, moved = sum - n * d;
    square -= d * (sum + moved);
    shift += d;
    sum = moved;
  }
  // Appends the later part b of nb messages to the n of this. Squares are added about each part's own mean, where what cancels is
  // bounded by the runs, sums about the shift of the longer part.
  [[gnu::always_inline]] void append(A n, const Moments& b, A nb) {
    const Vec<A> own = sum / n, other = b.sum / nb, step = b.shift - shift, apart = step + (other - own);
    square = square - sum * own + (b.square - b.sum * other) + apart * apart * (n * (nb / (n + nb)));
    sum = n < nb ? b.sum + (sum - n * step) : sum + (b.sum + nb * step);
    if (n < nb) shift = b.shift;
    const Vec<A> d = finite_or_0<A>(shift + sum / (n + nb)) - shift;
    shift += d;
    sum -= (n + nb) * d;
    square += sum * (sum / (n + nb));
  }
};

enum class Sums { none, plain, moments };

// The state of one vector of features at the end of a row or of a part of it: the sum or the moments, value and lane of min and max.
template <class A> struct State {
  Vec<A> sum;
  Moments<A> moment;
  Vec<A> low[2], high[2];
};

// Calls f for the vectors that are used of a state: at most kComponents.
constexpr int kComponents = 7;
template <Sums sums, bool lo, bool hi, class A, class F> STRUCTOPS_INLINE void each_component(State<A>& s, F f) {
  if constexpr (sums == Sums::plain) f(s.sum);
  if constexpr (sums == Sums::moments) { f(s.moment.shift); f(s.moment.sum); f(s.moment.square); }
  if constexpr (lo) { f(s.low[0]); f(s.low[1]); }
  if constexpr (hi) { f(s.high[0]); f(s.high[1]); }
}

// Appends the later part b of nb edges to the n of s.
template <Sums sums, bool lo, bool hi, class A> STRUCTOPS_INLINE void append(State<A>& s, int64_t n, const State<A>& b, int64_t nb) {
  const Vec<Int<A>> nan = splat(Int<A>(-1));
  if constexpr (sums == Sums::plain) s.sum += b.sum;
  if constexpr (sums == Sums::moments) s.moment.append(A(n), b.moment, A(nb));
  if constexpr (lo) ArgOp<A, false>::merge(s.low, n, b.low, nb, nan);
  if constexpr (hi) ArgOp<A, true>::merge(s.high, n, b.high, nb, nan);
}

// Writes the results of row r, features f to f + n.
template <class T, Sums sums> void finish(const MultiReduceArgs& a, int64_t r, int64_t f, int64_t n, const State<Acc<T>>& s) {
  using A = Acc<T>;
  const int64_t F = a.F, begin = a.rowptr[r], end = a.rowptr[r + 1];
  const bool any = begin < end, lo = has(a.list, Reduce::min);
  const A count = A(end - begin);
  const A* const scale = static_cast<const A*>(a.scale);
  A* const stat = static_cast<A*>(a.stat) + r * F + f;
  const Vec<A> zero = {}, y = any && a.y ? get(static_cast<const T*>(a.y) + r * F + f, n) : zero;
  Vec<A> sum = s.sum, mean = any ? sum / count : zero, var = zero;
  if constexpr (sums == Sums::moments) {
    const Moments<A>& m = s.moment;
    const Vec<A> rest = any ? m.sum / count : zero;
    if (any) var = (m.square - m.sum * rest) / count;
    var = var < 0 ? zero : var;
    sum = count * m.shift + m.sum;
    mean = m.shift + rest;
    if (a.stat) put(stat, any ? m.shift - (centre<T>(a.x, a.M, f, n) + centre<T>(a.edge, a.E, f, n)) + rest : zero, n);
  }
  const Vec<A> std = has(a.list, Reduce::std) ? root<A>(var + A(a.eps)) : zero;
  if (a.stat && has(a.list, Reduce::std)) put(stat + a.N * F, std, n);
  for (int i = 0; i < a.list.size; ++i) {
    Vec<A> value;
    switch (reduction(a.list, i)) {
      case Reduce::sum: value = sum + count * y; break;
      case Reduce::mean: value = mean + y; break;
      case Reduce::var: value = var; break;
      case Reduce::std: value = std; break;
      case Reduce::min: value = any ? s.low[0] + y : zero; break;
      default: value = any ? s.high[0] + y : zero;
    }
    for (int64_t t = 0; t < a.S; ++t)
      put(static_cast<T*>(a.out) + ((r * a.S + t) * a.list.size + i) * F + f, scale ? scale[t * a.N + r] * value : value, n);
  }
  if (!a.arg) return;
  for (int e = 0; e < extremes(a.list); ++e) {
    const Vec<A> lanes = lo && e == 0 ? s.low[1] : s.high[1];
    Int<A> lane[W<A>];
    __builtin_memcpy(lane, &lanes, sizeof lane);
    auto write = [&](auto* arg) __attribute__((always_inline)) {
      using I = Pointee<decltype(arg)>;
      const I* const source = static_cast<const I*>(a.col.data) + begin;
      arg += (e * a.N + r) * F + f;
      if (!any) for (int i = 0; i < n; ++i) arg[i] = -1;
      else if (a.edge) for (int i = 0; i < n; ++i) arg[i] = I(begin + lane[i]);
      else for (int i = 0; i < n; ++i) arg[i] = source[lane[i]];
    };
    if (a.rowptr.wide) write(static_cast<int64_t*>(a.arg)); else write(static_cast<int32_t*>(a.arg));
  }
}

// The edges [begin, end) of row r, features f to f + n: V vectors, or one of n lanes. A part of a row goes to `part`: the number of its
// edges, then [kComponents, F]; null: the whole row.
template <class T, Sums sums, bool lo, bool hi, int V>
void reduce_row(const MultiReduceArgs& a, int64_t r, int64_t begin, int64_t end, int64_t f, int64_t n, Acc<T>* part) {
  using A = Acc<T>;
  using Low = ArgOp<A, false>;
  using High = ArgOp<A, true>;
  constexpr int L = W<A>;
  const Vec<Int<A>> nan = splat(Int<A>(-1));
  const int64_t F = a.F, row_begin = a.rowptr[r], width = V == 1 ? n : L;
  const T *const x = static_cast<const T*>(a.x), *const edge = static_cast<const T*>(a.edge);
  Vec<A> total[V] = {}, low[V][2], high[V][2];
  Moments<A> moment[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) { Low::init(low[v], nan); High::init(high[v], nan); }

  auto each = [&](int64_t k, auto use) __attribute__((always_inline)) {
    const T* const from_x = x ? x + a.col[k] * F + f : nullptr;
    const T* const from_edge = edge ? edge + (a.eid ? a.eid[k] : k) * F + f : nullptr;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      Vec<A> m = from_x ? get(from_x + v * L, width) : Vec<A>{};
      if (from_edge) m += get(from_edge + v * L, width);
      use(m, v);
    }
  };
  if (sums == Sums::moments && begin < end)
    each(begin, [&](Vec<A> m, int v) __attribute__((always_inline)) { moment[v].shift = finite_or_0<A>(m); });
  for (int64_t k = begin; k < end;) {
    const int64_t stop = sums == Sums::moments && end - k > kMultiRun ? k + kMultiRun : end;
    for (; k < stop; ++k) {
      if (x && k + kAhead < end)
        for (int i = 0; i < V * L; i += 64 / int(sizeof(T))) __builtin_prefetch(x + a.col[k + kAhead] * F + f + i);
      each(k, [&](Vec<A> m, int v) __attribute__((always_inline)) {
        if constexpr (sums == Sums::plain) total[v] += m;
        if constexpr (sums == Sums::moments) moment[v].add(m);
        if constexpr (lo) Low::step(low[v], m, Int<A>(k - row_begin), 0, nan);
        if constexpr (hi) High::step(high[v], m, Int<A>(k - row_begin), 0, nan);
      });
    }
    if constexpr (sums == Sums::moments)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        moment[v].end_run();
        if (k < end) moment[v].move_shift(A(k - begin));
      }
  }
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    State<A> s{total[v], moment[v], {low[v][0], low[v][1]}, {high[v][0], high[v][1]}};
    if (!part) {
      finish<T, sums>(a, r, f + v * L, width, s);
      continue;
    }
    *part = A(end - begin);
    A* to = part + 1 + f + v * L;
    each_component<sums, lo, hi>(s, [&](const Vec<A>& c) __attribute__((always_inline)) { put(to, c, width); to += F; });
  }
}

// Row r from its parts.
template <class T, Sums sums, bool lo, bool hi>
void merge_parts(const MultiReduceArgs& a, const Slots<Acc<T>>& parts, int64_t r, int64_t first, int64_t last) {
  using A = Acc<T>;
  for (int64_t f = 0; f < a.F; f += W<A>) {
    const int64_t n = a.F - f < W<A> ? a.F - f : W<A>;
    const auto read = [&](int64_t slot) __attribute__((always_inline)) {
      State<A> s{};
      const A* from = parts[slot] + 1 + f;
      each_component<sums, lo, hi>(s, [&](Vec<A>& c) __attribute__((always_inline)) { c = get(from, n); from += a.F; });
      return s;
    };
    State<A> s = read(first);
    int64_t count = int64_t(*parts[first]);
    for (int64_t slot = first; slot < last;) {
      slot = next_slot(slot);
      const int64_t more = int64_t(*parts[slot]);
      if (more > 0) append<sums, lo, hi>(s, count, read(slot), more);
      count += more;
    }
    finish<T, sums>(a, r, f, n, s);
  }
}

template <class T, Sums sums, bool lo, bool hi> void reduce_rows(const MultiReduceArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  constexpr int L = W<A>;
  const Slots<A> parts(a.N, a.E, 1 + kComponents * a.F);
  for_cut_rows(a.rowptr, a.N, a.E, 4 * a.F, pf, [&](int64_t, auto rows) {
    rows([&](int64_t r, int64_t begin, int64_t end, int64_t slot) {
      prefetch_row<T>(a, a.out, r + 1);
      A* const part = slot < 0 ? nullptr : parts[slot];
      int64_t f = 0;
      for (; f + kWide * L <= a.F; f += kWide * L) reduce_row<T, sums, lo, hi, kWide>(a, r, begin, end, f, kWide * L, part);
      for (; f < a.F; f += L) reduce_row<T, sums, lo, hi, 1>(a, r, begin, end, f, a.F - f < L ? a.F - f : L, part);
    });
  }, [&](int64_t r, int64_t first, int64_t last) { merge_parts<T, sums, lo, hi>(a, parts, r, first, last); });
}

template <class T, Sums sums> void with_extremes(const MultiReduceArgs& a, const ParallelFor& pf) {
  const bool lo = has(a.list, Reduce::min), hi = has(a.list, Reduce::max);
  if (lo && hi) return reduce_rows<T, sums, true, true>(a, pf);
  if (lo) return reduce_rows<T, sums, true, false>(a, pf);
  if (hi) return reduce_rows<T, sums, false, true>(a, pf);
  if constexpr (sums != Sums::none) reduce_rows<T, sums, false, false>(a, pf);
}

}  // namespace

void multi_reduce_fwd(const MultiReduceArgs& a, const ParallelFor& pf) {
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) {
      if (moments(a.list)) with_extremes<T, Sums::moments>(a, pf);
      else if (terms(a.list)) with_extremes<T, Sums::plain>(a, pf);
      else with_extremes<T, Sums::none>(a, pf);
    }
  });
}

}  // namespace structops::STRUCTOPS_ISA
