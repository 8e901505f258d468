// Chu-Liu/Edmonds on a dense matrix, for one instruction set. The contract is arborescence.h.
#pragma once
#include <cstdlib>

#include "core/memory.h"
#include "core/simd.h"
#include "tree/arborescence.h"

namespace structops::STRUCTOPS_ISA {
namespace {

// Chu-Liu/Edmonds on one sentence. Slots 0..n of the matrix are the root and what is still a node; ids name words (1..n) and, above n,
// contracted nodes. A dependent whose path has reached the root is settled: its row is not needed any more.
struct Contraction {
  int64_t n;
  double* w;        // [N, N] slots: adjusted scores, -inf on the diagonal and in columns of slots that are gone
  int32_t *dep, *head;           // [N, N] the arc of the sentence behind each entry
  int32_t *id, *state;           // [N] of a slot
  int32_t *path;                 // [N] slots
  int32_t *parent, *arc_dep, *arc_head;  // [2N] of an id: the node it went into, its chosen incoming arc
  int32_t *child, *sibling;      // [2N] of an id: lists of members
  int32_t *stack;                // [2N]
  double* chosen;                // [N] score of a slot's chosen arc
  int32_t next = 0;              // the first id that is free
  int64_t roots = 0;             // arcs from the root
  double total = 0;              // of the chosen arcs: the score of the tree
  enum : int32_t { fresh, on_path, gone, settled, beside };  // settled: below the root; beside: below the second root

  static int64_t numbers(int64_t N) { return N * N + (2 * N * N + 3 * N + 12 * N + 1) / 2 + N + 8; }

  Contraction(double* p, int64_t n_) : n(n_) {
    const int64_t N = n + 1;
    w = p;
    chosen = w + N * N;
    int32_t* q = reinterpret_cast<int32_t*>(chosen + N);
    auto take = [&](int64_t k) { int32_t* const r = q; q += k; return r; };
    dep = take(N * N);
    head = take(N * N);
    id = take(N);
    state = take(N);
    path = take(N);
    parent = take(2 * N);
    arc_dep = take(2 * N);
    arc_head = take(2 * N);
    child = take(2 * N);
    sibling = take(2 * N);
    stack = take(2 * N);
  }

  // The head slot of the best arc into slot v; the root only where it must be, if `one`; -1 without any.
  int64_t best(int64_t v, bool one) const {
    const int64_t N = n + 1;
    const double* const row = w + v * N;
    double top = one ? -INFINITY : row[0];
    int64_t at = one || row[0] == -INFINITY ? -1 : 0;
    for (int64_t u = 1; u < N; ++u)
      if (row[u] > top) { top = row[u]; at = u; }
    return at < 0 && row[0] > -INFINITY ? 0 : at;
  }

  // path[from .. size) is a cycle: its slots become one node in the slot of the last. arcs: remember what is behind the entries.
  template <bool arcs> void contract(int64_t from, int64_t size, int32_t into) {
    const int64_t N = n + 1, c = path[size - 1];
    for (int64_t i = from; i < size; ++i) {
      const int64_t s = path[i];
      double* const row = w + s * N;
      for (int64_t h = 0; h < N; ++h) row[h] -= chosen[s];
      parent[id[s]] = into;
      sibling[id[s]] = child[into];
      child[into] = id[s];
    }
    double* const row = w + c * N;
    for (int64_t i = from; i + 1 < size; ++i) {
      const int64_t s = path[i];
      const double* const other = w + s * N;
      for (int64_t h = 0; h < N; ++h)
        if (other[h] > row[h]) {
          row[h] = other[h];
          if constexpr (!arcs) continue;
          dep[c * N + h] = dep[s * N + h];
          head[c * N + h] = head[s * N + h];
        }
      for (int64_t d = 1; d < N; ++d) {
        double* const x = w + d * N;
        if (x[s] > x[c]) {
          x[c] = x[s];
          if constexpr (arcs) {
            dep[d * N + c] = dep[d * N + s];
            head[d * N + c] = head[d * N + s];
          }
        }
        x[s] = -INFINITY;
      }
      state[s] = gone;
    }
    for (int64_t i = from; i < size; ++i) row[path[i]] = -INFINITY;
    id[c] = into;
  }

  // Gives every node its best incoming arc, without cycles; false where there is no tree. `second`: a word that needs no head and is a
  // root as well, where arcs into it are not read; 0 for none.
  template <bool arcs> bool grow(bool one, int64_t second) {
    const int64_t N = n + 1;
    next = int32_t(N);
    roots = 0;
    total = 0;
    for (int64_t i = 0; i < 2 * N; ++i) parent[i] = child[i] = sibling[i] = -1;
    for (int64_t s = 0; s < N; ++s) {
      id[s] = int32_t(s);
      state[s] = s ? fresh : settled;
      for (int64_t h = 0; arcs && h < N; ++h) {
        dep[s * N + h] = int32_t(s);
        head[s * N + h] = int32_t(h);
      }
    }
    if (second) state[second] = beside;
    for (int64_t start = 1; start < N; ++start) {
      if (state[start] != fresh) continue;
      int64_t size = 0;
      path[size++] = int32_t(start);
      state[start] = on_path;
      int32_t end;  // where the path leads
      for (;;) {
        const int64_t v = path[size - 1], u = best(v, one);
        if (u < 0) return false;
        if constexpr (arcs) {
          arc_dep[id[v]] = dep[v * N + u];
          arc_head[id[v]] = head[v * N + u];
        }
        chosen[v] = w[v * N + u];
        total += chosen[v];
        roots += u == 0;
        end = state[u];
        if (end == settled || end == beside) break;
        if (end == fresh) {
          state[u] = on_path;
          path[size++] = int32_t(u);
          continue;
        }
        int64_t from = size - 1;
        while (path[from] != u) --from;
        contract<arcs>(from, size, next++);
        path[from] = path[size - 1];
        size = from + 1;
      }
      for (int64_t i = 0; i < size; ++i) state[path[i]] = end;
    }
    return true;
  }

  // Arcs of the best tree into heads[1..n]; false where there is none.
  bool run(bool one, int64_t* heads) {
    const int64_t N = n + 1;
    if (!grow<true>(one, 0) || (one && roots != 1)) return false;
    // Expansion from the outermost nodes: an arc that enters a cycle replaces the arc of the member that it enters.
    int64_t size = 0;
    for (int64_t s = 1; s < N; ++s)
      if (state[s] == settled) stack[size++] = id[s];
    while (size) {
      const int32_t top = stack[--size], d = arc_dep[top];
      heads[d] = arc_head[top];
      for (int32_t x = d; x != top; x = parent[x])
        for (int32_t y = child[parent[x]]; y >= 0; y = sibling[y])
          if (y != x) stack[size++] = y;
    }
    return true;
  }
};

// Scores into w [N, N], -inf where there is no arc; false with a NaN or +inf.
template <class T> bool read_scores(const ArborescenceArgs& a, int64_t b, double* w) {
  const int64_t n = a.lengths[b], N = n + 1;
  const T* const score = static_cast<const T*>(a.score) + b * a.N * a.N;
  bool bad = false;
  for (int64_t h = 0; h < N; ++h) w[h] = -INFINITY;
  for (int64_t d = 1; d < N; ++d) {
    double* const row = w + d * N;
    for (int64_t h = 0; h < N; ++h) row[h] = double(widen(score[d * a.N + h]));
    row[d] = -INFINITY;
    for (int64_t h = 0; h < N; ++h) bad |= !(row[h] < INFINITY);
  }
  return !bad;
}

}  // namespace
}  // namespace structops::STRUCTOPS_ISA
