// CUDA symmetric contractions: a thread owns a node and a channel. The contract is symmetric_contraction.h.
//
// Passes: the coefficients u of every element that has nodes; nodes (gradients in g and x; products are formed anew where they are
// used, so a component of a result is one sum in a register); gradients in u, a thread for each element, term and channel; in w.
#pragma once
#include "core/cuda/device.cuh"
#include "so2/symmetric_contraction.h"

namespace structops::cuda {

struct SymmetricParams {
  int64_t N, C, Z;
  int coefs;  // u and its derivatives along directions
  SymmetricPlan plan;
  const void *x[3], *w[3], *g[3];
  IndexRef ptr, nodes;
  int64_t x_row, x_channel, x_component, o_row, o_channel, o_component;
  void *u, *gu;  // accumulators [Z, terms, coefs, C], [Z, terms, C]
  void *gx, *gw, *gg;
};

// Numbers with K directions, by sets of them.
template <class A, int K> struct Jet {
  A v[1 << K];
};

template <class A, int K> STRUCTOPS_DEVICE Jet<A, K> product(const Jet<A, K>& a, const Jet<A, K>& b) {
  Jet<A, K> r;
#pragma unroll
  for (int s = 0; s < 1 << K; ++s) {
    r.v[s] = 0;
#pragma unroll
    for (int t = 0; t <= s; ++t)
      if ((t & s) == t) r.v[s] += a.v[t] * b.v[s ^ t];
  }
  return r;
}

// The coefficients of single directions at `offset` of each part; null parts are zero.
template <class T, int K> STRUCTOPS_DEVICE Jet<Acc<T>, K> jet_at(const void* const (&parts)[3], int64_t offset) {
  Jet<Acc<T>, K> r;
#pragma unroll
  for (int s = 0; s < 1 << K; ++s) {
    const T* const p = s < 3 ? static_cast<const T*>(parts[s]) : nullptr;
    r.v[s] = p ? widen(p[offset]) : Acc<T>(0);
  }
  return r;
}

template <class T, int K> STRUCTOPS_DEVICE Jet<Acc<T>, K> jet_of_u(const SymmetricParams& p, int64_t z, int64_t t, int64_t c) {
  Jet<Acc<T>, K> r;
#pragma unroll
  for (int s = 0; s < 1 << K; ++s)
    r.v[s] = s < p.coefs ? static_cast<const Acc<T>*>(p.u)[((z * p.plan.terms + t) * p.coefs + s) * p.C + c] : Acc<T>(0);
  return r;
}

// `start` times the components of x in term t, but for that at position `skip`.
template <class T, int K>
STRUCTOPS_DEVICE Jet<Acc<T>, K> times_vars(const SymmetricParams& p, Jet<Acc<T>, K> start, int64_t t, int64_t x_at, int skip) {
#pragma unroll 1
  for (int i = 0; i < kSymmetricDegree; ++i) {
    const int v = p.plan.vars[kSymmetricDegree * t + i];
    if (v < 0) break;
    if (i != skip) start = product(start, jet_at<T, K>(p.x, x_at + v * p.x_component));
  }
  return start;
}

template <class T> __global__ void __launch_bounds__(128) symmetric_u_kernel(const SymmetricParams p) {
  using A = Acc<T>;
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t job = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; job < p.Z * p.plan.terms * p.C; job += stride) {
    const int64_t z = job / (p.plan.terms * p.C), t = job / p.C % p.plan.terms, c = job % p.C;
    if (p.ptr.at(z) == p.ptr.at(z + 1)) continue;
    for (int j = 0; j < p.coefs; ++j) {
      const T* const w = static_cast<const T*>(p.w[j]);
      A u = 0;
      for (int e = p.plan.term_ptr[t]; w && e < p.plan.term_ptr[t + 1]; ++e)
        u += A(p.plan.by_term[e]) * widen(w[(z * p.plan.P + p.plan.entry_path[e]) * p.C + c]);
      static_cast<A*>(p.u)[((z * p.plan.terms + t) * p.coefs + j) * p.C + c] = u;
    }
  }
}

template <class T, int K> __global__ void __launch_bounds__(128) symmetric_nodes_kernel(const SymmetricParams p) {
  using A = Acc<T>;
  constexpr int top = (1 << K) - 1;
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t job = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; job < p.N * p.C; job += stride) {
    const int64_t k = job / p.C, c = job % p.C, node = p.nodes.at(k);
    int64_t z = 0, last = p.Z - 1;
    while (z < last) {
      const int64_t mid = (z + last + 1) / 2;
      if (p.ptr.at(mid) <= k) z = mid;
      else last = mid - 1;
    }
    const int64_t x_at = node * p.x_row + c * p.x_channel, o_at = node * p.o_row + c * p.o_channel;
    if (p.gg)
      for (int64_t o = 0; o < p.plan.O; ++o) {
        A sum = 0;
        for (int t = p.plan.out_ptr[o]; t < p.plan.out_ptr[o + 1]; ++t)
          sum += times_vars<T, K>(p, jet_of_u<T, K>(p, z, t, c), t, x_at, -1).v[top];
        static_cast<T*>(p.gg)[o_at + o * p.o_component] = Narrow<T>::to(sum);
      }
    if (p.gx)
      for (int64_t v = 0; v < p.plan.D; ++v) {
        A sum = 0;
        for (int i = p.plan.use_ptr[v]; i < p.plan.use_ptr[v + 1]; ++i) {
          const int use = p.plan.use[i], t = use / kSymmetricDegree;
          const Jet<A, K> g = jet_at<T, K>(p.g, o_at + p.plan.term_out[t] * p.o_component);
          sum += times_vars<T, K>(p, product(g, jet_of_u<T, K>(p, z, t, c)), t, x_at, use % kSymmetricDegree).v[top];
        }
        static_cast<T*>(p.gx)[x_at + v * p.x_component] = Narrow<T>::to(sum);
      }
  }
}

template <class T, int K> __global__ void __launch_bounds__(128) symmetric_gu_kernel(const SymmetricParams p) {
  using A = Acc<T>;
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t job = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; job < p.Z * p.plan.terms * p.C; job += stride) {
    const int64_t z = job / (p.plan.terms * p.C), t = job / p.C % p.plan.terms, c = job % p.C;
    const int64_t end = p.ptr.at(z + 1);
    A sum = 0;
    for (int64_t k = p.ptr.at(z); k < end; ++k) {
      const int64_t node = p.nodes.at(k);
      const Jet<A, K> g = jet_at<T, K>(p.g, node * p.o_row + c * p.o_channel + p.plan.term_out[t] * p.o_component);
      sum += times_vars<T, K>(p, g, t, node * p.x_row + c * p.x_channel, -1).v[(1 << K) - 1];
    }
    static_cast<A*>(p.gu)[job] = sum;
  }
}

template <class T> __global__ void __launch_bounds__(128) symmetric_gw_kernel(const SymmetricParams p) {
  using A = Acc<T>;
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t job = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; job < p.Z * p.plan.P * p.C; job += stride) {
    const int64_t z = job / (p.plan.P * p.C), q = job / p.C % p.plan.P, c = job % p.C;
    A sum = 0;
    for (int e = p.plan.path_ptr[q]; e < p.plan.path_ptr[q + 1]; ++e)
      sum += A(p.plan.by_path[e]) * static_cast<const A*>(p.gu)[(z * p.plan.terms + p.plan.entry_term[e]) * p.C + c];
    static_cast<T*>(p.gw)[job] = Narrow<T>::to(sum);
  }
}

}  // namespace structops::cuda
