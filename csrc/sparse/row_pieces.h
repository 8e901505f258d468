// Work on whole rows, cut by edges.
#pragma once
#include "core/parallel.h"
#include "sparse/spmm.h"

namespace structops {

inline int64_t row_pieces(int64_t N, int64_t E) { return (N + E + spmm_chunk(N, E) - 1) / spmm_chunk(N, E); }

// Calls f(piece, first row, last row) for row_pieces(N, E) pieces of about equally many rows and edges, each row in one of them.
// `cost`: elementary operations per edge.
template <class F>
[[gnu::always_inline]] inline void for_row_pieces(const Index& rowptr, int64_t N, int64_t E, int64_t cost, const ParallelFor& pf, F f) {
  const int64_t chunk = spmm_chunk(N, E);
  auto first_row = [&](int64_t piece) {
    const Cut c = spmm_cut(rowptr, N, E, chunk, piece);
    return c.row < N && c.k > rowptr[c.row] ? c.row + 1 : c.row;
  };
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) f(piece, first_row(piece), first_row(piece + 1));
  };
  const int64_t work = chunk * cost + 1;
  parallel_for(pf, row_pieces(N, E), (32768 + work - 1) / work, body);
}

}  // namespace structops
