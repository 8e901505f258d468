// Chart parsing: sums, posteriors, curvature, best trees and samples of projective trees, one sentence at a time.
//
// Kinds of chart, N = positions of a sentence of n words, N - 1 >= n:
//   dep_multi, dep_single   projective dependency trees; position 0 is the root. score[b, dep, head];
//                           sib[b, dep, head, s]: s is the adjacent sibling of dep between head and dep (second order).
//                           dep_single: the root has exactly one dependent.
//   span                    binary bracketings of posts 0..n. score[b, left, right], left < right, unit spans included.
//
// Recurrences over spans [i, j], R headed at i, L headed at j, sum and product of the semiring (log: logaddexp and +):
//   dep, first order    T[i,j]  = sum_{i<=r<j} CR[i,r] CL[r+1,j]
//                       IL[i,j] = T[i,j] score[i,j]            IR[i,j] = T[i,j] score[j,i]
//   dep, second order   S = T above;
//                       IL[i,j] = score[i,j] (CR[i,j-1] CL[j,j] + sum_{i<r<j} S[i,r] IL[r,j] sib[i,j,r])
//                       IR[i,j] = score[j,i] (CR[i,i] CL[i+1,j] + sum_{i<r<j} IR[i,r] S[r,j] sib[j,i,r]);
//                       dep_single: the second term only for i > 0
//   both                CL[i,j] = sum_{i<=r<j} CL[i,r] IL[r,j]
//                       CR[i,j] = sum_{i<r<=j} IR[i,r] CR[r,j];  dep_single, first order: CR[0,j] = 0 for j < n
//                       logz = CR[0,n],  CL[i,i] = CR[i,i] = 1
//   span                V[i,j]  = score[i,j] sum_{i<r<j} V[i,r] V[r,j],  V[i,i+1] = score[i,i+1],  logz = V[0,n]
// Sources: Eisner 1996; McDonald and Pereira 2006 (siblings); Zhang, Li and Zhang 2020 (the CRF).
//
// Every operator is stateless: charts live in per-thread scratch, O(N^2) of them, and nothing else is kept.
// Sentences are the unit of parallelism, longest first. The number of threads changes no bit; which sentences are parsed
// together may change the last bits of posteriors.
//
// Edges: n = 0 has one empty tree, logz 0. A score of -inf forbids exactly; with no tree left logz = -inf, posteriors are 0 and
// trees are all -1. Any NaN or +inf that is read gives NaN. Entries outside the sentence are never read, and are 0 in results.
// Scores are read in their dtype; charts are float32 for 16- and 32-bit scores, float64 for float64. Sums, posteriors and samples: float64
// too for a sentence with a finite score beyond 1e4; beyond 1e14 scores count as 1e14. CUDA charts are logarithms: posteriors are
// off by the rounding of the largest sum, and sibling scores of 16 bits are copied to float32 first.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

enum class Chart : int { dep_multi, dep_single, span };

struct ChartArgs {
  Dtype dtype;             // of score, sib, v and the posteriors
  Chart kind;
  int64_t B, N;
  const void* score;       // [B, N, N]
  const void* sib;         // [B, N, N, N] or null; dep only
  const int64_t* lengths;  // [B] words, 0 <= n <= N - 1: the caller checks
  const void* weight;      // [B] accumulator dtype (float64 for float64 scores, else float32), or null for ones
  const void* v;           // hvp: [B, N, N] direction
  const void* v_sib;       // hvp, second order: [B, N, N, N]
  void* logz;              // [B] accumulator dtype; hvp: the derivative of logz along v, <posterior, v>
  void* post;              // [B, N, N] weight[b] * d logz / d score;  hvp: weight[b] * (d posterior / d score) v
  void* post_sib;          // [B, N, N, N], second order
};

void chart_logz(const ChartArgs& a, const ParallelFor& pf);
void chart_marginals(const ChartArgs& a, const ParallelFor& pf);  // logz, post, post_sib
void chart_hvp(const ChartArgs& a, const ParallelFor& pf);        // logz, post, post_sib along (v, v_sib)

struct ChartMaxArgs {
  ChartArgs in;   // score, sib, lengths
  void* through;  // [B, N, N] accumulator dtype: the score of the best tree with each arc or span; -inf where there is none
};
void chart_max_marginals(const ChartMaxArgs& a, const ParallelFor& pf);  // two passes in the max semiring

// Trees. dep: heads [.., N], -1 at the root and past the sentence. span: the 2n - 1 spans in pre-order,
// [.., 2N - 3, 2] as (left, right), -1 past them.
struct ChartTreeArgs {
  ChartArgs in;            // score, sib, lengths
  int64_t K;               // best: trees wanted; sample: trees drawn for each sentence
  void* value;             // best: [B, K] accumulator dtype, descending, -inf where there are fewer trees
  const double* uniform;   // sample: [K, B, 3N] in [0, 1)
  int64_t* tree;           // best: [B, K, ..];  sample: [K, B, ..]
};

// Ties: the alternative written first above, splits by ascending r; of equal derivations of one alternative (K > 1) the one
// with the better left part.
void chart_best(const ChartTreeArgs& a, const ParallelFor& pf);
// Exact and independent samples, top-down from the inside charts. An item with alternatives takes the next uniform number u of
// its tree, also where there is one alternative, and the first of positive weight whose cumulative weight reaches u times
// the total; its left part is then drawn wholly before its right part.
void chart_sample(const ChartTreeArgs& a, const ParallelFor& pf);

}  // namespace structops
