// CPU matrix_tree_sample. The contract and the algorithm are in matrix_tree.h.
#include <cstdlib>

#include "tree/elimination.h"
#include "tree/schedule.h"

namespace structops::STRUCTOPS_ISA {
namespace {

// The c-th uniform number of a seed: SplitMix64 (Steele, Lea and Flood 2014).
struct Uniforms {
  uint64_t state;
  double next() {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return double((z ^ (z >> 31)) >> 11) * 0x1p-53;
  }
};

// One of `count` alternatives of weights m[i] 2^e[i]; the weights are overwritten.
int64_t choose(double* m, const double* e, int64_t count, double u) {
  double top = kZeroExponent, total = 0;
  for (int64_t i = 0; i < count; ++i) top = m[i] > 0 && e[i] > top ? e[i] : top;
  for (int64_t i = 0; i < count; ++i) total += m[i] = m[i] > 0 ? m[i] * pow2(splat(e[i] - top))[0] : 0;
  double running = 0;
  int64_t last = -1;
  for (int64_t i = 0; i < count; ++i) {
    if (!(m[i] > 0)) continue;
    running += m[i];
    last = i;
    if (running > u * total) break;
  }
  return last;
}

// The tree grows by one local word at a time: heads[d + 1] is a position, and the arc of d is to be replaced when word via[d] comes back
// (n: never). w: the weights of the sentence; a: what eliminate left, row k holding p[k, .] and, beyond the diagonal, w[k, j] when j left.
template <class N> struct Sampler {
  int64_t n;
  Mat w, a;
  bool root_in_sum;
  double *m, *e;            // [n + 1]
  int64_t *heads;           // [n + 1]
  int32_t *via, *below, *walk;  // [n + 1]

  double value(const Mat& x, int64_t r, int64_t c) const { return *x.at(r, c); }
  double exponent(const Mat& x, int64_t r, int64_t c) const { return N::ext ? x.at(r, c)[(N::planes - 1) * x.plane] : 0; }

  // Which word that left after `k` words were still in, if any, the arc of d from position h came through.
  void expand(int64_t d, int64_t h, int64_t k, double u) {
    m[0] = value(w, d, h);
    e[0] = exponent(w, d, h);
    for (int64_t j = k; j < n; ++j) {
      m[1 + j - k] = value(a, d, j + 1) * value(a, j, h);
      e[1 + j - k] = exponent(a, d, j + 1) + exponent(a, j, h);
    }
    const int64_t i = choose(m, e, 1 + n - k, u);
    heads[d + 1] = h;
    via[d] = int32_t(i > 0 ? k + i - 1 : n);
  }

  // Marks the words 0..k-1 below those whose arc comes through k; false if there are none of these.
  bool mark(int64_t k) {
    bool any = false;
    for (int64_t d = 0; d < k; ++d) {
      below[d] = via[d] == k ? 1 : -1;
      any |= via[d] == k;
    }
    for (int64_t d = 0; any && d < k; ++d) {
      int64_t size = 0, x = d;
      while (x >= 0 && below[x] < 0) {
        walk[size++] = int32_t(x);
        x = heads[x + 1] - 1;
      }
      const int32_t found = x < 0 ? 0 : below[x];
      while (size) below[walk[--size]] = found;
    }
    return any;
  }

  void tree(Uniforms u) {
    expand(0, 0, 1, u.next());
    for (int64_t k = 1; k < n; ++k) {
      const bool any = mark(k);
      bool word = false;
      for (int64_t h = 0; h <= k; ++h) {
        const bool open = h == 0 || !any || !below[h - 1];
        m[h] = open ? value(a, k, h) : 0;
        e[h] = exponent(a, k, h);
        word |= h > 0 && m[h] > 0;
      }
      if (!root_in_sum && word) m[0] = 0;
      const int64_t head = choose(m, e, k + 1, u.next());
      expand(k, head < 0 ? 0 : head, k + 1, u.next());
      for (int64_t d = 0; any && d < k; ++d)
        if (via[d] == k) expand(d, k + 1, k + 1, u.next());
    }
  }
};

template <class N> Outcome solve(Sentence& s, double* scratch, const MatrixTreeSampleArgs& q) {
  const int64_t n = s.n, N1 = q.in.N;
  Mat w(scratch, n, n + 1), a(w.p + N::planes * w.plane, n, n + 1);
  double* const row = a.p + N::planes * a.plane;
  const Outcome read = prepare<N>(s, w, row);
  if (read != Outcome::done) return read;
  for (int64_t r = 0; r < n; ++r) copy<N>(a, r, 0, w, r, 0, n + 1);
  Solver<N> solver{a, a, s.a.multiroot || N::ext, true};
  solver.eliminate(a, n, 1, true);
  if (!solver.failed) solver.z.times(get_one<N>(a, 0, 0));
  const double exponent = solver.z.e + (N::ext && !s.a.multiroot ? kRootShift : 0);
  const bool positive = !solver.failed && solver.z.m > 0 && solver.z.m < INFINITY;
  if (N::ext && (!positive || exponent < -0.5 * kRootShift)) return Outcome::none;
  if (!N::ext && (!positive || !(exponent - s.rows.e > kLeastExponent))) return Outcome::underflow;
  int32_t* const ints = reinterpret_cast<int32_t*>(row + 2 * (n + 1));
  Sampler<N> sampler{n, w, a, solver.root_in_sum, row, row + n + 1, nullptr, ints, ints + n + 1, ints + 2 * (n + 1)};
  for (int64_t i = 0; i < q.S; ++i) {
    sampler.heads = q.heads + (i * q.in.B + s.b) * N1;
    sampler.tree({uint64_t(q.seed[i * q.in.B + s.b])});
    sampler.heads[0] = -1;
  }
  return Outcome::done;
}

}  // namespace

void matrix_tree_sample(const MatrixTreeSampleArgs& q, const ParallelFor& pf) {
  const MatrixTreeArgs& a = q.in;
  if (a.B == 0 || q.S == 0) return;
  auto body = [&](char* memory, int64_t b) {
    double* const scratch = reinterpret_cast<double*>(memory);
    for (int64_t i = 0; i < q.S; ++i)
      for (int64_t d = 0; d < a.N; ++d) q.heads[(i * a.B + b) * a.N + d] = -1;
    Sentence s{a, b, a.lengths[b]};
    if (s.n == 0) return;
    if (solve<Num<false, false>>(s, scratch, q) == Outcome::underflow) solve<Num<true, false>>(s, scratch, q);
  };
  const int64_t n = a.N > 1 ? a.N - 1 : 1;
  each_sentence(a.lengths, a.B, size_t(2 * 2 * Mat::numbers(n, n + 1) + 4 * (n + 1) + 2) * sizeof(double), pf, body);
}

}  // namespace structops::STRUCTOPS_ISA
