// CUDA fast feed-forward networks: device code. The contract is fff.h. A warp descends with one row; a block of threads computes
// one row of a leaf; in the backward a block owns a leaf and adds its rows in order.
#pragma once
#include "binary/fff.h"
#include "core/cuda/device.cuh"

namespace structops::cuda {

constexpr int kFffThreads = 128;

template <class T> __global__ void __launch_bounds__(kFffThreads) fff_descend_rows(const DescendArgs a) {
  using A = Acc<T>;
  const T *const x = static_cast<const T*>(a.x), *const w = static_cast<const T*>(a.node_weight), *const bias = static_cast<const T*>(a.node_bias);
  const int lane = threadIdx.x & 31;
  const int64_t warps = int64_t(gridDim.x) * (kFffThreads / 32);
  for (int64_t b = int64_t(blockIdx.x) * (kFffThreads / 32) + threadIdx.x / 32; b < a.B; b += warps) {
    int64_t node = 0;
    for (int t = 0; t < a.depth; ++t) {
      A z = 0;
      for (int64_t i = lane; i < a.I; i += 32) z += A(widen(x[b * a.I + i])) * A(widen(w[node * a.I + i]));
      for (int d = 16; d > 0; d /= 2) z += __shfl_xor_sync(kFull, z, d);
      if (bias) z += widen(bias[node]);
      if (lane == 0) static_cast<T*>(a.logit)[b * a.depth + t] = Narrow<T>::to(z);
      node = 2 * node + 1 + ((a.strict ? z > A(0) : z >= A(0)) ? 1 : 0);
    }
    if (lane == 0) a.leaf[b] = node - ((int64_t(1) << a.depth) - 1);
  }
}

template <class A> STRUCTOPS_DEVICE A activate(Activation f, A v) {
  switch (f) {
    case Activation::relu: return v > A(0) ? v : (v == v ? A(0) : v);
    case Activation::gelu: return v * A(0.5) * (A(1) + erf(v * A(0.70710678118654752440)));
    case Activation::silu: return v / (A(1) + exp(-v));
    default: return v;
  }
}
template <class A> STRUCTOPS_DEVICE A activation_slope(Activation f, A v) {
  switch (f) {
    case Activation::relu: return v > A(0) ? A(1) : A(0);
    case Activation::gelu:
      return A(0.5) * (A(1) + erf(v * A(0.70710678118654752440))) + v * A(0.39894228040143267794) * exp(A(-0.5) * v * v);
    case Activation::silu: {
      const A s = A(1) / (A(1) + exp(-v));
      return s * (A(1) + v * (A(1) - s));
    }
    default: return A(1);
  }
}

// The leaf of position k of perm.
STRUCTOPS_DEVICE int64_t leaf_at(const LeafArgs& a, int64_t k) {
  int64_t lo = 0, hi = a.L;
  while (hi - lo > 1) {
    const int64_t mid = (lo + hi) / 2;
    if (a.rowptr[mid] <= k) lo = mid; else hi = mid;
  }
  return lo;
}

template <class T> STRUCTOPS_DEVICE Acc<T> pre_activation(const LeafArgs& a, int64_t l, int64_t b, int64_t h) {
  using A = Acc<T>;
  const T *const x = static_cast<const T*>(a.x) + b * a.I, *const w = static_cast<const T*>(a.w1) + l * a.I * a.H + h;
  A s = a.b1 ? A(widen(static_cast<const T*>(a.b1)[l * a.H + h])) : A(0);
  for (int64_t i = 0; i < a.I; ++i) s += A(widen(x[i])) * A(widen(w[i * a.H]));
  return s;
}

// hidden: scratch [blocks, H].
template <class T> __global__ void __launch_bounds__(kFffThreads) fff_leaf_rows(const LeafArgs a, Acc<T>* scratch) {
  using A = Acc<T>;
  A* const hidden = scratch + blockIdx.x * a.H;
  for (int64_t k = blockIdx.x; k < a.B; k += gridDim.x) {
    const int64_t l = leaf_at(a, k), b = a.perm[k];
    for (int64_t h = threadIdx.x; h < a.H; h += kFffThreads) hidden[h] = activate<A>(a.activation, pre_activation<T>(a, l, b, h));
    __syncthreads();
    for (int64_t o = threadIdx.x; o < a.O; o += kFffThreads) {
      A s = a.b2 ? A(widen(static_cast<const T*>(a.b2)[l * a.O + o])) : A(0);
      const T* const w = static_cast<const T*>(a.w2) + l * a.H * a.O + o;
      for (int64_t h = 0; h < a.H; ++h) s += hidden[h] * A(widen(w[h * a.O]));
      static_cast<T*>(a.out)[b * a.O + o] = Narrow<T>::to(s);
    }
    __syncthreads();
  }
}

// act, dh: scratch [B, H] each, in the order of perm.
template <class T> __global__ void __launch_bounds__(kFffThreads) fff_leaf_backward(const LeafArgs a, Acc<T>* act, Acc<T>* dh) {
  using A = Acc<T>;
  const T *const x = static_cast<const T*>(a.x), *const grad = static_cast<const T*>(a.grad);
  for (int64_t l = blockIdx.x; l < a.L; l += gridDim.x) {
    const int64_t first = a.rowptr[l], last = a.rowptr[l + 1];
    const T *const w1 = static_cast<const T*>(a.w1) + l * a.I * a.H, *const w2 = static_cast<const T*>(a.w2) + l * a.H * a.O;
    for (int64_t j = threadIdx.x; j < (last - first) * a.H; j += kFffThreads) {
      const int64_t k = first + j / a.H, h = j % a.H, b = a.perm[k];
      const A v = pre_activation<T>(a, l, b, h);
      A s = 0;
      for (int64_t o = 0; o < a.O; ++o) s += A(widen(grad[b * a.O + o])) * A(widen(w2[h * a.O + o]));
      act[k * a.H + h] = activate<A>(a.activation, v);
      dh[k * a.H + h] = s * activation_slope<A>(a.activation, v);
    }
    __syncthreads();
    for (int64_t j = threadIdx.x; j < (last - first) * a.I; j += kFffThreads) {
      const int64_t k = first + j / a.I, i = j % a.I;
      A s = 0;
      for (int64_t h = 0; h < a.H; ++h) s += dh[k * a.H + h] * A(widen(w1[i * a.H + h]));
      static_cast<T*>(a.d_x)[a.perm[k] * a.I + i] = Narrow<T>::to(s);
    }
    for (int64_t j = threadIdx.x; j < a.I * a.H; j += kFffThreads) {
      A s = 0;
      for (int64_t k = first; k < last; ++k) s += A(widen(x[a.perm[k] * a.I + j / a.H])) * dh[k * a.H + j % a.H];
      static_cast<T*>(a.d_w1)[l * a.I * a.H + j] = Narrow<T>::to(s);
    }
    for (int64_t j = threadIdx.x; j < a.H * a.O; j += kFffThreads) {
      A s = 0;
      for (int64_t k = first; k < last; ++k) s += act[k * a.H + j / a.O] * A(widen(grad[a.perm[k] * a.O + j % a.O]));
      static_cast<T*>(a.d_w2)[l * a.H * a.O + j] = Narrow<T>::to(s);
    }
    if (a.d_b1)
      for (int64_t h = threadIdx.x; h < a.H; h += kFffThreads) {
        A s = 0;
        for (int64_t k = first; k < last; ++k) s += dh[k * a.H + h];
        static_cast<T*>(a.d_b1)[l * a.H + h] = Narrow<T>::to(s);
      }
    if (a.d_b2)
      for (int64_t o = threadIdx.x; o < a.O; o += kFffThreads) {
        A s = 0;
        for (int64_t k = first; k < last; ++k) s += A(widen(grad[a.perm[k] * a.O + o]));
        static_cast<T*>(a.d_b2)[l * a.O + o] = Narrow<T>::to(s);
      }
    __syncthreads();
  }
}

}  // namespace structops::cuda
