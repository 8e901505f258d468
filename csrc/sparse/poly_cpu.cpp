// CPU poly_filter. The contract is poly.h.
//
// Channels are cut into blocks of a few vectors, copied to rows of full vectors in the accumulator's type. A step is one pass over
// the rows: gather, recurrence, then result and dots from the value in registers. What is gathered is one block [N, S] that the
// last-level cache holds, where a row of all channels would come from memory; the structure is read once per step and block.
#include "core/memory.h"
#include "core/simd.h"
#include "sparse/poly.h"
#include "sparse/spmm.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kAhead = 24;                   // prefetch distance, edges
constexpr int64_t kBlockBytes = 4 << 20;     // of a gathered block, unless a cache line a row already exceeds it
constexpr int64_t kNear = 512 << 10;         // blocks below are in the core's own cache: no prefetch

template <class T> struct Buffer {
  T* p = nullptr;
  explicit Buffer(int64_t n) : p(allocate<T>(size_t(n))) {}
  Buffer(const Buffer&) = delete;
  ~Buffer() { std::free(p); }
  operator T*() const { return p; }
};

// One direction of P, with columns and weights in the order of its rows, and the work cut by rows and edges.
template <class A> struct Side {
  Index ptr;
  int64_t N, E, items;
  Buffer<uint32_t> own_col;
  Buffer<A> own_w;
  Buffer<int64_t> first;  // [items + 1]: the first row of each item
  const uint32_t* col;
  const A* w;  // null: 1

  template <class T> Side(const PolyArgs& a, const T* weight, Index ptr_, Index col_, Index eid, const ParallelFor& pf)
      : ptr(ptr_), N(a.N), E(a.E), items((a.N + a.E) / spmm_chunk(a.N, a.E) + 1), own_col(col_.wide ? E : 0),
        own_w(weight && (eid || !__is_same(T, A)) ? E : 0), first(items + 1) {
    col = static_cast<const uint32_t*>(col_.data);
    w = nullptr;
    const bool copies_w = weight && (eid || !__is_same(T, A));
    if constexpr (__is_same(T, A)) w = weight;
    if (copies_w) w = own_w;
    if (col_.wide) col = own_col;
    auto copy = [&](int64_t begin, int64_t end) {
      if (col_.wide) for (int64_t k = begin; k < end; ++k) own_col[k] = uint32_t(static_cast<const int64_t*>(col_.data)[k]);
      if (copies_w) for (int64_t k = begin; k < end; ++k) own_w[k] = widen(weight[eid ? eid[k] : k]);
    };
    if (col_.wide || copies_w) parallel_for(pf, E, 65536, copy);
    const int64_t chunk = spmm_chunk(N, E);
    for (int64_t i = 0; i <= items; ++i) {
      const Cut c = spmm_cut(ptr, N, E, chunk, i);
      first[i] = c.row < N && c.k > ptr[c.row] ? c.row + 1 : c.row;
    }
    first[items] = N;
  }
};

// The sum of NV vectors of h over the edges of a row.
template <class A, bool weighted, int NV> STRUCTOPS_INLINE void
gather(const Side<A>& p, const A* h, int64_t S, bool far, int64_t begin, int64_t end, Vec<A> (&t)[NV]) {
  constexpr int L = W<A>, U = NV == 1 ? 4 : NV == 2 ? 2 : 1;
  constexpr int per_line = STRUCTOPS_VBYTES < 64 ? 64 / STRUCTOPS_VBYTES : 1;
  Vec<A> s[U][NV] = {};
  const int64_t prefetch_end = far ? p.E - kAhead - U : -1;
  int64_t k = begin;
  auto edge = [&](int64_t k, Vec<A> (&s)[NV]) __attribute__((always_inline)) {
    const A* const row = h + int64_t(p.col[k]) * S;
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) s[v] += weighted ? p.w[k] * load(row + v * L) : load(row + v * L);
  };
  for (; k + U <= end; k += U) {
    if (k < prefetch_end)
#pragma GCC unroll 4
      for (int u = 0; u < U; ++u)
        for (int v = 0; v < NV; v += per_line) __builtin_prefetch(h + int64_t(p.col[k + u + kAhead]) * S + v * L);
#pragma GCC unroll 4
    for (int u = 0; u < U; ++u) edge(k + u, s[u]);
  }
  for (; k < end; ++k) edge(k, s[0]);
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) t[v] = U == 4 ? (s[0][v] + s[1 % U][v]) + (s[2 % U][v] + s[3 % U][v]) : U == 2 ? s[0][v] + s[1 % U][v] : s[0][v];
}

