// CPU arborescence_max_marginals. The contract is arborescence.h.
#include "tree/contraction.h"
#include "tree/schedule.h"

namespace structops::STRUCTOPS_ISA {
namespace {

struct Losses {
  double *w, *loss;          // [N, N] scores, -inf where there is no arc; [N] of a slot
  int32_t *slots, *slot_of;  // [N] those not yet below the root; [2N] the slot that an id has gone into

  static int64_t numbers(int64_t N) { return N * N + N + (3 * N + 1) / 2; }

  Losses(double* p, int64_t N) : w(p), loss(p + N * N) {
    slots = reinterpret_cast<int32_t*>(loss + N);
    slot_of = slots + N;
  }

  // The least loss that brings each slot beside the root below it; at once where `direct`, by an arc from the root too.
  void relax(Contraction& c, bool direct) {
    const int64_t N = c.n + 1;
    int64_t count = 0;
    for (int64_t s = 1; s < N; ++s) {
      loss[s] = 0;
      if (c.state[s] != Contraction::beside) continue;
      const double* const row = c.w + s * N;
      double top = direct ? row[0] : -INFINITY;
      for (int64_t u = 1; u < N; ++u)
        if (c.state[u] == Contraction::settled && row[u] > top) top = row[u];
      loss[s] = c.chosen[s] - top;
      slots[count++] = int32_t(s);
    }
    while (count) {
      int64_t at = 0;
      for (int64_t i = 1; i < count; ++i)
        if (loss[slots[i]] < loss[slots[at]]) at = i;
      const int64_t u = slots[at];
      if (!(loss[u] < INFINITY)) return;
      slots[at] = slots[--count];
      for (int64_t i = 0; i < count; ++i) {
        const int64_t s = slots[i];
        const double x = loss[u] + c.chosen[s] - c.w[s * N + u];
        if (x < loss[s]) loss[s] = x;
      }
    }
  }
};

template <class T>
void max_sentence(const ArborescenceMaxArgs& x, int64_t b, double* scratch) {
  using A = Acc<T>;
  const ArborescenceArgs& a = x.in;
  const int64_t n = a.lengths[b], N = n + 1;
  A* const through = static_cast<A*>(x.through) + b * a.N * a.N;
  for (int64_t i = 0; i < a.N * a.N; ++i) through[i] = A(-INFINITY);
  Contraction c(scratch, n);
  Losses l(scratch + Contraction::numbers(a.N), N);
  if (!read_scores<T>(a, b, l.w)) {
    for (int64_t d = 1; d < N; ++d)
      for (int64_t h = 0; h < N; ++h)
        if (h != d) through[d * a.N + h] = A(NAN);
    return;
  }
  const bool one = !a.multiroot;
  for (int64_t d = 1; d < N; ++d) {
    __builtin_memcpy(c.w, l.w, size_t(N * N) * sizeof(double));
    if (!c.grow<false>(one, d) || (one && c.roots > 1)) continue;
    const bool direct = !one || c.roots == 0;
    c.state[d] = Contraction::gone;  // no way leads through it
    l.relax(c, direct);
    for (int64_t s = 1; s < N; ++s)
      if (c.state[s] != Contraction::gone) l.slot_of[c.id[s]] = int32_t(s);
    for (int64_t i = c.next - 1; i > 0; --i)
      if (c.parent[i] >= 0) l.slot_of[i] = l.slot_of[c.parent[i]];
    const double* const score = l.w + d * N;
    if (direct) through[d * a.N] = A(score[0] + c.total);
    for (int64_t h = 1; h < N; ++h)
      if (h != d) through[d * a.N + h] = A(score[h] + (c.total - l.loss[l.slot_of[h]]));
  }
}

}  // namespace

void arborescence_max_marginals(const ArborescenceMaxArgs& x, const ParallelFor& pf) {
  const ArborescenceArgs& a = x.in;
  if (a.B == 0) return;
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) {
      each_sentence(a.lengths, a.B, size_t(Contraction::numbers(a.N) + Losses::numbers(a.N)) * sizeof(double), pf,
                    [&](char* scratch, int64_t b) { max_sentence<T>(x, b, reinterpret_cast<double*>(scratch)); });
    }
  });
}

}  // namespace structops::STRUCTOPS_ISA
