// CPU arborescence and tree_check. The contract is arborescence.h.
#include "tree/contraction.h"
#include "tree/schedule.h"

namespace structops::STRUCTOPS_ISA {
namespace {

// Parts of the set of trees that are still to be looked at, each with its best tree. A part: the words before `word` keep the
// heads of the tree, `word` has none of the forbidden heads.
struct Parts {
  int64_t n, K, count = 0, words;  // words: of a bit set of heads
  double *w, *top;  // [N, N] scores, -inf where there is no arc; [N + 1] sums of the best scores of the words from one on
  double* value;    // [K] of parts; -inf: taken
  int64_t *heads, *word;  // [K, N], [K]
  uint64_t* forbidden;    // [K, words]
  int64_t* best;          // [N] a solution

  static int64_t numbers(int64_t N, int64_t K) { return N * N + N + 1 + K * (N + 2 + (N + 63) / 64) + N; }

  Parts(double* p, int64_t n_, int64_t K_) : n(n_), K(K_), words((n_ + 64) / 64) {
    const int64_t N = n + 1;
    auto take = [&](int64_t k) { double* const r = p; p += k; return r; };
    w = take(N * N);
    top = take(N + 1);
    value = take(K);
    heads = reinterpret_cast<int64_t*>(take(K * N));
    word = reinterpret_cast<int64_t*>(take(K));
    forbidden = reinterpret_cast<uint64_t*>(take(K * words));
    best = reinterpret_cast<int64_t*>(take(N));
  }

  int64_t first() const {
    int64_t at = -1;
    for (int64_t i = 0; i < count; ++i)
      if (value[i] > -INFINITY && (at < 0 || value[i] > value[at])) at = i;
    return at;
  }
  // Where a part of this value goes: a free place, or that of the least valuable part; -1 where it has no place.
  int64_t place(double x) {
    if (count < K) return count;
    int64_t at = 0;
    for (int64_t i = 1; i < K; ++i)
      if (value[i] <= value[at]) at = i;
    return x > value[at] ? at : -1;
  }

