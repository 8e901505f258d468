// CUDA tensor products along edges: a warp's lanes are 32 channels. The contract is tp.h.
//
// tp_conv: a warp owns one block of one receiver's row, 32 channels at a time, kept in shared memory while it walks the edges, and every
// path into that block; it alone writes there. tp_conv_edge: a warp owns an edge; sums over channels go over the lanes as a tree.
// M is not kept: each warp sums its few terms again, all lanes reading the same addresses.
#pragma once
#include "core/cuda/device.cuh"
#include "so2/tp.h"

namespace structops::cuda {

struct TpParams {
  int transpose;
  int64_t E, N;
  int nx, no, paths, pairs, xdim, ydim, odim, wdim;
  TpPlan plan;
  const double* cg;
  const void *x, *y, *w, *g;
  IndexRef rowptr, col, eid;
  void *out, *gy, *gw;
  void* sums;  // tp_conv_edge: accumulators, ydim for each warp of the grid
};

constexpr int kTpWarps = 4;
constexpr int kTpThreads = 32 * kTpWarps;
constexpr int kTpMostD = 25;  // components of degree 12

// M of a pair for the edge whose row of y is given.
template <class T> STRUCTOPS_DEVICE Acc<T> tp_m(const TpParams& p, const T* y, int pair) {
  Acc<T> m = 0;
#pragma unroll 1
  for (int i = p.plan.pair_ptr()[pair]; i < p.plan.pair_ptr()[pair + 1]; ++i) m += Acc<T>(p.cg[i]) * widen(y[p.plan.entry_y()[i]]);
  return m;
}

STRUCTOPS_DEVICE int64_t tp_receiver(const TpParams& p, int64_t k) {  // the receiver of edge position k
  if (!p.rowptr.data) return k;
  int64_t lo = 0, hi = p.N - 1;
  while (lo < hi) {
    const int64_t mid = (lo + hi + 1) / 2;
    if (p.rowptr.at(mid) <= k) lo = mid;
    else hi = mid - 1;
  }
  return lo;
}

template <class T> __global__ void __launch_bounds__(kTpThreads, 4) tp_conv_kernel(const TpParams p) {
  using A = Acc<T>;
  __shared__ A shared[kTpWarps][kTpMostD * 32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  A* const acc = shared[warp] + lane;  // a lane reads and writes its own column only
  const TpBlock *const from = p.plan.blocks(p.transpose), *const to = p.plan.blocks(!p.transpose);
  const int blocks = p.transpose ? p.nx : p.no;
  const int64_t in_dim = p.transpose ? p.odim : p.xdim, out_dim = p.transpose ? p.xdim : p.odim;
  for (int64_t job = blockIdx.x * int64_t(kTpWarps) + warp; job < p.N * blocks; job += int64_t(gridDim.x) * kTpWarps) {
    const int64_t v = job / blocks;
    const int block = int(job % blocks);
    const TpBlock b = to[block];
    const int64_t begin = p.rowptr.data ? p.rowptr.at(v) : v, end = p.rowptr.data ? p.rowptr.at(v + 1) : v + 1;
    for (int u = lane; u < b.mul; u += 32) {
      for (int i = 0; i < b.d; ++i) acc[i * 32] = 0;
      for (int64_t k = begin; k < end; ++k) {
        const int64_t e = p.eid.data ? p.eid.at(k) : k, row = p.col.data ? p.col.at(k) : e;
        const T* const x = static_cast<const T*>(p.x) + row * in_dim;
        const T* const y = static_cast<const T*>(p.y) + e * p.ydim;
        for (int n = 0; n < p.paths; ++n) {
          const TpPath path = p.plan.paths()[n];
          if ((p.transpose ? path.x : path.o) != block) continue;
          const TpBlock s = from[p.transpose ? path.o : path.x];
          A w = 1;
          if (p.w && path.w >= 0) w = widen(static_cast<const T*>(p.w)[e * p.wdim + path.w + int64_t(u) * path.w_stride]);
          const int stop = p.transpose ? path.run_t_end : path.run_end;
          for (int r = p.transpose ? path.run_t : path.run; r < stop; ++r) {
            const TpRun run = p.plan.runs()[r];
            A t = 0;
#pragma unroll 1
            for (int i = run.begin; i < run.end; ++i) {
              const TpItem item = p.plan.items()[i];
              t += tp_m<T>(p, y, item.pair) * widen(x[s.offset + int64_t(u) * s.channel + int64_t(item.component) * s.component]);
            }
            acc[run.component * 32] += w * t;
          }
        }
      }
      T* const out = static_cast<T*>(p.out) + v * out_dim + b.offset + int64_t(u) * b.channel;
      for (int i = 0; i < b.d; ++i) out[int64_t(i) * b.component] = Narrow<T>::to(acc[i * 32]);
    }
  }
}

// The sum over the lanes, as a tree, on lane 0.
template <class A> STRUCTOPS_DEVICE A tp_sum(A a) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) a += shift_down(a, d);
  return a;
}

