// Sums over few structures (paths, trees) by listing every one: what a dynamic program must give.
#pragma once

#include "support.h"

namespace structops::tests {

struct Listed {
  const std::vector<double>& score;               // of every parameter
  std::vector<std::vector<int64_t>> structure{};  // the parameters that each reads

  double of(const std::vector<int64_t>& parts) const {
    double sum = 0;
    for (int64_t i : parts) sum += score[size_t(i)];
    return sum;
  }
  double logz() const {
    double top = -kInf, sum = 0;
    for (const auto& s : structure) top = std::max(top, of(s));
    if (top == -kInf) return top;
    for (const auto& s : structure) sum += std::exp(of(s) - top);
    return top + std::log(sum);
  }
  std::vector<double> descending() const {
    std::vector<double> all;
    for (const auto& s : structure)
      if (of(s) > -kInf) all.push_back(of(s));
    std::sort(all.rbegin(), all.rend());
    return all;
  }
  double best_through(int64_t part) const {
    double top = -kInf;
    for (const auto& s : structure)
      if (std::find(s.begin(), s.end(), part) != s.end()) top = std::max(top, of(s));
    return top;
  }
  // Adds weight times the posterior of every parameter to post, and its derivative along v to curve. The derivative of logz.
  double add(double weight, const std::vector<double>& v, std::vector<double>& post, std::vector<double>& curve) const {
    const double z = logz();
    if (z == -kInf) return 0;
    double mean = 0;
    auto along = [&](const std::vector<int64_t>& s) {
      double sum = 0;
      for (int64_t i : s) sum += v[size_t(i)];
      return sum;
    };
    for (const auto& s : structure) mean += std::exp(of(s) - z) * along(s);
    for (const auto& s : structure) {
      const double p = std::exp(of(s) - z), d = p * (along(s) - mean);
      for (int64_t i : s) {
        post[size_t(i)] += weight * p;
        curve[size_t(i)] += weight * d;
      }
    }
    return mean;
  }
};

// Every tree of n words: heads[1..n] in 0..n without a cycle.
inline std::vector<std::vector<int64_t>> all_trees(int64_t n, bool multiroot) {
  std::vector<std::vector<int64_t>> trees;
  std::vector<int64_t> h(size_t(n + 1), 0);
  for (;;) {
    int64_t roots = 0;
    bool tree = true;
    for (int64_t d = 1; d <= n; ++d) {
      roots += h[size_t(d)] == 0;
      int64_t at = d, steps = 0;
      while (at && steps <= n) {
        at = h[size_t(at)];
        ++steps;
      }
      tree &= at == 0;
    }
    if (tree && (multiroot || roots == 1 || n == 0)) trees.push_back(h);
    int64_t d = 1;
    while (d <= n && ++h[size_t(d)] > n) h[size_t(d++)] = 0;
    if (d > n) return trees;
  }
}

inline bool projective(const std::vector<int64_t>& h) {
  const int64_t n = int64_t(h.size()) - 1;
  for (int64_t d = 1; d <= n; ++d)
    for (int64_t e = 1; e <= n; ++e) {
      const int64_t a = std::min(d, h[size_t(d)]), b = std::max(d, h[size_t(d)]), x = std::min(e, h[size_t(e)]),
                    y = std::max(e, h[size_t(e)]);
      if (a < x && x < b && b < y) return false;
    }
  return true;
}

// The nearest dependent of d's head between it and d, or -1.
inline int64_t sibling(const std::vector<int64_t>& h, int64_t d) {
  const int64_t head = h[size_t(d)], step = head < d ? -1 : 1;
  for (int64_t s = d + step; s != head; s += step)
    if (h[size_t(s)] == head) return s;
  return -1;
}

// Counts of draws against probabilities, within six standard deviations.
inline void expect_frequency(double count, double draws, double p, const char* what) {
  expect(std::fabs(count - draws * p) <= 6 * std::sqrt(draws * p * (1 - p)) + 1e-3 * draws, what,
         "a frequency far from its probability");
}

inline std::vector<double> values_of(std::initializer_list<const Array*> arrays) {
  std::vector<double> all;
  for (const Array* a : arrays)
    for (int64_t i = 0; i < a->n; ++i) all.push_back(a->get(i));
  return all;
}

}  // namespace structops::tests
