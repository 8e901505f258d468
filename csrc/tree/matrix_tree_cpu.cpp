// CPU matrix-tree operators but for the samples. The contract is matrix_tree.h, the algorithm is in elimination.h.
#include <cstdlib>

#include "tree/elimination.h"
#include "tree/schedule.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kMostPlanes = 3;

// A thread's memory, for sentences of up to n words.
int64_t scratch_numbers(int64_t n) {
  const auto square = [](int64_t m) { return kMostPlanes * Mat::numbers(m, m + 1); };
  int64_t total = 3 * square(n) + kMostPlanes * Mat::numbers(1, n) + 2 * n + 1;
  for (int64_t m = n; m > 1; m = (m + 1) / 2) total += square(m);
  return total;
}

struct Result {
  double logz = 0, dlogz = 0;
};

template <class T> void fill(T* p, int64_t n, double v) { for (int64_t i = 0; i < n; ++i) narrow_to(p + i, Acc<T>(v)); }

// post[d, h] from what the solver left. t: [planes, n + 1] scratch for a column of e, and n + 1 numbers more.
template <class N, class T> void write(const Sentence& s, const Mat& w, const Solver<N>& solver, double weight, double* scratch, T* post) {
  const int64_t n = s.n;
  const Mat t(scratch, 1, n + 1);
  double* const row = t.p + N::planes * t.plane;
  for (int64_t d = 0; d < n; ++d) {
    const N inv = reciprocal(get_one<N>(solver.last, 0, d));
    for (int i = 0; i < N::planes; ++i) {
      const double* const from = solver.E.at(0, d) + i * solver.E.plane;
      double* const to = t.p + i * t.plane;
      to[0] = i ? 0 : 1;
      for (int64_t h = 0; h < n; ++h) to[h + 1] = from[h * solver.E.ld];
    }
    for (int64_t c = 0; c <= n; c += L) {
      const N x = get<N>(w, d, c), y = get<N>(t, 0, c);
      const VD value = x.m * y.m * inv.m;
      VD result = value;
      if constexpr (N::dual) result = (x.d * y.m + x.m * y.d) * inv.m + x.m * y.m * inv.d;
      if constexpr (N::ext) {  // exponents are at most a few: posteriors are at most 1. One root's shift cancels.
        const VD exponent = x.e + y.e + inv.e - 8.0;
        result *= pow2(exponent < 0.0 ? exponent : VD{}) * 256.0;
      }
      store(row + c, value > 0.0 ? result * weight : value != value ? value : VD{});
    }
    T* const out = post + (d + 1) * s.a.N;
    for (int64_t h = 0; h <= n; ++h) narrow_to(out + h, Acc<T>(row[h]));
    narrow_to(out + d + 1, Acc<T>(0));
  }
}

template <class N, class T> Outcome solve(Sentence& s, double* scratch, bool outside, double weight, Result* result, T* post) {
  const int64_t n = s.n;
  const bool one = !s.a.multiroot;
  Mat w(scratch, n, n + 1), a(w.p + N::planes * w.plane, n, n + 1), E(a.p + N::planes * a.plane, n, n + 1);
  Mat last(E.p + N::planes * E.plane, 1, n);
  double* const row = last.p + N::planes * last.plane;
  const Outcome read = prepare<N>(s, w, row);
  if (read != Outcome::done) return read;
  Solver<N> solver{E, last, s.a.multiroot || N::ext};
  if (outside) {
    for (int64_t r = 0; r < n; ++r) copy<N>(a, r, 0, w, r, 0, n + 1);
    solver.halves(a, n, 0, row + 2 * n + 1, true);
  } else {
    solver.eliminate(w, n, 1, true);
    if (!solver.failed) solver.z.times(get_one<N>(w, 0, 0));
  }
  const double m = solver.z.m, exponent = solver.z.e + (N::ext && one ? kRootShift : 0);
  if constexpr (N::ext) {
    if (solver.failed || m == 0 || (one && exponent < -0.5 * kRootShift)) return Outcome::none;
  } else {
    if (solver.failed || !(m > 0 && m < INFINITY) || !(exponent - s.rows.e > kLeastExponent)) return Outcome::underflow;
    if (outside) {  // one root: e[k,d] may be as large as last[d] over the probability of a tree
      const double top = pow2(splat(exponent - s.rows.e))[0] * 0x1p1000;
      for (int64_t d = 0; d < n; ++d)
        if (!(*last.at(0, d) < top)) return Outcome::underflow;
    }
  }
  result->logz = s.shift + (vlog<double>(splat(m))[0] + exponent * kLn2);
  result->dlogz = solver.z.t;
  if (post) write<N, T>(s, w, solver, weight, a.p, post);
  return Outcome::done;
}

template <bool dual, class T> void sentence(const MatrixTreeArgs& a, int64_t b, double* scratch) {
  Sentence s{a, b, a.lengths[b]};
  T* const post = a.post ? static_cast<T*>(a.post) + b * a.N * a.N : nullptr;
  if (post) __builtin_memset(post, 0, size_t(a.N * a.N) * sizeof(T));
  Result result;
  if (s.n > 0) {
    const double weight = a.weight ? double(static_cast<const Acc<T>*>(a.weight)[b]) : 1.0;
    Outcome outcome = solve<Num<false, dual>, T>(s, scratch, post != nullptr, weight, &result, post);
    if (outcome == Outcome::underflow) outcome = solve<Num<true, dual>, T>(s, scratch, post != nullptr, weight, &result, post);
    if (outcome == Outcome::none) result = {-INFINITY, 0};
    if (outcome == Outcome::nan) {
      result = {NAN, NAN};
      for (int64_t d = 1; post && d <= s.n; ++d) {
        fill(post + d * a.N, s.n + 1, NAN);
        fill(post + d * a.N + d, 1, 0);
      }
    }
  }
  static_cast<Acc<T>*>(a.logz)[b] = Acc<T>(dual ? result.dlogz : result.logz);
}

template <bool dual> void run(const MatrixTreeArgs& a, const ParallelFor& pf) {
  if (a.B == 0) return;
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) {
      each_sentence(a.lengths, a.B, scratch_numbers(a.N > 1 ? a.N - 1 : 1) * sizeof(double), pf,
                    [&](char* scratch, int64_t b) { sentence<dual, T>(a, b, reinterpret_cast<double*>(scratch)); });
    }
  });
}

}  // namespace

void matrix_tree_logz(const MatrixTreeArgs& a, const ParallelFor& pf) { run<false>(a, pf); }
void matrix_tree_marginals(const MatrixTreeArgs& a, const ParallelFor& pf) { run<false>(a, pf); }
void matrix_tree_hvp(const MatrixTreeArgs& a, const ParallelFor& pf) { run<true>(a, pf); }

}  // namespace structops::STRUCTOPS_ISA