// fn(f, constant of 1, 2 or 4): every vector of a row in tiles.
template <int n> struct Count { static constexpr int value = n; };
template <class Fn> STRUCTOPS_INLINE void tiles(int vectors, Fn fn) {
  int f = 0;
  for (; f + 4 <= vectors; f += 4) fn(f, Count<4>{});
  for (; f + 2 <= vectors; f += 2) fn(f, Count<2>{});
  if (f < vectors) fn(f, Count<1>{});
}

template <class A> STRUCTOPS_INLINE A dot_of(const A* x, const A* y, int vectors) {
  Vec<A> s{};
  for (int v = 0; v < vectors; ++v) s += load(x + v * W<A>) * load(y + v * W<A>);
  return hsum<A>(s);
}

template <class A> STRUCTOPS_INLINE A sigmoid(A u) {  // of one number a node and step
  const A e = A(__builtin_exp(double(u < 0 ? u : -u)));
  return u < 0 ? e / (1 + e) : u == u ? 1 / (1 + e) : u;
}

// What all steps of a block share. Rows are S numbers, `vectors` full vectors; channels beyond C are 0.
template <class A> struct Block {
  int64_t N, S;
  int vectors;
  bool far;
  const A* gate;  // [S], or null
  A bias;
};

// One row's part of the result and of the dots, from a finished h_k.
template <class A> STRUCTOPS_INLINE void
emit(const Block<A>& b, const A* h, A* z, const A* y, const A* alpha, A* part, bool first) {
  constexpr int L = W<A>;
  const A q = b.gate ? sigmoid<A>(dot_of(h, b.gate, b.vectors) + b.bias) : A(1);
  for (int v = 0; v < b.vectors; ++v) {
    const Vec<A> hv = load(h + v * L);
    const Vec<A> term = b.gate ? load(alpha + v * L) * (q * hv) : load(alpha + v * L) * hv;
    store(z + v * L, first ? term : load(z + v * L) + term);
    if (y) store(part + v * L, load(part + v * L) + load(y + v * L) * hv);
  }
}

// next = a (P h) + b h + c prev for rows [r0, r1); next may be prev. b and c null: absent. `terms` of the result are added: that of
// next, and before it that of h, which the step before left out. Half of the traffic of z is saved where nothing else needs a visit.
template <class A, bool weighted> void
advance(const Block<A>& s, const Side<A>& p, const A* h, const A* prev, A* next, const A* a, const A* b, const A* c, A* z, const A* y,
        const A* alpha, A* part, int terms, int64_t r0, int64_t r1) {
  constexpr int L = W<A>;
  for (int64_t v = r0; v < r1; ++v) {
    const int64_t begin = p.ptr[v], end = p.ptr[v + 1], at = v * s.S;
    tiles(s.vectors, [&](int f, auto count) __attribute__((always_inline)) {
      constexpr int NV = decltype(count)::value;
      Vec<A> t[NV];
      gather<A, weighted, NV>(p, h + f * L, s.S, s.far, begin, end, t);
#pragma GCC unroll 4
      for (int i = 0; i < NV; ++i) {
        const int o = (f + i) * L;
        Vec<A> r = load(a + o) * t[i];
        if (b) r += load(b + o) * load(h + at + o);
        if (c) r += load(c + o) * load(prev + at + o);
        store(next + at + o, r);
      }
    });
    if (z && terms == 1) emit<A>(s, next + at, z + at, y ? y + at : nullptr, alpha, part, false);
    if (z && terms == 2)
      for (int o = 0; o < s.vectors * L; o += L) {
        const Vec<A> sum = load(z + at + o) + load(alpha - s.S + o) * load(h + at + o);
        store(z + at + o, sum + load(alpha + o) * load(next + at + o));
      }
  }
}

