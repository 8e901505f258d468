// Work on rows, cut by edges: whole rows, or the longest of them in parts.
#pragma once
#include "core/parallel.h"
#include "sparse/spmm.h"

namespace structops {

[[gnu::always_inline]] inline int64_t row_pieces(int64_t N, int64_t E) { return (N + E + spmm_chunk(N, E) - 1) / spmm_chunk(N, E); }

// The first of the rows that begin in piece `piece` of `chunk` rows and edges.
[[gnu::always_inline]] inline int64_t piece_row(const Index& rowptr, int64_t N, int64_t E, int64_t chunk, int64_t piece) {
  const Cut c = spmm_cut(rowptr, N, E, chunk, piece);
  return c.row < N && c.k > rowptr[c.row] ? c.row + 1 : c.row;
}

// Calls f(batch * pieces + piece, first row, last row) for the row_pieces(N, E) pieces of every batch: about equally many rows and
// edges each, every row in one of them. `cost`: elementary operations per edge.
template <class F>
[[gnu::always_inline]] inline void for_row_pieces(const Index& rowptr, int64_t N, int64_t E, int64_t cost, const ParallelFor& pf, F f,
                                                  int64_t batches = 1) {
  const int64_t chunk = spmm_chunk(N, E), pieces = row_pieces(N, E);
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task)
      f(task, piece_row(rowptr, N, E, chunk, task % pieces), piece_row(rowptr, N, E, chunk, task % pieces + 1));
  };
  const int64_t work = (N + E) / (pieces ? pieces : 1) * cost + 1;
  parallel_for(pf, batches * pieces, (32768 + work - 1) / work, body);
}

// As for_row_pieces, but a row of more than spmm_chunk(N, E) edges is cut where spmm cuts it: at positions that depend on N and E alone.
// Calls f(piece, rows) for every piece; rows(g) calls g(row, begin, end, slot) for its rows and parts of rows, slot < 0 for a whole row.
// The parts of a row have slots below 2 * row_pieces(N, E). Then calls merge(row, first, last) for every row that was cut: next_slot
// runs through its slots, in the order of its edges.
[[gnu::always_inline]] inline int64_t next_slot(int64_t slot) { return slot + (slot % 2 ? 1 : 2); }

template <class F, class M>
[[gnu::always_inline]] inline void for_cut_rows(const Index& rowptr, int64_t N, int64_t E, int64_t cost, const ParallelFor& pf, F f, M merge) {
  const int64_t chunk = spmm_chunk(N, E), pieces = row_pieces(N, E);
  const auto cut_row = [&](const Cut& c) __attribute__((always_inline)) { return c.row < N && c.k > rowptr[c.row]; };
  auto body = [&](int64_t first, int64_t last) {
    for (int64_t piece = first; piece < last; ++piece) {
      const Cut from = spmm_cut(rowptr, N, E, chunk, piece), to = spmm_cut(rowptr, N, E, chunk, piece + 1);
      f(piece, [&](auto g) __attribute__((always_inline)) {
        int64_t v = from.row;
        if (cut_row(from)) {  // a row that goes on: to its end, or through the whole piece
          g(v, from.k, to.row == v ? to.k : rowptr[v + 1], 2 * piece);
          if (to.row == v++) return;
        }
        for (; v < to.row; ++v) g(v, rowptr[v], rowptr[v + 1], int64_t(-1));
        if (cut_row(to)) g(v, rowptr[v], to.k, 2 * piece + 1);
      });
    }
  };
  const int64_t work = (N + E) / (pieces ? pieces : 1) * cost + 1, grain = (32768 + work - 1) / work;
  parallel_for(pf, pieces, grain, body);
  auto ends = [&](int64_t first, int64_t last) {
    for (int64_t piece = first; piece < last; ++piece) {
      const Cut to = spmm_cut(rowptr, N, E, chunk, piece + 1);
      if (!cut_row(to)) continue;
      const Cut from = spmm_cut(rowptr, N, E, chunk, piece);
      if (cut_row(from) && from.row == to.row) continue;  // began before
      int64_t end = piece + 1;
      while (spmm_cut(rowptr, N, E, chunk, end + 1).row == to.row) ++end;
      merge(to.row, 2 * piece + 1, 2 * end);
    }
  };
  parallel_for(pf, pieces, grain, ends);
}

}  // namespace structops
