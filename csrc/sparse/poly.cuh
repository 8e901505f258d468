// CUDA poly_filter: device code. The contract is poly.h; the sequence of launches is in poly_cuda.cu.
//
// One warp a row, lanes over channels, every channel at once. A term whose coefficient is 0 is left out channel by channel.
#pragma once
#include "core/cuda/device.cuh"

namespace structops::cuda {

constexpr int kPolyThreads = 128, kPolyParts = 64;

template <class A> struct PolyStep {
  IndexRef ptr, col, eid;
  int64_t N, C, stride;        // stride: channels of a coefficient row, 1 or C
  const A *h, *prev;           // [N, C]
  const A *a, *b, *c;          // one row of recur each; c null: absent
  const A* base;               // [N, C] added, or null
  A *next, *product;           // [N, C]; product (P h) or null
};

template <class T> __global__ void __launch_bounds__(kPolyThreads) poly_step(const PolyStep<Acc<T>> p, const T* weight) {
  using A = Acc<T>;
  const int lane = threadIdx.x & 31;
  const int64_t warps = int64_t(gridDim.x) * (kPolyThreads / 32);
  for (int64_t v = int64_t(blockIdx.x) * (kPolyThreads / 32) + (threadIdx.x >> 5); v < p.N; v += warps) {
    const int64_t begin = p.ptr.at(v), end = p.ptr.at(v + 1);
    for (int64_t c = lane; c < p.C; c += 32) {
      A t = 0;
      for (int64_t k = begin; k < end; ++k) {
        const A m = p.h[p.col.at(k) * p.C + c];
        t += weight ? widen(weight[p.eid.data ? p.eid.at(k) : k]) * m : m;
      }
      const int64_t at = v * p.C + c, f = p.stride == 1 ? 0 : c;
      if (p.product) p.product[at] = t;
      A r = p.a[f] * t;
      if (p.base) r += p.base[at];
      if (p.b[f] != A(0)) r += p.b[f] * p.h[at];
      if (p.c && p.c[f] != A(0)) r += p.c[f] * p.prev[at];
      p.next[at] = r;
    }
  }
}

// q[v] = sigmoid(<gate, h[v]> + bias), and with g also dq[v] = q (1 - q) <g, alpha h>.
template <class T> __global__ void __launch_bounds__(kPolyThreads)
poly_gate(const Acc<T>* h, const T* g, const Acc<T>* gate, const Acc<T>* alpha, int64_t stride, int64_t N, int64_t C, Acc<T>* q, Acc<T>* dq) {
  using A = Acc<T>;
  const int lane = threadIdx.x & 31;
  const int64_t warps = int64_t(gridDim.x) * (kPolyThreads / 32);
  for (int64_t v = int64_t(blockIdx.x) * (kPolyThreads / 32) + (threadIdx.x >> 5); v < N; v += warps) {
    A u = 0, m = 0;
    for (int64_t c = lane; c < C; c += 32) {
      const A x = h[v * C + c];
      u += x * gate[c];
      if (g) m += widen(g[v * C + c]) * (alpha[stride == 1 ? 0 : c] * x);
    }
    for (int d = 16; d; d >>= 1) {
      u += __shfl_xor_sync(kFull, u, d);
      m += __shfl_xor_sync(kFull, m, d);
    }
    u += gate[C];
    const A e = exp(u < 0 ? u : -u), s = u < 0 ? e / (1 + e) : u == u ? 1 / (1 + e) : u;
    if (lane == 0) {
      q[v] = s;
      if (dq) dq[v] = s * (1 - s) * m;
    }
  }
}

// z (+)= alpha q x (+ dq gate), for x of either type.
template <class T, class A> __global__ void
poly_emit(const T* x, const A* q, const A* alpha, int64_t stride, const A* dq, const A* gate, int64_t N, int64_t C, bool add, A* z) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < N * C; i += step) {
    const int64_t v = i / C, c = i - v * C;
    A r = A(widen(x[i]));
    if (q) r *= q[v];
    if (alpha) r *= alpha[stride == 1 ? 0 : c];
    if (dq) r += dq[v] * gate[c];
    z[i] = add ? z[i] + r : r;
  }
}

template <class T, class A> __global__ void poly_narrow(const A* z, const int64_t n, IndexRef to, T* out) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) out[to.data ? to.at(i) : i] = Narrow<T>::to(z[i]);
}

// part[p, c] = sum over the p-th run of nodes of scale[v] x[v, c] y[v, c]; null factors are 1.
template <class T, class A> __global__ void poly_columns(const T* x, const A* y, const A* scale, int64_t N, int64_t C, double* part) {
  const int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, p = blockIdx.y;
  if (c >= C) return;
  double s = 0;
  for (int64_t v = N * p / kPolyParts; v < N * (p + 1) / kPolyParts; ++v) {
    const A m = (x ? A(widen(x[v * C + c])) : A(1)) * (y ? y[v * C + c] : A(1));
    s += double(scale ? scale[v] * m : m);
  }
  part[p * C + c] = s;
}

template <class A> __global__ void poly_join(const double* part, int64_t C, bool add, A* out) {
  const int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= C) return;
  double s = add ? double(out[c]) : 0;
  for (int p = 0; p < kPolyParts; ++p) s += part[p * C + c];
  out[c] = A(s);
}

// dw[e] += sum_c a h[u, c] l[v, c] over the reversed edges e: u -> v.
template <class A> __global__ void __launch_bounds__(kPolyThreads)
poly_weights(IndexRef ptr, IndexRef col, const A* h, const A* l, const A* a, int64_t stride, int64_t N, int64_t C, A* dw) {
  const int lane = threadIdx.x & 31;
  const int64_t warps = int64_t(gridDim.x) * (kPolyThreads / 32);
  for (int64_t u = int64_t(blockIdx.x) * (kPolyThreads / 32) + (threadIdx.x >> 5); u < N; u += warps) {
    const int64_t begin = ptr.at(u), end = ptr.at(u + 1);
    for (int64_t e = begin; e < end; ++e) {
      const int64_t v = col.at(e);
      A s = 0;
      for (int64_t c = lane; c < C; c += 32) s += a[stride == 1 ? 0 : c] * h[u * C + c] * l[v * C + c];
      for (int d = 16; d; d >>= 1) s += __shfl_xor_sync(kFull, s, d);
      if (lane == 0) dw[e] += s;
    }
  }
}

}  // namespace structops::cuda
