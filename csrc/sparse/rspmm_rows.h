// What the forward and the backward of relational_spmm share on the CPU.
#pragma once
#include "core/vmath.h"
#include "sparse/rspmm.h"
#include "sparse/spmm.h"

namespace structops::STRUCTOPS_ISA {

// Everything but rotate, which needs the other half of the features.
template <class A, bool product> STRUCTOPS_INLINE Vec<A> combine(RelMul m, Vec<A> r, Vec<A> x) {
  if (product || m == RelMul::mul) return r * x;
  if (m == RelMul::add) return r + x;
  if (m == RelMul::copy) return x;
  const Vec<A> low = x < r ? x : r;
  return x != x ? x : low;
}

// The rows that begin in item `item` of `chunk` edges and rows.
inline int64_t first_row(const Index& ptr, int64_t rows, int64_t E, int64_t chunk, int64_t item) {
  const Cut c = spmm_cut(ptr, rows, E, chunk, item);
  return c.row < rows && c.k > ptr[c.row] ? c.row + 1 : c.row;
}

}  // namespace structops::STRUCTOPS_ISA
