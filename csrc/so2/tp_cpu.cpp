// CPU tensor products along edges. The contract is tp.h.
//
// Rows of x, out and g are repacked as [component][channel], each component padded to whole vectors, in the accumulator type: a
// node's row once per call, a row of its own edge by edge. So the inner loops are the same for both layouts and every dtype, and
// have no tails but in the weights. The inner loop takes up to kVectors vectors of channels: one broadcast of M serves them all, and
// they are enough chains to hide the latency of the multiply-add.
#include "so2/tp_rows.h"

namespace structops::STRUCTOPS_ISA {
namespace {

// Vectors of channels, for one component of a path's result. AVX-512 has registers for twice as many.
constexpr int kVectors = STRUCTOPS_VBYTES == 64 ? 8 : 4;

// Channels u.. of the weights of a path; `left` of them exist.
template <class T, int V> STRUCTOPS_INLINE void load_weights(Vec<Acc<T>> (&w)[V], const T* p, int64_t stride, int64_t left) {
  using A = Acc<T>;
  if (p && stride == 1 && left >= V * W<A>) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) w[v] = load(p + v * W<A>);
    return;
  }
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    const int n = left - v * W<A> < W<A> ? int(left - v * W<A>) : W<A>;
    if (!p) {
      w[v] = splat(A(1));
    } else if (stride == 1) {
      w[v] = n == W<A> ? load(p + v * W<A>) : load_n(p + v * W<A>, n);
    } else {
      A lane[W<A>] = {};
      for (int i = 0; i < n; ++i) lane[i] = widen(p[(v * W<A> + i) * stride]);
      w[v] = load(lane);
    }
  }
}

// The same in memory: where they are, if whole vectors of A lie there, else a copy.
template <class T, int V> STRUCTOPS_INLINE const Acc<T>* weights(const T* p, int64_t stride, int64_t left, Acc<T>* copy) {
  using A = Acc<T>;
  if constexpr (sizeof(T) == sizeof(A))
    if (stride == 1 && left >= V * W<A>) return p;
  Vec<A> w[V];
  load_weights<T, V>(w, p, stride, left);
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) store(copy + v * W<A>, w[v]);
  return copy;
}

template <class T, int V> STRUCTOPS_INLINE void store_weights(T* p, const Vec<Acc<T>> (&w)[V], int64_t stride, int64_t left) {
  using A = Acc<T>;
  if (stride == 1 && left >= V * W<A>) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) store<T>(p + v * W<A>, w[v]);
    return;
  }
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    const int n = left - v * W<A> < W<A> ? int(left - v * W<A>) : W<A>;
    if (stride == 1 && n == W<A>) {
      store<T>(p + v * W<A>, w[v]);
    } else if (stride == 1) {
      store_n<T>(p + v * W<A>, w[v], n);
    } else {
      for (int i = 0; i < n; ++i) narrow_to(p + (v * W<A> + i) * stride, w[v][i]);
    }
  }
}

// f(Number<V>, u) over blocks of at most kVectors vectors of `mul` channels.
template <int n> struct Number { static constexpr int value = n; };
template <class A, class F> STRUCTOPS_INLINE void over_channels(int64_t mul, F f) {
  int64_t u = 0;
  for (; mul - u > (kVectors - 1) * W<A>; u += kVectors * W<A>) f(Number<kVectors>{}, u);
  if (kVectors > 4 && mul - u > 3 * W<A>) { f(Number<4>{}, u); u += 4 * W<A>; }
  if (mul - u > W<A>) { f(Number<2>{}, u); u += 2 * W<A>; }
  if (mul - u > W<A>) { f(Number<2>{}, u); u += 2 * W<A>; }
  if (mul > u) f(Number<1>{}, u);
}

// Up to kGroup edges into one receiver share each load and store of its row.
template <class A> struct Group {
  static constexpr int most = W<A> < kGroup ? W<A> : kGroup;  // a tile holds W edges
  int n;
  const A *x[kGroup], *w[kGroup], *m[kGroup];  // row of x, weights of a path, lane of M
};

// out[k] += sum over the edges of w * sum_i M[i, k] x[i], from channel u on; w points at that channel.
template <class A, int V, bool weighted>
STRUCTOPS_INLINE void conv_block(A* out, int64_t out_step, const Group<A>& g, int64_t x_at, int64_t x_step, const TpRun* run,
                                 const TpRun* end, const TpItem* items) {
  for (; run != end; ++run) {
    Vec<A> sum[V] = {};
    for (int e = 0; e < g.n; ++e) {
      Vec<A> t[V] = {};
      const A *const x = g.x[e] + x_at, *const m = g.m[e];
      for (const TpItem *i = items + run->begin, *last = items + run->end; i != last; ++i) {
        const Vec<A> c = spread(m[i->pair * W<A>]);
        const A* const p = anchored(x + i->component * x_step);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) t[v] += c * load(p + v * W<A>);
      }
      const A* const w = anchored(g.w[e]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[v] += weighted ? load(w + v * W<A>) * t[v] : t[v];
    }
    A* const o = anchored(out + run->component * out_step);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) store(o + v * W<A>, load(o + v * W<A>) + sum[v]);
  }
}

