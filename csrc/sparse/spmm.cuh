// CUDA spmm: device code. The contract is spmm.h; it is launched by spmm_cuda.cu, and by kernels/sparse/spmm_nvrtc.py where
// there is no nvcc.
//
// 1. The merge path of rows and edges is cut every `chunk` steps, which depends on (N, E) alone. A cut moves back to the
//    start of its row, except inside a row of more than `chunk` edges: those hubs are cut into pieces. A cut closer than
//    `chunk` to the start of its hub moves back too, so a piece is always the first row of its item: one state an item.
// 2. A warp owns an item and a tile of features. Its lanes form P row groups x S edge slots x L feature lanes, V features
//    a lane. P and S follow the mean degree of the item. Slots take edges S apart and merge by a fixed tree.
// 3. A row group reads L*S edge indices at once, the next ones before it needs them, and hands them out by shuffles.
//    U gathered rows are in flight per lane before the first is reduced.
// 4. Pieces leave their states in memory; spmm_merge joins them in order of k. No float atomics anywhere.
#pragma once
#include "core/cuda/device.cuh"

namespace structops::cuda {

enum : int { msg_copy_u, msg_copy_e, msg_add, msg_sub, msg_mul, msg_div };  // as Message of spmm.h
enum : int { arg_none, arg_position, arg_edge, arg_source };                // as ArgKind

struct SpmmParams {
  const void* x;  // [B, *, Fx]; the only operand of a copy message
  const void* e;  // [B, *, Fe]
  void* out;      // [B, N, F]
  void* arg;      // [B, N, F] or null
  IndexRef rowptr, x_row, e_row;  // [N + 1], [E], [E]; a null index is the position
  IndexRef arg_map;               // [E], null for positions
  int64_t no_arg;                 // of rows without edges
  const int32_t* x_off;           // [F] or null
  const int32_t* e_off;           // [F] or null
  int64_t N, E, F, x_batch, e_batch;
  unsigned x_stride, e_stride;    // bytes a row
  int64_t chunk, items;
  unsigned planes, tiles, lanes;  // planes: feature tiles times B; lanes: L
  int message, x_packs, e_packs;  // packs: rows of the operand are aligned for loads of V elements
  int flag;                       // the reducer's variant: mean, max or std
  int skip_nan, unbiased;
  double fill;
  int64_t* cut_row;  // [items]: the hub that the start of an item cuts, else -1; null when no row can be cut
  void* states;      // [B, items, F] of Op::State
};

// ---- reducers: one feature each; `at` is the edge's place in its row, `count` the edges taken with this one -------
template <class A_> struct SumOp {
  using A = A_;
  struct State { A s; };
  static STRUCTOPS_DEVICE State init() { return {A(0)}; }
  static STRUCTOPS_DEVICE void step(State& a, A m, int, int, const SpmmParams&) { a.s = add(a.s, m); }
  static STRUCTOPS_DEVICE void merge(State& a, int64_t, const State& b, int64_t, const SpmmParams&) { a.s = add(a.s, b.s); }
  static STRUCTOPS_DEVICE A final(const State& a, int64_t n, const SpmmParams& p) { return p.flag ? a.s / A(n) : a.s; }
  static STRUCTOPS_DEVICE int place(const State&) { return 0; }
};

template <class A_> struct ProdOp {
  using A = A_;
  struct State { A s; };
  static STRUCTOPS_DEVICE State init() { return {A(1)}; }
  static STRUCTOPS_DEVICE void step(State& a, A m, int, int, const SpmmParams&) { a.s = mul(a.s, m); }
  static STRUCTOPS_DEVICE void merge(State& a, int64_t, const State& b, int64_t, const SpmmParams&) { a.s = mul(a.s, b.s); }
  static STRUCTOPS_DEVICE A final(const State& a, int64_t, const SpmmParams&) { return a.s; }
  static STRUCTOPS_DEVICE int place(const State&) { return 0; }
};

// Value and place of the winner, -1 while nothing was taken. merge takes states of interleaved edges: the place decides.
template <class A_> struct ExtremeOp {
  using A = A_;
  struct State { A s; int at; };
  static STRUCTOPS_DEVICE bool better(A m, A v, const SpmmParams& p) { return p.flag ? m > v : m < v; }
  static STRUCTOPS_DEVICE State init() {
    State a;
    a.s = A(0);
    a.at = -1;
    return a;
  }
  static STRUCTOPS_DEVICE void step(State& a, A m, int at, int, const SpmmParams& p) {
    const bool nan = m != m;
    const bool wins = nan ? !p.skip_nan && (a.at < 0 || a.s == a.s) : a.at < 0 || better(m, a.s, p);
    a.s = wins ? m : a.s;
    a.at = wins ? at : a.at;
  }
  static STRUCTOPS_DEVICE void merge(State& a, int64_t, const State& b, int64_t, const SpmmParams& p) {
    const bool nan_a = a.s != a.s, nan_b = b.s != b.s;
    const bool same = nan_a || nan_b ? nan_a && nan_b : a.s == b.s;
    const bool wins = same ? b.at < a.at : nan_b || (!nan_a && better(b.s, a.s, p));
    if (b.at >= 0 && (a.at < 0 || wins)) a = b;
  }
  static STRUCTOPS_DEVICE A final(const State& a, int64_t, const SpmmParams& p) { return a.at < 0 ? A(p.fill) : a.s; }
  static STRUCTOPS_DEVICE int place(const State& a) { return a.at; }
};

// Running mean of the differences to the first message, and centred second moment.
template <class A_> struct MomentOp {
  using A = A_;
  struct State { A mean, m2, first; };
  static STRUCTOPS_DEVICE State init() { return {A(0), A(0), A(0)}; }
  static STRUCTOPS_DEVICE void step(State& a, A m, int, int count, const SpmmParams&) {
    if (count == 1) a.first = m;
    const A x = m - a.first, d = x - a.mean;
    a.mean += d * (A(1) / A(count));
    a.m2 += d * (x - a.mean);
  }
  static STRUCTOPS_DEVICE void merge(State& a, int64_t na, const State& b, int64_t nb, const SpmmParams&) {
    if (nb == 0) return;
    if (na == 0) { a = b; return; }
    const A d = (b.first - a.first) + (b.mean - a.mean), share = A(nb) / A(na + nb);
    a.mean += d * share;
    a.m2 += b.m2 + d * d * (A(na) * share);
  }
  static STRUCTOPS_DEVICE A final(const State& a, int64_t n, const SpmmParams& p) {
    const int64_t d = p.unbiased ? n - 1 : n;
    const A v = a.m2 / A(d < 1 ? 1 : d);
    return p.flag ? sqrt(v) : v;
  }
  static STRUCTOPS_DEVICE int place(const State&) { return 0; }
};

// Running maximum and sum of exp(m - max).
template <class A_> struct LseOp {
  using A = A_;
  struct State { A max, sum; };
  static STRUCTOPS_DEVICE State init() { return {Limits<A>::low(), A(0)}; }
  static STRUCTOPS_DEVICE void join(State& a, A m, A weight) {
    const bool rises = m > a.max;
    const A e = m == a.max ? A(1) : exp(rises ? a.max - m : m - a.max);  // equal infinities have no difference
    a.sum = rises ? a.sum * e + weight : a.sum + weight * e;
    a.max = rises ? m : a.max;
  }
  static STRUCTOPS_DEVICE void step(State& a, A m, int, int, const SpmmParams&) { join(a, m, A(1)); }
  static STRUCTOPS_DEVICE void merge(State& a, int64_t, const State& b, int64_t, const SpmmParams&) { join(a, b.max, b.sum); }
  static STRUCTOPS_DEVICE A final(const State& a, int64_t, const SpmmParams&) { return a.max + log(a.sum); }
  static STRUCTOPS_DEVICE int place(const State&) { return 0; }
};

// ---- operands ---------------------------------------------------------------------------------------------------
enum Reach : int { packed, constant, scattered };  // how the V features of a lane lie in a row

template <class T, int V> struct Operand {
  const char* p;  // row 0 of this batch, at the first feature of this lane
  Reach reach;

  // f < F. All lanes of the warp call this and agree on the reach, so that they never part ways in load.
  STRUCTOPS_DEVICE void set(const void* data, int64_t plane, unsigned stride, const int32_t* table, int packs, unsigned f) {
    int64_t first = table ? table[f] : stride == sizeof(T) ? 0 : f;
    reach = packed;
    if constexpr (V > 1) {
      bool same = stride == sizeof(T), next = !same;
      if (table) {
        same = next = true;
#pragma unroll
        for (int v = 1; v < V; ++v) { same = same && table[f + v] == first; next = next && table[f + v] == first + v; }
        next = next && first % V == 0;
      }
      const bool all_same = __all_sync(kFull, same), all_next = __all_sync(kFull, next && packs);
      reach = all_next ? packed : all_same ? constant : scattered;
      if (reach == scattered && table) first = 0;
    }
    p = reinterpret_cast<const char*>(static_cast<const T*>(data) + plane + first);
  }

  template <int U> STRUCTOPS_DEVICE void
  load(Word<T, V> (&m)[U], const unsigned (&row)[U], const bool (&live)[U], unsigned stride, const int32_t* table,
       unsigned f) const {
    const auto at = [&](int u) { return reinterpret_cast<const T*>(p + (unsigned long long)(row[u]) * stride); };
    if (V == 1 || reach == packed) {
#pragma unroll
      for (int u = 0; u < U; ++u)
        if (live[u]) m[u] = load_word<T, V>(at(u));
    } else if (reach == constant) {
#pragma unroll
      for (int u = 0; u < U; ++u)
        if (live[u]) m[u] = splat_word<T, V>(load_one(at(u)));
    } else {
#pragma unroll
      for (int u = 0; u < U; ++u) {
        Pack<T, V> r;
#pragma unroll
        for (int v = 0; v < V; ++v)
          if (live[u]) r.v[v] = load_one(at(u) + (table ? table[f + v] : v));
        m[u] = to_word<T, V>(r);
      }
    }
  }
};

template <class A, int V> STRUCTOPS_DEVICE void combine(int message, A (&x)[V], const A (&e)[V]) {
  if (message == msg_mul) {
#pragma unroll
    for (int v = 0; v < V; ++v) x[v] *= e[v];
  } else if (message == msg_div) {
#pragma unroll
    for (int v = 0; v < V; ++v) x[v] /= e[v];
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) x[v] += message == msg_sub ? -e[v] : e[v];
  }
}

