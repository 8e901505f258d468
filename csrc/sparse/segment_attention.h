// Scaled dot-product attention within ragged segments: the queries of segment i attend to all keys of segment i.
//
//   s[v, u, h] = scale * <query[v, h], key[u, h]> + bias[pair(v, u), h]     v in [qptr[i], qptr[i + 1]), u in [kptr[i], kptr[i + 1])
//   lse[v, h]  = log sum_u exp(s[v, u, h]);   p = exp(s - lse);   out[v, h] = sum_u p[v, u, h] value[u, h]
//
// pair(v, u) numbers the pairs of a segment behind those of the segments before it, its queries as rows: offset[i] + (v - qptr[i]) nk_i +
// u - kptr[i] with offset the running sum of nq nk.
//
// Backward, with delta[v, h] = <grad[v, h], out[v, h]> and ds = p (<grad[v, h], value[u, h]> - delta):
//   d_value[u] = sum_v p grad[v],  d_key[u] = scale sum_v ds query[v],  d_query[v] = scale sum_u ds key[u],  d_bias = ds.
// Scores are computed again, once by queries and once by keys. Nothing of the size of the pairs is kept but bias and its gradient.
//
// A tile of rows of one segment and head meets blocks of the other side; sums run over these blocks in order. A row's result depends
// on its own segment only, not on threads or neighbours. A query without keys, or whose scores are all -inf, gives 0 and lse -inf,
// and no gradient. NaN and +inf scores give NaN in their row and head.
//
// The caller guarantees: qptr and kptr non-decreasing from 0 to Nq and to Nk; contiguous tensors of one dtype. Accumulators are float,
// double for f64, which is also the dtype of lse.
// Sources: online softmax (arXiv:1805.02867), its blocks and backward FlashAttention (arXiv:2205.14135).
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

struct SegmentAttentionArgs {
  Dtype dtype;
  int64_t S, Nq, Nk;  // segments, queries, keys
  int64_t H, K, D;    // heads, width of keys, width of values
  double scale;
  Index qptr, kptr;   // [S + 1]
  Index offset;       // [S + 1], with bias only
  const void* query;  // [Nq, H, K]
  const void* key;    // [Nk, H, K]
  const void* value;  // [Nk, H, D]
  const void* bias;   // [pairs, H] or null
  // forward
  void* out;  // [Nq, H, D]
  void* lse;  // [Nq, H], accumulator dtype; read by the backward
  // backward
  const void* forward_out;  // [Nq, H, D]
  const void* grad;         // [Nq, H, D]
  void* delta;              // [Nq, H], accumulator dtype: scratch
  void* d_query;            // [Nq, H, K]
  void* d_key;              // [Nk, H, K]
  void* d_value;            // [Nk, H, D]
  void* d_bias;             // [pairs, H] or null
};

void segment_attention_fwd(const SegmentAttentionArgs& a, const ParallelFor& pf);
void segment_attention_bwd(const SegmentAttentionArgs& a, const ParallelFor& pf);

}  // namespace structops
