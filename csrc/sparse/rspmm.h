// relational_spmm: message passing on a graph with typed edges over a semiring, and its gradient (generalized rspmm of NBFNet).
//
//   fwd:  out[b, v, f] = REDUCE over edges k of row v with mask of  m_k,f,   m_k = w_j * (rel[b, type[k]] (x) x[b, col[k]])
//
// j = eid[k] (eid null: j = k) numbers weight and mask. (x): mul; add; min; copy of x; rotate, where the first half of the
// features holds real parts, the second imaginary ones, and the complex numbers are multiplied.
// REDUCE: sum; mean = sum / n; min, max (first k wins a tie); logsumexp (online, running maximum); pna = mean, population
// variance, max and min, each a plane of out [4, B, N, F]. n counts the edges that the mask leaves. Welford's recurrence runs on the
// differences from the row's first message (0 where that is not finite): |mean - first| <= sqrt(n) std, so an offset common to the
// messages costs no digits. rest [B, N, F] = mean - out[0] is what rounding to the dtype took, for the backward.
// Rows without such edges give `fill`, pna 0, and arg = E. NaN propagates, arg = the first NaN. arg holds positions k:
// [B, N, F] of min and max, [2, B, N, F] of the maximum and minimum of pna.
//
//   bwd:  with D_k = d loss / d m_k, recomputed from x, rel and out:
//         sum g;  mean g / n;  min, max g where arg = k;  logsumexp g exp(m_k - out), 0 where out = -inf;
//         pna (g_mean + 2 g_var (m_k - out[0] - rest)) / n + g_max [argmax = k] + g_min [argmin = k]
//         d_x = sum over edges of w D (d (x) / d x),  d_rel likewise by relation,  d_weight_j = sum over b, f of D (rel (x) x)
//         (x) = min: at a tie half to either operand.
//
// Accumulation: float for f32/bf16/f16, double for f64. Order: rows in order of k; on the CPU the forward cuts rows longer than
// spmm_chunk at fixed positions and merges their parts in order, each of which has a first message of its own (above) and counts only
// if the mask leaves it an edge; d_x in order of the reversed edges; d_rel and d_weight in fixed parts of the source rows, merged in
// order. Nothing depends on the number of threads.
// The caller guarantees: rowptr, colptr non-decreasing from 0 to E; indices in range; (colptr, row_t, eid_t, type_t) describes
// the same edges as (rowptr, col, eid, type); F even for rotate.
// Sources: NBFNet (arXiv:2106.06935); Welford (1962), merged as in Chan, Golub and LeVeque (1979); online softmax
// (arXiv:1805.02867); RotatE (arXiv:1902.10197).
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

enum class RelMul : int { mul, add, min, rotate, copy };
enum class RelReduce : int { sum, mean, min, max, logsumexp, pna };

struct RspmmArgs {
  Dtype dtype;  // floating
  RelMul mul;
  RelReduce reduce;
  double fill;
  int64_t B, N, M, R, E, F;  // N rows, M source rows
  const void* x;             // [B, M, F]
  const void* rel;           // [B, R, F], null for copy
  const void* weight;        // [E] or null: 1
  const uint8_t* mask;       // [E] or null: all
  Index rowptr, col, eid, type;          // [N + 1], [E], [E] or null, [E]
  Index colptr, row_t, eid_t, type_t;    // [M + 1], [E], [E], [E]; bwd only
  void* out;                 // [B, N, F] or [4, B, N, F]; bwd: the forward result, read by logsumexp and pna
  void* arg;                 // [B, N, F] or [2, B, N, F] in the type of rowptr; null for other reductions
  void* rest;                // [B, N, F], pna only; bwd: read
  const void* grad;          // as out; bwd only, as are:
  void* d_x;                 // [B, M, F] or null: not wanted
  void* d_rel;               // [B, R, F] or null
  void* d_weight;            // [E] or null
};

void rspmm_fwd(const RspmmArgs& a, const ParallelFor& pf);
void rspmm_bwd(const RspmmArgs& a, const ParallelFor& pf);

inline bool rspmm_extreme(RelReduce r) { return r == RelReduce::min || r == RelReduce::max; }

}  // namespace structops
