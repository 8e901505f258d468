// The recursion of Ivanic and Ruedenberg as a list of products, and the generators as its derivative at the identity.
// Every includer has its own copy.
#pragma once
#include <cmath>

#include "so2/wigner.h"

namespace structops::STRUCTOPS_ISA {
namespace {

struct WignerTerm {
  int out, a, b;  // D_l[out] += c D_1[a] D_(l-1)[b], entries of full matrices, row-major
  double c;
};

struct GeneratorTerm {
  int axis, row, col;  // within the block of l
  double c;
};

struct WignerTable {
  static constexpr int kTerms = 8192, kGenerators = 10 * kMaxL * (kMaxL + 1) / 2;
  WignerTerm term[kTerms];
  int begin[kMaxL + 2] = {};  // terms of D_l: begin[l]..begin[l + 1]
  GeneratorTerm gen[kGenerators];
  int gen_begin[kMaxL + 2] = {};

  WignerTable() {
    int n = 0;
    begin[0] = begin[1] = begin[2] = 0;
    for (int l = 2; l <= kMaxL; ++l) {
      for (int m = -l; m <= l; ++m)
        for (int k = -l; k <= l; ++k) entry(l, m, k, &n);
      begin[l + 1] = n;
    }
    generators();
  }

 private:
  void product(int l, int i, int mu, int k, int out, double c, int* n) {  // the function P of the paper
    if (c == 0) return;
    auto add = [&](int j, int nu, double s) {
      term[(*n)++] = {out, (i + 1) * 3 + j + 1, (mu + l - 1) * (2 * l - 1) + nu + l - 1, s};
    };
    if (k == l) {
      add(1, l - 1, c);
      add(-1, 1 - l, -c);
    } else if (k == -l) {
      add(1, 1 - l, c);
      add(-1, l - 1, c);
    } else
      add(0, k, c);
  }

  void entry(int l, int m, int k, int* n) {
    const int out = (m + l) * (2 * l + 1) + k + l, am = m < 0 ? -m : m;
    const double den = k == l || k == -l ? 2.0 * l * (2 * l - 1) : double(l + k) * (l - k);
    const double u = std::sqrt(double(l + m) * (l - m) / den);
    const double v = 0.5 * std::sqrt((m == 0 ? 2.0 : 1.0) * (l + am - 1) * (l + am) / den) * (m == 0 ? -1 : 1);
    const double w = m == 0 ? 0 : -0.5 * std::sqrt(double(l - am - 1) * (l - am) / den);
    const double root2 = std::sqrt(2.0);
    product(l, 0, m, k, out, u, n);  // u is 0 where l - 1 has no row m
    if (m == 0) {
      product(l, 1, 1, k, out, v, n);
      product(l, -1, -1, k, out, v, n);
    } else if (m > 0) {
      product(l, 1, m - 1, k, out, v * (m == 1 ? root2 : 1), n);
      if (m != 1) product(l, -1, 1 - m, k, out, -v, n);
    } else {
      if (m != -1) product(l, 1, m + 1, k, out, v, n);
      product(l, -1, -m - 1, k, out, v * (m == -1 ? root2 : 1), n);
    }
    if (m > 0) {
      product(l, 1, m + 1, k, out, w, n);
      product(l, -1, -m - 1, k, out, w, n);
    } else if (m < 0) {
      product(l, 1, m - 1, k, out, w, n);
      product(l, -1, 1 - m, k, out, -w, n);
    }
  }

  void generators() {
    constexpr int kFull = (2 * kMaxL + 1) * (2 * kMaxL + 1);
    double g[3][kFull] = {}, next[3][kFull];
    g[0][5] = -1;
    g[0][7] = 1;  // [x]x
    g[1][2] = 1;
    g[1][6] = -1;
    g[2][1] = -1;
    g[2][3] = 1;
    double one[3][9];
    for (int j = 0; j < 3; ++j)
      for (int i = 0; i < 9; ++i) one[j][i] = g[j][i];
    int n = 0;
    gen_begin[0] = gen_begin[1] = 0;
    for (int l = 1; l <= kMaxL; ++l) {
      const int size = 2 * l + 1;
      if (l > 1) {
        const int prev = 2 * l - 1;
        for (int j = 0; j < 3; ++j) {
          for (int i = 0; i < size * size; ++i) next[j][i] = 0;
          for (int t = begin[l]; t < begin[l + 1]; ++t) {
            const WignerTerm& q = term[t];
            const bool a_unit = q.a / 3 == q.a % 3, b_unit = q.b / prev == q.b % prev;
            next[j][q.out] += q.c * ((b_unit ? one[j][q.a] : 0.0) + (a_unit ? g[j][q.b] : 0.0));
          }
        }
        for (int j = 0; j < 3; ++j)
          for (int i = 0; i < size * size; ++i) g[j][i] = next[j][i];
      }
      for (int j = 0; j < 3; ++j)
        for (int i = 0; i < size * size; ++i)
          if (g[j][i] > 1e-9 || g[j][i] < -1e-9) gen[n++] = {j, i / size, i % size, g[j][i]};
      gen_begin[l + 1] = n;
    }
  }
};

[[maybe_unused]] const WignerTable& wigner_table() {
  static const WignerTable table;
  return table;
}

}  // namespace
}  // namespace structops::STRUCTOPS_ISA
