// What the forward and the backward of multi_reduce share on the CPU.
#pragma once
#include "sparse/multi_reduce.h"
#include "sparse/row_pieces.h"
#include "sparse/row_vectors.h"

namespace structops::STRUCTOPS_ISA {

constexpr int kWide = STRUCTOPS_VBYTES == 64 ? 4 : 2;  // vectors a block: what the registers hold
constexpr int kAhead = 16;                             // prefetch distance, edges

template <class A> STRUCTOPS_INLINE Vec<A> finite_or_0(Vec<A> v) { return v - v == 0 ? v : Vec<A>{}; }

// The centre's part of one operand.
template <class T> STRUCTOPS_INLINE Vec<Acc<T>> centre(const void* p, int64_t rows, int64_t f, int64_t n) {
  return p && rows > 0 ? finite_or_0<Acc<T>>(get(static_cast<const T*>(p) + f, n)) : Vec<Acc<T>>{};
}

// Results and gradients are long rows, visited in pieces: the hardware does not see the next one coming.
template <class T> STRUCTOPS_INLINE void prefetch_row(const MultiReduceArgs& a, const void* p, int64_t r) {
  if (r >= a.N) return;
  const int64_t bytes = a.S * a.list.size * a.F * int64_t(sizeof(T));
  const char* const row = static_cast<const char*>(p) + r * bytes;
  for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(row + b);
}

}  // namespace structops::STRUCTOPS_ISA
