// Most charts are compiled for float and double only. Scores of 16 bits are copied to float first and posteriors narrowed at the end: a
// pass over the operands beside many over the charts, and half the code to compile.
#pragma once
#include "core/cuda/device.cuh"
#include "tree/tables.h"

namespace structops::cuda {

template <class T> __global__ void widen_all(const T* in, float* out, int64_t n) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x) out[i] = widen(in[i]);
}
template <class T> __global__ void narrow_all(const float* in, T* out, int64_t n) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x) out[i] = Narrow<T>::to(in[i]);
}

class Widened {
 public:
  Widened(const char* op, const CudaContext& ctx, Dtype& dtype) : op_(op), ctx_(ctx), dtype_(dtype) {
    if (on()) dtype = Dtype::f32;
  }
  void in(const void*& p, int64_t n) const {
    if (!on() || !p) return;
    float* const copy = scratch<float>(ctx_, n);
    with_half([&](auto* like) {
      using T = Pointee<decltype(like)>;
      launch(op_, ctx_, widen_all<T>, blocks_for(n, 256), 256, static_cast<const T*>(p), copy, n);
    });
    p = copy;
  }
  void out(void*& p, int64_t n) {
    if (!on() || !p) return;
    outputs_[count_++] = {scratch<float>(ctx_, n), p, n};
    p = outputs_[count_ - 1].wide;
  }
  // After the kernels: writes the outputs.
  void narrow() const {
    for (int k = 0; k < count_; ++k) {
      const Output& o = outputs_[k];
      with_half([&](auto* like) {
        using T = Pointee<decltype(like)>;
        launch(op_, ctx_, narrow_all<T>, blocks_for(o.n, 256), 256, static_cast<const float*>(o.wide), static_cast<T*>(o.narrow), o.n);
      });
    }
  }

 private:
  struct Output { float* wide; void* narrow; int64_t n; };
  bool on() const { return dtype_ == Dtype::bf16 || dtype_ == Dtype::f16; }
  template <class F> void with_half(F f) const {
    if (dtype_ == Dtype::bf16) f(static_cast<bf16*>(nullptr));
    else f(static_cast<f16*>(nullptr));
  }

  const char* op_;
  const CudaContext& ctx_;
  Dtype dtype_;  // of the caller's tensors
  Output outputs_[4];
  int count_ = 0;
};

// Makes the tables of args those that kernels read and write. outputs: the posteriors too have the dtype of the scores.
template <class Args> Widened widened(const char* op, const CudaContext& ctx, Args& a, bool outputs = true) {
  Widened w(op, ctx, a.dtype);
  each_input(a, [&](const void*& p, const Table& t) { w.in(p, (t.shared ? 1 : a.B) * t.numbers()); });
  if (outputs) each_output(a, [&](void*& p, const Table& t) { w.out(p, a.B * t.numbers()); });
  return w;
}

template <class F> void with_wide(Dtype t, F&& f) {
  if (t == Dtype::f64) f(static_cast<double*>(nullptr));
  else f(static_cast<float*>(nullptr));
}

}  // namespace structops::cuda