// gw += sum_k g[k] sum_i M[i, k] x[i], and q[i, k] = or += sum over the channels of w x[i] g[k], lane by lane.
template <class A, int V, bool want_y, bool want_w>
STRUCTOPS_INLINE void edge_block(Vec<A> (&gw)[V], Vec<A>* q, bool first, const A* g, int64_t g_step, const A* x, int64_t x_step,
                                 const Vec<A> (&w)[V], const A* m, const TpRun* run, const TpRun* end, const TpItem* items) {
  for (; run != end; ++run) {
    const A* const gk = anchored(g + run->component * g_step);
    Vec<A> t[V] = {}, wg[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) wg[v] = w[v] * load(gk + v * W<A>);
    for (const TpItem *i = items + run->begin, *last = items + run->end; i != last; ++i) {
      const Vec<A> c = spread(m[i->pair * W<A>]);
      const A* const p = anchored(x + i->component * x_step);
      Vec<A> sum[2] = {};
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        const Vec<A> xv = load(p + v * W<A>);
        if (want_w) t[v] += c * xv;
        if (want_y) sum[v & 1] += wg[v] * xv;
      }
      if (want_y) {
        sum[0] += sum[1];
        *q = first ? sum[0] : *q + sum[0];
        ++q;
      }
    }
    if (want_w) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) gw[v] += t[v] * load(gk + v * W<A>);
    }
  }
}

template <class T> void conv(const TpArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  const Kit<A> kit(a, pf, /*results=*/false);
  const Rows<A>&in = kit.side[a.transpose], &out = kit.side[!a.transpose];
  const A* const packed = kit.template pack_rows<T>(a, pf, in, static_cast<const T*>(a.x), a.rows);
  const TpPath* const paths = a.plan.paths();
  const TpRun* const runs = a.plan.runs();
  const TpItem* const items = a.plan.items();
  const T* const w = static_cast<const T*>(a.w);

  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const Lanes_<A> s = kit.scratch(task);
      const int64_t first = kit.cut(a, task), last = kit.cut(a, task + 1);
      const int64_t last_edge = kit.edges(a, last);
      Tile<A, T> tile(a, kit, s, kit.edges(a, first), last_edge);
      for (int64_t v = first; v < last; ++v) {
        A* const acc = s.out;
        for (int64_t i = 0; i < out.size; ++i) acc[i] = 0;
        for (int64_t k = kit.edges(a, v), stop = kit.edges(a, v + 1); k < stop; k += Group<A>::most) {
          Group<A> g;
          g.n = stop - k < Group<A>::most ? int(stop - k) : Group<A>::most;
          int64_t id[Group<A>::most];
          for (int i = 0; i < g.n; ++i) {
            g.m[i] = tile.at(k, g.n) + i;
            id[i] = a.eid ? a.eid[k + i] : k + i;
            const int64_t row = a.col ? a.col[k + i] : id[i];
            g.x[i] = packed + row * in.size;
            if (packed) continue;
            A* const own = s.x + i * kit.row_numbers;
            pack<T>(in, static_cast<const T*>(a.x) + row * in.dim, own);
            g.x[i] = own;
          }
          const Ahead<A, T> ahead(a, in, packed, k + g.n, last_edge, Group<A>::most);
          for (int64_t p = 0; p < a.paths; ++p) {
            const TpPath& path = paths[p];
            const int32_t ib = a.transpose ? path.o : path.x, ob = a.transpose ? path.x : path.o;
            const TpRun* const run = runs + (a.transpose ? path.run_t : path.run);
            const TpRun* const stop_run = runs + (a.transpose ? path.run_t_end : path.run_end);
            const int64_t mul = out.blocks[ob].mul;
            const bool weighted = w && path.w >= 0;
            ahead.fetch(p, path, mul);
            over_channels<A>(mul, [&](auto number, int64_t u) {
              constexpr int V = decltype(number)::value;
              A* const o = acc + out.at[ob] + u;
              const int64_t x_at = in.at[ib] + u;
              if (!weighted) {
                for (int i = 0; i < g.n; ++i) g.w[i] = nullptr;
                return conv_block<A, V, false>(o, out.step[ob], g, x_at, in.step[ib], run, stop_run, items);
              }
              alignas(64) A copied[Group<A>::most * V * W<A>];
              for (int i = 0; i < g.n; ++i)
                g.w[i] = weights<T, V>(w + id[i] * a.wdim + path.w + u * path.w_stride, path.w_stride, mul - u, copied + i * V * W<A>);
              conv_block<A, V, true>(o, out.step[ob], g, x_at, in.step[ib], run, stop_run, items);
            });
          }
        }
        unpack<T>(out, acc, static_cast<T*>(a.out) + v * out.dim);
      }
    }
  };
  parallel_for(pf, kit.tasks, 1, body);
}

