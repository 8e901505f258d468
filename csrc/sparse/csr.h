// Structure builders: stable counting sort of an index into CSR form, and the range of an index.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

// rowptr [N + 1] and perm [E], both in the type of `index`: positions of group n, in ascending order, are
// perm[rowptr[n] : rowptr[n + 1]]. Returns false, leaving the outputs unspecified, if an index is outside [0, N).
bool csr_build(const Index& index, int64_t E, int64_t N, void* rowptr, void* perm, const ParallelFor& pf);

struct Range { int64_t min, max; };
// Of n > 0 indices. Also tells whether they are non-decreasing.
Range index_range(const Index& index, int64_t n, bool* sorted, const ParallelFor& pf);

}  // namespace structops
