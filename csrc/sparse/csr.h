// Structure builders: stable counting sort of an index into CSR form, with what its elements carry, and the range of an index.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

// Group n holds the elements k with key[k] = n, in ascending order, at [ptr[n], ptr[n + 1]) of perm and carried.
//   csr_build      perm = k
//   csr_from_coo   the same of the edges' destinations, and carried = the sources
//   csr_transpose  key = col of a CSR structure, carried = the row of k, perm = its eid: the CSR structure of the reversed edges
struct CsrArgs {
  int64_t E, N;
  bool wide;       // type of the results: int64, else int32, which holds E, N, and all that is carried: the caller checks
  Index key;       // [E]
  Index other;     // [E] of the type of key, carried; or null
  Index rowptr;    // [rows + 1] of the type of key, from 0 to E: what is carried is the row that k lies in; or null
  int64_t rows;
  Index number;    // [E] of the type of key, written to perm; null: k
  void* ptr;       // [N + 1]
  void* perm;      // [E]
  void* carried;   // [E], with other or rowptr
};

// Of key alone, with results of its type.
inline CsrArgs csr_args(const Index& key, int64_t E, int64_t N, void* ptr, void* perm) {
  CsrArgs a{};
  a.E = E;
  a.N = N;
  a.wide = key.wide;
  a.key = key;
  a.ptr = ptr;
  a.perm = perm;
  return a;
}

// False, leaving the results unspecified, if a key is outside [0, N).
bool csr_build(const CsrArgs& a, const ParallelFor& pf);

struct Range { int64_t min, max; };
// Of n > 0 indices. Also tells whether they are non-decreasing.
Range index_range(const Index& index, int64_t n, bool* sorted, const ParallelFor& pf);

}  // namespace structops