// ---- items ------------------------------------------------------------------------------------------------------
struct CutAt { int64_t row, k; };

// Where item `item` starts; its row lies in [row_lo, row_hi]. All lanes call it.
STRUCTOPS_DEVICE CutAt spmm_cut_at(const SpmmParams& p, int64_t item, int64_t row_lo, int64_t row_hi) {
  const int64_t diag = item * p.chunk;
  if (diag == 0) return {0, 0};
  if (diag >= p.N + p.E) return {p.N, p.E};
  const int64_t lo = diag - p.E > row_lo ? diag - p.E : row_lo, hi = diag < row_hi ? diag : row_hi;
  const int64_t row = warp_search(lo, hi, [&](int64_t r) { return p.rowptr.at(r + 1) + r + 1 <= diag; });
  if (row >= p.N) return {p.N, p.E};
  const int64_t begin = p.rowptr.at(row), end = p.rowptr.at(row + 1), k = diag - row;
  if (end - begin <= p.chunk || k - begin < p.chunk) return {row, begin};
  return k < end ? CutAt{row, k} : CutAt{row + 1, end};
}

template <class T, class Op, int V> STRUCTOPS_DEVICE void
spmm_emit(const SpmmParams& p, const typename Op::State (&s)[V], int64_t at, int64_t count, int64_t first) {
  using A = typename Op::A;
  A r[V];
#pragma unroll
  for (int v = 0; v < V; ++v) r[v] = count ? Op::final(s[v], count, p) : A(p.fill);
  store<T, V>(static_cast<T*>(p.out) + at, r);
  if (p.arg) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int place = Op::place(s[v]);
      const int64_t k = first + place;
      const int64_t a = count == 0 || place < 0 ? p.no_arg : p.arg_map.data ? p.arg_map.at(k) : k;
      if (p.rowptr.wide) static_cast<int64_t*>(p.arg)[at + v] = a;
      else static_cast<int32_t*>(p.arg)[at + v] = int32_t(a);
    }
  }
}

