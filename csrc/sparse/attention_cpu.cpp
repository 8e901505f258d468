// CPU attention. The contract is attention.h.
//
// A tile of edges of one row: scores into [H, kTile], exponentials over the tile, then every vector of features is summed over
// the tile in a register. By the reversed edges the same, with the source's key and value held and the rows' gradients gathered.
#include "core/memory.h"
#include "core/vmath.h"
#include "sparse/attention.h"
#include "sparse/attention_rows.h"
#include "sparse/row_pieces.h"
#include "sparse/row_vectors.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kTile = 32;

// The lanes of each of four vectors added up, in the first four lanes.
template <class A> STRUCTOPS_INLINE Vec<A> hsum4(Vec<A> v0, Vec<A> v1, Vec<A> v2, Vec<A> v3) {
  constexpr int L = W<A>;
#ifndef __clang__
  if constexpr (L >= 4) {
    Vec<Int<A>> even, odd, low, high;
    for (int i = 0; i < L; ++i) {
      even[i] = i % 2 ? L + i - 1 : i;
      odd[i] = i % 2 ? L + i : i + 1;
      low[i] = i % 4 < 2 ? i : L + i - 2;
      high[i] = i % 4 < 2 ? i + 2 : L + i;
    }
    const Vec<A> a = __builtin_shuffle(v0, v1, even) + __builtin_shuffle(v0, v1, odd);
    const Vec<A> b = __builtin_shuffle(v2, v3, even) + __builtin_shuffle(v2, v3, odd);
    Vec<A> c = __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
#pragma GCC unroll 4
    for (int w = L / 2; w >= 4; w /= 2) {
      Vec<Int<A>> other;
      for (int i = 0; i < L; ++i) other[i] = i ^ w;
      c += __builtin_shuffle(c, other);
    }
    return c;
  }
#endif
  Vec<A> c{};
  if constexpr (L >= 4) { c[0] = hsum<A>(v0); c[1] = hsum<A>(v1); c[2] = hsum<A>(v2); c[3] = hsum<A>(v3); }
  return c;
}

// to[i] = the sum of the lanes of f(i), for n > 0 edges and up to the next multiple of four.
template <class A, class F> STRUCTOPS_INLINE void lane_sums(A* to, int n, F f) {
  for (int i = 0; i < n; i += 4) {
    if constexpr (W<A> >= 4) {
      const Vec<A> c = hsum4<A>(f(i), f(i + 1), f(i + 2), f(i + 3));
      for (int r = 0; r < 4; ++r) to[i + r] = c[r];
    } else {
      for (int r = 0; r < 4; ++r) to[i + r] = hsum<A>(f(i + r));
    }
  }
}

// Products of two rows, added up lane by lane.
template <class P, class Q> STRUCTOPS_INLINE Vec<Acc<P>> products(const P* p, const Q* q, int64_t n) {
  Vec<Acc<P>> s{};
  for (int64_t j = 0; j < n; j += W<Acc<P>>) s += get(p + j, n - j) * get(q + j, n - j);
  return s;
}

