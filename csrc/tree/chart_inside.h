// The charts of a task and their inside pass, for one instruction set. The recurrences are in chart.h.
//
// A chart is stored by width: row w holds the spans [i, i + w] in order of i. A task is one of two things:
//   one sentence     the lanes of a vector are W neighbouring spans; every split i + k of all of them is two contiguous loads.
//                    Rows are padded. For long sentences, which fill the vectors.
//   W sentences      the lanes are sentences, a cell is a vector, and the code walks one span at a time. For short sentences
//                    of like lengths.
// Both do the same inside arithmetic in the same order; posteriors are summed in another. Lanes without a span compute with
// stale but finite numbers and are masked where they are stored or passed on.
#pragma once
#include "tree/chart.h"
#include "tree/numbers.h"
#include "tree/scaled.h"

namespace structops::STRUCTOPS_ISA {

template <class A, bool many> constexpr int kStep = many ? 1 : W<A>;  // spans that one vector covers
template <class A, bool many> constexpr int kCell = many ? W<A> : 1;  // numbers between neighbouring spans

template <class A> struct Cells {  // scaled numbers and, in dual passes, the tangents of their logarithms
  A* m;
  Int<A>* e;
  A* t;
};

template <class A> struct Charts {
  const int32_t* row;  // row[w]: the first number of width w
  Cells<A> T, IL, IR, CL, CR;
  // span: V is IL, and T its sum before the score.
};

// The input of a task. Lane l belongs to sentence b[l] of n[l] words; in a task of one sentence all lanes say the same.
template <class A> struct Input {
  Numbers score, sib, v, v_sib;  // of the whole batch
  int64_t N;
  Chart kind;
  int most;  // words of the longest
  int64_t b[W<A>];
  Vec<Int<A>> n;
  int64_t sib_N;           // sib and v_sib: [.., sib_N, sib_N, sib_N], of which lane l has
  int64_t sib_b[W<A>];     // number sib_b[l]

  // Which lanes of the vector at span i of width w hold a span.
  template <bool many> [[gnu::always_inline]] Vec<Int<A>> valid(int i, int w) const {
    Vec<Int<A>> end{};
    if constexpr (!many)
      for (int l = 0; l < W<A>; ++l) end[l] = l;
    return end + Int<A>(i + w) <= n;
  }
  // The lane of [0, w] in the vector at span i, if it is there.
  template <bool many> [[gnu::always_inline]] Vec<Int<A>> at_root(int i) const {
    Vec<Int<A>> first{};
    if (i == 0) for (int l = 0; l < (many ? W<A> : 1); ++l) first[l] = -1;
    return first;
  }
};

template <class A> struct Found {  // by reading the scores, lane by lane
  Vec<Int<A>> invalid{};           // NaN or +inf
  Vec<Int<A>> wide{};              // finite, too large for the accumulator
};

// Bit l: lane l of a mask.
template <class A> STRUCTOPS_INLINE uint32_t lane_bits(Vec<Int<A>> mask) {
#if defined(__AVX512DQ__)
  if constexpr (sizeof(A) == 4) return _mm512_movepi32_mask((__m512i)mask);
  else return _mm512_movepi64_mask((__m512i)mask);
#elif defined(__AVX2__)
  if constexpr (sizeof(A) == 4) return uint32_t(_mm256_movemask_ps((__m256)mask));
  else return uint32_t(_mm256_movemask_pd((__m256d)mask));
#else
  uint32_t bits = 0;
  for (int l = 0; l < W<A>; ++l) bits |= uint32_t(mask[l] < 0) << l;
  return bits;
#endif
}

template <class A> STRUCTOPS_INLINE bool any(Vec<Int<A>> mask) { return lane_bits<A>(mask) != 0; }

// Scores that exp_scaled takes. What is wrong with the others is remembered.
template <class A> STRUCTOPS_INLINE Vec<A> sanitise(Vec<A> x, Found<A>& found) {
  constexpr A most = ScaledConst<A>::max_score;
  const Vec<Int<A>> invalid = (x != x) | (x == A(INFINITY)), large = ((x > most) | (x < -most)) & (x != A(-INFINITY));
  if (any<A>(invalid | large)) {
    found.invalid |= invalid;
    found.wide |= large;
    x = invalid ? splat(A(-INFINITY)) : x;
    x = large ? (x > A(0) ? splat(most) : splat(-most)) : x;
  }
  return x;
}

template <class A> STRUCTOPS_INLINE Scaled<A> get(const Cells<A>& c, int o) { return {load(c.m + o), load(c.e + o)}; }

// What a cell holds: the sum of the derivations, as a scaled number; or the best of them, with its split as exponent.
template <class A> struct SumCells {
  static constexpr A zero_m = 0;
  static constexpr Int<A> zero_e = ScaledConst<A>::zero;
  STRUCTOPS_INLINE Scaled<A> of_score(Vec<A> x, Found<A>& found) { return exp_scaled<A>(sanitise<A>(x, found)); }
};
template <class A> struct BestCells {
  static constexpr A zero_m = A(-INFINITY);
  static constexpr Int<A> zero_e = -1;
  STRUCTOPS_INLINE Scaled<A> of_score(Vec<A> x, Found<A>& found) {
    const Vec<Int<A>> invalid = (x != x) | (x == A(INFINITY));
    found.invalid |= invalid;
    return {invalid ? splat(A(-INFINITY)) : x, splat(Int<A>(-1))};
  }
};

template <class A, bool dual, class S = SumCells<A>>
STRUCTOPS_INLINE void put(const Cells<A>& c, int o, Scaled<A> x, Vec<A> t, Vec<Int<A>> valid) {
  store(c.m + o, valid ? x.m : splat(S::zero_m));
  store(c.e + o, valid ? x.e : splat(S::zero_e));
  if constexpr (dual) store(c.t + o, valid ? t : Vec<A>{});
}

template <class A> STRUCTOPS_INLINE void transpose(Vec<A>* tile) {
#pragma GCC unroll 4
  for (int s = 1; s < W<A>; s *= 2) {
    Vec<Int<A>> low, high;
    for (int j = 0; j < W<A>; ++j) {
      low[j] = j & s ? W<A> + j - s : j;
      high[j] = j & s ? W<A> + j : j + s;
    }
#pragma GCC unroll 16
    for (int r = 0; r < W<A>; ++r) {
      if (r & s) continue;
      const Vec<A> a = tile[r], b = tile[r + s];
#ifdef __clang__
      for (int j = 0; j < W<A>; ++j) {
        tile[r][j] = low[j] < W<A> ? a[low[j]] : b[low[j] - W<A>];
        tile[r + s][j] = high[j] < W<A> ? a[high[j]] : b[high[j] - W<A>];
      }
#else
      tile[r] = __builtin_shuffle(a, b, low);
      tile[r + s] = __builtin_shuffle(a, b, high);
#endif
    }
  }
}

// Lane l of tile[k] = x[at[l] + k], k < count, for the lanes whose bit is set; 0 elsewhere.
template <class A> [[gnu::noinline]] void load_tile(Vec<A>* tile, Numbers x, const int64_t* at, uint32_t valid, int count) {
  with_storage(x.dtype, [&](auto* t) __attribute__((always_inline)) {
    const auto* const p = static_cast<const Pointee<decltype(t)>*>(x.data);
#pragma GCC unroll 16
    for (int l = 0; l < W<A>; ++l) tile[l] = valid >> l & 1 ? load_as<A>(p + at[l], count) : Vec<A>{};
  });
  transpose<A>(tile);
}

template <int n> struct Terms { static constexpr int count = n; };

// Sum over k in [k0, k1) of L[i, i+k] R[i+k+gap, i+w].
template <class A, bool many, bool dual>
STRUCTOPS_INLINE ScaledSum<A, dual> contract(const Cells<A>& L, const Cells<A>& R, const int32_t* row, int k0, int k1, int w, int gap, int i) {
  constexpr int cell = kCell<A, many>;
  ScaledSum<A, dual> sum;
  int k = k0;
  auto block = [&](auto size) __attribute__((always_inline)) {
    constexpr int n = decltype(size)::count;
    Vec<A> m[n], t[n];
    Vec<Int<A>> e[n];
#pragma GCC unroll 4
    for (int j = 0; j < n; ++j) {
      const int l = row[k + j] + i * cell, r = row[w - k - j - gap] + (i + k + j + gap) * cell;
      m[j] = load(L.m + l) * load(R.m + r);
      e[j] = load(L.e + l) + load(R.e + r);
      if constexpr (dual) t[j] = load(L.t + l) + load(R.t + r);
    }
    sum.template add<n>(m, e, t);
    k += n;
  };
  while (k + 4 <= k1) block(Terms<4>{});
  while (k < k1) block(Terms<1>{});
  return sum;
}

// Where each lane's siblings of the arcs over the spans [i, i + w] begin, k = 1 first. left: dep i, head i + w.
template <bool many, class A> STRUCTOPS_INLINE void sib_start(const Input<A>& in, bool left, int i, int w, int64_t* at) {
  const int64_t N = in.sib_N, start = ((left ? i : i + w) * N + (left ? i + w : i)) * N + i + 1;
  for (int l = 0; l < W<A>; ++l) at[l] = in.sib_b[l] * N * N * N + start + (many ? 0 : l * (N * N + N + 1));
}

// Asks for the siblings of both directions of the spans at i: they lie rows apart, where no hardware prefetcher looks.
template <bool many, bool write, class A>
STRUCTOPS_INLINE void prefetch_siblings(const void* table, Dtype dtype, const Input<A>& in, int i, int w, Vec<Int<A>> valid) {
  const uint32_t bits = lane_bits<A>(valid);
  const char* const p = static_cast<const char*>(table);
  const int size = int(dtype_size(dtype));
  int64_t at[W<A>];
  for (int side = 0; side < 2; ++side) {
    sib_start<many>(in, side == 0, i, w, at);
    for (int l = 0; l < W<A>; ++l)
      if (bits >> l & 1)
        for (int k = 0; k < (w - 1) * size + 64; k += 64) __builtin_prefetch(p + at[l] * size + k, write, 3);
  }
}

// Calls f(k, sib of split k as a cell, v_sib) for the splits 0 < k < w of the spans at i.
template <bool many, bool dual, class S, class A, class F>
STRUCTOPS_INLINE void each_sibling(const Input<A>& in, bool left, int i, int w, Vec<Int<A>> valid, const int64_t* at, Found<A>& found, F f) {
  // The root has no head and, dep_single, no second dependent.
  const Vec<Int<A>> barred = left || in.kind == Chart::dep_single ? in.template at_root<many>(i) : Vec<Int<A>>{};
  const uint32_t bits = lane_bits<A>(valid);
  Vec<A> tile[W<A>], tangent[dual ? W<A> : 1];
  for (int k0 = 1; k0 < w; k0 += W<A>) {
    const int count = w - k0 < W<A> ? w - k0 : W<A>;
    load_tile<A>(tile, in.sib + (k0 - 1), at, bits, count);
    if constexpr (dual) load_tile<A>(tangent, in.v_sib + (k0 - 1), at, bits, count);
    for (int k = 0; k < count; ++k) {
      Vec<A> t{};
      const Scaled<A> b = S::of_score(barred ? splat(A(-INFINITY)) : tile[k], found);
      if constexpr (dual) t = b.m > A(0) ? tangent[k] : Vec<A>{};
      f(k0 + k, b, t);
    }
  }
}

// The inside sum of the arcs over the spans at i of width w without their own score, second order.
template <bool many, bool dual, class A>
STRUCTOPS_INLINE ScaledSum<A, dual> sibling_sum(const Charts<A>& c, const Input<A>& in, bool left, int i, int w, Vec<Int<A>> valid,
                                                Found<A>& found) {
  constexpr int cell = kCell<A, many>;
  ScaledSum<A, dual> sum;
  const Cells<A>& edge = left ? c.CR : c.CL;  // the first child: nothing between it and its head
  const int o = c.row[w - 1] + (i + !left) * cell;
  const Scaled<A> first = get(edge, o);
  Vec<A> t{};
  if constexpr (dual) t = load(edge.t + o);
  sum.template add<1>(&first.m, &first.e, &t);
  const Cells<A>&X = left ? c.T : c.IR, &Y = left ? c.IL : c.T;
  int64_t at[W<A>];
  sib_start<many>(in, left, i, w, at);
  each_sibling<many, dual, SumCells<A>>(in, left, i, w, valid, at, found, [&](int k, Scaled<A> b, Vec<A> tb) __attribute__((always_inline)) {
    const int l = c.row[k] + i * cell, r = c.row[w - k] + (i + k) * cell;
    const Vec<A> m = load(X.m + l) * load(Y.m + r) * b.m;
    const Vec<Int<A>> e = load(X.e + l) + load(Y.e + r) + b.e;
    if constexpr (dual) tb += load(X.t + l) + load(Y.t + r);
    sum.template add<1>(&m, &e, &tb);
  });
  return sum;
}

// Puts the scores into the cells that will hold the scored items: IL and IR, or V.
template <bool many, bool dual, class S, class A> Found<A> load_scores(const Charts<A>& c, const Input<A>& in) {
  constexpr int cell = kCell<A, many>;
  Found<A> found;
  const bool span = in.kind == Chart::span;
  const int n = in.most;
  for (int a = span ? 0 : 1; a <= n; ++a) {  // dep, or the left post
    for (int b = span ? a + 1 : 0; b <= n; b += W<A>) {
      const int count = n + 1 - b < W<A> ? n + 1 - b : W<A>;
      if constexpr (many) {
        static_assert(!dual);
        int64_t at[W<A>];
        for (int l = 0; l < W<A>; ++l) at[l] = (in.b[l] * in.N + a) * in.N + b;
        Vec<A> tile[W<A>];
        load_tile<A>(tile, in.score, at, lane_bits<A>(in.n >= Int<A>(a)), count);
        for (int k = 0; k < count; ++k) {
          const int h = b + k;
          if (h == a) continue;
          const Cells<A>& to = h > a ? c.IL : c.IR;
          const int o = h > a ? c.row[h - a] + a * cell : c.row[a - h] + h * cell;
          const Vec<Int<A>> valid = in.n >= Int<A>(h > a ? h : a);
          const Scaled<A> y = S::of_score(valid ? tile[k] : splat(A(-INFINITY)), found);
          put<A, false, S>(to, o, y, Vec<A>{}, valid);
        }
      } else {
        const int64_t at = (in.b[0] * in.N + a) * in.N + b;
        Vec<A> x = read_vector<A>(in.score + at, count), t{};
        if constexpr (dual) t = read_vector<A>(in.v + at, count);
        if (a >= b && a < b + count) x[a - b] = A(-INFINITY);
        const Scaled<A> y = S::of_score(x, found);
        for (int j = 0; j < count; ++j) {
          const int h = b + j;
          if (h == a) continue;
          const Cells<A>& to = h > a ? c.IL : c.IR;
          const int o = h > a ? c.row[h - a] + a : c.row[a - h] + h;
          to.m[o] = y.m[j];
          to.e[o] = y.e[j];
          if constexpr (dual) to.t[o] = y.m[j] > 0 ? t[j] : A(0);  // a forbidden score moves nothing
        }
      }
    }
  }
  if (!span)
    for (int w = 1; w <= n; ++w)  // the root has no head
      for (int l = 0; l < cell; ++l) {
        c.IL.m[c.row[w] + l] = S::zero_m;
        c.IL.e[c.row[w] + l] = S::zero_e;
        if constexpr (dual) c.IL.t[c.row[w] + l] = 0;
      }
  return found;
}

template <class A, bool dual> void set_width_zero(const Cells<A>& c, int numbers) {
  for (int i = 0; i < numbers; ++i) {
    c.m[i] = 1;
    c.e[i] = 0;
    if constexpr (dual) c.t[i] = 0;
  }
}

// x times the score that waits in the cell.
template <class A, bool dual>
STRUCTOPS_INLINE void put_scored(const Cells<A>& c, int o, const Scaled<A>& x, Vec<A> t, Vec<Int<A>> valid) {
  if constexpr (dual) t += load(c.t + o);
  put<A, dual>(c, o, times<A>(x, get(c, o)), t, valid);
}

// Fills the charts. The sum over the trees of a sentence is CR[0, n], or V[0, n].
template <bool many, bool dual, class A> Found<A> inside(const Charts<A>& c, const Input<A>& in) {
  constexpr int cell = kCell<A, many>, step = kStep<A, many>;
  Found<A> found = load_scores<many, dual, SumCells<A>>(c, in);
  const int n = in.most;
  if (in.kind == Chart::span) {
    for (int w = 2; w <= n; ++w)
      for (int i = 0; i <= n - w; i += step) {
        const int o = c.row[w] + i * cell;
        const Vec<Int<A>> valid = in.template valid<many>(i, w);
        const ScaledSum<A, dual> sum = contract<A, many, dual>(c.IL, c.IL, c.row, 1, w, w, 0, i);
        const Scaled<A> x = sum.value();
        const Vec<A> t = dual ? sum.tangent() : Vec<A>{};
        put<A, dual>(c.T, o, x, t, valid);
        put_scored<A, dual>(c.IL, o, x, t, valid);
      }
    return found;
  }
  set_width_zero<A, dual>(c.CL, (n + 1) * cell);
  set_width_zero<A, dual>(c.CR, (n + 1) * cell);
  for (int w = 1; w <= n; ++w) {
    for (int i = 0; i <= n - w; i += step) {
      const int o = c.row[w] + i * cell;
      const Vec<Int<A>> valid = in.template valid<many>(i, w);
      if (in.sib) prefetch_siblings<many, false>(in.sib.data, in.sib.dtype, in, i, w, valid);
      const ScaledSum<A, dual> split = contract<A, many, dual>(c.CR, c.CL, c.row, 0, w, w, 1, i);
      const Scaled<A> x = split.value();
      const Vec<A> t = dual ? split.tangent() : Vec<A>{};
      put<A, dual>(c.T, o, x, t, valid);
      if (!in.sib) {
        put_scored<A, dual>(c.IL, o, x, t, valid);
        put_scored<A, dual>(c.IR, o, x, t, valid);
      } else {
        for (int side = 0; side < 2; ++side) {
          const bool left = side == 0;
          const ScaledSum<A, dual> sum = sibling_sum<many, dual>(c, in, left, i, w, valid, found);
          put_scored<A, dual>(left ? c.IL : c.IR, o, sum.value(), dual ? sum.tangent() : Vec<A>{}, valid);
        }
      }
      const ScaledSum<A, dual> to_left = contract<A, many, dual>(c.CL, c.IL, c.row, 0, w, w, 0, i);
      put<A, dual>(c.CL, o, to_left.value(), dual ? to_left.tangent() : Vec<A>{}, valid);
      const ScaledSum<A, dual> to_right = contract<A, many, dual>(c.IR, c.CR, c.row, 1, w + 1, w, 0, i);
      Vec<Int<A>> rooted = valid;  // dep_single, first order: [0, j] is complete only with the sentence
      if (in.kind == Chart::dep_single && !in.sib) rooted &= ~in.template at_root<many>(i) | (in.n == Int<A>(w));
      put<A, dual>(c.CR, o, to_right.value(), dual ? to_right.tangent() : Vec<A>{}, rooted);
    }
  }
  return found;
}

}  // namespace structops::STRUCTOPS_ISA