// ---- kernels ----------------------------------------------------------------------------------------------------
constexpr int kSpmmThreads = 128;

// Items a warp each: enough for every device, and a hub costs one warp no more than twice this many edges.
__host__ __device__ constexpr int64_t spmm_item_size(int64_t N, int64_t E) {
  const int64_t q = (N + E) / 32768;
  return q < 64 ? 64 : q > 2048 ? 2048 : q;
}

template <class T, class Op, bool binary, int V>
__global__ void __launch_bounds__(kSpmmThreads, sizeof(Acc<T>) == 8 ? 4 : 5) spmm_rows(const SpmmParams p) {
  using A = typename Op::A;
  using State = typename Op::State;
  constexpr int U = binary && sizeof(T) * V == 16 ? 2 : 4;  // gathers in flight per lane
  const int lane = threadIdx.x & 31;
  const int64_t item = int64_t(blockIdx.x) * (kSpmmThreads / 32) + (threadIdx.x >> 5);
  if (item >= p.items) return;
  const CutAt from = spmm_cut_at(p, item, 0, p.N);
  const int64_t reach = from.row + 2 * p.chunk;
  const CutAt to = spmm_cut_at(p, item + 1, from.row, reach < p.N ? reach : p.N);
  const bool head = from.row < p.N && from.k > p.rowptr.at(from.row);
  const bool tail = to.row < p.N && to.k > p.rowptr.at(to.row);
  if (p.cut_row && blockIdx.y == 0 && lane == 0) p.cut_row[item] = head ? from.row : -1;
  const int64_t rows = to.row - from.row + (tail ? 1 : 0), edges = to.k - from.k;
  if (rows <= 0) return;

  const int L = p.lanes, l = lane & (L - 1);
  int S = 32 / L;
  while (S > 1 && S * rows > edges) S >>= 1;
  const int W = L * S, P = 32 / W, group = lane & ~(W - 1), w = lane - group, s = w / L;  // lanes of a row: [group, group + W)
  const unsigned E = unsigned(p.E), from_k = unsigned(from.k), to_k = unsigned(to.k);
  const int row_count = int(rows);

  for (unsigned plane = blockIdx.y; plane < p.planes; plane += gridDim.y) {
    const unsigned batch = plane / p.tiles;
    unsigned f = ((plane - batch * p.tiles) * L + l) * V;
    const bool owns = f < p.F;
    if (!owns) f = 0;
    Operand<T, V> x, e;
    x.set(p.x, batch * p.x_batch, p.x_stride, p.x_off, p.x_packs, f);
    if constexpr (binary) e.set(p.e, batch * p.e_batch, p.e_stride, p.e_off, p.e_packs, f);

    unsigned next_begin = E, next_end = E;  // of the group's next row
    const auto next_row = [&](int i) {
      next_begin = next_end = E;
      if (i < row_count) {
        next_begin = unsigned(p.rowptr.at(from.row + i));
        next_end = unsigned(p.rowptr.at(from.row + i + 1));
      }
    };
    unsigned ahead_x = 0, ahead_e = 0;  // operand rows of the lane's edge of the next step
    const auto fetch = [&](unsigned k) {
      if (k >= E) return;
      ahead_x = p.x_row.data ? unsigned(p.x_row.at(k)) : k;
      if (binary) ahead_e = p.e_row.data ? unsigned(p.e_row.at(k)) : k;
    };
    int i = group / W;
    next_row(i);
    fetch((next_begin > from_k ? next_begin : from_k) + w);

    for (int i0 = 0; i0 < row_count; i0 += P, i += P) {
      const unsigned begin = next_begin, end = next_end;
      next_row(i + P);
      unsigned k = begin > from_k ? begin : from_k;
      const unsigned stop = end < to_k ? end : to_k;
      const int total = i < row_count ? int(stop - k) : 0;
      int left = total, count = 0;
      if (total == 0) fetch(next_begin + w);
      State st[V];
#pragma unroll
      for (int v = 0; v < V; ++v) st[v] = Op::init();

      while (true) {
        const int n = left < W ? left : W;
        const int steps = int(__reduce_max_sync(kFull, unsigned(n + S - 1) / unsigned(S)));
        if (steps == 0) break;
        const unsigned now_x = ahead_x, now_e = ahead_e;
        if (n > 0) fetch((left > W ? k + W : next_begin) + w);  // a row that is done has fetched for the next one
        for (int t = 0; t < steps; t += U) {
          unsigned rx[U], re[U];
          bool live[U];
          Word<T, V> mx[U], me[U];
#pragma unroll
          for (int u = 0; u < U; ++u) {
            const int j = (t + u) * S + s;
            live[u] = j < n && owns;
            rx[u] = __shfl_sync(kFull, now_x, group + j);
            if (binary) re[u] = __shfl_sync(kFull, now_e, group + j);
          }
          x.load(mx, rx, live, p.x_stride, p.x_off, f);
          if constexpr (binary) e.load(me, re, live, p.e_stride, p.e_off, f);
#pragma unroll
          for (int u = 0; u < U; ++u) {
            if (!live[u]) continue;
            A m[V];
            widen_word<T, V>(m, mx[u]);
            if constexpr (binary) {
              A other[V];
              widen_word<T, V>(other, me[u]);
              combine(p.message, m, other);
            }
            ++count;
            const int place = int(k - begin) + (t + u) * S + s;
#pragma unroll
            for (int v = 0; v < V; ++v) Op::step(st[v], m[v], place, count, p);
          }
        }
        k += n;
        left -= n;
      }

      for (int d = W / 2; d >= L; d >>= 1) {
        const int other = __shfl_down_sync(kFull, count, d);
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const State b = shift_down(st[v], d);
          if (w < d) Op::merge(st[v], count, b, other, p);
        }
        count += other;
      }
      if (s == 0 && owns && i < row_count) {
        if (total == int(end - begin)) {
          spmm_emit<T, Op, V>(p, st, (batch * p.N + from.row + i) * p.F + f, total, begin);
        } else {
          State* const piece = static_cast<State*>(p.states) + (batch * p.items + item) * p.F + f;
#pragma unroll
          for (int v = 0; v < V; ++v) piece[v] = st[v];
        }
      }
    }
  }
}

