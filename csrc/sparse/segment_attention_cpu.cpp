// CPU attention within segments. The contract is segment_attention.h.
//
// A tile of at most kTile rows of one segment and head, held widened, meets the other side's rows in blocks of kBlock: their scores are a
// product of the tile with the packed, transposed block; sums over the block are products of the scores with the packed block.
// The backward runs twice: tiles of queries give d_query and d_bias, tiles of keys d_key and d_value.
#include "sparse/attention_rows.h"
#include "sparse/product_tile.h"
#include "sparse/row_vectors.h"
#include "sparse/segment_attention.h"

namespace structops::STRUCTOPS_ISA {
namespace {

template <class A>
constexpr int kBlock = 4 * kNR<A>;
template <class A>
constexpr int kTileLanes = (kTile + W<A> - 1) / W<A> * W<A>;  // rows of a tile in whole vectors

// Queries or keys: what the scores are made of, a [n, H, K], and what goes with it, b [n, H, D]: values, or gradients of the queries.
template <class T> struct Side {
  Index ptr;
  int64_t n;
  const T *a, *b;
};

template <class T> struct Sides {
  Side<T> queries, keys;
  explicit Sides(const SegmentAttentionArgs& a)
      : queries{a.qptr, a.Nq, static_cast<const T*>(a.query), static_cast<const T*>(a.grad)},
        keys{a.kptr, a.Nk, static_cast<const T*>(a.key), static_cast<const T*>(a.value)} {}
};

// Rows [begin, end) of a segment, and one head.
struct Tile { int64_t segment, begin, end, h; };

// What a thread works in.
template <class A> struct Scratch {
  const int64_t lda, ldb;
  Memory<A> memory;
  A *a, *b, *sum_a, *sum_b;  // [kTile, lda] or [kTile, ldb]: the held rows and the sums
  A *s, *dp;                 // [kTile, kBlock]
  A *m, *l;                  // [kTileLanes]: maximum and sum of the rows
  A *lse, *delta;            // [kBlock] of the block's queries
  A* packed;
  explicit Scratch(const SegmentAttentionArgs& args)
      : lda(padded<A>(args.K)), ldb(padded<A>(args.D)), memory(total(args)) {
    A* p = memory.p;
    auto take = [&](int64_t n) { A* const r = p; p += n; return r; };
    a = take(kTile * lda); b = take(kTile * ldb); sum_a = take(kTile * lda); sum_b = take(kTile * ldb);
    s = take(kTile * kBlock<A>); dp = take(kTile * kBlock<A>);
    m = take(kTileLanes<A>); l = take(kTileLanes<A>); lse = take(kBlock<A>); delta = take(kBlock<A>);
    packed = p;
    for (A* q = memory.p; q < packed; ++q) *q = 0;  // rows that only fill up a product are numbers too
  }
  int64_t total(const SegmentAttentionArgs& args) const {
    const int64_t widest = panels<A>(args.K > args.D ? args.K : args.D) * kNR<A>;
    return kTile * (2 * (lda + ldb) + 2 * kBlock<A>) + 2 * kTileLanes<A> + (2 + widest) * kBlock<A> + kSlack;
  }
};

// Rows [begin, end) of one head, apart in memory, are asked for together: nothing else would fetch them ahead.
template <class T> void prefetch(const T* rows, int64_t begin, int64_t end, int64_t h, int64_t H, int64_t width) {
  for (int64_t i = begin; i < end; ++i)
    for (int64_t j = 0; j < width; j += int64_t(64 / sizeof(T))) __builtin_prefetch(rows + (i * H + h) * width + j);
}
template <class T> void prefetch(const Side<T>& side, const SegmentAttentionArgs& a, int64_t begin, int64_t end, int64_t h) {
  prefetch(side.a, begin, end, h, a.H, a.K);
  if (side.b) prefetch(side.b, begin, end, h, a.H, a.D);
}

// The tile's rows of `rows`, [n, H, width], widened.
template <class T> void hold(Acc<T>* to, int64_t ld, const T* rows, const Tile& t, int64_t H, int64_t width) {
  for (int64_t i = t.begin; i < t.end; ++i, to += ld) add_row<T>(to, rows + (i * H + t.h) * width, width, Acc<T>(1), true);
}
template <class A> void clear(A* sum, int64_t ld, const Tile& t) { std::memset(sum, 0, size_t((t.end - t.begin) * ld) * sizeof(A)); }
template <class T> void give(T* rows, const Acc<T>* from, int64_t ld, const Tile& t, int64_t H, int64_t width) {
  for (int64_t i = t.begin; i < t.end; ++i, from += ld) copy_out(rows + (i * H + t.h) * width, from, width);
}

// to [kTile, kBlock] = alpha held rows^T, for n rows of head h from c.
template <class T>
void products(Scratch<Acc<T>>& x, Acc<T>* to, const Acc<T>* held, int64_t ld, const T* rows, const Tile& t, int64_t c, int64_t n, int64_t H,
              int64_t width, Acc<T> alpha) {
  using A = Acc<T>;
  for (int64_t p = 0; p < panels<A>(n); ++p)
    pack_panel(x.packed, p, width, n, rows + (c * H + t.h) * width, H * width, 1, A(1), 0, width);
  gemm<A>(whole<A>(t.end - t.begin), n, width, held, ld, x.packed, to, kBlock<A>, alpha, false);
}

// sum [kTile, ld] = alpha weight [kTile, kBlock] rows, for n rows of head h from c, or += after the first block.
template <class T>
void add_products(Scratch<Acc<T>>& x, Acc<T>* sum, int64_t ld, const Acc<T>* weight, const T* rows, const Tile& t, int64_t c, int64_t n,
                  int64_t H, int64_t width, Acc<T> alpha, bool first) {
  using A = Acc<T>;
  for (int64_t p = 0; p < panels<A>(width); ++p)
    pack_panel(x.packed, p, n, width, rows + (c * H + t.h) * width, 1, H * width, A(1), 0, n);
  gemm<A>(whole<A>(t.end - t.begin), width, n, weight, kBlock<A>, x.packed, sum, ld, alpha, !first);
}

// Where the pair of the tile's row i and the block's row j stands in bias: first + i * down + j * right.
struct Pairs {
  int64_t first, down, right;
  Pairs(const SegmentAttentionArgs& a, const Tile& t, bool by_keys, int64_t c) {
    const int64_t q0 = a.qptr[t.segment], k0 = a.kptr[t.segment], nk = a.kptr[t.segment + 1] - k0;
    const int64_t q = (by_keys ? c : t.begin) - q0, k = (by_keys ? t.begin : c) - k0;
    first = ((a.offset ? a.offset[t.segment] : 0) + q * nk + k) * a.H + t.h;
    down = (by_keys ? 1 : nk) * a.H;
    right = (by_keys ? nk : 1) * a.H;
  }
};

// Scores of the tile and n rows of the other side from c, into x.s, -inf behind them.
template <class T>
void scores(const SegmentAttentionArgs& a, Scratch<Acc<T>>& x, const Side<T>& far, const Tile& t, bool by_keys, int64_t c, int64_t n) {
  using A = Acc<T>;
  products<T>(x, x.s, x.a, x.lda, far.a, t, c, n, a.H, a.K, A(a.scale));
  const T* const bias = static_cast<const T*>(a.bias);
  const Pairs at(a, t, by_keys, c);
  for (int64_t i = 0; i < t.end - t.begin; ++i) {
    A* const s = x.s + i * kBlock<A>;
    if (bias)
      for (int64_t j = 0; j < n; ++j) s[j] += widen(bias[at.first + i * at.down + j * at.right]);
    pad(s, int(n), A(-INFINITY));
  }
}

template <class T> void forward_tile(const SegmentAttentionArgs& a, const Sides<T>& sides, Scratch<Acc<T>>& x, const Tile& t) {
  using A = Acc<T>;
  const int64_t rows = t.end - t.begin, start = a.kptr[t.segment], end = a.kptr[t.segment + 1];
  prefetch(sides.queries, a, t.begin, t.end, t.h);
  prefetch(sides.keys, a, start, least(end, start + kBlock<A>), t.h);
  hold(x.a, x.lda, sides.queries.a, t, a.H, a.K);
  if (start == end) clear(x.sum_b, x.ldb, t);
  for (int64_t i = 0; i < rows; ++i) { x.m[i] = A(-INFINITY); x.l[i] = 0; }
  for (int64_t c = start; c < end; c += kBlock<A>) {
    const int64_t n = least(end - c, kBlock<A>);
    scores(a, x, sides.keys, t, false, c, n);
    for (int64_t i = 0; i < rows; ++i) {
      A* const s = x.s + i * kBlock<A>;
      const A m = largest(s, int(n), x.m[i]);
      if (m > x.m[i]) {
        if (x.l[i] != 0) {
          const A shrink = vexp<A>(splat(x.m[i] - m))[0];
          x.l[i] *= shrink;
          for (int64_t j = 0; j < a.D; ++j) x.sum_b[i * x.ldb + j] *= shrink;
        }
        x.m[i] = m;
      }
      x.l[i] += exponentials(s, finite_or_zero(m), int(n));
    }
    add_products<T>(x, x.sum_b, x.ldb, x.s, sides.keys.b, t, c, n, a.H, a.D, A(1), c == start);
  }
  for (int64_t i = 0; i < rows; i += W<A>) {
    const Vec<A> l = load(x.l + i);
    store(x.m + i, l == 0 ? splat(A(-INFINITY)) : load(x.m + i) + vlog<A>(l));
    store(x.l + i, l == 0 ? Vec<A>{} : 1 / l);
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < a.D; ++j) x.sum_b[i * x.ldb + j] *= x.l[i];
    static_cast<A*>(a.lse)[(t.begin + i) * a.H + t.h] = x.m[i];
  }
  give(static_cast<T*>(a.out), x.sum_b, x.ldb, t, a.H, a.D);
}

// <grad, out> of the tile's queries, kept for the tiles of keys.
template <class T> void tile_delta(const SegmentAttentionArgs& a, const Scratch<Acc<T>>& x, const Tile& t) {
  using A = Acc<T>;
  for (int64_t v = t.begin; v < t.end; ++v) {
    const T* const out = static_cast<const T*>(a.forward_out) + (v * a.H + t.h) * a.D;
    const A* const grad = x.b + (v - t.begin) * x.ldb;
    Vec<A> sum{};
    for (int64_t j = 0; j < a.D; j += W<A>) sum += get(grad + j, a.D - j) * get(out + j, a.D - j);
    static_cast<A*>(a.delta)[v * a.H + t.h] = hsum<A>(sum);
  }
}

// Weights into x.s and their gradients into x.dp.
template <class T, bool by_keys>
void weights(const SegmentAttentionArgs& a, Scratch<Acc<T>>& x, const Tile& t, int64_t c, int64_t n) {
  using A = Acc<T>;
  const A *const lse = static_cast<const A*>(a.lse), *const delta = static_cast<const A*>(a.delta);
  if (by_keys)
    for (int64_t j = 0; j < kBlock<A>; ++j) {
      const int64_t at = (c + j) * a.H + t.h;
      x.lse[j] = j < n ? finite_or_zero(lse[at]) : A(0);
      x.delta[j] = j < n ? delta[at] : A(0);
    }
  for (int64_t i = 0; i < t.end - t.begin; ++i) {
    A *const s = x.s + i * kBlock<A>, *const dp = x.dp + i * kBlock<A>;
    pad(dp, int(n), A(0));
    const int64_t at = (t.begin + i) * a.H + t.h;
    for (int64_t j = 0; j < n; j += W<A>) {
      const Vec<A> p = vexp<A>(load(s + j) - (by_keys ? load(x.lse + j) : splat(finite_or_zero(lse[at]))));
      store(s + j, p);
      store(dp + j, p * (load(dp + j) - (by_keys ? load(x.delta + j) : splat(delta[at]))));
    }
  }
}

template <class T, bool by_keys> void backward_tile(const SegmentAttentionArgs& a, const Sides<T>& sides, Scratch<Acc<T>>& x, const Tile& t) {
  using A = Acc<T>;
  const Side<T>&held = by_keys ? sides.keys : sides.queries, &far = by_keys ? sides.queries : sides.keys;
  const int64_t rows = t.end - t.begin, start = far.ptr[t.segment], end = far.ptr[t.segment + 1];
  T* const d_bias = by_keys ? nullptr : static_cast<T*>(a.d_bias);
  prefetch(held, a, t.begin, t.end, t.h);
  prefetch(far, a, start, least(end, start + kBlock<A>), t.h);
  hold(x.a, x.lda, held.a, t, a.H, a.K);
  hold(x.b, x.ldb, held.b, t, a.H, a.D);
  if (!by_keys) tile_delta<T>(a, x, t);
  if (start == end) {
    clear(x.sum_a, x.lda, t);
    clear(x.sum_b, x.ldb, t);
  }
  for (int64_t c = start; c < end; c += kBlock<A>) {
    const int64_t n = least(end - c, kBlock<A>);
    scores(a, x, far, t, by_keys, c, n);
    products<T>(x, x.dp, x.b, x.ldb, far.b, t, c, n, a.H, a.D, A(1));
    weights<T, by_keys>(a, x, t, c, n);
    if (by_keys) add_products<T>(x, x.sum_b, x.ldb, x.s, far.b, t, c, n, a.H, a.D, A(1), c == start);
    add_products<T>(x, x.sum_a, x.lda, x.dp, far.a, t, c, n, a.H, a.K, A(a.scale), c == start);
    if (!d_bias) continue;
    const Pairs at(a, t, by_keys, c);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < n; ++j) narrow_to(d_bias + at.first + i * at.down + j * at.right, x.dp[i * kBlock<A> + j]);
  }
  give(static_cast<T*>(by_keys ? a.d_key : a.d_query), x.sum_a, x.lda, t, a.H, a.K);
  if (by_keys) give(static_cast<T*>(a.d_value), x.sum_b, x.ldb, t, a.H, a.D);
}

