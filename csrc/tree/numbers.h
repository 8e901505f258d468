// Arrays whose dtype is known at run time, read and written as numbers of an accumulator, for one instruction set. Kernels that look
// at a score once for much work take scores so, and are compiled for each accumulator instead of each pair of dtype and accumulator.
#pragma once
#include "core/simd.h"

namespace structops::STRUCTOPS_ISA {

struct Numbers {
  const void* data;
  Dtype dtype;
  explicit operator bool() const { return data != nullptr; }
  Numbers operator+(int64_t n) const { return {static_cast<const char*>(data) + n * dtype_size(dtype), dtype}; }
};
struct Results {
  void* data;
  Dtype dtype;
  explicit operator bool() const { return data != nullptr; }
  Results operator+(int64_t n) const { return {static_cast<char*>(data) + n * dtype_size(dtype), dtype}; }
};

template <class F> STRUCTOPS_INLINE void with_storage(Dtype t, F&& f) {
  switch (t) {
    case Dtype::f32: return f(static_cast<float*>(nullptr));
    case Dtype::bf16: return f(static_cast<bf16_t*>(nullptr));
    case Dtype::f16: return f(static_cast<f16_t*>(nullptr));
    default: return f(static_cast<double*>(nullptr));
  }
}

constexpr Dtype accumulator_of(Dtype t) { return t == Dtype::f64 ? Dtype::f64 : Dtype::f32; }

// f with the accumulator of a dtype.
template <class F> STRUCTOPS_INLINE void with_accumulator(Dtype t, F&& f) {
  if (t == Dtype::f64) f(static_cast<double*>(nullptr));
  else f(static_cast<float*>(nullptr));
}

// The first n <= W elements as accumulators; the rest are 0.
template <class A, class T> STRUCTOPS_INLINE Vec<A> load_as(const T* p, int n) {
  if constexpr (__is_same(Acc<T>, A)) {
    return n == W<A> ? load(p) : load_n(p, n);
  } else {
    Vec<A> v{};
    for (int i = 0; i < n; ++i) v[i] = A(widen(p[i]));
    return v;
  }
}
template <class A, class T> STRUCTOPS_INLINE void store_as(T* p, Vec<A> v, int n) {
  if constexpr (__is_same(Acc<T>, A)) {
    if (n == W<A>) store(p, v); else store_n(p, v, n);
  } else {
    for (int i = 0; i < n; ++i) narrow_to(p + i, Acc<T>(v[i]));
  }
}

template <class A> [[gnu::noinline]] A read_one(Numbers x, int64_t at) {
  A y{};
  with_storage(x.dtype, [&](auto* t) { y = A(widen(static_cast<const Pointee<decltype(t)>*>(x.data)[at])); });
  return y;
}

template <class A> [[gnu::noinline]] Vec<A> read_vector(Numbers x, int n) {
  Vec<A> y{};
  with_storage(x.dtype, [&](auto* t) { y = load_as<A>(static_cast<const Pointee<decltype(t)>*>(x.data), n); });
  return y;
}

// x[at[l]] for the lanes whose bit is set, `otherwise` in the others.
template <class A> [[gnu::noinline]] Vec<A> read_lanes(Numbers x, const int64_t* at, uint32_t lanes, A otherwise) {
  Vec<A> y = splat(otherwise);
  with_storage(x.dtype, [&](auto* t) {
    for (int l = 0; l < W<A>; ++l)
      if (lanes >> l & 1) y[l] = A(widen(static_cast<const Pointee<decltype(t)>*>(x.data)[at[l]]));
  });
  return y;
}

template <class A> [[gnu::noinline]] void write_vector(Results x, Vec<A> y, int n) {
  with_storage(x.dtype, [&](auto* t) { store_as<A>(static_cast<Pointee<decltype(t)>*>(x.data), y, n); });
}

// count copies of one number.
template <class A> [[gnu::noinline]] void fill(Results x, int64_t count, A y) {
  with_storage(x.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    T value;
    narrow_to(&value, Acc<T>(y));
    for (int64_t i = 0; i < count; ++i) static_cast<T*>(x.data)[i] = value;
  });
}

}  // namespace structops::STRUCTOPS_ISA
