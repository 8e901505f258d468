// Where the charts of a task lie in a thread's scratch, for one instruction set.
#pragma once
#include "tree/chart_outside.h"

namespace structops::STRUCTOPS_ISA {

constexpr int kCharts = 5;

// Sentences longer than this leave the cache when W of them are parsed together, and fill vectors alone.
constexpr int kManyWords = 112;

// Numbers in row w of a chart over n words. Rows of one sentence are padded to whole vectors and one more, which reads run into.
template <class A, bool many> constexpr int row_numbers(int n, int w) {
  return many ? (n + 1 - w) * W<A> : (n + 1 - w + 2 * W<A> - 1) / W<A> * W<A>;
}

template <class A, bool many> inline size_t chart_numbers(int n) {
  size_t sum = 0;
  for (int w = 0; w <= n; ++w) sum += size_t(row_numbers<A, many>(n, w));
  return sum;
}

// Room for tasks of up to `most` words.
template <class A> struct Layout {
  size_t numbers;  // of one chart
  bool posts, dual;
  int most;

  Layout(int most_words, bool with_posts, bool with_dual, bool with_many) : posts(with_posts), dual(with_dual), most(most_words) {
    const int short_words = most < kManyWords ? most : kManyWords;
    const size_t one = chart_numbers<A, false>(most), many = with_many ? chart_numbers<A, true>(short_words) : 0;
    numbers = one > many ? one : many;
  }
  size_t bytes() const {
    const size_t arrays = kCharts * (posts ? 2 : 1) * (dual ? 2 : 1);
    return numbers * (arrays * sizeof(A) + kCharts * sizeof(Int<A>)) + ((size_t(most) + 2) * sizeof(int32_t) + 127) / 64 * 64;
  }
};

template <class A> struct Scratch {
  Charts<A> charts;
  PostCharts<A> posts;
};

// Numbers never lie where exponents lay before, so that stale cells stay finite.
template <bool many, class A> inline Scratch<A> lay_out(char* memory, const Layout<A>& layout, int n) {
  A* number = reinterpret_cast<A*>(memory);
  auto numbers = [&](bool wanted) { A* const p = wanted ? number : nullptr; number += wanted ? layout.numbers : 0; return p; };
  Scratch<A> s{};
  Cells<A>* const cells[kCharts] = {&s.charts.T, &s.charts.IL, &s.charts.IR, &s.charts.CL, &s.charts.CR};
  Posts<A>* const posts[kCharts] = {&s.posts.S, &s.posts.IL, &s.posts.IR, &s.posts.CL, &s.posts.CR};
  for (int i = 0; i < kCharts; ++i) {
    cells[i]->m = numbers(true);
    cells[i]->t = numbers(layout.dual);
    posts[i]->a = numbers(layout.posts);
    posts[i]->d = numbers(layout.posts && layout.dual);
  }
  Int<A>* exponent = reinterpret_cast<Int<A>*>(number);
  for (int i = 0; i < kCharts; ++i, exponent += layout.numbers) cells[i]->e = exponent;
  int32_t* const row = reinterpret_cast<int32_t*>(exponent);
  row[0] = 0;
  for (int w = 0; w <= n; ++w) row[w + 1] = row[w] + row_numbers<A, many>(n, w);
  s.charts.row = row;
  return s;
}

// The task of the sentences b[0..count); lanes past count hold no words.
template <class A> inline Input<A> input(const ChartArgs& a, const int64_t* b, int count) {
  const Dtype t = a.dtype;
  Input<A> in{{a.score, t}, {a.sib, t}, {a.v, t}, {a.v_sib, t}, a.N, a.kind, 0, {}, {}, a.N, {}};
  for (int l = 0; l < W<A>; ++l) {
    const bool there = count == 1 || l < count;
    in.b[l] = in.sib_b[l] = b[l < count ? l : 0];
    in.n[l] = there ? Int<A>(a.lengths[in.b[l]]) : 0;
    in.most = int(in.n[l]) > in.most ? int(in.n[l]) : in.most;
  }
  return in;
}

// How many of the next sentences to parse at once: W where they are short, or many enough to keep every thread busy so;
// where most lanes are taken; and where the shortest is not much shorter than the longest.
template <class A> inline int64_t together(const ChartArgs& a, const int64_t* b, int64_t left) {
  const int most = a.B >= 4 * W<A> ? kManyWords : kManyWords / 2;
  const int64_t n = a.lengths[b[0]], count = left < W<A> ? left : W<A>;
  return n <= most && count * 2 > W<A> && a.lengths[b[count - 1]] * 3 >= n * 2 ? count : 1;
}

// ln of the sum over the trees of lane l, and its tangent.
template <bool many, class A> inline double total(const Charts<A>& c, const Input<A>& in, int l, double* tangent) {
  if (tangent) *tangent = 0;
  if (in.n[l] == 0) return 0;
  const Cells<A>& root = in.kind == Chart::span ? c.IL : c.CR;
  const int o = c.row[in.n[l]] + (many ? l : 0);
  if (tangent && root.m[o] > 0) *tangent = double(root.t[o]);
  return log_scaled<A>(root.m[o], root.e[o]);
}

}  // namespace structops::STRUCTOPS_ISA