  // Looks for the best tree that keeps the heads of `tree` before word d and has none of the heads in `bits` at d.
  void add(Contraction& c, bool one, const int64_t* tree, int64_t d, const uint64_t* bits) {
    const int64_t N = n + 1;
    auto allowed = [&](int64_t h) { return !(bits[h / 64] >> (h % 64) & 1); };
    double bound = -INFINITY;
    for (int64_t h = 0; h < N; ++h)
      if (allowed(h) && w[d * N + h] > bound) bound = w[d * N + h];
    for (int64_t k = 1; k < d; ++k) bound += w[k * N + tree[k]];
    bound += top[d + 1];
    if (!(bound > -INFINITY) || place(bound) < 0) return;
    for (int64_t i = 0; i < N * N; ++i) c.w[i] = i < d * N ? -INFINITY : w[i];
    for (int64_t k = 1; k < d; ++k) c.w[k * N + tree[k]] = w[k * N + tree[k]];
    for (int64_t h = 0; h < N; ++h)
      if (!allowed(h)) c.w[d * N + h] = -INFINITY;
    if (!c.run(one, best)) return;
    double total = 0;
    for (int64_t k = 1; k < N; ++k) total += w[k * N + best[k]];
    const int64_t at = place(total);
    if (at < 0) return;
    if (at == count) ++count;
    value[at] = total;
    word[at] = d;
    for (int64_t k = 1; k < N; ++k) heads[at * N + k] = best[k];
    for (int64_t i = 0; i < words; ++i) forbidden[at * words + i] = bits[i];
  }
};

template <class T> void kbest_sentence(const ArborescenceKbestArgs& k, int64_t b, double* scratch) {
  const ArborescenceArgs& a = k.in;
  const int64_t n = a.lengths[b], N = n + 1, K = k.K;
  Acc<T>* const value = static_cast<Acc<T>*>(a.value) + b * K;
  int64_t* const heads = a.heads + b * K * a.N;
  Contraction c(scratch, n);
  Parts parts(scratch + Contraction::numbers(a.N), n, K);
  const bool fine = read_scores<T>(a, b, parts.w);
  for (int64_t i = 0; i < K * a.N; ++i) heads[i] = -1;
  for (int64_t i = 0; i < K; ++i) value[i] = Acc<T>(fine ? -INFINITY : NAN);
  if (!fine) return;
  if (n == 0) {
    value[0] = 0;
    return;
  }
  parts.top[N] = 0;
  for (int64_t d = n; d > 0; --d) {
    double most = -INFINITY;
    for (int64_t h = 0; h < N; ++h) most = parts.w[d * N + h] > most ? parts.w[d * N + h] : most;
    parts.top[d] = parts.top[d + 1] + most;
  }
  // The last N numbers of the scratch, and the bits after them, hold the tree in hand.
  int64_t* const tree = reinterpret_cast<int64_t*>(scratch + Contraction::numbers(a.N) + Parts::numbers(a.N, K));
  uint64_t* const bits = reinterpret_cast<uint64_t*>(tree + N);
  for (int64_t i = 0; i < parts.words; ++i) bits[i] = 0;
  parts.add(c, !a.multiroot, tree, 1, bits);
  for (int64_t rank = 0; rank < K; ++rank) {
    const int64_t at = parts.first();
    if (at < 0) return;
    value[rank] = Acc<T>(parts.value[at]);
    for (int64_t d = 1; d < N; ++d) tree[d] = heads[rank * a.N + d] = parts.heads[at * N + d];
    if (rank + 1 == K) return;
    const int64_t from = parts.word[at];
    for (int64_t i = 0; i < parts.words; ++i) bits[i] = parts.forbidden[at * parts.words + i];
    parts.value[at] = -INFINITY;
    for (int64_t d = from; d < N; ++d) {
      bits[tree[d] / 64] |= uint64_t(1) << (tree[d] % 64);
      parts.add(c, !a.multiroot, tree, d, bits);
      for (int64_t i = 0; i < parts.words; ++i) bits[i] = 0;
    }
  }
}

template <class T> void sentence(const ArborescenceArgs& a, int64_t b, double* scratch) {
  const int64_t n = a.lengths[b], N = n + 1;
  const T* const score = static_cast<const T*>(a.score) + b * a.N * a.N;
  int64_t* const heads = a.heads + b * a.N;
  for (int64_t i = 0; i < a.N; ++i) heads[i] = -1;
  Contraction c(scratch, n);
  double value = 0;
  if (!read_scores<T>(a, b, c.w)) {
    value = NAN;
  } else if (!c.run(a.multiroot ? false : true, heads) && n > 0) {
    value = -INFINITY;
    for (int64_t i = 0; i < a.N; ++i) heads[i] = -1;
  } else {
    for (int64_t d = 1; d < N; ++d) value += double(widen(score[d * a.N + heads[d]]));
  }
  static_cast<Acc<T>*>(a.value)[b] = Acc<T>(value);
}

// Leaves go first; what is never freed of its dependents is on a cycle. A subtree that covers more positions than it has words has a gap.
int64_t flags_of(const int64_t* heads, int64_t n, double* scratch) {
  int32_t* const waiting = reinterpret_cast<int32_t*>(scratch);  // [N] dependents still to come, then the four below, each [N]
  int32_t *const lo = waiting + n + 1, *const hi = lo + n + 1, *const size = hi + n + 1, *const queue = size + n + 1;
  for (int64_t i = 0; i <= n; ++i) {
    waiting[i] = 0;
    lo[i] = hi[i] = int32_t(i);
    size[i] = 1;
  }
  int64_t roots = 0;
  for (int64_t d = 1; d <= n; ++d) {
    if (heads[d] < 0 || heads[d] > n) return 0;
    ++waiting[heads[d]];
    roots += heads[d] == 0;
  }
  int64_t freed = 0;
  for (int64_t d = 1; d <= n; ++d)
    if (waiting[d] == 0) queue[freed++] = int32_t(d);
  bool projective = true;
  for (int64_t i = 0; i < freed; ++i) {
    const int32_t d = queue[i], h = int32_t(heads[d]);
    projective &= hi[d] - lo[d] + 1 == size[d];
    lo[h] = lo[d] < lo[h] ? lo[d] : lo[h];
    hi[h] = hi[d] > hi[h] ? hi[d] : hi[h];
    size[h] += size[d];
    if (--waiting[h] == 0 && h > 0) queue[freed++] = h;
  }
  if (freed < n) return 0;
  return int64_t(kTree) | (projective ? int64_t(kProjective) : 0) | (roots == 1 || n == 0 ? int64_t(kSingleRoot) : 0);
}

}  // namespace

void arborescence(const ArborescenceArgs& a, const ParallelFor& pf) {
  if (a.B == 0) return;
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) {
      each_sentence(a.lengths, a.B, Contraction::numbers(a.N) * sizeof(double), pf,
                    [&](char* scratch, int64_t b) { sentence<T>(a, b, reinterpret_cast<double*>(scratch)); });
    }
  });
}

void arborescence_kbest(const ArborescenceKbestArgs& a, const ParallelFor& pf) {
  if (a.in.B == 0) return;
  const int64_t N = a.in.N, numbers = Contraction::numbers(N) + Parts::numbers(N, a.K) + N + (N + 64) / 64;
  with_dtype(a.in.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) {
      each_sentence(a.in.lengths, a.in.B, size_t(numbers) * sizeof(double), pf,
                    [&](char* scratch, int64_t b) { kbest_sentence<T>(a, b, reinterpret_cast<double*>(scratch)); });
    }
  });
}

void tree_check(const TreeCheckArgs& a, const ParallelFor& pf) {
  if (a.B == 0) return;
  each_sentence(a.lengths, a.B, size_t(3 * a.N + 1) * sizeof(double), pf, [&](char* scratch, int64_t b) {
    a.flags[b] = flags_of(a.heads + b * a.N, a.lengths[b], reinterpret_cast<double*>(scratch));
  });
}

}  // namespace structops::STRUCTOPS_ISA
