// CUDA chart operators: what the passes share. The contract and the recurrences are in chart.h.
//
// One block works on one sentence at a time and loops to that sentence's own n. Blocks take the sentences longest first.
// How many threads or blocks there are, and how far the batch is padded, changes no bit of a result.
//
// Every sum of every recurrence is a product of two rows, sum over k < count of X[k] Y[k], because each chart is a
// square that holds item (i, j) twice: at [i, j] for splits of spans that begin at i, at [j, i] for those that end at j.
//   T, S  CR[i, i..]   CL[j, i+1..]      IL  S[i, i+1..]  I[j, i+1..]      CL  CL[i, i..]   I[j, i..]
//   V     V[i, i+1..]  V[j, i+1..]       IR  I[i, i+1..]  S[j, i+1..]      CR  I[i, i+1..]  CR[j, i+1..]
// IR is only ever read from its beginning and IL from its end: I holds IR above the diagonal and IL below it.
// So the lanes of a group, which share the splits of a span, read contiguous words of both rows, in shared and in
// global memory alike. The pitch is 3 mod 8: the groups of a warp, pitch + 1 words apart, share few banks.
//
// The number of lanes that share a span depends on its width alone: it fixes the order of the sum.
// Numbers are base-2 logarithms, tangents are of natural ones. -inf is an exact zero; NaN and +inf end as NaN.
#pragma once
#include "core/cuda/device.cuh"