template <class T, bool want_y, bool want_w> void edge(const TpArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  const Kit<A> kit(a, pf, /*results=*/true);
  const Rows<A>&in = kit.side[0], &out = kit.side[1];
  const A* const packed = kit.template pack_rows<T>(a, pf, in, static_cast<const T*>(a.x), a.rows);
  const TpPath* const paths = a.plan.paths();
  const TpRun* const runs = a.plan.runs();
  const TpItem* const items = a.plan.items();
  const T* const w = static_cast<const T*>(a.w);
  T* const gw = static_cast<T*>(a.gw);

  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const Lanes_<A> s = kit.scratch(task);
      const int64_t first = kit.cut(a, task), last = kit.cut(a, task + 1);
      const int64_t last_edge = kit.edges(a, last);
      Tile<A, T> tile(a, kit, s, kit.edges(a, first), last_edge);
      for (int64_t v = first; v < last; ++v) {
        const int64_t stop = kit.edges(a, v + 1);
        int64_t k = kit.edges(a, v);
        if (k < stop) pack<T>(out, static_cast<const T*>(a.g) + v * out.dim, s.out);
        for (; k < stop; ++k) {
          const A* const m = tile.at(k, 1);
          const int lane = int(k - tile.begin);
          const int64_t e = a.eid ? a.eid[k] : k, row = a.col ? a.col[k] : e;
          const A* x = s.x;
          if (packed) x = packed + row * in.size;
          else pack<T>(in, static_cast<const T*>(a.x) + row * in.dim, s.x);
          const Ahead<A, T> ahead(a, in, packed, k + 1, last_edge, 1);
          for (int64_t p = 0; p < a.paths; ++p) {
            const TpPath& path = paths[p];
            ahead.fetch(p, path, in.blocks[path.x].mul);
            const TpRun* const run = runs + path.run;
            const TpRun* const stop_run = runs + path.run_end;
            const T* const we = w && path.w >= 0 ? w + e * a.wdim + path.w : nullptr;
            const int64_t mul = out.blocks[path.o].mul;
            over_channels<A>(mul, [&](auto number, int64_t u) {
              constexpr int V = decltype(number)::value;
              Vec<A> wv[V], sum[V] = {};
              load_weights<T, V>(wv, we ? we + u * path.w_stride : nullptr, path.w_stride, mul - u);
              edge_block<A, V, want_y, want_w>(sum, s.q, u == 0, s.out + out.at[path.o] + u, out.step[path.o],
                                               x + in.at[path.x] + u, in.step[path.x], wv, m, run, stop_run, items);
              if (want_w && path.w >= 0)
                store_weights<T, V>(gw + e * a.wdim + path.w + u * path.w_stride, sum, path.w_stride, mul - u);
            });
            if (want_y && run != stop_run && mul > 0) {
              const int32_t pair = items[run->begin].pair;
              sums_to_lane(s.q, int(stop_run[-1].end - run->begin), s.sums + pair * W<A> + lane);
            }
          }
          if (want_y && (k + 1 == tile.end)) gather_gy<T>(a, kit, s, tile.begin, tile.end);
        }
      }
    }
  };
  parallel_for(pf, kit.tasks, 1, body);
}

}  // namespace

void tp_conv(const TpArgs& a, const ParallelFor& pf) {
  if (a.N <= 0) return;
  with_dtype(a.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    if constexpr (is_float_storage<T>) conv<T>(a, pf);
  });
}

void tp_conv_edge(const TpArgs& a, const ParallelFor& pf) {
  if (a.E <= 0) return;
  with_dtype(a.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    if constexpr (is_float_storage<T>) {
      if (a.gy && a.gw) edge<T, true, true>(a, pf);
      else if (a.gy) edge<T, true, false>(a, pf);
      else if (a.gw) edge<T, false, true>(a, pf);
    }
  });
}

}  // namespace structops::STRUCTOPS_ISA
