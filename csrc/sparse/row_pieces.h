// Work on rows, cut by edges: whole rows, or the longest of them in parts.
#pragma once
#include "core/memory.h"
#include "core/parallel.h"
#include "sparse/spmm.h"

namespace structops {

[[gnu::always_inline]] inline int64_t row_pieces(int64_t N, int64_t E) { return (N + E + spmm_chunk(N, E) - 1) / spmm_chunk(N, E); }

// The first of the rows that begin in piece `piece` of `chunk` rows and edges.
[[gnu::always_inline]] inline int64_t piece_row(const Index& rowptr, int64_t N, int64_t E, int64_t chunk, int64_t piece) {
  const Cut c = spmm_cut(rowptr, N, E, chunk, piece);
  return c.row < N && c.k > rowptr[c.row] ? c.row + 1 : c.row;
}

// Calls f(batch * pieces + piece, first row, last row) for the pieces of every batch, row_pieces(N, E) of them unless `chunk` says how
// large: about equally many rows and edges each, every row in one of them. `cost`: elementary operations per edge.
template <class F>
[[gnu::always_inline]] inline void for_row_pieces(const Index& rowptr, int64_t N, int64_t E, int64_t cost, const ParallelFor& pf, F f,
                                                  int64_t batches = 1, int64_t chunk = 0) {
  chunk = chunk ? chunk : spmm_chunk(N, E);
  const int64_t pieces = (N + E + chunk - 1) / chunk;
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task)
      f(task, piece_row(rowptr, N, E, chunk, task % pieces), piece_row(rowptr, N, E, chunk, task % pieces + 1));
  };
  const int64_t work = (N + E) / (pieces ? pieces : 1) * cost + 1;
  parallel_for(pf, batches * pieces, (32768 + work - 1) / work, body);
}

// As for_row_pieces, but a row of more than spmm_chunk(N, E) edges is cut where spmm cuts it: at positions that depend on N and E alone.
// Calls f(batch * pieces + piece, rows); rows(g), as often as f likes, calls g(row, begin, end, slot) for the piece's rows and parts of
// rows, slot < 0 for a whole row. A part of a row may be empty. Then calls merge(row, first, last) for every row that was cut:
// next_slot runs through its slots, in the order of its edges. Slots are below 2 * row_pieces(N, E) * batches, two for each f.
[[gnu::always_inline]] inline int64_t next_slot(int64_t slot) { return slot + (slot % 2 ? 1 : 2); }

template <class F, class M>
[[gnu::always_inline]] inline void for_cut_rows(const Index& rowptr, int64_t N, int64_t E, int64_t cost, const ParallelFor& pf, F f, M merge,
                                                int64_t batches = 1) {
  const int64_t chunk = spmm_chunk(N, E), pieces = row_pieces(N, E);
  const auto cut_row = [&](const Cut& c) __attribute__((always_inline)) { return c.row < N && c.k > rowptr[c.row]; };
  bool any = false;
  auto body = [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const Cut from = spmm_cut(rowptr, N, E, chunk, task % pieces), to = spmm_cut(rowptr, N, E, chunk, task % pieces + 1);
      const bool goes_on = cut_row(from), stops = cut_row(to);
      if (stops) __atomic_store_n(&any, true, __ATOMIC_RELAXED);
      f(task, [&](auto g) __attribute__((always_inline)) {
        int64_t begin = from.k;
        for (int64_t v = from.row; v < to.row + stops; ++v) {
          const int64_t end = v == to.row ? to.k : rowptr[v + 1];
          g(v, begin, end, goes_on && v == from.row ? 2 * task : v == to.row ? 2 * task + 1 : int64_t(-1));
          begin = end;
        }
      });
    }
  };
  const int64_t work = (N + E) / (pieces ? pieces : 1) * cost + 1, grain = (32768 + work - 1) / work;
  parallel_for(pf, batches * pieces, grain, body);
  if (!any) return;
  auto ends = [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t piece = task % pieces;
      const Cut to = spmm_cut(rowptr, N, E, chunk, piece + 1);
      if (!cut_row(to)) continue;
      const Cut from = spmm_cut(rowptr, N, E, chunk, piece);
      if (cut_row(from) && from.row == to.row) continue;  // began before
      int64_t end = piece + 1;
      while (spmm_cut(rowptr, N, E, chunk, end + 1).row == to.row) ++end;
      merge(to.row, 2 * task + 1, 2 * (task - piece + end));
    }
  };
  parallel_for(pf, batches * pieces, grain, ends);
}

namespace STRUCTOPS_ISA {

// Memory for the parts of rows that were cut: n numbers each, touched only where a row is.
template <class A> struct Slots {
  int64_t size;
  A* memory;
  Slots(int64_t rows, int64_t E, int64_t n, int64_t batches = 1)
      : size(n), memory(allocate<A>(size_t(2 * row_pieces(rows, E) * batches * n))) {}
  ~Slots() { std::free(memory); }
  Slots(const Slots&) = delete;
  A* operator[](int64_t slot) const { return memory + slot * size; }
  // The sums of a row's parts, in order.
  A* sum(int64_t first, int64_t last) const {
    A* const total = (*this)[first];
    while (first < last) {
      const A* const part = (*this)[first = next_slot(first)];
      for (int64_t j = 0; j < size; ++j) total[j] += part[j];
    }
    return total;
  }
};

}  // namespace STRUCTOPS_ISA

}  // namespace structops
