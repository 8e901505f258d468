// Device arborescence_max_marginals: one warp for each word of each sentence. The contract is arborescence.h.
#pragma once
#include "tree/arborescence.cuh"

namespace structops::cuda {

struct MaxTreeParams {
  ArborescenceParams in;  // without value and heads
  void* through;          // [B, N, N]
  double* losses;         // [gridDim.x, N] of a slot
};

// The least loss that brings each slot beside the root below it, in c.state as well.
STRUCTOPS_DEVICE void relax(WarpContraction& c, bool direct, double* loss) {
  const int64_t N = c.N;
  for (int64_t s = 1 + c.lane; s < N; s += 32) {
    double top = direct ? c.w[s * N] : -infinity();
    const bool open = c.state[s] == WarpContraction::beside;
    for (int64_t u = 1; open && u < N; ++u)
      if (c.state[u] == WarpContraction::settled && c.w[s * N + u] > top) top = c.w[s * N + u];
    loss[s] = open ? c.chosen[s] - top : 0.0;
  }
  for (;;) {
    __syncwarp();
    double least = infinity();
    int u = 0x7fffffff;
    for (int64_t s = 1 + c.lane; s < N; s += 32)
      if (c.state[s] == WarpContraction::beside && loss[s] < least) {
        least = loss[s];
        u = int(s);
      }
#pragma unroll
    for (int i = 16; i >= 1; i /= 2) {
      const double x = __shfl_xor_sync(kFull, least, i);
      const int y = __shfl_xor_sync(kFull, u, i);
      if (x < least || (x == least && y < u)) {
        least = x;
        u = y;
      }
    }
    if (!(least < infinity())) return;
    __syncwarp();
    if (c.lane == 0) c.state[u] = WarpContraction::settled;
    __syncwarp();
    for (int64_t s = 1 + c.lane; s < N; s += 32) {
      const double x = least + c.chosen[s] - c.w[s * N + u];
      if (c.state[s] == WarpContraction::beside && x < loss[s]) loss[s] = x;
    }
  }
}

template <class T>
__global__ void __launch_bounds__(32, 1) arborescence_max_kernel(MaxTreeParams p) {
  const ArborescenceParams& a = p.in;
  const int lane = threadIdx.x & 31;
  for (int64_t task = blockIdx.x; task < a.B * a.N; task += gridDim.x) {
    const int64_t b = task / a.N, d = task % a.N, n = a.lengths[b], N = n + 1;
    const T* const score = static_cast<const T*>(a.score) + b * a.N * a.N;
    Acc<T>* const through = static_cast<Acc<T>*>(p.through) + task * a.N;
    double* const loss = p.losses + blockIdx.x * a.N;
    WarpContraction c(a.numbers + blockIdx.x * (a.N * a.N + a.N), a.ints + blockIdx.x * (2 * a.N * a.N + 15 * a.N), n);
    for (int64_t i = lane; i < a.N; i += 32) through[i] = Acc<T>(-infinity());
    if (d == 0 || d > n) continue;
    int bad = 0;
    for (int64_t i = lane; i < N * N; i += 32) {
      const int64_t row = i / N, column = i % N;
      const bool read = row > 0 && row != column;
      c.w[i] = read ? double(widen(score[row * a.N + column])) : -infinity();
      bad |= !(c.w[i] < infinity());
    }
    __syncwarp();
    if (__any_sync(kFull, bad)) {
      for (int64_t h = lane; h < N; h += 32)
        if (h != d) through[h] = Acc<T>(not_a_number());
      continue;
    }
    const bool one = !a.multiroot;
    if (!c.grow(one, d) || (one && c.roots > 1)) continue;
    const bool direct = !one || c.roots == 0;
    if (lane == 0) c.state[d] = WarpContraction::gone;  // no way leads through it
    __syncwarp();
    for (int64_t s = 1 + lane; s < N; s += 32)  // the stack serves as the slots of ids
      if (c.state[s] != WarpContraction::gone) c.stack[c.id[s]] = int(s);
    const double total = c.total;
    __syncwarp();
    relax(c, direct, loss);
    if (direct && lane == 0) through[0] = Acc<T>(double(widen(score[d * a.N])) + total);
    for (int64_t h = 1 + lane; h < N; h += 32) {
      if (h == d) continue;
      int top = int(h);
      while (c.parent[top] >= 0) top = c.parent[top];
      through[h] = Acc<T>(double(widen(score[d * a.N + h])) + (total - loss[c.stack[top]]));
    }
    __syncwarp();
  }
}

}  // namespace structops::cuda