// What a thread works in: [H, kTile] scores, products and slopes, and rows of accumulators.
template <class A> struct Scratch {
  A *s, *dp, *slope;   // [H, kTile]; slope: the derivative of the additive score
  A *key, *value;      // [H, K], [H, D]: the held row, widened; and their sums
  A *sum_key, *sum_value;
  A *m, *l;            // [H]
  int64_t other[kTile], edge[kTile];
  A* memory;
  explicit Scratch(const AttentionArgs& a) {
    const int64_t HT = a.H * kTile, HK = a.H * a.K + W<A>, HD = a.H * a.D + W<A>;
    memory = allocate<A>(size_t(3 * HT + 2 * HK + 2 * HD + 2 * a.H));
    A* p = memory;
    auto take = [&](int64_t n) { A* const r = p; p += n; return r; };
    s = take(HT); dp = take(HT); slope = take(HT);
    key = take(HK); sum_key = take(HK); value = take(HD); sum_value = take(HD);
    m = take(a.H); l = take(a.H);
  }
  ~Scratch() { std::free(memory); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};

template <class T, class A> void widen_row(A* to, const T* from, int64_t n) {
  for (int64_t j = 0; j < n; j += W<A>) put(to + j, get(from + j, n - j), n - j);
}
template <class T, class A> void narrow_row(T* to, const A* from, int64_t n) {
  for (int64_t j = 0; j < n; j += W<A>) put(to + j, get(from + j, n - j), n - j);
}

template <class T> const T* as(const void* p) { return static_cast<const T*>(p); }

// Scores of n edges between the held row and the rows `other` of `far`, into x.s.
template <class T, Score score, class A>
void scores(const AttentionArgs& a, Scratch<A>& x, const T* far, int n) {
  const int64_t H = a.H, K = a.K;
  const T* const edge = as<T>(a.edge);
  const A slope = A(a.slope), scale = A(a.scale);
  for (int64_t h = 0; h < H; ++h) {
    A* const s = x.s + h * kTile;
    const A* const held = x.key + h * K;
    if constexpr (score == Score::additive) {
      for (int i = 0; i < n; ++i) s[i] = held[0] + widen(far[x.other[i] * H + h]) + (edge ? widen(edge[x.edge[i] * H + h]) : A(0));
    } else if constexpr (score == Score::gatv2) {
      const T* const w = as<T>(a.att) + h * K;
      lane_sums<A>(s, n, [&](int i) __attribute__((always_inline)) {
        const T *const p = far + (x.other[i] * H + h) * K, *const b = edge ? edge + (x.edge[i] * H + h) * K : nullptr;
        Vec<A> total{};
        for (int64_t j = 0; j < K; j += W<A>) {
          Vec<A> z = get(held + j, K - j) + get(p + j, K - j);
          if (b) z += get(b + j, K - j);
          total += get(w + j, K - j) * (z > 0 ? z : z * slope);
        }
        return total;
      });
    } else {
      lane_sums<A>(s, n, [&](int i) __attribute__((always_inline)) { return products(held, far + (x.other[i] * H + h) * K, K); });
      for (int i = 0; i < n; ++i) s[i] = scale * s[i] + (edge ? widen(edge[x.edge[i] * H + h]) : A(0));
    }
  }
  if constexpr (score == Score::additive)  // in vectors: the sign of one number is not predictable
    for (int64_t h = 0; h < H; ++h)
      for (int i = 0; i < n; i += W<A>) {
        const Vec<A> z = load(x.s + h * kTile + i), d = z > 0 ? splat(A(1)) : splat(slope);
        store(x.slope + h * kTile + i, d);
        store(x.s + h * kTile + i, z * d);
      }
}

// sum[h, :] += sum over i of weight[h, i] * rows[other[i], h, :]
template <class T, class A>
void add_rows(A* sum, const A* weight, const T* rows, const int64_t* other, int n, int64_t H, int64_t D) {
  constexpr int L = W<A>;
  int64_t done = 0;
  if (D % L == 0 && D > 0) {
    // Four vectors at a time, of one head or several: enough independent sums to hide the latency of an addition.
    const int64_t HD = H * D;
    for (; done + 4 * L <= HD; done += 4 * L) {
      Vec<A> t[4];
      const A* w[4];
      for (int r = 0; r < 4; ++r) {
        t[r] = load(sum + done + r * L);
        w[r] = weight + (done + r * L) / D * kTile;
      }
      for (int i = 0; i < n; ++i) {
        const T* const p = rows + other[i] * HD + done;
        for (int r = 0; r < 4; ++r) t[r] += w[r][i] * load(p + r * L);
      }
      for (int r = 0; r < 4; ++r) store(sum + done + r * L, t[r]);
    }
    for (; done < HD; done += L) {
      Vec<A> t = load(sum + done);
      for (int i = 0; i < n; ++i) t += weight[done / D * kTile + i] * load(rows + other[i] * HD + done);
      store(sum + done, t);
    }
    return;
  }
  for (int64_t h = 0; h < H; ++h) {
    const A* const w = weight + h * kTile;
    for (int64_t j = 0; j < D; j += W<A>) {
      Vec<A> t = get(sum + h * D + j, D - j);
      for (int i = 0; i < n; ++i) t += w[i] * get(rows + (other[i] * H + h) * D + j, D - j);
      put(sum + h * D + j, t, D - j);
    }
  }
}

// The far rows and the edges of the tile that begins at k; prefetches the rows.
template <class A, class T>
int fetch(Scratch<A>& x, const Index& to, const Index& eid, int64_t k, int64_t end, const T* rows, int64_t stride) {
  const int n = end - k < kTile ? int(end - k) : kTile;
  for (int i = 0; i < n; ++i) {
    x.other[i] = to[k + i];
    x.edge[i] = eid ? eid[k + i] : k + i;
    const char* const p = reinterpret_cast<const char*>(rows + x.other[i] * stride);
    for (int64_t b = 0; b < int64_t(stride * sizeof(T)) && b < 1024; b += 64) __builtin_prefetch(p + b);
  }
  for (int i = n; i % 4; ++i) { x.other[i] = x.other[n - 1]; x.edge[i] = x.edge[n - 1]; }  // lane_sums goes on to a multiple of four
  return n;
}

template <class T, Score score> void forward_row(const AttentionArgs& a, Scratch<Acc<T>>& x, int64_t v) {
  using A = Acc<T>;
  const int64_t H = a.H, HD = H * a.D, end = a.rowptr[v + 1];
  widen_row(x.key, as<T>(a.query) + v * H * a.K, H * a.K);
  for (int64_t h = 0; h < H; ++h) { x.m[h] = A(-INFINITY); x.l[h] = 0; }
  for (int64_t j = 0; j < HD; ++j) x.sum_value[j] = 0;
  for (int64_t k = a.rowptr[v]; k < end; k += kTile) {
    const int n = fetch(x, a.col, a.eid, k, end, as<T>(a.value), HD);
    scores<T, score>(a, x, as<T>(a.key), n);
    for (int64_t h = 0; h < H; ++h) {
      A* const s = x.s + h * kTile;
      pad(s, n, A(-INFINITY));
      const A m = largest(s, n, x.m[h]);
      if (m > x.m[h]) {
        const A shrink = vexp<A>(splat(x.m[h] - m))[0];
        if (x.l[h] != 0) {
          x.l[h] *= shrink;
          for (int64_t j = 0; j < a.D; ++j) x.sum_value[h * a.D + j] *= shrink;
        }
        x.m[h] = m;
      }
      x.l[h] += exponentials(s, finite_or_zero(m), n);
    }
    add_rows(x.sum_value, x.s, as<T>(a.value), x.other, n, H, a.D);
  }
  T* const out = static_cast<T*>(a.out) + v * HD;
  A* const lse = static_cast<A*>(a.lse) + v * H;
  for (int64_t h = 0; h < H; ++h) {
    const A l = x.l[h], inverse = l == 0 ? A(0) : 1 / l;
    for (int64_t j = 0; j < a.D; ++j) x.sum_value[h * a.D + j] *= inverse;
    lse[h] = l == 0 ? A(-INFINITY) : x.m[h] + vlog<A>(splat(l))[0];
  }
  narrow_row(out, x.sum_value, HD);
}

// Adds the gradients of the held key-like row, and of edges and att where `rows`, from ds in x.s.
template <class T, Score score, bool rows, class A>
void score_backward(const AttentionArgs& a, Scratch<A>& x, const T* far, int n, A* d_att) {
  const int64_t H = a.H, K = a.K;
  const A slope = A(a.slope), scale = A(a.scale);
  T* const d_edge = static_cast<T*>(a.d_edge);
  if constexpr (score == Score::dot) {
    if (rows && d_edge)
      for (int64_t h = 0; h < H; ++h)
        for (int i = 0; i < n; ++i) narrow_to(d_edge + x.edge[i] * H + h, x.s[h * kTile + i]);
    for (int64_t h = 0; h < H; ++h)
      for (int i = 0; i < n; ++i) x.s[h * kTile + i] *= scale;
    add_rows(x.sum_key, x.s, far, x.other, n, H, K);
  } else if constexpr (score == Score::additive) {
    for (int64_t h = 0; h < H; ++h) {
      A *const s = x.s + h * kTile, *const d = x.slope + h * kTile;
      pad(d, n, A(0));
      Vec<A> total{};
      for (int i = 0; i < n; i += W<A>) {
        const Vec<A> ds = load(s + i) * load(d + i);
        store(s + i, ds);
        total += ds;
      }
      x.sum_key[h] += hsum<A>(total);
      if (rows && d_edge)
        for (int i = 0; i < n; ++i) narrow_to(d_edge + x.edge[i] * H + h, s[i]);
    }
  } else {
    const T* const edge = as<T>(a.edge);
    for (int64_t h = 0; h < H; ++h)
      for (int64_t j = 0; j < K; j += W<A>) {
        const int64_t left = K - j, at = h * K + j;
        const Vec<A> held = get(x.key + at, left), w = get(as<T>(a.att) + at, left);
        Vec<A> total = get(x.sum_key + at, left), total_att = rows ? get(d_att + at, left) : Vec<A>{};
        for (int i = 0; i < n; ++i) {
          Vec<A> z = held + get(far + x.other[i] * H * K + at, left);
          if (edge) z += get(edge + x.edge[i] * H * K + at, left);
          const A ds = x.s[h * kTile + i];
          const Vec<A> d = ds * w * (z > 0 ? splat(A(1)) : splat(slope));
          total += d;
          if constexpr (rows) {
            total_att += ds * (z > 0 ? z : z * slope);
            if (d_edge) put(d_edge + x.edge[i] * H * K + at, d, left);
          }
        }
        put(x.sum_key + at, total, left);
        if constexpr (rows) put(d_att + at, total_att, left);
      }
  }
}

// x.dp[h, i] = <held value of head h, row other[i] of rows>
template <class T, class A> void value_products(Scratch<A>& x, const T* rows, int n, int64_t H, int64_t D) {
  for (int64_t h = 0; h < H; ++h)
    lane_sums<A>(x.dp + h * kTile, n, [&](int i) __attribute__((always_inline)) {
      return products(x.value + h * D, rows + (x.other[i] * H + h) * D, D);
    });
}

template <class T, Score score> void backward_row(const AttentionArgs& a, Scratch<Acc<T>>& x, int64_t v, Acc<T>* d_att) {
  using A = Acc<T>;
  const int64_t H = a.H, D = a.D, HD = H * D, HK = H * a.K, end = a.rowptr[v + 1];
  widen_row(x.key, as<T>(a.query) + v * HK, HK);
  widen_row(x.value, as<T>(a.grad) + v * HD, HD);
  const A* const lse = as<A>(a.lse) + v * H;
  A* const delta = static_cast<A*>(a.delta) + v * H;
  for (int64_t h = 0; h < H; ++h) delta[h] = hsum<A>(products(x.value + h * D, as<T>(a.forward_out) + v * HD + h * D, D));
  for (int64_t j = 0; j < HK; ++j) x.sum_key[j] = 0;
  for (int64_t k = a.rowptr[v]; k < end; k += kTile) {
    const int n = fetch(x, a.col, a.eid, k, end, as<T>(a.value), HD);
    scores<T, score>(a, x, as<T>(a.key), n);
    value_products(x, as<T>(a.value), n, H, D);
    for (int64_t h = 0; h < H; ++h) {
      A* const s = x.s + h * kTile;
      pad(s, n, A(-INFINITY));
      exponentials(s, finite_or_zero(lse[h]), n);
      score_gradients(s, x.dp + h * kTile, n, delta[h]);
    }
    score_backward<T, score, true>(a, x, as<T>(a.key), n, d_att);
  }
  narrow_row(static_cast<T*>(a.d_query) + v * HK, x.sum_key, HK);
}

template <class T, Score score> void backward_source(const AttentionArgs& a, Scratch<Acc<T>>& x, int64_t u) {
  using A = Acc<T>;
  const int64_t H = a.H, D = a.D, HD = H * D, HK = H * a.K, end = a.colptr[u + 1];
  widen_row(x.key, as<T>(a.key) + u * HK, HK);
  widen_row(x.value, as<T>(a.value) + u * HD, HD);
  const A *const lse = as<A>(a.lse), *const delta = as<A>(a.delta);
  for (int64_t j = 0; j < HK; ++j) x.sum_key[j] = 0;
  for (int64_t j = 0; j < HD; ++j) x.sum_value[j] = 0;
  for (int64_t k = a.colptr[u]; k < end; k += kTile) {
    const int n = fetch(x, a.row_t, a.eid_t, k, end, as<T>(a.grad), HD);
    scores<T, score>(a, x, as<T>(a.query), n);
    value_products(x, as<T>(a.grad), n, H, D);
    for (int i = 0; i < n; ++i)
      for (int64_t h = 0; h < H; ++h) {
        x.s[h * kTile + i] -= finite_or_zero(lse[x.other[i] * H + h]);
        x.dp[h * kTile + i] -= delta[x.other[i] * H + h];
      }
    for (int64_t h = 0; h < H; ++h) {
      pad(x.s + h * kTile, n, A(-INFINITY));
      exponentials(x.s + h * kTile, A(0), n);
    }
    add_rows(x.sum_value, x.s, as<T>(a.grad), x.other, n, H, D);
    for (int64_t h = 0; h < H; ++h) score_gradients(x.s + h * kTile, x.dp + h * kTile, n, A(0));
    score_backward<T, score, false>(a, x, as<T>(a.query), n, static_cast<A*>(nullptr));
  }
  narrow_row(static_cast<T*>(a.d_key) + u * HK, x.sum_key, HK);
  narrow_row(static_cast<T*>(a.d_value) + u * HD, x.sum_value, HD);
}

template <class F> void with_score(const AttentionArgs& a, F f) {
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) {
      if (a.score == Score::additive) f.template operator()<T, Score::additive>();
      else if (a.score == Score::gatv2) f.template operator()<T, Score::gatv2>();
      else f.template operator()<T, Score::dot>();
    }
  });
}

