// A vector of a row of features: a whole one, or its first n lanes where fewer are left.
#pragma once
#include "core/simd.h"

namespace structops::STRUCTOPS_ISA {

template <class T> STRUCTOPS_INLINE Vec<Acc<T>> get(const T* p, int64_t n) { return n >= W<Acc<T>> ? load(p) : load_n(p, int(n)); }
template <class T> STRUCTOPS_INLINE void put(T* p, Vec<Acc<T>> v, int64_t n) {
  if (n >= W<Acc<T>>) store(p, v); else store_n(p, v, int(n));
}

}  // namespace structops::STRUCTOPS_ISA
