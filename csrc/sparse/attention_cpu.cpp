// CPU attention. The contract is attention.h.
//
// A tile of edges of one row: scores into [H, kTile], exponentials over the tile, then every vector of features is summed over
// the tile in a register. By the reversed edges the same, with the source's key and value held and the rows' gradients gathered.
#include "core/memory.h"
#include "core/vmath.h"
#include "sparse/attention_blocks.h"
#include "sparse/row_pieces.h"
#include "sparse/row_vectors.h"

namespace structops::STRUCTOPS_ISA {
namespace {

// What a thread works in: [H, kTile] scores, products and slopes, and rows of accumulators.
template <class A> struct Scratch {
  A *s, *dp, *slope;   // [H, kTile]; slope: the derivative of the additive score
  A *key, *value;      // [H, K], [H, D]: the held row, widened; and their sums
  A *sum_key, *sum_value;
  A *m, *l;            // [H]
  int32_t *key_heads, *value_heads;  // the head of every vector of a key, of a value, where all blocks are whole vectors; else null
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
    key_heads = vector_heads<A>(a.key_blocks, a.H, a.K);
    value_heads = vector_heads<A>(a.value_blocks, a.H, a.D);
  }
  ~Scratch() {
    std::free(memory);
    std::free(key_heads);
    std::free(value_heads);
  }
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
      head_products(s, a.key_blocks, H, h, x.key, far, H * K, x.other, n);
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

// Maxima, sums and weighted sums of the edges [begin, end) of a row, in x.
template <class T, Score score> void forward_part(const AttentionArgs& a, Scratch<Acc<T>>& x, int64_t v, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const int64_t H = a.H, HD = H * a.D;
  widen_row(x.key, as<T>(a.query) + v * H * a.K, H * a.K);
  for (int64_t h = 0; h < H; ++h) { x.m[h] = A(-INFINITY); x.l[h] = 0; }
  for (int64_t j = 0; j < HD; ++j) x.sum_value[j] = 0;
  for (int64_t k = begin; k < end; k += kTile) {
    const int n = fetch(x, a.col, a.eid, k, end, as<T>(a.value), HD);
    scores<T, score>(a, x, as<T>(a.key), n);
    for (int64_t h = 0; h < H; ++h) {
      A* const s = x.s + h * kTile;
      pad(s, n, A(-INFINITY));
      const A m = largest(s, n, x.m[h]);
      if (m > x.m[h]) {
        if (x.l[h] != 0) {
          const A shrink = vexp<A>(splat(x.m[h] - m))[0];
          x.l[h] *= shrink;
          each_block(a.value_blocks, H, h, [&](int64_t at, int64_t n) { for (int64_t j = at; j < at + n; ++j) x.sum_value[j] *= shrink; });
        }
        x.m[h] = m;
      }
      x.l[h] += exponentials(s, finite_or_zero(m), n);
    }
    add_rows(x.sum_value, x.s, as<T>(a.value), x.other, n, a.value_blocks, x.value_heads, H, a.D);
  }
}

// Appends a later part [m, l, sums] of the row to that in x.
template <class A> void append(const AttentionArgs& a, Scratch<A>& x, const A* part) {
  const A *const m = part, *const l = part + a.H, *const sum = part + 2 * a.H;
  for (int64_t h = 0; h < a.H; ++h) {
    if (l[h] == 0) continue;
    const A top = m[h] > x.m[h] ? m[h] : x.m[h];
    const A before = x.l[h] == 0 ? A(0) : vexp<A>(splat(x.m[h] - top))[0], after = vexp<A>(splat(m[h] - top))[0];
    x.l[h] = x.l[h] * before + l[h] * after;
    x.m[h] = top;
    each_block(a.value_blocks, a.H, h, [&](int64_t at, int64_t n) {
      for (int64_t j = at; j < at + n; ++j) x.sum_value[j] = x.sum_value[j] * before + sum[j] * after;
    });
  }
}

template <class T> void finish_row(const AttentionArgs& a, Scratch<Acc<T>>& x, int64_t v) {
  using A = Acc<T>;
  const int64_t H = a.H, HD = H * a.D;
  T* const out = static_cast<T*>(a.out) + v * HD;
  A* const lse = static_cast<A*>(a.lse) + v * H;
  for (int64_t h = 0; h < H; ++h) {
    const A l = x.l[h], inverse = l == 0 ? A(0) : 1 / l;
    each_block(a.value_blocks, H, h, [&](int64_t at, int64_t n) { for (int64_t j = at; j < at + n; ++j) x.sum_value[j] *= inverse; });
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
    add_rows(x.sum_key, x.s, far, x.other, n, a.key_blocks, x.key_heads, H, K);
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
template <class T, class A> void value_products(const AttentionArgs& a, Scratch<A>& x, const T* rows, int n) {
  for (int64_t h = 0; h < a.H; ++h) head_products(x.dp + h * kTile, a.value_blocks, a.H, h, x.value, rows, a.H * a.D, x.other, n);
}

// The gradient of a row's query by its edges [begin, end), in x.sum_key.
template <class T, Score score>
void backward_row(const AttentionArgs& a, Scratch<Acc<T>>& x, int64_t v, int64_t begin, int64_t end, Acc<T>* d_att) {
  using A = Acc<T>;
  const int64_t H = a.H, D = a.D, HD = H * D, HK = H * a.K;
  widen_row(x.key, as<T>(a.query) + v * HK, HK);
  widen_row(x.value, as<T>(a.grad) + v * HD, HD);
  const A* const lse = as<A>(a.lse) + v * H;
  A* const delta = x.m;
  for (int64_t h = 0; h < H; ++h) {
    const T* const out = as<T>(a.forward_out) + v * HD;
    Vec<A> s{};
    each_vector<A>(a.value_blocks, H, h, [&](auto at) __attribute__((always_inline)) { s += at(x.value) * at(out); });
    delta[h] = hsum<A>(s);
  }
  if (begin == a.rowptr[v])  // parts of a row may run at the same time
    for (int64_t h = 0; h < H; ++h) static_cast<A*>(a.delta)[v * H + h] = delta[h];
  for (int64_t j = 0; j < HK; ++j) x.sum_key[j] = 0;
  for (int64_t k = begin; k < end; k += kTile) {
    const int n = fetch(x, a.col, a.eid, k, end, as<T>(a.value), HD);
    scores<T, score>(a, x, as<T>(a.key), n);
    value_products(a, x, as<T>(a.value), n);
    for (int64_t h = 0; h < H; ++h) {
      A* const s = x.s + h * kTile;
      pad(s, n, A(-INFINITY));
      exponentials(s, finite_or_zero(lse[h]), n);
      score_gradients(s, x.dp + h * kTile, n, delta[h]);
    }
    score_backward<T, score, true>(a, x, as<T>(a.key), n, d_att);
  }
}

// The gradients of a source's key and value by its edges [begin, end), in x.sum_key and x.sum_value.
template <class T, Score score> void backward_source(const AttentionArgs& a, Scratch<Acc<T>>& x, int64_t u, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const int64_t H = a.H, D = a.D, HD = H * D, HK = H * a.K;
  widen_row(x.key, as<T>(a.key) + u * HK, HK);
  widen_row(x.value, as<T>(a.value) + u * HD, HD);
  const A *const lse = as<A>(a.lse), *const delta = as<A>(a.delta);
  for (int64_t j = 0; j < HK; ++j) x.sum_key[j] = 0;
  for (int64_t j = 0; j < HD; ++j) x.sum_value[j] = 0;
  for (int64_t k = begin; k < end; k += kTile) {
    const int n = fetch(x, a.row_t, a.eid_t, k, end, as<T>(a.grad), HD);
    scores<T, score>(a, x, as<T>(a.query), n);
    value_products(a, x, as<T>(a.grad), n);
    for (int i = 0; i < n; ++i)
      for (int64_t h = 0; h < H; ++h) {
        x.s[h * kTile + i] -= finite_or_zero(lse[x.other[i] * H + h]);
        x.dp[h * kTile + i] -= delta[x.other[i] * H + h];
      }
    for (int64_t h = 0; h < H; ++h) {
      pad(x.s + h * kTile, n, A(-INFINITY));
      exponentials(x.s + h * kTile, A(0), n);
    }
    add_rows(x.sum_value, x.s, as<T>(a.grad), x.other, n, a.value_blocks, x.value_heads, H, D);
    for (int64_t h = 0; h < H; ++h) score_gradients(x.s + h * kTile, x.dp + h * kTile, n, A(0));
    score_backward<T, score, false>(a, x, as<T>(a.query), n, static_cast<A*>(nullptr));
  }
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

template <class A> void copy(A* to, const A* from, int64_t n) { __builtin_memcpy(to, from, size_t(n) * sizeof(A)); }

struct Forward {
  const AttentionArgs& a;
  const ParallelFor& pf;
  template <class T, Score score> void operator()() const {
    using A = Acc<T>;
    const int64_t H = a.H, HD = H * a.D;
    const Slots<A> slots(a.N, a.E, 2 * H + HD);
    for_cut_rows(a.rowptr, a.N, a.E, H * (a.K + a.D), pf, [&](int64_t, auto rows) {
      Scratch<A> x(a);
      rows([&](int64_t v, int64_t begin, int64_t end, int64_t slot) {
        forward_part<T, score>(a, x, v, begin, end);
        if (slot < 0) return finish_row<T>(a, x, v);
        copy(slots[slot], x.m, H);
        copy(slots[slot] + H, x.l, H);
        copy(slots[slot] + 2 * H, x.sum_value, HD);
      });
    }, [&](int64_t v, int64_t first, int64_t last) {
      Scratch<A> x(a);
      copy(x.m, slots[first], H);
      copy(x.l, slots[first] + H, H);
      copy(x.sum_value, slots[first] + 2 * H, HD);
      while (first < last) append(a, x, slots[first = next_slot(first)]);
      finish_row<T>(a, x, v);
    });
  }
};

struct Backward {
  const AttentionArgs& a;
  const ParallelFor& pf;
  template <class T, Score score> void operator()() const {
    using A = Acc<T>;
    const int64_t HK = a.H * a.K, HD = a.H * a.D, n_att = score == Score::gatv2 ? HK : 0, cost = 2 * (HK + HD);
    const int64_t items = row_pieces(a.N, a.E);
    A* const d_att = allocate<A>(size_t(items * n_att));
    for (int64_t j = 0; j < items * n_att; ++j) d_att[j] = 0;
    {
      const Slots<A> slots(a.N, a.E, HK);
      const auto give = [&](int64_t v, const A* sum) { narrow_row(static_cast<T*>(a.d_query) + v * HK, sum, HK); };
      for_cut_rows(a.rowptr, a.N, a.E, cost, pf, [&](int64_t item, auto rows) {
        Scratch<A> x(a);
        rows([&](int64_t v, int64_t begin, int64_t end, int64_t slot) {
          backward_row<T, score>(a, x, v, begin, end, d_att + item * n_att);
          if (slot < 0) give(v, x.sum_key); else copy(slots[slot], x.sum_key, HK);
        });
      }, [&](int64_t v, int64_t first, int64_t last) {
        give(v, slots.sum(first, last));
      });
    }
    for (int64_t j = 0; j < n_att; ++j) {
      A total = 0;
      for (int64_t item = 0; item < items; ++item) total += d_att[item * n_att + j];
      narrow_to(static_cast<T*>(a.d_att) + j, total);
    }
    std::free(d_att);
    const Slots<A> slots(a.M, a.E, HK + HD);
    const auto give = [&](int64_t u, const A* key, const A* value) {
      narrow_row(static_cast<T*>(a.d_key) + u * HK, key, HK);
      narrow_row(static_cast<T*>(a.d_value) + u * HD, value, HD);
    };
    for_cut_rows(a.colptr, a.M, a.E, cost, pf, [&](int64_t, auto rows) {
      Scratch<A> x(a);
      rows([&](int64_t u, int64_t begin, int64_t end, int64_t slot) {
        backward_source<T, score>(a, x, u, begin, end);
        if (slot < 0) return give(u, x.sum_key, x.sum_value);
        copy(slots[slot], x.sum_key, HK);
        copy(slots[slot] + HK, x.sum_value, HD);
      });
    }, [&](int64_t u, int64_t first, int64_t last) {
      const A* const sum = slots.sum(first, last);
      give(u, sum, sum + HK);
    });
  }
};

}  // namespace

void attention_fwd(const AttentionArgs& a, const ParallelFor& pf) { with_score(a, Forward{a, pf}); }
void attention_bwd(const AttentionArgs& a, const ParallelFor& pf) { with_score(a, Backward{a, pf}); }

}  // namespace structops::STRUCTOPS_ISA
