// Sums over incoming edges of an activation of the sum of both ends.
//
//   z[k, f]   = x[u, f] + y[v, f] + edge[k, f] + scalar[k] direction[f]     edge k: u -> v; all but x may be absent
//   out[v, f] = sum_k act(z[k, f]) * value[u, f]          value absent: 1
//
// identity z; relu; leaky z > 0 ? z : slope z; elu z > 0 ? z : slope (exp(z) - 1); sigmoid; tanh; silu z sigmoid(z);
// softplus log(1 + exp(z)); gelu z Phi(z); gelu_tanh its tanh form. Slopes at 0 are those of the branch z <= 0, as in torch.
//
// With g the gradient of out and d = act'(z) g value: the gradient of y is the sum of d over the row, of edge d itself, of x the sum of
// d over the source's edges, of value that of act(z) g; of scalar the sum of d direction over features, of direction that of scalar d over
// all edges, left to the caller as a sum per row. z is computed again; nothing of size E is kept.
// The forward can give slopes[v, f] = sum of act'(z) value over the row: with it the gradient of y is g slopes, and where edge and
// scalar are absent the backward has no pass over the rows.
//
// Edges are added in the order of the structure. On the CPU rows, and by the reversed edges sources, longer than spmm_chunk are cut at
// fixed positions and the sums of their parts added in order; threads never change a result. A row without edges gives 0. NaN
// propagates within its feature.
//
// The caller guarantees: indices in range, (colptr, row_t, eid_t) the reversed (rowptr, col, eid) of one index type; contiguous
// tensors of one dtype. Accumulators are float, double for f64.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

enum class Act : int { identity, relu, leaky, elu, sigmoid, tanh, silu, softplus, gelu, gelu_tanh };
constexpr int kActs = 10;

struct EdgeActArgs {
  Act act;
  Dtype dtype;
  int64_t N, M, E, F;
  double slope;
  Index rowptr, col, eid;      // [N + 1], [E], [E] or null
  Index colptr, row_t, eid_t;  // [M + 1], [E], [E] or null: backward only
  const void* x;      // [M, F]
  const void* y;      // [N, F] or null
  const void* edge;   // [E, F] or null
  const void* value;  // [M, F] or null
  const void* scalar;     // [E] or null
  const void* direction;  // [F], with scalar
  void* out;          // [N, F], forward
  void* slopes;       // [N, F] accumulator dtype, or null: forward
  // backward
  const void* grad;  // [N, F]
  void* d_x;         // [M, F]
  void* d_y;         // [N, F] or null
  void* d_edge;      // [E, F] or null
  void* d_value;     // [M, F] or null
  void* d_scalar;    // [E] accumulator dtype, or null
  void* d_direction; // [N, F] accumulator dtype, with d_scalar: of every row by itself
};

void edge_act_fwd(const EdgeActArgs& a, const ParallelFor& pf);
void edge_act_bwd(const EdgeActArgs& a, const ParallelFor& pf);

}  // namespace structops
