// CUDA sums over trees: logz, posteriors and their derivative along a direction.
// The contract is chart.h; the charts and the inside pass are in chart.cuh.
//
// The outside pass pushes: every split of every span adds its posterior p = a[parent] 2^(term - parent) to the adjoints
// of its two parts, at the words of the adjoint squares that correspond to the two words it read. Within a phase no two
// splits read the same word (rows of X belong to the spans that begin there, rows of Y to those that end there). So each
// word has one writer, and the order of its sum is that of the phases. The adjoint of an item is the sum of its two words.
// Dual passes carry a tangent beside every number and every adjoint.
#pragma once
#include "tree/chart.cuh"

namespace structops::cuda {

struct SumSize { int values, adjoints; };  // squares, each again for its tangents
__host__ __device__ constexpr SumSize sum_size(Form form, bool outside) {
  return form == Form::span ? SumSize{outside ? 2 : 1, outside ? 1 : 0}
       : form == Form::first ? SumSize{outside ? 4 : 3, outside ? 3 : 0} : SumSize{4, outside ? 4 : 0};
}
__host__ __device__ inline int64_t sum_elements(Form form, bool outside, bool dual, int n) {
  const SumSize s = sum_size(form, outside);
  return int64_t(Layout(n).square) * (s.values + s.adjoints) * (dual ? 2 : 1) + kOverread;
}

template <class A, Form form, bool dual, class Store> struct SumOver : Inside<A, form, dual, Store> {
  using Base = Inside<A, form, dual, Store>;
  using Base::b;
  using Base::c;
  using Base::L;
  using Base::n;
  using Base::p;
  using Base::tangent;
  using T = typename Store::T;
  static constexpr int U = dual || sizeof(A) == 8 ? 2 : 4;  // splits in flight per lane
  static constexpr SumSize size = sum_size(form, true);
  static constexpr int adjoint = size.values * (dual ? 2 : 1);  // squares away
  static constexpr int adjoint_tangent = adjoint + size.adjoints;

  STRUCTOPS_DEVICE SumOver(const ChartParams& p, Store c, int64_t b, int n)
      : Base(p, c, b, n, p.outside, sum_size(form, p.outside).values) {}

  STRUCTOPS_DEVICE A& adj(int o) const { return c[o + adjoint * L.square]; }
  STRUCTOPS_DEVICE A& adj_tangent(int o) const { return c[o + adjoint_tangent * L.square]; }

  STRUCTOPS_DEVICE void run(bool valid) const {
    if (p.outside && form == Form::second) clear_siblings();
    if (Base::run()) return;
    const A goal = valid ? c[Base::goal()] : A(NAN);
    const bool failed = goal != goal;
    if (threadIdx.x == 0)
      static_cast<T*>(p.logz)[b] = T(failed || !dual ? goal * kLn2<A> : c[Base::goal() + tangent]);
    if (!p.outside) return;
    if (failed) return write_failed(valid);
    const int adjoints = size.adjoints * L.square * (dual ? 2 : 1);
    for (int o = threadIdx.x; o < adjoints; o += blockDim.x) adj(o) = A(0);
    __syncthreads();
    if (threadIdx.x == 0 && n > 0 && goal != Limits<A>::low())
      adj(Base::goal()) = p.weight ? A(static_cast<const T*>(p.weight)[b]) : A(1);
    __syncthreads();
    for (int w = n; w >= 1; --w) {
      if (form != Form::span) phase(w, 2, [](int which) { return close_item(which); });
      phase(w, open_items<form>, [](int which) { return open_item<form>(which); });
    }
    write_posteriors();
  }

  struct Parent { A x, dx, a, da; };  // number, adjoint, and the tangents of both

  STRUCTOPS_DEVICE Parent parent_of(Item item, const Span& s) const {
    const bool arc = item == Item::IL || item == Item::IR, sum = item == Item::T || item == Item::V;
    const int chart = item == Item::S ? kS : item == Item::CL ? kCL : item == Item::CR ? kCR : kI;
    // The splits of an arc in second order do not have its score.
    const int64_t cell = arc ? Base::cell_of(item, s.i, s.j) : 0;
    const A own = arc ? log2_of_score(Base::load(p.score, cell)) : A(0), own_tangent = dual && arc ? Base::load(p.v, cell) : A(0);
    const int kept = sum ? (item == Item::T ? kT : kU) : chart;
    const int o = kept * L.square + (item == Item::IL ? s.ji : s.ij);
    Parent q{c[o], dual ? c[o + tangent] : A(0), A(0), A(0)};
    const bool none = q.x == Limits<A>::low();
    q.x -= own;
    q.dx -= own_tangent;
    const int items = (item == Item::V ? kV : chart) * L.square;
    if (item != Item::IL) q.a += adj(items + s.ij);
    if (item != Item::IR) q.a += adj(items + s.ji);
    if (dual && item != Item::IL) q.da += adj_tangent(items + s.ij);
    if (dual && item != Item::IR) q.da += adj_tangent(items + s.ji);
    if (none) q = {A(0), A(0), A(0), A(0)};  // its splits have no share
    return q;
  }

  struct Share { A p, dp; };
  // Terms exceed their sum by rounding alone.
  STRUCTOPS_DEVICE Share share(const Parent& q, A x, A dx) const {
    const A d = x - q.x, e = exp2_fast(d > A(0) ? A(0) : d);
    return {q.a * e, dual ? e * (q.da + q.a * (dx - q.dx)) : A(0)};
  }
  STRUCTOPS_DEVICE void push(int o, const Share& s) const {
    adj(o) += s.p;
    if (dual) adj_tangent(o) += s.dp;
  }

  template <class Kind> STRUCTOPS_DEVICE void phase(int w, int kinds, Kind kind) const {
    const int shift = lanes_for(w);
    each_item(kinds, n + 1 - w, shift, [&](int which, int i, bool exists, int lane) {
      const Item item = kind(which);
      if (!exists || is_void(item, i) || (item == Item::V && w == 1)) return;
      const Span at = span_of(L, i, w);
      const bool inner = Base::inner(item);
      const Parent q = parent_of(item, at);
      const Dot d = Base::dot(item, at);
      if (inner && lane == 0 && w > 1) {
        // The first child's part is also a part of S: its other word, which nothing else writes in this phase.
        const int o = Base::first_child(item, at);
        push(item == Item::IL ? kCR * L.square + at.ji - L.pitch : kCL * L.square + at.ij + L.pitch,
             share(q, c[o], dual ? c[o + tangent] : A(0)));
      }
      const int64_t sib = inner ? Base::siblings_of(item, i, i + w) : 0;
      for (int k = lane; k < d.count; k += U << shift) {
        Share s[U];
        A x[U], y[U], dx[U], dy[U];
#pragma unroll
        for (int u = 0; u < U; ++u) {
          const int r = k + (u << shift);
          const bool has_sib = inner && r < d.count;
          const A bonus = has_sib ? log2_of_score(Base::load_wide(p.sib, sib + r)) : A(0);
          A dterm = dual && has_sib && bonus != Limits<A>::low() ? Base::load_wide(p.v_sib, sib + r) : A(0);
          if (dual) dterm += c[d.x + r + tangent] + c[d.y + r + tangent];
          s[u] = share(q, bonus + (c[d.x + r] + c[d.y + r]), dterm);
          x[u] = adj(d.x + r);
          y[u] = adj(d.y + r);
          dx[u] = dual ? adj_tangent(d.x + r) : A(0);
          dy[u] = dual ? adj_tangent(d.y + r) : A(0);
        }
#pragma unroll
        for (int u = 0; u < U; ++u) {
          const int r = k + (u << shift);
          if (r >= d.count) break;
          adj(d.x + r) = x[u] + s[u].p;
          adj(d.y + r) = y[u] + s[u].p;
          if (dual) adj_tangent(d.x + r) = dx[u] + s[u].dp;
          if (dual) adj_tangent(d.y + r) = dy[u] + s[u].dp;
          if (inner) static_cast<T*>(p.post_sib)[sib + r] = T(dual ? s[u].dp : s[u].p);
        }
      }
    });
    __syncthreads();
  }

  STRUCTOPS_DEVICE void write_post(int row, int column, A x) const {
    const int64_t at = Base::cell(row, column);
    if constexpr (sizeof(T) == 4) {
      if (p.dtype == Dtype::bf16) return void(static_cast<bf16*>(p.post)[at] = Narrow<bf16>::to(T(x)));
      if (p.dtype == Dtype::f16) return void(static_cast<f16*>(p.post)[at] = Narrow<f16>::to(T(x)));
    }
    static_cast<T*>(p.post)[at] = T(x);
  }
  STRUCTOPS_DEVICE void write_posteriors() const {
    each_cell(p.N, p.N, [&](int row, int column) {
      A x = A(0);
      if (Base::reads(row, column)) {
        const int o = form == Form::span ? L.at(kV, row, column) : L.at(kI, column, row);
        x = dual ? adj_tangent(o) : adj(o);
        if (form == Form::span) x += dual ? adj_tangent(L.at(kV, column, row)) : adj(L.at(kV, column, row));
      }
      write_post(row, column, x);
    });
  }
  STRUCTOPS_DEVICE void write_failed(bool valid) const {
    each_cell(p.N, p.N, [&](int row, int column) {
      const bool read = valid && Base::reads(row, column);
      write_post(row, column, read ? A(NAN) : A(0));
    });
    if (form == Form::second && valid)
      each_sibling([&](int dep, int head, int s, T& out) {
        if (Base::reads_sib(dep, head, s)) out = T(NAN);
      });
  }
  STRUCTOPS_DEVICE void clear_siblings() const {  // the others are written by their splits
    each_sibling([&](int dep, int head, int s, T& out) {
      if (!Base::reads_sib(dep, head, s)) out = T(0);
    });
  }
  template <class F> STRUCTOPS_DEVICE void each_sibling(F f) const {
    each_cell(p.N * p.N, p.N, [&](int row, int s) {
      f(row / p.N, row % p.N, s, static_cast<T*>(p.post_sib)[(b * p.N * p.N + row) * p.N + s]);
    });
  }
};

template <class A, Form form, bool dual>
__global__ void __launch_bounds__(kChartThreads, 1) chart_sum(const ChartParams p) {
  each_sentence(p, [&](int64_t b, int n) {
    const int words = n < 0 ? 0 : n;
    if (sum_elements(form, p.outside, dual, words) <= p.shared)
      SumOver<A, form, dual, SharedCharts<A>>(p, {}, b, words).run(n >= 0);
    else
      SumOver<A, form, dual, GlobalCharts<A>>(p, {charts_of_block<A>(p)}, b, words).run(n >= 0);
  });
}
// The sentences that chart_sum<float, form, dual> left.
template <Form form, bool dual> __global__ void __launch_bounds__(kWideThreads, 1) chart_sum_wide(const ChartParams p) {
  each_wide_sentence(p, [&](int64_t b, int n) {
    SumOver<double, form, dual, GlobalCharts<double, float>>(p, {charts_of_block<double>(p)}, b, n).run(true);
  });
}

}  // namespace structops::cuda