// Joins the pieces of cut rows. A block looks at kMergeThreads items; for a hub that starts there, each warp joins a run of
// consecutive pieces, then the first warp joins the runs.
constexpr int kMergeThreads = 256;

template <class T, class Op> __global__ void __launch_bounds__(kMergeThreads, 2) spmm_merge(const SpmmParams p) {
  using State = typename Op::State;
  constexpr int warps = kMergeThreads / 32;
  __shared__ int64_t found[kMergeThreads];
  __shared__ int64_t part_count[warps];
  __shared__ int hubs;
  alignas(16) __shared__ unsigned char part_bytes[warps * 32 * sizeof(State)];
  State* const part = reinterpret_cast<State*>(part_bytes);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int64_t mine = int64_t(blockIdx.x) * kMergeThreads + threadIdx.x;
  if (threadIdx.x == 0) hubs = 0;
  __syncthreads();
  const int64_t cut = mine > 0 && mine < p.items ? p.cut_row[mine] : -1;
  if (cut >= 0 && p.cut_row[mine - 1] != cut) found[atomicAdd(&hubs, 1)] = mine;
  __syncthreads();

  for (int h = 0; h < hubs; ++h) {
    const int64_t item = found[h] - 1, row = p.cut_row[item + 1];  // the hub's first piece is all of `item` from k = begin on
    const int64_t begin = p.rowptr.at(row), end = p.rowptr.at(row + 1);
    const int64_t pieces = (end + row - 1) / p.chunk - item + 1;
    const int64_t j0 = pieces * warp / warps, j1 = pieces * (warp + 1) / warps;
    const auto edge_of = [&](int64_t j) { return j <= 0 ? begin : j >= pieces ? end : (item + j) * p.chunk - row; };
    for (unsigned plane = blockIdx.y; plane < p.planes; plane += gridDim.y) {
      const unsigned batch = plane / p.tiles, f = (plane - batch * p.tiles) * 32 + lane;
      State s = Op::init();
      if (f < p.F) {
        const State* from = static_cast<const State*>(p.states) + (batch * p.items + item) * p.F + f;
#pragma unroll 4
        for (int64_t j = j0; j < j1; ++j)
          Op::merge(s, edge_of(j) - edge_of(j0), from[j * p.F], edge_of(j + 1) - edge_of(j), p);
      }
      part[threadIdx.x] = s;
      if (lane == 0) part_count[warp] = edge_of(j1) - edge_of(j0);
      __syncthreads();
      if (warp == 0 && f < p.F) {
        int64_t n = part_count[0];
        for (int j = 1; j < warps; ++j) {
          Op::merge(s, n, part[j * 32 + lane], part_count[j], p);
          n += part_count[j];
        }
        const State all[1] = {s};
        spmm_emit<T, Op, 1>(p, all, (batch * p.N + row) * p.F + f, n, begin);
      }
      __syncthreads();
    }
  }
}

}  // namespace structops::cuda
