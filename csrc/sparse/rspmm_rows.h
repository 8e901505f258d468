// What the forward and the backward of relational_spmm share on the CPU.
#pragma once
#include "core/vmath.h"
#include "sparse/row_pieces.h"
#include "sparse/rspmm.h"

namespace structops::STRUCTOPS_ISA {

// Everything but rotate, which needs the other half of the features.
template <class A, bool product> STRUCTOPS_INLINE Vec<A> combine(RelMul m, Vec<A> r, Vec<A> x) {
  if (product || m == RelMul::mul) return r * x;
  if (m == RelMul::add) return r + x;
  if (m == RelMul::copy) return x;
  const Vec<A> low = x < r ? x : r;
  return x != x ? x : low;
}

}  // namespace structops::STRUCTOPS_ISA
