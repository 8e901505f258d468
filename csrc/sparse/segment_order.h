// segment_order: positions of order statistics of every row, feature by feature.
//
//   out[b, v K + j, f] = the position (into E) of the element of rank r in row v = [rowptr[v], rowptr[v+1]),
//                        r = j, or rank[v, j] where rank is given;   -1 where r is outside [0, elements of the row)
//
// Order: ascending, or descending with `largest`; equal values (0 and -0 too) in order of position, so that the first
// occurrence comes first either way. NaN is larger than every number and equal to itself.
// With rank given, a row with a NaN gives the position of its first NaN for every rank inside: quantiles propagate NaN.
//
// The caller guarantees: rowptr is non-decreasing from 0 to E; a row has fewer than 2^32 elements.
// Source: introspective selection (Musser 1997).
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

struct SegmentOrderArgs {
  Dtype dtype;
  bool largest;
  int64_t B, N, E, F, K;
  Index rowptr;     // [N + 1]
  Index rank;       // [N, K] or null
  const void* src;  // [B, E, F]
  void* out;        // [B, N * K, F], in the type of rowptr
};

bool segment_order_fwd(const SegmentOrderArgs& a, const ParallelFor& pf);  // false: no memory for scratch

}  // namespace structops