// Calls f(scratch, tile) for all rows of a side, cut at every kTile rows and between segments: the heads of a tile one after the other.
template <class A, class F> void for_tiles(const SegmentAttentionArgs& a, const Index& ptr, int64_t n, const ParallelFor& pf, F f) {
  const int64_t chunks = (n + kTile - 1) / kTile;
  auto body = [&](int64_t begin, int64_t end) {
    Scratch<A> x(a);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task / a.H * kTile, last = least(first + kTile, n);
      int64_t lo = 0, hi = a.S;  // the first segment that ends behind `first`
      while (lo < hi) {
        const int64_t mid = (lo + hi) / 2;
        if (ptr[mid + 1] <= first) lo = mid + 1; else hi = mid;
      }
      for (int64_t at = first; at < last; ++lo) {
        const int64_t stop = least(ptr[lo + 1], last);
        if (stop > at) f(x, Tile{lo, at, stop, task % a.H});
        at = stop;
      }
    }
  };
  const int64_t work = kTile * (a.K + a.D) * (1 + least(a.Nq, a.Nk) / (a.S ? a.S : 1));
  parallel_for(pf, chunks * a.H, 1 + 32768 / work, body);
}

}  // namespace

void segment_attention_fwd(const SegmentAttentionArgs& a, const ParallelFor& pf) {
  with_dtype(a.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    if constexpr (is_float_storage<T>) {
      const Sides<T> sides(a);
      for_tiles<Acc<T>>(a, a.qptr, a.Nq, pf, [&](auto& x, const Tile& t) { forward_tile<T>(a, sides, x, t); });
    }
  });
}

void segment_attention_bwd(const SegmentAttentionArgs& a, const ParallelFor& pf) {
  with_dtype(a.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    if constexpr (is_float_storage<T>) {
      const Sides<T> sides(a);
      for_tiles<Acc<T>>(a, a.qptr, a.Nq, pf, [&](auto& x, const Tile& t) { backward_tile<T, false>(a, sides, x, t); });
      for_tiles<Acc<T>>(a, a.kptr, a.Nk, pf, [&](auto& x, const Tile& t) { backward_tile<T, true>(a, sides, x, t); });
    }
  });
}

}  // namespace structops::STRUCTOPS_ISA