// Sums of a step over its items, in order and in double.
template <class A> void join(const A* part, int64_t items, int64_t stride, int64_t n, A* out) {
  for (int64_t c = 0; c < n; ++c) {
    double s = 0;
    for (int64_t i = 0; i < items; ++i) s += double(part[i * stride + c]);
    out[c] = A(s);
  }
}

int block_vectors(const PolyArgs& a, int lanes, int size) {
  const int64_t all = (a.C + lanes - 1) / lanes, line = STRUCTOPS_VBYTES < 64 ? 64 / STRUCTOPS_VBYTES : 1;
  if (a.gate) return int(all);
  int64_t n = kBlockBytes / (a.N * lanes * size);
  n = n < line ? line : n > 4 * line ? 4 * line : n;
  while (n & (n - 1)) n &= n - 1;
  const int64_t blocks = (all + n - 1) / n;
  return int((all + blocks - 1) / blocks);
}

// Coefficient rows [rows, channels or 1] widened to the block's channels, 0 beyond.
template <class A> void widen_rows(const A* from, int64_t rows, int64_t cols, int64_t c0, int64_t n, int64_t S, A* to) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < S; ++c) to[r * S + c] = c < n ? from[r * cols + (cols == 1 ? 0 : c0 + c)] : A(0);
}

template <class A> bool all_zero(const A* p, int64_t n) {
  for (int64_t i = 0; i < n; ++i) if (p[i] != 0) return false;
  return true;
}

template <class T, class A> void load_block(const T* from, A* to, int64_t C, int64_t c0, int64_t n, int64_t S, int64_t r0, int64_t r1) {
  for (int64_t v = r0; v < r1; ++v) {
    const T* const row = from + v * C + c0;
    for (int64_t f = 0; f < S; f += W<A>)
      store(to + v * S + f, f + W<A> <= n ? load(row + f) : f < n ? load_n(row + f, int(n - f)) : Vec<A>{});
  }
}

template <class T, class A> void store_block(T* to, const A* from, int64_t C, int64_t c0, int64_t n, int64_t S, int64_t r0, int64_t r1) {
  for (int64_t v = r0; v < r1; ++v)
    for (int64_t f = 0; f < n; f += W<A>) {
      T* const p = to + v * C + c0 + f;
      if (f + W<A> <= n) store(p, load(from + v * S + f)); else store_n(p, load(from + v * S + f), int(n - f));
    }
}

