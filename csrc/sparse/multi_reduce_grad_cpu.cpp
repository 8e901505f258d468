// CPU backward of multi_reduce. The contract is multi_reduce.h.
//
// The rows reduce their gradients to the terms a and b; the sources add them up, through panels of features whose terms stay in the
// cache.
#include "sparse/multi_reduce_rows.h"
#include "sparse/select.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int64_t kNear = 3 << 19;  // most of the L2 cache of a core

// What the backward works in: the terms [panels, N, terms, width] of the rows, gradients and winners of the extremes, and what the
// sources won.
template <class T> struct Backward {
  using A = Acc<T>;
  A* table;
  int64_t width;
  A* extreme;    // [extremes, N, F]
  void* source;  // [extremes, N, F]: the sources of winners that arg gives by edge; or null
  const A* won;  // [M, F] or null
  A* at(const MultiReduceArgs& a, int64_t v, int64_t f) const { return table + (f / width * a.N + v) * terms(a.list) * width + f % width; }
};

// The gradients of row r, features f to f + n, as terms of its messages, and those of its edges [begin, end).
template <class T>
void reduce_gradient(const MultiReduceArgs& a, const Backward<T>& b, int64_t r, int64_t begin, int64_t end, int64_t f, int64_t n) {
  using A = Acc<T>;
  const int64_t F = a.F, row_begin = a.rowptr[r], row_end = a.rowptr[r + 1];
  const bool leads = begin == row_begin;  // other parts of the row may run at the same time
  const A* const scale = static_cast<const A*>(a.scale);
  const A *const stat = static_cast<const A*>(a.stat) + r * F + f, count = A(row_end - row_begin);
  Vec<A> sum = {}, mean = {}, var = {}, std = {}, extreme[2] = {};
  if (row_begin < row_end)
    for (int64_t s = 0; s < a.S; ++s)
      for (int i = 0; i < a.list.size; ++i) {
        Vec<A> g = get(static_cast<const T*>(a.grad) + ((r * a.S + s) * a.list.size + i) * F + f, n);
        if (scale) g *= scale[s * a.N + r];
        switch (reduction(a.list, i)) {
          case Reduce::sum: sum += g; break;
          case Reduce::mean: mean += g; break;
          case Reduce::var: var += g; break;
          case Reduce::std: std += g; break;
          case Reduce::min: extreme[0] += g; break;
          default: extreme[has(a.list, Reduce::min)] += g;
        }
      }
  if (a.d_y && leads) put(static_cast<T*>(a.d_y) + r * F + f, count * sum + mean + extreme[0] + extreme[1], n);
  Vec<A> first = sum + mean / count, second = {};
  if (moments(a.list)) {
    if (has(a.list, Reduce::std)) var += A(0.5) * std / get(stat + a.N * F, n);
    second = A(2) * var / count;
    first -= second * get(stat, n);
  }

  Vec<Int<A>> winner[2];  // as lanes of the row
  for (int e = 0; e < extremes(a.list); ++e) {
    const int64_t at = (e * a.N + r) * F + f;
    if (leads) put(b.extreme + at, extreme[e], n);
    for (int i = 0; i < n; ++i) {
      const int64_t k = Index{a.arg, a.rowptr.wide}[at + i];
      winner[e][i] = Int<A>(k - row_begin);
      if (!b.source || !leads) continue;
      const int64_t u = k < 0 ? -1 : a.col[k];
      if (a.rowptr.wide) static_cast<int64_t*>(b.source)[at + i] = u; else static_cast<int32_t*>(b.source)[at + i] = int32_t(u);
    }
  }
  if (a.d_x && terms(a.list) && leads) {
    put(b.at(a, r, f), first, n);
    if (moments(a.list)) put(b.at(a, r, f) + b.width, second, n);
  }
  if (!a.d_edge) return;
  const Vec<A> c_x = centre<T>(a.x, a.M, f, n), c_edge = centre<T>(a.edge, a.E, f, n);
  for (int64_t k = begin; k < end; ++k) {
    const int64_t e = (a.eid ? a.eid[k] : k) * F + f;
    Vec<A> d = first;
    if (moments(a.list)) {
      Vec<A> m = get(static_cast<const T*>(a.edge) + e, n) - c_edge;
      if (a.x) m += get(static_cast<const T*>(a.x) + a.col[k] * F + f, n) - c_x;
      d += second * m;
    }
    for (int i = 0; i < extremes(a.list); ++i) d += winner[i] == splat(Int<A>(k - row_begin)) ? extreme[i] : Vec<A>{};
    put(static_cast<T*>(a.d_edge) + e, d, n);
  }
}

// The gradient of x[u], features f to f + n, V vectors or one of n lanes, of one panel.
template <class T, int C, int V> void gather_terms(const MultiReduceArgs& a, const Backward<T>& b, int64_t u, int64_t f, int64_t n) {
  using A = Acc<T>;
  constexpr int L = W<A>, U = V == 1 ? 4 : 1;  // U sums of every U-th edge: hides the latency of dependent additions
  const A* const rows = b.at(a, 0, f);
  const int64_t stride = C * b.width, end = a.colptr[u + 1];
  const int64_t width = V == 1 ? n : L;
  Vec<A> sum[U][V] = {}, slope[U][V] = {};
  auto add = [&](int64_t j, int i) __attribute__((always_inline)) {
    const A* const from = rows + a.row_t[j] * stride;
    const T* const edge = C == 2 && a.edge ? static_cast<const T*>(a.edge) + (a.eid_t ? a.eid_t[j] : j) * a.F + f : nullptr;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      sum[i][v] += get(from + v * L, width);
      if constexpr (C == 2) {
        const Vec<A> s = get(from + b.width + v * L, width);
        slope[i][v] += s;
        if (edge) sum[i][v] += s * (get(edge + v * L, width) - centre<T>(a.edge, a.E, f + v * L, width));
      }
    }
  };
  int64_t j = a.colptr[u];
  for (; j + U <= end; j += U)
