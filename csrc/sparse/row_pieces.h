// Work on whole rows, cut by edges.
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

}  // namespace structops
