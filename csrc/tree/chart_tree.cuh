// CUDA trees from charts: walking down from the goal, and samples.
// The contract is chart.h; the charts and the inside pass are in chart.cuh.
#pragma once
#include "tree/chart.cuh"

namespace structops::cuda {

struct TreeParams {
  int64_t K;
  void* value;            // best: [B, K]
  const double* uniform;  // sample: [K, B, 3N]
  int64_t* tree;          // best: [B, K, size]; sample: [K, B, size]
  int64_t size;           // N heads, or the ends of 2N - 3 spans
};

// Items that wait on a stack are disjoint and not empty: at most one per word.
__host__ __device__ constexpr int64_t stack_depth(int64_t N) { return N + 1; }

struct Choice {
  int alternative;  // in the order of chart.h
  int left, right;  // ranks of the parts
};

// Writes the tree below the goal of n words: pre-order, the left part of an item wholly before its right part.
// choose(item, i, j, rank) is called for every item with alternatives. at(depth): the words of the stack.
template <Form form, class At, class Choose>
STRUCTOPS_DEVICE void write_tree(int n, int64_t* out, int rank, At at, Choose choose) {
  int depth = 0, spans = 0;
  const auto push = [&](Item item, int i, int j, int rank) {
    if (i < j) at(depth++) = (uint64_t(rank) << 32) | unsigned(int(item) << 26 | i << 13 | j);
  };
  push(form == Form::span ? Item::V : Item::CR, 0, n, rank);
  while (depth > 0) {
    const uint64_t top = at(--depth);
    const unsigned word = unsigned(top);
    const Item item = Item(word >> 26);
    const int i = word >> 13 & 8191, j = word & 8191;
    if (item == Item::V) {
      out[2 * spans] = i;
      out[2 * spans++ + 1] = j;
      if (j - i == 1) continue;
    }
    if (item == Item::IL) out[i] = j;
    if (item == Item::IR) out[j] = i;
    const Choice q = choose(item, i, j, int(top >> 32));
    const int r = i + q.alternative + (item == Item::CR || item == Item::V);
    const bool arc = item == Item::IL || item == Item::IR;
    if (item == Item::CL) {
      push(Item::IL, r, j, q.right);
      push(Item::CL, i, r, q.left);
    } else if (item == Item::CR) {
      push(Item::CR, r, j, q.right);
      push(Item::IR, i, r, q.left);
    } else if (item == Item::V) {
      push(Item::V, r, j, q.right);
      push(Item::V, i, r, q.left);
    } else if (arc && form == Form::second && q.alternative == 0) {
      if (item == Item::IL) push(Item::CR, i, j - 1, q.left);
      else push(Item::CL, i + 1, j, q.right);
    } else if (arc && form == Form::second) {
      push(item == Item::IL ? Item::IL : Item::S, r, j, q.right);
      push(item == Item::IL ? Item::S : Item::IR, i, r, q.left);
    } else {
      push(Item::CL, r + 1, j, q.right);
      push(Item::CR, i, r, q.left);
    }
  }
}

// Samples: one thread each, top-down.
template <class A, Form form, class Store> struct Sampler : Inside<A, form, false, Store> {
  using Base = Inside<A, form, false, Store>;
  using Base::b;
  using Base::c;
  using Base::n;
  using Base::p;

  STRUCTOPS_DEVICE Sampler(const ChartParams& p, Store c, int64_t b, int n) : Base(p, c, b, n, false, 0) {}

  // The first alternative of positive weight whose cumulative weight exceeds u times the total.
  STRUCTOPS_DEVICE int choose(Item item, int i, int j, double u) const {
    const bool inner = Base::inner(item);
    const Span at = span_of(Base::L, i, j - i);
    const Dot d = Base::dot(form == Form::first && (item == Item::IL || item == Item::IR) ? Item::T : item, at);
    const int count = d.count + inner;
    const int64_t sib = inner ? Base::siblings_of(item, i, j) : 0;
    const auto term = [&](int a) {
      if (inner && a == 0) return c[Base::first_child(item, at)];
      const int k = a - inner;
      return (inner ? log2_of_score(Base::load_wide(p.sib, sib + k)) : A(0)) + (c[d.x + k] + c[d.y + k]);
    };
    A top = Limits<A>::low(), total = A(0), sum = A(0);
    for (int a = 0; a < count; ++a) top = larger(top, term(a));
    for (int a = 0; a < count; ++a) total += exp2_fast(term(a) - top);
    int last = 0;
    for (int a = 0; a < count; ++a) {
      const A e = exp2_fast(term(a) - top);
      sum += e;
      if (e > A(0)) {
        last = a;
        if (double(sum) > u * double(total)) break;
      }
    }
    return last;
  }

  STRUCTOPS_DEVICE void run(const TreeParams& t, bool valid) const {
    each_cell(int(t.K), int(t.size), [&](int s, int k) { t.tree[(s * p.B + b) * t.size + k] = -1; });
    if (Base::run()) return;
    const A goal = c[Base::goal()];
    if (!valid || !(goal > Limits<A>::low())) return;
    uint64_t* const stack = reinterpret_cast<uint64_t*>(p.extra + blockIdx.x * p.extra_room);
    for (int64_t s = threadIdx.x; s < t.K; s += blockDim.x) {
      const double* u = t.uniform + (s * p.B + b) * 3 * p.N;
      write_tree<form>(n, t.tree + (s * p.B + b) * t.size, 0,
                       [&](int depth) -> uint64_t& { return stack[int64_t(depth) * blockDim.x + threadIdx.x]; },
                       [&](Item item, int i, int j, int) { return Choice{choose(item, i, j, *u++), 0, 0}; });
    }
  }
};

template <class A, Form form>
__global__ void __launch_bounds__(kChartThreads, 1) chart_sample(const ChartParams p, const TreeParams t) {
  each_sentence(p, [&](int64_t b, int n) {
    const int words = n < 0 ? 0 : n;
    if (inside_elements(form, words) <= p.shared)
      Sampler<A, form, SharedCharts<A>>(p, {}, b, words).run(t, n >= 0);
    else
      Sampler<A, form, GlobalCharts<A>>(p, {charts_of_block<A>(p)}, b, words).run(t, n >= 0);
  });
}
// The sentences that chart_sample<float, form> left.
template <Form form> __global__ void __launch_bounds__(kWideThreads, 1) chart_sample_wide(const ChartParams p, const TreeParams t) {
  each_wide_sentence(p, [&](int64_t b, int n) {
    Sampler<double, form, GlobalCharts<double, float>>(p, {charts_of_block<double>(p)}, b, n).run(t, true);
  });
}

}  // namespace structops::cuda
