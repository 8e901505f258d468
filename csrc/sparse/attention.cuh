// CUDA attention: device code. The contract is attention.h. A warp takes one head of one row (or source), its lanes the features;
// features go in tiles of 128, for each of which the scores are computed again.
#pragma once
#include "core/cuda/device.cuh"
#include "sparse/attention.h"

namespace structops::cuda {

constexpr int kAttentionLanes = 4, kAttentionTile = 32 * kAttentionLanes;

template <class T, Score score> struct Attention {
  using A = Acc<T>;
  IndexRef rowptr, col, eid, colptr, row_t, eid_t;
  int64_t N, M, H, K, D, chunk;
  const int *key_moved, *value_moved;  // [H, K], [H, D], or null: one block
  A slope, scale;
  const T *key, *query, *value, *edge, *att, *forward_out, *grad;
  T *out, *d_key, *d_query, *d_value, *d_edge;
  A *lse, *delta, *d_att;  // d_att: [chunks, H, K]

  static STRUCTOPS_DEVICE A sum(A v) {
#pragma unroll
    for (int w = 16; w; w /= 2) v += __shfl_xor_sync(kFull, v, w);
    return v;
  }
  // Where a row holds feature j of head h.
  STRUCTOPS_DEVICE int64_t key_at(int64_t row, int64_t h, int64_t j) const {
    return (row * H + h) * K + j + (score == Score::dot && key_moved ? key_moved[h * K + j] : 0);
  }
  STRUCTOPS_DEVICE int64_t value_at(int64_t row, int64_t h, int64_t j) const {
    return (row * H + h) * D + j + (score != Score::gatv2 && value_moved ? value_moved[h * D + j] : 0);
  }
  STRUCTOPS_DEVICE A leaky(A z) const { return z > 0 ? z : z * slope; }
  STRUCTOPS_DEVICE A leaky_slope(A z) const { return z > 0 ? A(1) : slope; }

  // The argument of the leaky function, feature j of an edge.
  STRUCTOPS_DEVICE A inner(int64_t u, int64_t v, int64_t e, int64_t h, int64_t j) const {
    A z = widen(key[(u * H + h) * K + j]) + widen(query[(v * H + h) * K + j]);
    if (edge) z += widen(edge[(e * H + h) * K + j]);
    return z;
  }
  // Every lane gets the score.
  STRUCTOPS_DEVICE A score_of(int64_t u, int64_t v, int64_t e, int64_t h) const {
    if (score == Score::additive) return leaky(inner(u, v, e, h, 0));
    A s = 0;
    for (int64_t j = threadIdx.x & 31; j < K; j += 32)
      s += score == Score::gatv2 ? widen(att[h * K + j]) * leaky(inner(u, v, e, h, j))
                                 : widen(key[key_at(u, h, j)]) * widen(query[key_at(v, h, j)]);
    s = sum(s);
    return score == Score::gatv2 ? s : scale * s + (edge ? widen(edge[e * H + h]) : A(0));
  }
  // <row r of p, row t of q> in head h
  STRUCTOPS_DEVICE A dot(const T* p, int64_t r, const T* q, int64_t t, int64_t h) const {
    A s = 0;
    for (int64_t j = threadIdx.x & 31; j < D; j += 32) s += widen(p[value_at(r, h, j)]) * widen(q[value_at(t, h, j)]);
    return sum(s);
  }
  STRUCTOPS_DEVICE A weight(A s, A total) const { return exp(s - (total == Limits<A>::low() ? A(0) : total)); }

  STRUCTOPS_DEVICE void forward(int64_t v, int64_t h) const {
    const int lane = threadIdx.x & 31;
    const int64_t begin = rowptr.at(v), end = rowptr.at(v + 1);
    A m = Limits<A>::low(), l = 0;
    for (int64_t k = begin; k < end; ++k) {
      const A s = score_of(col.at(k), v, eid.data ? eid.at(k) : k, h);
      const bool rises = s > m;
      const A shift = rises ? s : m == Limits<A>::low() ? A(0) : m;
      l = rises ? l * exp(m - s) + A(1) : l + exp(s - shift);
      m = rises ? s : m;
    }
    const A total = l == 0 ? Limits<A>::low() : m + log(l);
    if (lane == 0) lse[v * H + h] = total;
    for (int64_t j0 = 0; j0 < D; j0 += kAttentionTile) {
      A acc[kAttentionLanes] = {};
      for (int64_t k = begin; k < end; ++k) {
        const int64_t u = col.at(k);
        const A p = weight(score_of(u, v, eid.data ? eid.at(k) : k, h), total);
#pragma unroll
        for (int r = 0; r < kAttentionLanes; ++r) {
          const int64_t j = j0 + r * 32 + lane;
          if (j < D) acc[r] += p * widen(value[value_at(u, h, j)]);
        }
      }
#pragma unroll
      for (int r = 0; r < kAttentionLanes; ++r) {
        const int64_t j = j0 + r * 32 + lane;
        if (j < D) out[value_at(v, h, j)] = Narrow<T>::to(acc[r]);
      }
    }
  }

  // ds of an edge, in every lane.
  STRUCTOPS_DEVICE A score_gradient(int64_t u, int64_t v, int64_t e, int64_t h, A* p) const {
    *p = weight(score_of(u, v, e, h), lse[v * H + h]);
    return *p * (dot(grad, v, value, u, h) - delta[v * H + h]);
  }

  // The derivative of the score with respect to feature j of the key, or of the query where `by_row`.
  STRUCTOPS_DEVICE A key_factor(int64_t u, int64_t v, int64_t e, int64_t h, int64_t j, bool by_row) const {
    if (score == Score::dot) return scale * widen(by_row ? key[key_at(u, h, j)] : query[key_at(v, h, j)]);
    const A d = leaky_slope(inner(u, v, e, h, j));
    return score == Score::gatv2 ? d * widen(att[h * K + j]) : d;
  }

  STRUCTOPS_DEVICE void backward_rows(int64_t piece, int64_t h) const {
    const int lane = threadIdx.x & 31;
    const int64_t last = (piece + 1) * chunk < N ? (piece + 1) * chunk : N;
    for (int64_t v = piece * chunk; v < last; ++v) {
      const A d = dot(grad, v, forward_out, v, h);
      if (lane == 0) delta[v * H + h] = d;
    }
    __syncwarp();
    for (int64_t j0 = 0; j0 < K; j0 += 32) {
      const int64_t j = j0 + lane;
      A total_att = 0;
      for (int64_t v = piece * chunk; v < last; ++v) {
        A total = 0;
        for (int64_t k = rowptr.at(v); k < rowptr.at(v + 1); ++k) {
          const int64_t u = col.at(k), e = eid.data ? eid.at(k) : k;
          A p;
          const A ds = score_gradient(u, v, e, h, &p);
          if (j < K) {
            const A d = ds * key_factor(u, v, e, h, j, true);
            total += d;
            if (score == Score::gatv2) total_att += ds * leaky(inner(u, v, e, h, j));
            if (d_edge && score == Score::dot && j == 0) d_edge[e * H + h] = Narrow<T>::to(ds);
            if (d_edge && score != Score::dot) d_edge[(e * H + h) * K + j] = Narrow<T>::to(d);
          }
        }
        if (j < K) d_query[key_at(v, h, j)] = Narrow<T>::to(total);
      }
      if (score == Score::gatv2 && j < K) d_att[(piece * H + h) * K + j] = total_att;
    }
  }

  STRUCTOPS_DEVICE void backward_source(int64_t u, int64_t h) const {
    const int lane = threadIdx.x & 31;
    const int64_t begin = colptr.at(u), end = colptr.at(u + 1), widest = K > D ? K : D;
    for (int64_t j0 = 0; j0 < widest; j0 += 32) {
      const int64_t j = j0 + lane;
      A total_key = 0, total_value = 0;
      for (int64_t k = begin; k < end; ++k) {
        const int64_t v = row_t.at(k), e = eid_t.data ? eid_t.at(k) : k;
        A p;
        const A ds = score_gradient(u, v, e, h, &p);
        if (j < K) total_key += ds * key_factor(u, v, e, h, j, false);
        if (j < D) total_value += p * widen(grad[value_at(v, h, j)]);
      }
      if (j < K) d_key[key_at(u, h, j)] = Narrow<T>::to(total_key);
      if (j < D) d_value[value_at(u, h, j)] = Narrow<T>::to(total_value);
    }
  }
};

// moved[h, j]: how far behind h * width + j a row of blocks holds feature j of head h.
__global__ void attention_places(HeadBlocks b, int64_t H, int64_t width, int* moved) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < H * width; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t h = i / width;
    int64_t j = i % width, at = 0;
    for (int r = 0; r < b.count; ++r) {
      const int64_t w = b.width[r], n = w * b.repeat[r];
      if (j < n) {
        moved[i] = int(at + (j / w * H + h) * w + j % w - i);
        break;
      }
      j -= n;
      at += n * H;
    }
  }
}

enum class AttentionPass { forward, rows, sources };

template <class T, Score score, AttentionPass pass>
__global__ void __launch_bounds__(128, 4) attention_pass(const Attention<T, score> a, int64_t items) {
  // A head a block column: no quotient by H, which would be a call with registers spilled around it.
  const int64_t head = blockIdx.x;
  for (int64_t i = int64_t(blockIdx.y) * 4 + threadIdx.x / 32; i < items; i += int64_t(gridDim.y) * 4) {
    if (pass == AttentionPass::forward) a.forward(i, head);
    else if (pass == AttentionPass::rows) a.backward_rows(i, head);
    else a.backward_source(i, head);
  }
}

// out[j] = sum of the pieces of d_att, in order.
template <class T> __global__ void attention_att(const Acc<T>* pieces, T* out, int64_t count, int64_t n) {
  for (int64_t j = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; j < n; j += int64_t(gridDim.x) * blockDim.x) {
    Acc<T> total = 0;
    for (int64_t c = 0; c < count; ++c) total += pieces[c * n + j];
    out[j] = Narrow<T>::to(total);
  }
}

}  // namespace structops::cuda