namespace structops::cuda {

enum class Form : int { first, second, span };  // recurrences

// Charts in the order of storage. Parents are the sums before the score is added: T, or U for V.
constexpr int kCR = 0, kCL = 1, kI = 2, kS = 3, kT = 3, kV = 0, kU = 1;

struct ChartParams {
  Dtype dtype;  // of score, v and post; the others are of the dtype of the charts
  const void *score, *sib, *weight, *v, *v_sib;
  const int64_t* lengths;
  void *logz, *post, *post_sib;
  int64_t B;
  int N, single, outside;
  const int* order;  // longest first; null: one block per sentence
  int* queue;        // sentences taken
  void* global;      // [blocks, room] elements: charts of the sentences that do not fit in shared memory
  int64_t room;
  char* extra;       // [blocks, extra_room] bytes of scratch
  int64_t extra_room;
  int shared;        // elements of dynamic shared memory
  int* wide;         // [B] sums of float: whether scores are too large for them
};

STRUCTOPS_DYNAMIC_SHARED(chart_shared);

// Where charts of A are, whose scores (but those of 16 bits) and results are of T.
template <class A> struct SharedCharts {
  using T = A;
  STRUCTOPS_DEVICE A& operator[](int o) const { return reinterpret_cast<A*>(chart_shared)[o]; }
};
template <class A, class Table = A> struct GlobalCharts {
  using T = Table;
  A* base;
  STRUCTOPS_DEVICE A& operator[](int o) const { return base[o]; }
};

template <class A> STRUCTOPS_DEVICE A* charts_of_block(const ChartParams& p) {
  return static_cast<A*>(p.global) + blockIdx.x * p.room;
}

struct Layout {
  int rows, pitch, square;
  __host__ __device__ explicit Layout(int n) : rows(n + 1), pitch(((n + 5) & ~7) + 3), square((n + 1) * pitch) {}
  STRUCTOPS_DEVICE int at(int chart, int i, int j) const { return chart * square + i * pitch + j; }
};

// ---- base-2 logarithms ------------------------------------------------------------------------------------------
STRUCTOPS_DEVICE float exp2_fast(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}
STRUCTOPS_DEVICE float log2_fast(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return log2f(x);
#endif
}
STRUCTOPS_DEVICE double exp2_fast(double x) { return exp2(x); }
STRUCTOPS_DEVICE double log2_fast(double x) { return log2(x); }
STRUCTOPS_DEVICE float larger(float a, float b) { return fmaxf(a, b); }
STRUCTOPS_DEVICE double larger(double a, double b) { return fmax(a, b); }

template <class A> constexpr A kLog2E = A(1.4426950408889634074);
template <class A> constexpr A kLn2 = A(0.69314718055994530942);

// Finite scores beyond this leave charts of float to those of double, where they count as this.
template <class A> constexpr A kMostScore = sizeof(A) == 4 ? A(1e4) : A(1e14);
template <class A> STRUCTOPS_DEVICE A log2_of_score(A x, bool& wide) {
  const A size = x < A(0) ? -x : x;
  if (size > kMostScore<A> && size < Limits<A>::high()) {
    wide = true;
    if (sizeof(A) == 8) x = x < A(0) ? -kMostScore<A> : kMostScore<A>;
  }
  return x * kLog2E<A>;
}
template <class A> STRUCTOPS_DEVICE A log2_of_score(A x) {
  bool wide = false;
  return log2_of_score(x, wide);
}

// sum of 2^x as 2^m s with t = sum of 2^(x - m) dx.
template <class A, bool dual> struct LogSum {
  A m = Limits<A>::low(), s = 0, t = 0;
  static STRUCTOPS_DEVICE A finite(A m) { return m == Limits<A>::low() ? A(0) : m; }
  template <int U> STRUCTOPS_DEVICE void add(const A (&x)[U], const A (&dx)[U]) {
    A top = m;
#pragma unroll
    for (int u = 0; u < U; ++u) top = larger(top, x[u]);
    scale(top);
#pragma unroll
    for (int u = 0; u < U; ++u) {
      const A e = exp2_fast(x[u] - finite(top));
      s += e;
      if (dual) t += e * dx[u];
    }
  }
  STRUCTOPS_DEVICE void scale(A top) {
    const A e = exp2_fast(m - finite(top));
    s *= e;
    if (dual) t *= e;
    m = top;
  }
  STRUCTOPS_DEVICE void merge(int lanes) {  // every lane gets the total of its group
    A top = m;
    for (int d = lanes >> 1; d; d >>= 1) top = larger(top, __shfl_xor_sync(kFull, top, d));
    scale(top);
    for (int d = lanes >> 1; d; d >>= 1) {
      s += __shfl_xor_sync(kFull, s, d);
      if (dual) t += __shfl_xor_sync(kFull, t, d);
    }
  }
  STRUCTOPS_DEVICE A value() const { return finite(m) + log2_fast(s); }
  STRUCTOPS_DEVICE A tangent() const { return s > A(0) ? t / s : A(0); }
};

// ---- items ------------------------------------------------------------------------------------------------------
enum class Item : int { T, S, IL, IR, CL, CR, V };

struct Span { int i, j, ij, ji; };  // and the words of (i, j) and (j, i) in a square
struct Dot { int x, y, count; };    // the splits k < count read [x + k] and [y + k]

STRUCTOPS_DEVICE Span span_of(const Layout& L, int i, int w) {
  const int ii = i * (L.pitch + 1);
  return {i, i + w, ii + w, ii + w * L.pitch};
}

STRUCTOPS_DEVICE Dot dot_of(const Layout& L, Item item, const Span& s) {
  const bool half = item == Item::T || item == Item::S, left = item == Item::CL;
  const bool inner = item == Item::IL || item == Item::IR || item == Item::V;
  const int X = half ? kCR : left ? kCL : item == Item::IL ? kS : item == Item::V ? kV : kI;
  const int Y = half ? kCL : left || item == Item::IL ? kI : item == Item::IR ? kS : item == Item::V ? kV : kCR;
  const int w = s.j - s.i;
  return {X * L.square + s.ij - w + (half || left ? 0 : 1), Y * L.square + s.ji + (left ? 0 : 1), w - (inner ? 1 : 0)};
}

// Items of one width are computed in one or two phases; an item of a phase reads nothing that the phase writes.
template <Form form> constexpr int open_items = form == Form::second ? 3 : 1;
template <Form form> STRUCTOPS_DEVICE Item open_item(int which) {
  if (form == Form::span) return Item::V;
  if (form == Form::first) return Item::T;
  return which == 0 ? Item::S : which == 1 ? Item::IL : Item::IR;
}
STRUCTOPS_DEVICE Item close_item(int which) { return which ? Item::CR : Item::CL; }

// The root is nobody's dependent: spans from it have no IL and CL, and S of them is part of nothing.
STRUCTOPS_DEVICE bool is_void(Item item, int i) {
  return i == 0 && (item == Item::S || item == Item::IL || item == Item::CL);
}

// f(which, i, whether there is such an item, lane in the group) for kinds x spans items, each by 1 << shift lanes.
// All lanes of a warp call f equally often.
template <class F> STRUCTOPS_DEVICE void each_item(int kinds, int spans, int shift, F f) {
  const int slots = blockDim.x >> shift, slot = threadIdx.x >> shift, first = (threadIdx.x & ~31u) >> shift;
  const int lane = threadIdx.x & ((1 << shift) - 1), items = kinds * spans;
  for (int c = 0; c + first < items; c += slots) {
    const int item = c + slot, which = (item >= spans) + (item >= 2 * spans);
    const bool exists = item < items;
    f(exists ? which : 0, exists ? item - which * spans : 0, exists, lane);
  }
}

// log2 of the lanes that share w splits: kSplits or fewer for each, up to 32 lanes.
constexpr int kSplits = 8;
STRUCTOPS_DEVICE int lanes_for(int w) {
  int shift = 0;
  while (shift < 5 && (kSplits << shift) < w) ++shift;
  return shift;
}

// Calls f(row, column) for a rows x columns matrix, columns across lanes.
template <class F> STRUCTOPS_DEVICE void each_cell(int rows, int columns, F f) {
  for (int r = threadIdx.x >> 5; r < rows; r += blockDim.x >> 5)
    for (int c = threadIdx.x & 31; c < columns; c += 32) f(r, c);
}

// ---- sentences --------------------------------------------------------------------------------------------------
// Calls f(b, n) for the sentences that this block takes; n is -1 for a length that is none.
template <class F> STRUCTOPS_DEVICE void each_sentence(const ChartParams& p, F f) {
  __shared__ int taken;
  for (int64_t turn = blockIdx.x;;) {
    if (p.order) {
      __syncthreads();
      if (threadIdx.x == 0) taken = atomicAdd(p.queue, 1);
      __syncthreads();
      turn = taken;
    }
    if (turn >= p.B) return;
    const int64_t b = p.order ? p.order[turn] : turn, n = p.lengths[b];
    f(b, n < 0 || n >= p.N ? -1 : int(n));
    if (!p.order) return;
  }
}

// Calls f(b, n) for the sentences that charts of float left to this block's charts of double.
template <class F> STRUCTOPS_DEVICE void each_wide_sentence(const ChartParams& p, F f) {
  for (int64_t b = blockIdx.x; b < p.B; b += gridDim.x) {
    if (!p.wide[b]) continue;
    f(b, int(p.lengths[b]));
    __syncthreads();
  }
}

// One sentence. Store: where its charts are.
template <class A, Form form, class Store> struct Sentence {
  using T = typename Store::T;
  const ChartParams& p;
  const Store c;
  const int64_t b;
  const int n;
  const Layout L;

  STRUCTOPS_DEVICE Sentence(const ChartParams& p, Store c, int64_t b, int n) : p(p), c(c), b(b), n(n), L(n) {}

  STRUCTOPS_DEVICE int goal() const { return L.at(form == Form::span ? kV : kCR, 0, n); }
  STRUCTOPS_DEVICE int64_t cell(int row, int column) const { return (b * p.N + row) * p.N + column; }
  // Of the item (i, j) of IL or IR, or of V: the score, and where its siblings begin, k = 0 first.
  STRUCTOPS_DEVICE int64_t cell_of(Item item, int i, int j) const { return item == Item::IR ? cell(j, i) : cell(i, j); }
  STRUCTOPS_DEVICE int64_t siblings_of(Item item, int i, int j) const { return cell_of(item, i, j) * p.N + i + 1; }
  STRUCTOPS_DEVICE bool reads(int row, int column) const {
    return form == Form::span ? row < column && column <= n : row > 0 && row != column && row <= n && column <= n;
  }
  STRUCTOPS_DEVICE bool reads_sib(int dep, int head, int s) const {
    return reads(dep, head) && (dep < head ? dep < s && s < head : head < s && s < dep) && !(p.single && head == 0);
  }
  // Whether an item has siblings, with its dependent as first child for one more alternative.
  static STRUCTOPS_DEVICE bool inner(Item item) {
    return form == Form::second && (item == Item::IL || item == Item::IR);
  }
  STRUCTOPS_DEVICE int first_child(Item item, const Span& s) const {
    return item == Item::IL ? kCR * L.square + s.ij - 1 : kCL * L.square + s.ji + 1;
  }
  STRUCTOPS_DEVICE Dot dot(Item item, const Span& s) const {
    Dot d = dot_of(L, item, s);
    if (is_void(item, s.i) || (inner(item) && p.single && s.i == 0)) d.count = 0;
    return d;
  }
  STRUCTOPS_DEVICE A load(const void* from, int64_t at) const {
    if constexpr (sizeof(T) == 4) {
      if (p.dtype == Dtype::bf16) return widen(load_one(static_cast<const bf16*>(from) + at));
      if (p.dtype == Dtype::f16) return widen(load_one(static_cast<const f16*>(from) + at));
    }
    return load_wide(from, at);
  }
  static STRUCTOPS_DEVICE A load_wide(const void* from, int64_t at) { return load_one(static_cast<const T*>(from) + at); }

  // unit(score) goes where its item will be; unit items are 0. dual: the tangents go `tangent` further.
  template <bool dual, class Unit> STRUCTOPS_DEVICE void begin(Unit unit, int tangent) const {
    each_cell(n + 1, n + 1, [&](int row, int column) {
      const int o = form == Form::span ? L.at(kV, row, column) : L.at(kI, column, row);
      const bool read = reads(row, column);
      if (form == Form::span && !read) return;
      A x = read ? unit(load(p.score, cell(row, column))) : Limits<A>::low();
      if (x == Limits<A>::high()) x = A(NAN);
      c[o] = x;
      if (dual) c[o + tangent] = x == Limits<A>::low() ? A(0) : load(p.v, cell(row, column));
    });
    for (int i = threadIdx.x; i <= (form == Form::span ? 0 : n); i += blockDim.x)
      for (int chart : {kCR, kCL}) {
        if (form == Form::span && (chart != kV || n > 0)) continue;
        c[L.at(chart, i, i)] = A(0);
        if (dual) c[L.at(chart, i, i) + tangent] = A(0);
      }
    __syncthreads();
  }
};

constexpr int kChartThreads = 512;
constexpr int kWideThreads = 256;  // registers for double
constexpr int kOverread = 128;  // elements: splits past the last are read, without effect, rather than branched around

// Elements of the inside charts without T and U.
__host__ __device__ inline int64_t inside_elements(Form form, int n) {
  return int64_t(Layout(n).square) * (form == Form::span ? 1 : form == Form::first ? 3 : 4) + kOverread;
}

// The inside charts of one sentence.
template <class A, Form form, bool dual, class Store> struct Inside : Sentence<A, form, Store> {
  using Base = Sentence<A, form, Store>;
  using Base::c;
  using Base::L;
  using Base::n;
  using Base::p;
  static constexpr int U = 4;  // splits in flight per lane
  const int tangent;           // from a number to its tangent
  const bool parents;          // whether T or U is kept

  STRUCTOPS_DEVICE Inside(const ChartParams& p, Store c, int64_t b, int n, bool parents, int values)
      : Base(p, c, b, n), tangent(values * Layout(n).square), parents(parents) {}

  // Whether the sentence is left to charts of double.
  STRUCTOPS_DEVICE bool run() const {
    bool wide = false;
    this->template begin<dual>([&](A x) { return log2_of_score(x, wide); }, tangent);
    for (int w = 1; w <= n; ++w) {
      phase(w, open_items<form>, [](int which) { return open_item<form>(which); }, wide);
      if (form != Form::span) phase(w, 2, [](int which) { return close_item(which); }, wide);
    }
    if constexpr (sizeof(A) == 8) return false;
    wide = __syncthreads_or(wide);
    if (threadIdx.x == 0) p.wide[Base::b] = wide;
    return wide;
  }

  template <class Kind> STRUCTOPS_DEVICE void phase(int w, int kinds, Kind kind, bool& wide) const {
    const int shift = lanes_for(w);
    each_item(kinds, n + 1 - w, shift, [&](int which, int i, bool exists, int lane) {
      const Item item = kind(which);
      const Span at = span_of(L, i, w);
      const bool inner = Base::inner(item), none = !exists || is_void(item, i);
      Dot d = Base::dot(item, at);
      if (none) d.count = 0;
      LogSum<A, dual> sum;
      if (inner && !none && lane == 0) {
        const int o = Base::first_child(item, at);
        sum.m = c[o];
        sum.s = A(1);
        if (dual) sum.t = c[o + tangent];
      }
      const int64_t sib = inner ? Base::siblings_of(item, i, i + w) : 0;
      for (int k = lane; k < d.count; k += U << shift) {
        A x[U], dx[U];
#pragma unroll
        for (int u = 0; u < U; ++u) {
          const int r = k + (u << shift);
          const bool in = r < d.count;
          const A bonus = inner && in ? log2_of_score(Base::load_wide(p.sib, sib + r), wide) : A(0);
          x[u] = bonus + (c[d.x + r] + c[d.y + r]);
          if (!in) x[u] = Limits<A>::low();
          dx[u] = dual && inner && in && bonus != Limits<A>::low() ? Base::load_wide(p.v_sib, sib + r) : A(0);
          if (dual) dx[u] = in ? dx[u] + (c[d.x + r + tangent] + c[d.y + r + tangent]) : A(0);
        }
        sum.add(x, dx);
      }
      sum.merge(1 << shift);
      if (lane == 0 && !none) keep(item, at, sum.value(), dual ? sum.tangent() : A(0));
    });
    __syncthreads();
  }

  STRUCTOPS_DEVICE void put(int chart, int at, A x, A dx) const {
    c[chart * L.square + at] = x;
    if (dual) c[chart * L.square + at + tangent] = dx;
  }
  STRUCTOPS_DEVICE void add_score(int at, A x, A dx) const {
    const A sum = c[kI * L.square + at] + x;
    put(kI, at, sum, dual && sum != Limits<A>::low() ? c[kI * L.square + at + tangent] + dx : A(0));
  }
  STRUCTOPS_DEVICE void keep(Item item, const Span& s, A x, A dx) const {
    if (item == Item::T || item == Item::IL || item == Item::IR) {
      if (item == Item::T && parents) put(kT, s.ij, x, dx);
      if (item != Item::IR && s.i > 0) add_score(s.ji, x, dx);
      if (item != Item::IL) add_score(s.ij, x, dx);
    } else if (item == Item::V) {
      const bool leaf = s.j - s.i == 1;
      A v = c[kV * L.square + s.ij], dv = dual ? c[kV * L.square + s.ij + tangent] : A(0);
      if (parents) put(kU, s.ij, x, dx);
      if (!leaf) {
        v += x;
        dv = v == Limits<A>::low() ? A(0) : dv + dx;
      }
      put(kV, s.ij, v, dv);
      put(kV, s.ji, v, dv);
    } else {
      if (item == Item::CR && form == Form::first && p.single && s.i == 0 && s.j < n) {
        x = Limits<A>::low();
        dx = A(0);
      }
      const int chart = item == Item::S ? kS : item == Item::CL ? kCL : kCR;
      put(chart, s.ij, x, dx);
      put(chart, s.ji, x, dx);
    }
  }
};

// rank of every sentence in the order of descending length, ties by number; also empties the queue.
constexpr int kOrderThreads = 256;
template <int threads>
__global__ void __launch_bounds__(threads) chart_order(const int64_t* lengths, int64_t B, int* order, int* queue) {
  __shared__ int64_t tile[threads];
  const int64_t b = int64_t(blockIdx.x) * threads + threadIdx.x, mine = b < B ? lengths[b] : 0;
  int rank = 0;
  for (int64_t start = 0; start < B; start += threads) {
    __syncthreads();
    tile[threadIdx.x] = start + threadIdx.x < B ? lengths[start + threadIdx.x] : 0;
    __syncthreads();
    const int count = B - start < threads ? int(B - start) : threads;
    for (int k = 0; k < count; ++k) rank += tile[k] > mine || (tile[k] == mine && start + k < b);
  }
  if (b < B) order[rank] = int(b);
  if (b == 0) *queue = 0;
}

}  // namespace structops::cuda
