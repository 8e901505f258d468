// CUDA best trees: one with back-pointers, or K from lists of the K best derivations of every item.
// The contract is chart.h.
#pragma once
#include "tree/chart_tree.cuh"

namespace structops::cuda {

// ---- one tree ---------------------------------------------------------------------------------------------------
// The max-plus charts are those of chart.cuh, in the units of the scores. After them the back-pointers, sixteen bits
// each, in squares again: C (CL above, CR below the diagonal), T or S or V, and in second order I; then the stack.
struct BestSize { int values, pointers; };
__host__ __device__ constexpr BestSize best_size(Form form) {
  return form == Form::span ? BestSize{1, 2} : form == Form::first ? BestSize{3, 2} : BestSize{4, 3};
}
template <class A> struct BestPlaces {  // in bytes
  int64_t pointers, stack, end;
  __host__ __device__ BestPlaces(Form form, int n)
      : pointers(int64_t(Layout(n).square) * best_size(form).values * sizeof(A)),
        stack((pointers + int64_t(Layout(n).square) * best_size(form).pointers * 2 + 15) & ~int64_t(15)),
        end(stack + stack_depth(n + 1) * 8 + kOverread * sizeof(A)) {}
};
template <class A> __host__ __device__ int64_t best_elements(Form form, int n) {
  return (BestPlaces<A>(form, n).end + 15) / 16 * (16 / sizeof(A));
}

template <class A, Form form, class Store> struct Best : Sentence<A, form, Store> {
  using Base = Sentence<A, form, Store>;
  using Base::b;
  using Base::c;
  using Base::L;
  using Base::n;
  using Base::p;
  static constexpr int U = 4;  // splits in flight per lane
  using Base::Base;

  STRUCTOPS_DEVICE unsigned short& pointer(Item item, int i, int j) const {
    const bool below = item == Item::CR || item == Item::IL, arc = item == Item::IL || item == Item::IR;
    const int chart = item == Item::CL || item == Item::CR ? 0 : arc ? 2 : 1;
    char* const base = reinterpret_cast<char*>(&c[0]) + BestPlaces<A>(form, n).pointers;
    return reinterpret_cast<unsigned short*>(base)[L.at(chart, below ? j : i, below ? i : j)];
  }

  struct Top {
    A x = Limits<A>::low();
    int a = 0x7fffffff;
    STRUCTOPS_DEVICE void take(A y, int at) {  // ties: the first alternative; NaN wins
      if (y > x || (y == x && at < a) || (y != y && x == x)) {
        x = y;
        a = at;
      }
    }
  };

  template <class Kind> STRUCTOPS_DEVICE void phase(int w, int kinds, Kind kind) const {
    const int shift = lanes_for(w);
    each_item(kinds, n + 1 - w, shift, [&](int which, int i, bool exists, int lane) {
      const Item item = kind(which);
      const Span at = span_of(L, i, w);
      const bool inner = Base::inner(item), none = !exists || is_void(item, i);
      Dot d = Base::dot(item, at);
      if (none) d.count = 0;
      Top top;
      if (inner && !none && lane == 0) top.take(c[Base::first_child(item, at)], 0);
      const int64_t sib = inner ? Base::siblings_of(item, i, i + w) : 0;
      for (int k = lane; k < d.count; k += U << shift) {
        A x[U];
#pragma unroll
        for (int u = 0; u < U; ++u) {
          const int r = k + (u << shift);
          x[u] = (inner && r < d.count ? Base::load_wide(p.sib, sib + r) : A(0)) + (c[d.x + r] + c[d.y + r]);
        }
#pragma unroll
        for (int u = 0; u < U; ++u)
          if (k + (u << shift) < d.count) top.take(x[u], k + (u << shift) + inner);
      }
      for (int s = (1 << shift) >> 1; s; s >>= 1) {
        const A x = __shfl_xor_sync(kFull, top.x, s);
        const int a = __shfl_xor_sync(kFull, top.a, s);
        top.take(x, a);
      }
      if (lane == 0 && !none) keep(item, at, top);
    });
    __syncthreads();
  }

  STRUCTOPS_DEVICE void keep(Item item, const Span& s, const Top& top) const {
    A x = top.x == Limits<A>::high() ? A(NAN) : top.x;
    pointer(item, s.i, s.j) = static_cast<unsigned short>(top.a);
    if (item == Item::T || item == Item::IL) c[kI * L.square + s.ji] += x;
    if (item == Item::T || item == Item::IR) c[kI * L.square + s.ij] += x;
    if (item == Item::V) c[kV * L.square + s.ji] = c[kV * L.square + s.ij] += s.j - s.i > 1 ? x : A(0);
    if (item == Item::CR && form == Form::first && p.single && s.i == 0 && s.j < n) x = Limits<A>::low();
    if (item == Item::S || item == Item::CL || item == Item::CR) {
      const int chart = (item == Item::S ? kS : item == Item::CL ? kCL : kCR) * L.square;
      c[chart + s.ij] = c[chart + s.ji] = x;
    }
  }

  STRUCTOPS_DEVICE void run(const TreeParams& t, bool valid) const {
    int64_t* const tree = t.tree + b * t.size;
    for (int64_t k = threadIdx.x; k < t.size; k += blockDim.x) tree[k] = -1;
    this->template begin<false>([](A x) { return x; }, 0);
    for (int w = 1; w <= n; ++w) {
      phase(w, open_items<form>, [](int which) { return open_item<form>(which); });
      if (form != Form::span) phase(w, 2, [](int which) { return close_item(which); });
    }
    if (threadIdx.x > 0) return;
    const A goal = valid ? c[Base::goal()] : A(NAN);
    static_cast<A*>(t.value)[b] = goal;
    if (!(goal > Limits<A>::low())) return;
    uint64_t* const stack = reinterpret_cast<uint64_t*>(reinterpret_cast<char*>(&c[0]) + BestPlaces<A>(form, n).stack);
    const auto at = [&](int depth) -> uint64_t& { return stack[depth]; };
    write_tree<form>(n, tree, 0, at, [&](Item item, int i, int j, int) {
      const bool arc = item == Item::IL || item == Item::IR;
      return Choice{pointer(form == Form::first && arc ? Item::T : item, i, j), 0, 0};
    });
  }
};

template <class A, Form form>
__global__ void __launch_bounds__(kChartThreads, 1) chart_best(const ChartParams p, const TreeParams t) {
  each_sentence(p, [&](int64_t b, int n) {
    const int words = n < 0 ? 0 : n;
    if (best_elements<A>(form, words) <= p.shared)
      Best<A, form, SharedCharts<A>>(p, {}, b, words).run(t, n >= 0);
    else
      Best<A, form, GlobalCharts<A>>(p, {charts_of_block<A>(p)}, b, words).run(t, n >= 0);
  });
}

// ---- K trees ----------------------------------------------------------------------------------------------------
// One thread for each item of a width; everything is in global memory. An item has a list of K values, descending, then
// -inf, and of K derivations. C: CL above, CR below the diagonal, which is both; I: IR above, IL below; then T or S.
// Span: V alone. In first order I has the values alone: the derivations of its entries are those of T, rank by rank.
constexpr int kListC = 0, kListI = 1, kListT = 2, kListV = 0;
__host__ __device__ constexpr int kbest_lists(Form form) { return form == Form::span ? 1 : 3; }
inline int64_t kbest_elements(Form form, int n, int64_t K) { return int64_t(Layout(n).square) * kbest_lists(form) * K; }
// derivations, and a stack for every tree
inline int64_t kbest_extra(Form form, int n, int64_t K) {
  return (kbest_elements(form, n, K) + K * stack_depth(n + 1)) * 8;
}

template <class A, Form form> struct KBest : Sentence<A, form, GlobalCharts<A>> {
  using Base = Sentence<A, form, GlobalCharts<A>>;
  using Base::b;
  using Base::L;
  using Base::n;
  using Base::p;
  const TreeParams& t;
  A* const values;
  uint64_t* const codes;

  STRUCTOPS_DEVICE KBest(const ChartParams& p, const TreeParams& t, int64_t b, int n)
      : Base(p, {nullptr}, b, n), t(t), values(charts_of_block<A>(p)),
        codes(reinterpret_cast<uint64_t*>(p.extra + blockIdx.x * p.extra_room)) {}

  STRUCTOPS_DEVICE int64_t list(Item item, int i, int j) const {
    const bool below = item == Item::CR || item == Item::IL, arc = item == Item::IL || item == Item::IR;
    const bool closed = item == Item::CL || item == Item::CR;
    const int chart = form == Form::span ? kListV : closed ? kListC : arc ? kListI : kListT;
    return int64_t(L.at(chart, below ? j : i, below ? i : j)) * t.K;
  }
  STRUCTOPS_DEVICE void clear(int64_t to) const {
    for (int64_t k = 0; k < t.K; ++k) values[to + k] = Limits<A>::low();
  }

  // A list under construction.
  struct Merge {
    const KBest& s;
    int64_t to;
    int64_t size = 0;
    // Adds the pairs of the lists x and y, raised by bonus. Better pairs come first; of equal ones those added first.
    STRUCTOPS_DEVICE void add(int alternative, int64_t x, int64_t y, A bonus) {
      const int64_t K = s.t.K;
      for (int64_t l = 0; l < K && s.values[x + l] > Limits<A>::low(); ++l)
        for (int64_t r = 0; (l + 1) * (r + 1) <= K && s.values[y + r] > Limits<A>::low(); ++r) {
          const A v = bonus + (s.values[x + l] + s.values[y + r]);
          if (!(v > (size < K ? Limits<A>::low() : s.values[to + K - 1]))) break;
          int64_t at = size < K ? size++ : K - 1;
          for (; at > 0 && s.values[to + at - 1] < v; --at) {
            s.values[to + at] = s.values[to + at - 1];
            s.codes[to + at] = s.codes[to + at - 1];
          }
          s.values[to + at] = v;
          s.codes[to + at] = uint64_t(alternative) << 48 | uint64_t(l) << 24 | uint64_t(r);
        }
    }
  };

  STRUCTOPS_DEVICE void item(Item item, int i, int j) const {
    const int64_t to = list(item, i, j);
    clear(to);
    if (is_void(item, i) || (item == Item::CR && form == Form::first && p.single && i == 0 && j < n)) return;
    Merge merge{*this, to};
    const auto at = [&](Item part, int from, int end) { return list(part, from, end); };
    if (item == Item::T || item == Item::S)
      for (int r = i; r < j; ++r) merge.add(r - i, at(Item::CR, i, r), at(Item::CL, r + 1, j), A(0));
    if (item == Item::CL)
      for (int r = i; r < j; ++r) merge.add(r - i, at(Item::CL, i, r), at(Item::IL, r, j), A(0));
    if (item == Item::CR)
      for (int r = i + 1; r <= j; ++r) merge.add(r - i - 1, at(Item::IR, i, r), at(Item::CR, r, j), A(0));
    if (item == Item::V)
      for (int r = i + 1; r < j; ++r) merge.add(r - i - 1, at(Item::V, i, r), at(Item::V, r, j), A(0));
    if (Base::inner(item)) {
      const int64_t sib = Base::siblings_of(item, i, j);
      const int splits = p.single && i == 0 ? 0 : j - i - 1;
      if (item == Item::IL) merge.add(0, at(Item::CR, i, j - 1), at(Item::CL, j, j), A(0));
      else merge.add(0, at(Item::CR, i, i), at(Item::CL, i + 1, j), A(0));
      for (int k = 0; k < splits; ++k) {
        const int r = i + 1 + k;
        const int64_t x = item == Item::IL ? at(Item::S, i, r) : at(Item::IR, i, r);
        const int64_t y = item == Item::IL ? at(Item::IL, r, j) : at(Item::S, r, j);
        merge.add(k + 1, x, y, Base::load_wide(p.sib, sib + k));
      }
    }
    if (item == Item::V && j - i == 1) values[to] = A(0);
    if (item == Item::V || Base::inner(item)) raise(to, to, Base::cell_of(item, i, j));
    if (item == Item::T) {
      if (i > 0) raise(to, list(Item::IL, i, j), Base::cell_of(Item::IL, i, j));
      raise(to, list(Item::IR, i, j), Base::cell_of(Item::IR, i, j));
    }
  }
  STRUCTOPS_DEVICE void raise(int64_t from, int64_t to, int64_t cell) const {
    const A score = Base::load(p.score, cell);
    for (int64_t k = 0; k < t.K; ++k) values[to + k] = values[from + k] + score;
  }

  template <class Kind> STRUCTOPS_DEVICE void phase(int w, int kinds, Kind kind) const {
    const int spans = n + 1 - w;
    for (int c = threadIdx.x; c < kinds * spans; c += blockDim.x) item(kind(c / spans), c % spans, c % spans + w);
    __syncthreads();
  }

  STRUCTOPS_DEVICE bool failed() const {  // whether NaN or +inf is read
    int bad = 0;
    each_cell(n + 1, n + 1, [&](int row, int column) {
      if (Base::reads(row, column)) bad |= !(Base::load(p.score, Base::cell(row, column)) < Limits<A>::high());
    });
    if (form == Form::second)
      each_cell((n + 1) * (n + 1), n + 1, [&](int pair, int s) {
        const int dep = pair / (n + 1), head = pair % (n + 1);
        if (Base::reads_sib(dep, head, s))
          bad |= !(Base::load_wide(p.sib, Base::cell(dep, head) * p.N + s) < Limits<A>::high());
      });
    return __syncthreads_or(bad);
  }

  STRUCTOPS_DEVICE void run(bool valid) const {
    const int64_t K = t.K;
    int64_t* const tree = t.tree + b * K * t.size;
    A* const value = static_cast<A*>(t.value) + b * K;
    for (int64_t k = threadIdx.x; k < K * t.size; k += blockDim.x) tree[k] = -1;
    if (failed() || !valid) {
      for (int64_t k = threadIdx.x; k < K; k += blockDim.x) value[k] = A(NAN);
      return;
    }
    for (int i = threadIdx.x; i <= (form == Form::span ? 0 : n); i += blockDim.x) {  // empty items
      const int64_t to = list(form == Form::span ? Item::V : Item::CL, i, i);
      clear(to);
      values[to] = A(0);
    }
    __syncthreads();
    for (int w = 1; w <= n; ++w) {
      phase(w, open_items<form>, [](int which) { return open_item<form>(which); });
      if (form != Form::span) phase(w, 2, [](int which) { return close_item(which); });
    }
    const int64_t goal = list(form == Form::span ? Item::V : Item::CR, 0, n);
    uint64_t* const stacks = codes + p.room;
    for (int64_t k = threadIdx.x; k < K; k += blockDim.x) {
      value[k] = values[goal + k];
      if (!(value[k] > Limits<A>::low())) continue;
      write_tree<form>(n, tree + k * t.size, int(k), [&](int depth) -> uint64_t& { return stacks[depth * K + k]; },
                       [&](Item item, int i, int j, int rank) {
                         const bool arc = item == Item::IL || item == Item::IR;
                         const uint64_t code = codes[list(form == Form::first && arc ? Item::T : item, i, j) + rank];
                         return Choice{int(code >> 48), int(code >> 24) & 0xffffff, int(code) & 0xffffff};
                       });
    }
  }
};

template <class A, Form form>
__global__ void __launch_bounds__(kChartThreads, 1) chart_kbest(const ChartParams p, const TreeParams t) {
  each_sentence(p, [&](int64_t b, int n) { KBest<A, form>(p, t, b, n < 0 ? 0 : n).run(n >= 0); });
}

}  // namespace structops::cuda
