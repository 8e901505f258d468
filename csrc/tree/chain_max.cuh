// CUDA chain_max_marginals: device code. The contract is chain.h, the charts are those of chain.cuh; p.value is the result.
#pragma once
#include "tree/chain.cuh"

namespace structops::cuda {

template <class T, class A>
struct DeviceMax {
  const ChainParams<T, A>& p;
  DeviceChain<T, A, false> chain;  // reads scores
  A *const V, *const B, *const Q;  // [N + 1, T], [N + 1, T], [T]
  const int64_t T_, K;

  STRUCTOPS_DEVICE DeviceMax(const ChainParams<T, A>& p_, A* tile, A* room)
      : p(p_), chain(p_, tile, room), V(chain.V), B(chain.Bx), Q(chain.Q), T_(p_.T_), K(p_.K) {}

  STRUCTOPS_DEVICE static void raise(A& x, A y) {
    if (y > x) x = y;
  }
  STRUCTOPS_DEVICE A* cell(int64_t i, int64_t d) const { return p.value + ((chain.b * p.N + i) * K + d - 1) * T_; }
  STRUCTOPS_DEVICE A enter(int64_t i, int64_t d, int64_t t) {
    A top = ninf<A>();
    const int64_t at = chain.matrix(i, d);
    for (int64_t s = 0; s < T_; ++s) raise(top, V[i * T_ + s] + (p.kind == int(Trans::none) ? A(0) : chain.trans(at, s, t)));
    return top;
  }
  STRUCTOPS_DEVICE A leave(int64_t i, int64_t d, int64_t s) {
    A top = ninf<A>();
    const int64_t at = chain.matrix(i, d);
    for (int64_t t = 0; t < T_; ++t) raise(top, Q[t] + (p.kind == int(Trans::none) ? A(0) : chain.trans(at, s, t)));
    return top;
  }

  // A thread owns the cells of its tags: no two threads write to one.
  STRUCTOPS_DEVICE void forward() {
    const int64_t n = chain.n;
    for (int64_t t = threadIdx.x; t < T_; t += blockDim.x)
      for (int64_t j = 0; j <= n; ++j) V[j * T_ + t] = ninf<A>();
    for (int64_t i = 0; i < n; ++i) {
      __syncthreads();
      for (int64_t t = threadIdx.x; t < T_; t += blockDim.x) {
        A before = i == 0 ? chain.read(p.score.start, t) : chain.full() ? A(0) : enter(i, 1, t), acc = 0;
        for (int64_t d = 1, most = chain.longest(i, n - i); d <= most; ++d) {
          acc += chain.read(p.score.emit, (chain.b * p.N + i + d - 1) * T_ + t);
          if (i > 0 && chain.full()) before = enter(i, d, t);
          const A x = before + acc + chain.segment(i, d, t);
          cell(i, d)[t] = x;
          raise(V[(i + d) * T_ + t], x);
        }
      }
    }
  }
  STRUCTOPS_DEVICE void backward() {
    const int64_t n = chain.n;
    for (int64_t t = threadIdx.x; t < T_; t += blockDim.x) B[n * T_ + t] = chain.read(p.score.end, t);
    for (int64_t i = n - 1; i >= 0; --i) {
      const int64_t most = chain.longest(i, n - i);
      const bool each = chain.full() && i > 0;  // the border knows the length
      for (int64_t t = threadIdx.x; t < T_; t += blockDim.x) {
        A acc = 0, q = ninf<A>();
        for (int64_t d = 1; d <= most; ++d) {
          acc += chain.peek(p.score.emit, (chain.b * p.N + i + d - 1) * T_ + t);
          const A after = B[(i + d) * T_ + t];
          cell(i, d)[t] += after;
          raise(q, acc + chain.segment(i, d, t) + after);
        }
        Q[t] = q;
        B[i * T_ + t] = ninf<A>();
      }
      for (int64_t d = 1; i > 0 && d <= (each ? most : 1); ++d) {
        for (int64_t t = threadIdx.x; each && t < T_; t += blockDim.x) {
          A acc = 0;
          for (int64_t k = 0; k < d; ++k) acc += chain.peek(p.score.emit, (chain.b * p.N + i + k) * T_ + t);
          Q[t] = acc + chain.segment(i, d, t) + B[(i + d) * T_ + t];
        }
        __syncthreads();
        for (int64_t s = threadIdx.x; s < T_; s += blockDim.x) raise(B[i * T_ + s], leave(i, d, s));
        __syncthreads();
      }
    }
  }

  STRUCTOPS_DEVICE void sentence(int64_t b) {
    chain.b = b;
    const int64_t n = chain.n = p.lengths[b];
    chain.bad = 0;
    chain.stage();
    forward();
    if (n > 0) backward();
    const bool bad = __syncthreads_or(chain.bad);
    const A nan = Limits<A>::high() - Limits<A>::high();
    for (int64_t k = threadIdx.x; k < p.N * K * T_; k += blockDim.x) {
      const int64_t i = k / T_ / K, d = k / T_ % K + 1;
      if (i + d > n)
        cell(0, 1)[k] = ninf<A>();
      else if (bad)
        cell(0, 1)[k] = nan;
      else if (d > chain.longest(i, n - i))
        cell(0, 1)[k] = ninf<A>();
    }
    __syncthreads();
  }
};

template <class T, class A>
__global__ void __launch_bounds__(256, 2) chain_max(const ChainParams<T, A> p) {
  __shared__ A tile[kChainTile * kChainTile];
  __shared__ A room[33];
  DeviceMax<T, A> best(p, tile, room);
  for (int64_t b = blockIdx.x; b < p.B; b += p.G) best.sentence(b);
}

}  // namespace structops::cuda