template <class T> struct Run {
  using A = Acc<T>;
  const PolyArgs& a;
  const ParallelFor& pf;
  const Side<A> p;
  const int vectors;
  const int64_t S, N, K, grain;
  Buffer<A> alpha, recur, gate;  // [K + 1, S], [3, K, S], [S]
  Block<A> block;
  bool has_b, has_c;

  Run(const PolyArgs& a, const ParallelFor& pf)
      : a(a), pf(pf), p(a, static_cast<const T*>(a.weight), a.rowptr, a.col, a.eid, pf), vectors(block_vectors(a, W<A>, sizeof(A))),
        S(int64_t(vectors) * W<A>), N(a.N), K(a.K), grain(1 + 32768 / ((a.N + a.E) / p.items * S + 1)), alpha((K + 1) * S),
        recur(3 * K * S), gate(S) {
    block = {N, S, vectors, N * S * int64_t(sizeof(A)) > kNear, nullptr, A(0)};
    const A* const r = static_cast<const A*>(a.recur);
    has_b = !all_zero(r + K * a.Cr, K * a.Cr);
    has_c = !all_zero(r + 2 * K * a.Cr, K * a.Cr);
    if (!a.gate) return;
    const A* const g = static_cast<const A*>(a.gate);
    widen_rows<A>(g, 1, a.C == 1 ? 2 : a.C, 0, a.C, S, gate);
    block.gate = gate;
    block.bias = g[a.C];
  }

  int64_t begin(int64_t c0) {  // channels of the block
    const int64_t n = a.C - c0 < S ? a.C - c0 : S;
    widen_rows<A>(static_cast<const A*>(a.alpha), K + 1, a.Ca, c0, n, S, alpha);
    widen_rows<A>(static_cast<const A*>(a.recur), 3 * K, a.Cr, c0, n, S, recur);
    return n;
  }
  const A* coefficient(int which, int64_t k) const { return recur + (which * K + k) * S; }

  // fn(item, first row, last row) over the items of a side.
  template <class Fn> void each(const Side<A>& side, Fn fn) const {
    auto body = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) fn(i, side.first[i], side.first[i + 1]);
    };
    parallel_for(pf, side.items, grain, body);
  }

  void step(int64_t k, const A* h, const A* prev, A* next, A* z, const A* y, A* part, int64_t i, int64_t r0, int64_t r1) const {
    const A *const ca = coefficient(0, k), *const cb = has_b ? coefficient(1, k) : nullptr;
    const A *const cc = has_c && k ? coefficient(2, k) : nullptr, *const al = alpha + (k + 1) * S;
    A* const sum = part ? part + i * S : nullptr;
    const int terms = block.gate || y ? 1 : k % 2 ? 2 : k == K - 1 ? 1 : 0;
    if (p.w) advance<A, true>(block, p, h, prev, next, ca, cb, cc, z, y, al, sum, terms, r0, r1);
    else advance<A, false>(block, p, h, prev, next, ca, cb, cc, z, y, al, sum, terms, r0, r1);
  }

  void forward() {
    const T *const x = static_cast<const T*>(a.x), *const dot = static_cast<const T*>(a.dot);
    Buffer<A> h0(N * S), h1(K ? N * S : 0), z(N * S), y(dot ? N * S : 0), part(dot ? p.items * S : 0);
    Buffer<A> sum(S);
    A* const dots = static_cast<A*>(a.dots);
    for (int64_t c0 = 0; c0 < a.C; c0 += S) {
      const int64_t n = begin(c0);
      auto collect = [&](int64_t k) {
        if (!dot) return;
        join<A>(part, p.items, S, n, sum);
        __builtin_memcpy(dots + k * a.C + c0, sum, size_t(n) * sizeof(A));
      };
      auto clear = [&](int64_t i) { if (dot) __builtin_memset(part + i * S, 0, size_t(S) * sizeof(A)); };
      A *h = h0, *prev = h1;
      each(p, [&](int64_t i, int64_t r0, int64_t r1) {
        clear(i);
        load_block<T, A>(x, h, a.C, c0, n, S, r0, r1);
        if (dot) load_block<T, A>(dot, y, a.C, c0, n, S, r0, r1);
        for (int64_t v = r0; v < r1; ++v) emit<A>(block, h + v * S, z + v * S, dot ? y + v * S : nullptr, alpha, part + i * S, true);
        if (K == 0) store_block<T, A>(static_cast<T*>(a.out), z, a.C, c0, n, S, r0, r1);
      });
      collect(0);
      for (int64_t k = 0; k < K; ++k) {
        each(p, [&](int64_t i, int64_t r0, int64_t r1) {
          clear(i);
          step(k, h, prev, prev, z, dot ? y.p : nullptr, part, i, r0, r1);
          if (k == K - 1) store_block<T, A>(static_cast<T*>(a.out), z, a.C, c0, n, S, r0, r1);
        });
        collect(k + 1);
        A* const t = h;
        h = prev;
        prev = t;
      }
    }
  }

  // Sums of a backward step per item: d_alpha, d_a, d_b, d_c, d_gate, each S wide, then the gate's bias.
  static constexpr int kSums = 5;

  template <bool weighted> void
  retreat(const Side<A>& t, int64_t k, const A* hs, const A* g, const A* next, A* l, A* part, A* dw, int64_t r0, int64_t r1) const {
    constexpr int L = W<A>;
    const bool last = k == K;
    const A *const al = alpha + k * S, *const ca = last ? nullptr : coefficient(0, k), *const cb = last ? nullptr : coefficient(1, k);
    const A* const cc = k + 2 <= K ? coefficient(2, k + 1) : nullptr;
    const A *const h = hs + k * N * S, *const before = k ? hs + (k - 1) * N * S : nullptr;
    auto add = [&](int which, int o, Vec<A> v) __attribute__((always_inline)) {
      A* const at = part + which * S + o;
      store(at, load(at) + v);
    };
    for (int64_t u = r0; u < r1; ++u) {
      const int64_t at = u * S, e0 = t.ptr[u], e1 = t.ptr[u + 1];
      A q = 1, dq = 0;
      if (block.gate) {
        q = sigmoid<A>(dot_of(h + at, block.gate, vectors) + block.bias);
        Vec<A> m{};
        for (int v = 0; v < vectors; ++v) m += load(g + at + v * L) * (load(al + v * L) * load(h + at + v * L));
        dq = q * (1 - q) * hsum<A>(m);
        part[kSums * S] += dq;
      }
      tiles(vectors, [&](int f, auto count) __attribute__((always_inline)) {
        constexpr int NV = decltype(count)::value;
        Vec<A> sum[NV] = {}, hv[NV];
#pragma GCC unroll 4
        for (int i = 0; i < NV; ++i) hv[i] = load(h + at + (f + i) * L);
        if (!last) {
          gather<A, weighted, NV>(t, next + f * L, S, block.far, e0, e1, sum);
          if (dw) {
            Vec<A> ah[NV];
#pragma GCC unroll 4
            for (int i = 0; i < NV; ++i) ah[i] = load(ca + (f + i) * L) * hv[i];
            for (int64_t e = e0; e < e1; ++e) {
              const A* const row = next + int64_t(t.col[e]) * S + f * L;
              Vec<A> m = ah[0] * load(row);
#pragma GCC unroll 4
              for (int i = 1; i < NV; ++i) m += ah[i] * load(row + i * L);
              dw[e] += hsum<A>(m);
            }
          }
        }
#pragma GCC unroll 4
        for (int i = 0; i < NV; ++i) {
          const int o = (f + i) * L;
          const Vec<A> gv = load(g + at + o);
          Vec<A> r = load(al + o) * (block.gate ? q * gv : gv);
          add(0, o, block.gate ? q * gv * hv[i] : gv * hv[i]);
          if (block.gate) {
            r += dq * load(block.gate + o);
            add(4, o, dq * hv[i]);
          }
          if (!last) {
            const Vec<A> nv = load(next + at + o);
            r += load(ca + o) * sum[i];
            add(1, o, sum[i] * hv[i]);
            add(2, o, nv * hv[i]);
            if (before) add(3, o, nv * load(before + at + o));
            if (has_b) r += load(cb + o) * nv;
            if (has_c && cc) r += load(cc + o) * load(l + at + o);
          }
          store(l + at + o, r);
        }
      });
    }
  }

  void backward() {
    const T* const weight = static_cast<const T*>(a.weight);
    const Side<A> t(a, weight, a.colptr, a.row_t, a.eid_t, pf);
    const int64_t stride = kSums * S + W<A>;
    Buffer<A> hs((K + 1) * N * S), g(N * S), l0(N * S), l1(N * S), part(t.items * stride), sum(stride), dw(a.d_weight ? a.E : 0);
    Buffer<double> d_gate(S + 1);
    for (int64_t c = 0; c <= S; ++c) d_gate[c] = 0;
    auto zero = [&](int64_t begin, int64_t end) { for (int64_t e = begin; e < end; ++e) dw[e] = 0; };
    if (a.d_weight) parallel_for(pf, a.E, 65536, zero);
    A *const d_alpha = static_cast<A*>(a.dots), *const d_recur = static_cast<A*>(a.d_recur);
    for (int64_t c0 = 0; c0 < a.C; c0 += S) {
      const int64_t n = begin(c0);
      each(p, [&](int64_t, int64_t r0, int64_t r1) {
        load_block<T, A>(static_cast<const T*>(a.x), hs, a.C, c0, n, S, r0, r1);
        load_block<T, A>(static_cast<const T*>(a.grad), g, a.C, c0, n, S, r0, r1);
      });
      for (int64_t k = 0; k < K; ++k)
        each(p, [&](int64_t i, int64_t r0, int64_t r1) {
          step(k, hs + k * N * S, k ? hs + (k - 1) * N * S : nullptr, hs + (k + 1) * N * S, nullptr, nullptr, nullptr, i, r0, r1);
        });
      A *l = l0, *next = l1;
      for (int64_t k = K; k >= 0; --k) {
        each(t, [&](int64_t i, int64_t r0, int64_t r1) {
          A* const own = part + i * stride;
          __builtin_memset(own, 0, size_t(stride) * sizeof(A));
          A* const edges = a.d_weight ? dw.p : nullptr;
          if (t.w) retreat<true>(t, k, hs, g, next, l, own, edges, r0, r1);
          else retreat<false>(t, k, hs, g, next, l, own, edges, r0, r1);
          if (k == 0) store_block<T, A>(static_cast<T*>(a.out), l, a.C, c0, n, S, r0, r1);
        });
        join<A>(part, t.items, stride, stride, sum);
        __builtin_memcpy(d_alpha + k * a.C + c0, sum, size_t(n) * sizeof(A));
        if (k < K) for (int i = 0; i < 3; ++i) __builtin_memcpy(d_recur + (i * K + k) * a.C + c0, sum + (i + 1) * S, size_t(n) * sizeof(A));
        if (a.gate) {
          for (int64_t c = 0; c < n; ++c) d_gate[c] += double(sum[4 * S + c]);
          d_gate[S] += double(sum[kSums * S]);
        }
        A* const swap = next;
        next = l;
        l = swap;
      }
    }
    if (a.d_gate) {
      A* const out = static_cast<A*>(a.d_gate);
      for (int64_t c = 0; c < a.C; ++c) out[c] = A(d_gate[c]);
      out[a.C] = A(d_gate[S]);
    }
    if (a.d_weight) {
      T* const out = static_cast<T*>(a.d_weight);
      auto scatter = [&](int64_t begin, int64_t end) { for (int64_t e = begin; e < end; ++e) narrow_to(out + (a.eid_t ? a.eid_t[e] : e), dw[e]); };
      parallel_for(pf, a.E, 65536, scatter);
    }
  }
};

template <class T> void zero_rows(const PolyArgs& a) {  // no nodes: every sum over nodes is 0
  using A = Acc<T>;
  auto clear = [](void* p, int64_t n) { if (p) for (int64_t i = 0; i < n; ++i) static_cast<A*>(p)[i] = A(0); };
  clear(a.dots, (a.K + 1) * a.C);
  clear(a.d_recur, 3 * a.K * a.C);
  if (a.d_gate) clear(a.d_gate, a.C + 1);
  if (a.d_weight) __builtin_memset(a.d_weight, 0, size_t(a.E) * sizeof(T));
}

}  // namespace

void poly_fwd(const PolyArgs& a, const ParallelFor& pf) {
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) {
      if (a.N == 0 || a.C == 0) zero_rows<T>(a);
      else Run<T>(a, pf).forward();
    }
  });
}

void poly_bwd(const PolyArgs& a, const ParallelFor& pf) {
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) {
      if (a.N == 0 || a.C == 0) zero_rows<T>(a);
      else Run<T>(a, pf).backward();
    }
  });
}

}  // namespace structops::STRUCTOPS_ISA
