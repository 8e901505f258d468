// Element types and the small helpers every layer of csrc shares. No torch, no std containers: included by ISA objects.
#pragma once
#include <cstddef>
#include <cstdint>

namespace structops {

enum class Dtype : int { f32, f64, bf16, f16, i32, i64 };

inline int64_t dtype_size(Dtype t) {
  switch (t) {
    case Dtype::f64: case Dtype::i64: return 8;
    case Dtype::bf16: case Dtype::f16: return 2;
    default: return 4;
  }
}

inline bool is_floating(Dtype t) { return t <= Dtype::f16; }

// Storage-only tags: arithmetic happens in the accumulator type of core/simd.h.
struct bf16_t { uint16_t bits; };
struct f16_t { uint16_t bits; };

template <class P> struct PointeeOf;
template <class T> struct PointeeOf<T*> { using type = T; };
template <class P> using Pointee = typename PointeeOf<P>::type;

// Calls f with a null pointer of the storage type: the one place where a run-time dtype becomes a C++ type.
template <class F> inline void with_dtype(Dtype t, F&& f) {
  switch (t) {
    case Dtype::f32: return f(static_cast<float*>(nullptr));
    case Dtype::bf16: return f(static_cast<bf16_t*>(nullptr));
    case Dtype::i64: return f(static_cast<int64_t*>(nullptr));
#ifndef STRUCTOPS_FEW_DTYPES  // instrumented builds: one type of each kind, or they compile for ten minutes
    case Dtype::f64: return f(static_cast<double*>(nullptr));
    case Dtype::f16: return f(static_cast<f16_t*>(nullptr));
    case Dtype::i32: return f(static_cast<int32_t*>(nullptr));
#else
    default: return;
#endif
  }
}

// A read-only index array of int32 or int64.
struct Index {
  const void* data = nullptr;
  bool wide = false;  // int64
  explicit operator bool() const { return data != nullptr; }
  int64_t operator[](int64_t i) const {
    return wide ? static_cast<const int64_t*>(data)[i] : static_cast<const int32_t*>(data)[i];
  }
};

}  // namespace structops