template <class T> __global__ void __launch_bounds__(kTpThreads, 4) tp_conv_edge_kernel(const TpParams p) {
  using A = Acc<T>;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  A* const gy = static_cast<A*>(p.sums) + (blockIdx.x * int64_t(kTpWarps) + warp) * p.ydim;
  const TpBlock *const from = p.plan.blocks(false), *const to = p.plan.blocks(true);
  for (int64_t k = blockIdx.x * int64_t(kTpWarps) + warp; k < p.E; k += int64_t(gridDim.x) * kTpWarps) {
    const int64_t e = p.eid.data ? p.eid.at(k) : k, row = p.col.data ? p.col.at(k) : e;
    const T* const x = static_cast<const T*>(p.x) + row * p.xdim;
    const T* const y = static_cast<const T*>(p.y) + e * p.ydim;
    const T* const g = static_cast<const T*>(p.g) + tp_receiver(p, k) * p.odim;
    __syncwarp();
    for (int j = lane; j < p.ydim; j += 32) gy[j] = 0;
    __syncwarp();
    for (int n = 0; n < p.paths; ++n) {
      const TpPath path = p.plan.paths()[n];
      const TpBlock s = from[path.x], o = to[path.o];
      const T* const w = p.w && path.w >= 0 ? static_cast<const T*>(p.w) + e * p.wdim + path.w : nullptr;
      auto xs = [&](int u, int i) { return widen(x[s.offset + int64_t(u) * s.channel + int64_t(i) * s.component]); };
      auto gs = [&](int u, int i) { return widen(g[o.offset + int64_t(u) * o.channel + int64_t(i) * o.component]); };
      if (p.gw && path.w >= 0)
        for (int u = lane; u < o.mul; u += 32) {
          A sum = 0;
          for (int r = path.run; r < path.run_end; ++r) {
            const TpRun run = p.plan.runs()[r];
            A t = 0;
#pragma unroll 1
            for (int i = run.begin; i < run.end; ++i) t += tp_m<T>(p, y, p.plan.items()[i].pair) * xs(u, p.plan.items()[i].component);
            sum += t * gs(u, run.component);
          }
          static_cast<T*>(p.gw)[e * p.wdim + path.w + int64_t(u) * path.w_stride] = Narrow<T>::to(sum);
        }
      if (!p.gy) continue;
      for (int r = path.run; r < path.run_end; ++r) {
        const TpRun run = p.plan.runs()[r];
#pragma unroll 1
        for (int i = run.begin; i < run.end; ++i) {
          const TpItem item = p.plan.items()[i];
          A q = 0;
          for (int u = lane; u < o.mul; u += 32) q += (w ? widen(w[int64_t(u) * path.w_stride]) : A(1)) * gs(u, run.component) * xs(u, item.component);
          q = tp_sum(q);
          if (lane == 0)
            for (int c = p.plan.pair_ptr()[item.pair]; c < p.plan.pair_ptr()[item.pair + 1]; ++c) gy[p.plan.entry_y()[c]] += A(p.cg[c]) * q;
        }
      }
    }
    __syncwarp();
    if (p.gy)
      for (int j = lane; j < p.ydim; j += 32) static_cast<T*>(p.gy)[e * p.ydim + j] = Narrow<T>::to(gy[j]);
  }
}

}  // namespace structops::cuda