#pragma GCC unroll 4
    for (int i = 0; i < U; ++i) {
      if (j + i + kAhead < end)
        for (int t = 0; t < C; ++t)
          for (int k = 0; k < V * L; k += 64 / sizeof(A)) __builtin_prefetch(rows + a.row_t[j + i + kAhead] * stride + t * b.width + k);
      add(j + i, i);
    }
  for (; j < end; ++j) add(j, 0);
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v, f += L) {
#pragma GCC unroll 4
    for (int i = 1; i < U; ++i) { sum[0][v] += sum[i][v]; slope[0][v] += slope[i][v]; }
    Vec<A> d = sum[0][v];
    if constexpr (C == 2) d += slope[0][v] * (get(static_cast<const T*>(a.x) + u * a.F + f, width) - centre<T>(a.x, a.M, f, width));
    if (b.won) d += get(b.won + u * a.F + f, width);
    put(static_cast<T*>(a.d_x) + u * a.F + f, d, width);
  }
}

template <class T, int C> void gather_panels(const MultiReduceArgs& a, const Backward<T>& b, const ParallelFor& pf) {
  constexpr int L = W<Acc<T>>;
  const int64_t pieces = row_pieces(a.M, a.E), panels = (a.F + b.width - 1) / b.width;
  for_row_pieces(a.colptr, a.M, a.E, 2 * b.width, pf, [&](int64_t task, int64_t first, int64_t last) {
    const int64_t begin = task / pieces * b.width, end = begin + b.width < a.F ? begin + b.width : a.F;
    for (int64_t u = first; u < last; ++u) {
      int64_t f = begin;
      for (; f + kWide * L <= end; f += kWide * L) gather_terms<T, C, kWide>(a, b, u, f, kWide * L);
      for (; f < end; f += L) gather_terms<T, C, 1>(a, b, u, f, end - f);
    }
  }, panels);
}

// The widest panel, in whole lines, whose terms stay near; all features where not even a line of them does.
template <class A> int64_t panel_width(const MultiReduceArgs& a, int terms) {
  const int64_t line = 64 / sizeof(A), row = a.N * terms * int64_t(sizeof(A));
  const int64_t width = row ? kNear / row / line * line : 0;
  return width == 0 || width > a.F ? a.F : width;
}

template <class T> void backward(const MultiReduceArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  constexpr int L = W<A>;
  const int n_terms = a.d_x ? terms(a.list) : 0, n_extremes = extremes(a.list);
  const bool map = n_extremes && a.d_x && a.edge, same = sizeof(A) == sizeof(T);
  Backward<T> b{};
  b.width = panel_width<A>(a, n_terms);
  const int64_t panels = (a.F + b.width - 1) / b.width, cells = n_extremes * a.N * a.F;
  const int64_t n_table = panels * a.N * n_terms * b.width, n_won = n_extremes && a.d_x && !same ? a.M * a.F : 0;
  const int64_t sources = map ? (cells * (a.rowptr.wide ? 8 : 4) + 63) / 64 * 64 : 0;  // bytes
  char* const scratch = allocate<char>(size_t(sources + (n_table + cells + n_won) * int64_t(sizeof(A))));
  b.source = map ? scratch : nullptr;
  b.table = reinterpret_cast<A*>(scratch + sources);
  b.extreme = b.table + n_table;
  A* const won = n_won ? b.extreme + cells : static_cast<A*>(a.d_x);
  for_cut_rows(a.rowptr, a.N, a.E, 4 * a.F, pf, [&](int64_t, auto rows) {
    rows([&](int64_t r, int64_t begin, int64_t end, int64_t) {
      if (!a.d_edge && begin > a.rowptr[r]) return;
      prefetch_row<T>(a, a.grad, r + 1);
      for (int64_t f = 0; f < a.F; f += L) reduce_gradient<T>(a, b, r, begin, end, f, a.F - f < L ? a.F - f : L);
    });
  }, [](int64_t, int64_t, int64_t) {});
  if (a.d_x) {
    if (n_extremes) {
      SelectArgs s{};
      s.dtype = sizeof(A) == 8 ? Dtype::f64 : Dtype::f32;
      s.B = 1; s.N = n_extremes * a.N; s.M = a.M; s.F = a.F;
      s.src = b.extreme;
      s.idx = {b.source ? b.source : a.arg, a.rowptr.wide};
      s.out = won;
      structops::select_bwd(s, pf);
      b.won = won;
    }
    if (n_terms == 2) gather_panels<T, 2>(a, b, pf);
    else if (n_terms == 1) gather_panels<T, 1>(a, b, pf);
    else if (!same) {
      auto narrow = [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) narrow_to(static_cast<T*>(a.d_x) + i, won[i]);
      };
      parallel_for(pf, a.M * a.F, 1 << 14, narrow);
    }
  }
  std::free(scratch);
}

}  // namespace

void multi_reduce_bwd(const MultiReduceArgs& a, const ParallelFor& pf) {
  if (a.F == 0) return;
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) backward<T>(a, pf);
  });
}

}  // namespace structops::STRUCTOPS_ISA