struct Forward {
  const AttentionArgs& a;
  const ParallelFor& pf;
  template <class T, Score score> void operator()() const {
    for_row_pieces(a.rowptr, a.N, a.E, a.H * (a.K + a.D), pf, [&](int64_t, int64_t begin, int64_t end) {
      Scratch<Acc<T>> x(a);
      for (int64_t v = begin; v < end; ++v) forward_row<T, score>(a, x, v);
    });
  }
};

struct Backward {
  const AttentionArgs& a;
  const ParallelFor& pf;
  template <class T, Score score> void operator()() const {
    using A = Acc<T>;
    const int64_t HK = score == Score::gatv2 ? a.H * a.K : 0, cost = 2 * a.H * (a.K + a.D);
    const int64_t items = row_pieces(a.N, a.E);
    A* const d_att = allocate<A>(size_t(items * HK));
    for (int64_t j = 0; j < items * HK; ++j) d_att[j] = 0;
    for_row_pieces(a.rowptr, a.N, a.E, cost, pf, [&](int64_t item, int64_t begin, int64_t end) {
      Scratch<A> x(a);
      for (int64_t v = begin; v < end; ++v) backward_row<T, score>(a, x, v, d_att + item * HK);
    });
    for (int64_t j = 0; j < HK; ++j) {
      A total = 0;
      for (int64_t item = 0; item < items; ++item) total += d_att[item * HK + j];
      narrow_to(static_cast<T*>(a.d_att) + j, total);
    }
    std::free(d_att);
    for_row_pieces(a.colptr, a.M, a.E, cost, pf, [&](int64_t, int64_t begin, int64_t end) {
      Scratch<A> x(a);
      for (int64_t u = begin; u < end; ++u) backward_source<T, score>(a, x, u);
    });
  }
};

}  // namespace

void attention_fwd(const AttentionArgs& a, const ParallelFor& pf) { with_score(a, Forward{a, pf}); }
void attention_bwd(const AttentionArgs& a, const ParallelFor& pf) { with_score(a, Backward{a, pf}); }

}  // namespace structops::STRUCTOPS_ISA
