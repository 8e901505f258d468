// CUDA sddmm: device code. The contract is sddmm.h; it is launched by sddmm_cuda.cu, and by kernels/sparse/sddmm_nvrtc.py
// where there is no nvcc.
//
// A warp takes `batches` times 32 consecutive edges. Its lanes look up row, col and eid of one edge each, then share the work:
//   sddmm_map  (R == 1): a lane computes V features of an edge; lanes walk the (edge, pack of V) pairs in order.
//   sddmm_dot  (R > 1):  G lanes sum one (edge, output feature) pair V features at a time and join by a fixed tree; U pairs
//                        are in flight per group.
#pragma once
#include "core/cuda/device.cuh"

namespace structops::cuda {

enum : int { edge_copy, edge_add, edge_sub, edge_mul, edge_div };  // as EdgeOp of sddmm.h
enum : int { target_u, target_v, target_e };                      // as Target

struct SddmmParams {
  const void* lhs;       // [B, *, Fl]
  const void* rhs;       // [B, *, Fr]; lhs for copy
  void* out;             // [B, E, Fo]
  IndexRef rowptr, col, eid;    // [N + 1], [E], [E]; null col and eid: the position
  const int32_t* l_off;  // [Fo * R] or null
  const int32_t* r_off;  // [Fo * R] or null
  int64_t N, E, lhs_batch, rhs_batch;
  unsigned B, Fo, R;
  unsigned lhs_stride, rhs_stride;  // bytes a row
  int op, lhs_target, rhs_target;
  int l_one, r_one;  // the operand has one feature
  int lanes;         // G of sddmm_dot
  int batches;
};

// What the lanes of a warp know of its 32 edges.
struct EdgeRows {
  unsigned l, r, out;
};

// The row of edge k, at or after `row`, whose edges start at or before k: lanes search on their own, by doubling steps.
STRUCTOPS_DEVICE int64_t row_of_edge(const SddmmParams& p, int64_t k, int64_t row) {
  int64_t width = 1;
  while (row + width < p.N && p.rowptr.at(row + width) <= k) {
    row += width;
    width *= 2;
  }
  for (int64_t hi = row + width < p.N ? row + width : p.N; hi - row > 1;) {
    const int64_t mid = (row + hi) / 2;
    if (p.rowptr.at(mid) <= k) row = mid; else hi = mid;
  }
  return row;
}

STRUCTOPS_DEVICE EdgeRows edge_rows(const SddmmParams& p, int64_t k, int64_t row) {
  const unsigned u = p.col.data && (p.lhs_target == target_u || p.rhs_target == target_u) ? unsigned(p.col.at(k)) : unsigned(k);
  const unsigned e = p.eid.data ? unsigned(p.eid.at(k)) : unsigned(k), v = unsigned(row);
  const auto of = [&](int target) { return target == target_u ? u : target == target_v ? v : e; };
  return {of(p.lhs_target), of(p.rhs_target), e};
}

template <class A> STRUCTOPS_DEVICE A edge_op(int op, A l, A r) {
  if (op == edge_mul) return mul(l, r);
  if (op == edge_div) return l / r;
  return op == edge_copy ? l : op == edge_add ? add(l, r) : l - r;
}

// Calls f(first edge, edges, rows of the lane's edge) for the batches of a warp. All lanes stay together.
template <class F> STRUCTOPS_DEVICE void for_batches(const SddmmParams& p, int warps, F f) {
  const int lane = threadIdx.x & 31;
  const int64_t span = int64_t(p.batches) * 32;
  const int64_t begin = (int64_t(blockIdx.x) * warps + (threadIdx.x >> 5)) * span;
  const int64_t end = begin + span < p.E ? begin + span : p.E;
  if (begin >= end) return;
  const bool by_row = p.lhs_target == target_v || p.rhs_target == target_v;
  int64_t row = 0;
  if (by_row) row = warp_search(0, p.N - 1, [&](int64_t r) { return p.rowptr.at(r + 1) <= begin; });
  for (int64_t k0 = begin; k0 < end; k0 += 32) {
    const int n = end - k0 < 32 ? int(end - k0) : 32;
    const int64_t k = k0 + (lane < n ? lane : n - 1);
    if (by_row) row = row_of_edge(p, k, row);
    f(n, edge_rows(p, k, row));
    if (by_row) row = __shfl_sync(kFull, row, 31);
  }
}

template <class T> STRUCTOPS_DEVICE const T* row_at(const void* base, int64_t plane, unsigned row, unsigned stride) {
  return reinterpret_cast<const T*>(static_cast<const char*>(base) + (unsigned long long)(row) * stride) + plane;
}

constexpr int kSddmmThreads = 256;

// Small features would spend their time on finding rows: then a warp takes more edges, where there are enough for all warps.
__host__ __device__ constexpr int sddmm_batches(int64_t E, int64_t features) {
  const int64_t by_size = 128 / (features ? features : 1), by_count = E / (32 * 16384);
  const int64_t batches = by_size < by_count ? by_size : by_count;
  return int(batches < 1 ? 1 : batches > 8 ? 8 : batches);
}

template <class T, int V> __global__ void __launch_bounds__(kSddmmThreads, 4) sddmm_map(const SddmmParams p) {
  using A = Acc<T>;
  constexpr int U = 2;
  const int lane = threadIdx.x & 31;
  const unsigned packs = p.Fo / V;
  for_batches(p, kSddmmThreads / 32, [&](int n, EdgeRows mine) {
    for (unsigned b = blockIdx.y; b < p.B; b += gridDim.y) {
      T* const out = static_cast<T*>(p.out) + int64_t(b) * p.E * p.Fo;
      unsigned j = lane / packs, c = lane - j * packs;  // edge and pack of this lane
      const unsigned dj = 32 / packs, dc = 32 - dj * packs;
      while (__shfl_sync(kFull, j, 0) < unsigned(n)) {
        Word<T, V> l[U], r[U];
        unsigned to[U], at[U];
        bool live[U];
#pragma unroll
        for (int u = 0; u < U; ++u) {
          const unsigned li = __shfl_sync(kFull, mine.l, j), ri = __shfl_sync(kFull, mine.r, j);
          to[u] = __shfl_sync(kFull, mine.out, j);
          at[u] = c * V;
          live[u] = j < unsigned(n);
          if (live[u]) {
            const T* const lp = row_at<T>(p.lhs, b * p.lhs_batch, li, p.lhs_stride);
            const T* const rp = row_at<T>(p.rhs, b * p.rhs_batch, ri, p.rhs_stride);
            if constexpr (V > 1) {
              l[u] = p.l_one ? splat_word<T, V>(load_one(lp)) : load_word<T, V>(lp + at[u]);
              if (p.op != edge_copy) r[u] = p.r_one ? splat_word<T, V>(load_one(rp)) : load_word<T, V>(rp + at[u]);
              else r[u] = l[u];
            } else {
              l[u] = load_word<T, 1>(lp + (p.l_off ? p.l_off[at[u]] : p.l_one ? 0 : at[u]));
              if (p.op != edge_copy) r[u] = load_word<T, 1>(rp + (p.r_off ? p.r_off[at[u]] : p.r_one ? 0 : at[u]));
              else r[u] = l[u];
            }
          }
          j += dj;
          c += dc;
          if (c >= packs) { c -= packs; ++j; }
        }
#pragma unroll
        for (int u = 0; u < U; ++u) {
          if (!live[u]) continue;
          A x[V], y[V];
          widen_word<T, V>(x, l[u]);
          widen_word<T, V>(y, r[u]);
#pragma unroll
          for (int v = 0; v < V; ++v) x[v] = edge_op(p.op, x[v], y[v]);
          store<T, V>(out + (unsigned long long)(to[u]) * p.Fo + at[u], x);
        }
      }
    }
  });
}

// V > 1: products of packed features. V == 1: every op, with offset tables.
template <class T, int V> __global__ void __launch_bounds__(kSddmmThreads, 2) sddmm_dot(const SddmmParams p) {
  using A = Acc<T>;
  constexpr int U = sizeof(T) * V == 16 ? 2 : 4;
  const int lane = threadIdx.x & 31, G = p.lanes, g = lane & (G - 1);
  const unsigned step = 32 / G, dj = step / p.Fo, dc = step - dj * p.Fo;
  for_batches(p, kSddmmThreads / 32, [&](int n, EdgeRows mine) {
    for (unsigned b = blockIdx.y; b < p.B; b += gridDim.y) {
      T* const out = static_cast<T*>(p.out) + int64_t(b) * p.E * p.Fo;
      unsigned j = lane / G / p.Fo, c = lane / G - j * p.Fo;  // edge and output feature of this group
      while (__shfl_sync(kFull, j, 0) < unsigned(n)) {
        const T *lp[U], *rp[U];
        unsigned to[U], fo[U];
        bool live[U];
        A sum[U];
#pragma unroll
        for (int u = 0; u < U; ++u) {
          const unsigned li = __shfl_sync(kFull, mine.l, j), ri = __shfl_sync(kFull, mine.r, j);
          to[u] = __shfl_sync(kFull, mine.out, j);
          fo[u] = c;
          live[u] = j < unsigned(n);
          lp[u] = row_at<T>(p.lhs, b * p.lhs_batch + (V > 1 ? int64_t(c) * p.R : 0), li, p.lhs_stride);
          rp[u] = row_at<T>(p.rhs, b * p.rhs_batch + (V > 1 ? int64_t(c) * p.R : 0), ri, p.rhs_stride);
          sum[u] = A(0);
          j += dj;
          c += dc;
          if (c >= p.Fo) { c -= p.Fo; ++j; }
        }
        for (unsigned r = g * V; r < p.R; r += G * V) {
          Word<T, V> l[U], q[U];
#pragma unroll
          for (int u = 0; u < U; ++u) {
            if (!live[u]) continue;
            if constexpr (V > 1) {
              l[u] = load_word<T, V>(lp[u] + r);
              q[u] = load_word<T, V>(rp[u] + r);
            } else {
              const int64_t f = int64_t(fo[u]) * p.R + r;
              l[u] = load_word<T, 1>(lp[u] + (p.l_off ? p.l_off[f] : p.l_one ? 0 : f));
              q[u] = p.op == edge_copy ? l[u] : load_word<T, 1>(rp[u] + (p.r_off ? p.r_off[f] : p.r_one ? 0 : f));
            }
          }
#pragma unroll
          for (int u = 0; u < U; ++u) {
            if (!live[u]) continue;
            A x[V], y[V];
            widen_word<T, V>(x, l[u]);
            widen_word<T, V>(y, q[u]);
#pragma unroll
            for (int v = 0; v < V; ++v) sum[u] = add(sum[u], V > 1 ? mul(x[v], y[v]) : edge_op(p.op, x[v], y[v]));
          }
        }
        for (int d = G / 2; d > 0; d >>= 1)
#pragma unroll
          for (int u = 0; u < U; ++u) sum[u] += __shfl_down_sync(kFull, sum[u], d);
#pragma unroll
        for (int u = 0; u < U; ++u)
          if (live[u] && g == 0) out[(unsigned long long)(to[u]) * p.Fo + fo[u]] = Narrow<T>::to(sum[u]);
      }
    }
  });
}

}  // namespace structops::cuda
