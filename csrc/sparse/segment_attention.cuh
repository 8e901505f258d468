// CUDA attention within segments: device code. The contract is segment_attention.h. A warp takes one head of one query (or key) and meets
// the other side's rows 32 at a time: for scores a lane takes a row, for sums a feature; features go in tiles of 128.
#pragma once
#include "core/cuda/device.cuh"
#include "sparse/segment_attention.h"

namespace structops::cuda {

constexpr int kSegmentLanes = 4, kSegmentTile = 32 * kSegmentLanes;

template <class T> struct SegmentAttention {
  using A = Acc<T>;
  IndexRef qptr, kptr, offset;
  int64_t S, Nq, Nk, H, K, D;
  A scale;
  const T *query, *key, *value, *bias, *forward_out, *grad;
  T *out, *d_query, *d_key, *d_value, *d_bias;
  A *lse, *delta;

  static STRUCTOPS_DEVICE A sum(A v) {
#pragma unroll
    for (int w = 16; w; w /= 2) v += __shfl_xor_sync(kFull, v, w);
    return v;
  }
  static STRUCTOPS_DEVICE A largest(A v) {
#pragma unroll
    for (int w = 16; w; w /= 2) {
      const A o = __shfl_xor_sync(kFull, v, w);
      v = o > v ? o : v;
    }
    return v;
  }
  static STRUCTOPS_DEVICE A finite_or_zero(A v) { return v == Limits<A>::low() ? A(0) : v; }
  static STRUCTOPS_DEVICE A dot(const T* p, const T* q, int64_t n) {
    A s = 0;
    for (int64_t j = 0; j < n; ++j) s += widen(p[j]) * widen(q[j]);
    return s;
  }
  // The segment of row i: the first that ends behind it.
  STRUCTOPS_DEVICE int64_t segment_of(const IndexRef& ptr, int64_t i) const {
    return warp_search(0, S, [&](int64_t s) { return ptr.at(s + 1) <= i; });
  }
  STRUCTOPS_DEVICE int64_t pair(int64_t seg, int64_t v, int64_t u) const {
    const int64_t k0 = kptr.at(seg);
    return offset.at(seg) + (v - qptr.at(seg)) * (kptr.at(seg + 1) - k0) + u - k0;
  }
  // One lane's score.
  STRUCTOPS_DEVICE A score(int64_t seg, int64_t v, int64_t u, int64_t h) const {
    const A s = scale * dot(query + (v * H + h) * K, key + (u * H + h) * K, K);
    return bias ? s + widen(bias[pair(seg, v, u) * H + h]) : s;
  }
  // One lane's weight and the gradient of its score.
  STRUCTOPS_DEVICE void weigh(int64_t seg, int64_t v, int64_t u, int64_t h, A* p, A* ds) const {
    *p = exp(score(seg, v, u, h) - finite_or_zero(lse[v * H + h]));
    *ds = *p * (dot(grad + (v * H + h) * D, value + (u * H + h) * D, D) - delta[v * H + h]);
  }
  // acc += the lanes' weights times their rows, row first + lane, features j0 + 32 r + lane.
  STRUCTOPS_DEVICE void add_rows(A (&acc)[kSegmentLanes], A weight, const T* rows, int64_t first, int n, int64_t h, int64_t j0,
                                 int64_t width) const {
    const int lane = threadIdx.x & 31;
    for (int i = 0; i < n; ++i) {
      const A w = __shfl_sync(kFull, weight, i);
      const T* const row = rows + ((first + i) * H + h) * width;
#pragma unroll
      for (int r = 0; r < kSegmentLanes; ++r) {
        const int64_t j = j0 + r * 32 + lane;
        if (j < width) acc[r] += w * widen(row[j]);
      }
    }
  }
  STRUCTOPS_DEVICE void write(T* row, const A (&acc)[kSegmentLanes], A factor, int64_t j0, int64_t width) const {
#pragma unroll
    for (int r = 0; r < kSegmentLanes; ++r) {
      const int64_t j = j0 + r * 32 + (threadIdx.x & 31);
      if (j < width) row[j] = Narrow<T>::to(acc[r] * factor);
    }
  }

  STRUCTOPS_DEVICE void forward(int64_t v, int64_t h) const {
    const int lane = threadIdx.x & 31;
    const int64_t seg = segment_of(qptr, v), begin = kptr.at(seg), end = kptr.at(seg + 1);
    A total = Limits<A>::low();
    for (int64_t j0 = 0; j0 == 0 || j0 < D; j0 += kSegmentTile) {  // once even for D = 0, for lse
      A acc[kSegmentLanes] = {}, m = Limits<A>::low(), l = 0;
      for (int64_t c = begin; c < end; c += 32) {
        const int n = end - c < 32 ? int(end - c) : 32;
        const A s = lane < n ? score(seg, v, c + lane, h) : Limits<A>::low(), high = largest(s);
        if (high > m) {
          const A shrink = exp(m - high);
          l *= shrink;
#pragma unroll
          for (int r = 0; r < kSegmentLanes; ++r) acc[r] *= shrink;
          m = high;
        }
        const A p = lane < n ? exp(s - finite_or_zero(m)) : A(0);
        l += sum(p);
        add_rows(acc, p, value, c, n, h, j0, D);
      }
      write(out + (v * H + h) * D, acc, l == 0 ? A(0) : A(1) / l, j0, D);
      total = l == 0 ? Limits<A>::low() : m + log(l);
    }
    if (lane == 0) lse[v * H + h] = total;
  }

  STRUCTOPS_DEVICE void backward_query(int64_t v, int64_t h) const {
    const int lane = threadIdx.x & 31;
    const int64_t seg = segment_of(qptr, v), begin = kptr.at(seg), end = kptr.at(seg + 1);
    A d = 0;
    for (int64_t j = lane; j < D; j += 32) d += widen(grad[(v * H + h) * D + j]) * widen(forward_out[(v * H + h) * D + j]);
    d = sum(d);
    if (lane == 0) delta[v * H + h] = d;
    __syncwarp();
    for (int64_t j0 = 0; j0 == 0 || j0 < K; j0 += kSegmentTile) {
      A acc[kSegmentLanes] = {};
      for (int64_t c = begin; c < end; c += 32) {
        const int n = end - c < 32 ? int(end - c) : 32;
        A p, ds = 0;
        if (lane < n) weigh(seg, v, c + lane, h, &p, &ds);
        if (d_bias && j0 == 0 && lane < n) d_bias[pair(seg, v, c + lane) * H + h] = Narrow<T>::to(ds);
        add_rows(acc, ds, key, c, n, h, j0, K);
      }
      write(d_query + (v * H + h) * K, acc, scale, j0, K);
    }
  }

  STRUCTOPS_DEVICE void backward_key(int64_t u, int64_t h) const {
    const int lane = threadIdx.x & 31;
    const int64_t seg = segment_of(kptr, u), begin = qptr.at(seg), end = qptr.at(seg + 1), widest = K > D ? K : D;
    for (int64_t j0 = 0; j0 < widest; j0 += kSegmentTile) {
      A key_sum[kSegmentLanes] = {}, value_sum[kSegmentLanes] = {};
      for (int64_t c = begin; c < end; c += 32) {
        const int n = end - c < 32 ? int(end - c) : 32;
        A p = 0, ds = 0;
        if (lane < n) weigh(seg, c + lane, u, h, &p, &ds);
        add_rows(key_sum, ds, query, c, n, h, j0, K);
        add_rows(value_sum, p, grad, c, n, h, j0, D);
      }
      write(d_key + (u * H + h) * K, key_sum, scale, j0, K);
      write(d_value + (u * H + h) * D, value_sum, A(1), j0, D);
    }
  }
};

enum class SegmentPass { forward, queries, keys };

template <class T, SegmentPass pass>
__global__ void __launch_bounds__(128) segment_attention_pass(const SegmentAttention<T> a, int64_t rows) {
  const int64_t step = int64_t(gridDim.x) * 4;
  for (int64_t i = int64_t(blockIdx.x) * 4 + threadIdx.x / 32; i < rows * a.H; i += step) {
    if (pass == SegmentPass::forward) a.forward(i / a.H, i % a.H);
    else if (pass == SegmentPass::queries) a.backward_query(i / a.H, i % a.H);
    else a.backward_key(i / a.H, i % a.H);
  }
}

}  // namespace structops::cuda
