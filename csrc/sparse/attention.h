// Attention over the incoming edges of every row, from score to weighted sum, per head.
//
//   s[k, h]   = score of edge k: u -> v in head h, one of
//     additive: leaky(key[u, h] + query[v, h] + edge[k, h])                                K = 1   (GAT, arXiv:1710.10903)
//     gatv2:    sum_j att[h, j] * leaky(key[u, h, j] + query[v, h, j] + edge[k, h, j])              (GATv2, arXiv:2105.14491)
//     dot:      scale * sum_j key[u, h, j] * query[v, h, j] + edge[k, h]
//   lse[v, h] = log sum_k exp(s[k, h]);  p[k, h] = exp(s[k, h] - lse[v, h])
//   out[v, h] = sum_k p[k, h] * value[u, h, :],     leaky(z) = z for z > 0, slope * z otherwise
//
// With g the gradient of out, delta[v, h] = <g[v, h], out[v, h]> and ds[k, h] = p[k, h] (<g[v, h], value[u, h]> - delta[v, h]):
// the gradient of value is sum p g, those of key, query, edge and att are ds times the derivative of the score. Scores are
// computed again in the backward: once by rows (delta, query, edge, att) and once by the reversed edges (key, value). Nothing of
// size E is kept.
//
// Edges are added in the order of the structure, in tiles of 32 with a running maximum; att in the order of fixed items. On the CPU
// rows longer than spmm_chunk are cut at fixed positions and their parts merged in order; threads never change a result. A row
// without edges, or whose scores are all -inf, gives 0 and lse -inf, and no gradient. NaN and +inf scores give NaN in their row and head.
//
// HeadBlocks says which features of a row belong to a head: the row is blocks one after another, and a block of width w holds w
// features of head 0, then w of head 1, and so on. One block is [H, width]. Keys and queries share theirs (dot only, one block
// otherwise), and so do values, out and their gradients.
//
// The caller guarantees: indices in range, (colptr, row_t, eid_t) the reversed (rowptr, col, eid), which share one index type;
// contiguous tensors of one dtype; accumulators are float, double for f64, which is also the dtype of lse and delta.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

enum class Score : int { additive, gatv2, dot };

constexpr int kHeadBlocks = 16;

struct HeadBlocks {
  int count = 0;  // runs of equal blocks
  int32_t width[kHeadBlocks], repeat[kHeadBlocks];
};

static inline HeadBlocks one_block(int64_t width) {
  HeadBlocks b{};
  b.count = 1;
  b.width[0] = int32_t(width);
  b.repeat[0] = 1;
  return b;
}

struct AttentionArgs {
  Score score;
  Dtype dtype;
  int64_t N, M, E;  // rows, sources, edges
  int64_t H, K, D;  // heads, width of keys, width of values
  HeadBlocks key_blocks, value_blocks;  // of K and D features a head
  double slope, scale;
  Index rowptr, col, eid;       // [N + 1], [E], [E] or null
  Index colptr, row_t, eid_t;   // [M + 1], [E], [E] or null: backward only
  const void* key;    // [M, H, K], by key_blocks, as is query
  const void* query;  // [N, H, K]
  const void* value;  // [M, H, D], by value_blocks, as are out and grad
  const void* edge;   // [E, H], gatv2 [E, H, K], or null
  const void* att;    // [H, K], gatv2 only
  // forward
  void* out;  // [N, H, D]
  void* lse;  // [N, H], accumulator dtype; read by the backward
  // backward
  const void* forward_out;  // [N, H, D]
  const void* grad;         // [N, H, D]
  void* delta;              // [N, H], accumulator dtype: scratch
  void* d_key;              // [M, H, K]
  void* d_query;            // [N, H, K]
  void* d_value;            // [M, H, D]
  void* d_edge;             // like edge, or null
  void* d_att;              // [H, K], gatv2 only
};

void attention_fwd(const AttentionArgs& a, const ParallelFor& pf);
void attention_bwd(const AttentionArgs& a, const ParallelFor& pf);

}  // namespace structops
