// Projective dependency trees whose arcs also see their grandparent: sums, posteriors, curvature, best trees, samples.
//
// A tree scores  sum over words d with head h of  arc[b, d, h] + grand[b, d, h, head of h] + sib[b, d, h, s];
// the second term where h is not the root (position 0), the third, if sib is given, where d has an adjacent sibling s: the nearest
// dependent of h between h and d. Positions 0..n for a sentence of n words, N - 1 >= n.
//
// Items: a span [i, j] whose head, at one end, has the head g outside the span; position 0 counts as its own head.
//   IR g[i,j]  i heads j    IL g[i,j]  j heads i    CR g[i,j]  i heads all, complete    CL g[i,j]  j heads all, complete
//   S g[i,j]   i and j are adjacent dependents of g (only with sib)
// Recurrences, sum and product of the semiring (log: logaddexp and +), score = arc + grand of the lane g:
//   without sib  IR g[i,j] = score[j,i] sum_{i<=r<j} CR g[i,r] CL i[r+1,j]
//                IL g[i,j] = score[i,j] sum_{i<=r<j} CR j[i,r] CL g[r+1,j]
//   with sib     IR g[i,j] = score[j,i] (CR g[i,i] CL i[i+1,j] + sum_{i<r<j} IR g[i,r] S i[r,j] sib[j,i,r])
//                IL g[i,j] = score[i,j] (CR j[i,j-1] CL g[j,j] + sum_{i<r<j} S j[i,r] IL g[r,j] sib[i,j,r])
//                S g[i,j]  = sum_{i<=r<j} CR g[i,r] CL g[r+1,j];  single root: the second term of IR only for i > 0
//   both         CR g[i,j] = sum_{i<r<=j} IR g[i,r] CR i[r,j];  single root: CR 0[0,j] = 0 for j < n
//                CL g[i,j] = sum_{i<=r<j} CL j[i,r] IL g[r,j]
//                CR g[i,i] = CL g[i,i] = 1,  logz = CR 0[0,n]
// Time O(n^4), charts O(n^3). One operand of every term carries g, the other (but in S) a fixed lane, so that lanes are g.
// Source: Koo and Collins 2010, models 0 (without sib) and 1 (with sib).
//
// Every operator is stateless: charts live in per-thread scratch and nothing is kept. Sentences are the unit of parallelism, longest
// first; neither the number of threads nor the batch changes a bit.
//
// Edges as in chart.h: n = 0 has one empty tree; -inf forbids exactly; without a tree logz = -inf, posteriors are 0, trees -1; any
// NaN or +inf that is read gives NaN; entries that mean nothing are never read, and are 0 in results. Charts are float32 for 16- and
// 32-bit scores, float64 for float64 and for scores beyond 1e4; finite scores beyond 1e14 count as 1e14 in sums. Scores of another
// dtype than the charts are copied to theirs first: of one sentence for each thread on the CPU, of 16 bits and the whole batch by CUDA.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

struct GrandArgs {
  Dtype dtype;             // of scores, directions and posteriors
  bool multiroot;
  int64_t B, N;
  const void* arc;         // [B, N, N]  (dep, head)
  const void* grand;       // [B, N, N, N]  (dep, head, head of head)
  const void* sib;         // [B, N, N, N]  (dep, head, sibling) or null
  const int64_t* lengths;  // [B] words, 0 <= n <= N - 1: the caller checks
  const void* weight;      // [B] accumulator dtype (float64 for float64 scores, else float32), or null for ones
  const void* v;           // hvp: [B, N, N] direction
  const void* v_grand;     // hvp: [B, N, N, N]
  const void* v_sib;       // hvp, with sib: [B, N, N, N]
  void* logz;              // [B] accumulator dtype; hvp: the derivative of logz along v
  void* post;              // [B, N, N] weight[b] * d logz / d arc;  hvp: its derivative along v
  void* post_grand;        // [B, N, N, N]
  void* post_sib;          // [B, N, N, N], with sib
};

void grand_logz(const GrandArgs& a, const ParallelFor& pf);
void grand_marginals(const GrandArgs& a, const ParallelFor& pf);  // logz, post, post_grand, post_sib
void grand_hvp(const GrandArgs& a, const ParallelFor& pf);        // the same along (v, v_grand, v_sib)

struct GrandTreeArgs {
  GrandArgs in;
  int64_t K;               // best: trees wanted; sample: trees drawn for each sentence
  void* value;             // best: [B, K] accumulator dtype, descending, -inf where there are fewer trees
  const double* uniform;   // sample: [K, B, 3N] in [0, 1)
  int64_t* tree;           // heads, -1 at the root and past the sentence. best: [B, K, N];  sample: [K, B, N]
};

// Ties: the alternative written first above, splits by ascending r; of equal derivations of one alternative (K > 1) the one
// with the better left part.
void grand_best(const GrandTreeArgs& a, const ParallelFor& pf);
// Exact and independent, top-down from the inside charts, by the rule of chart_sample.
void grand_sample(const GrandTreeArgs& a, const ParallelFor& pf);

struct GrandMaxArgs {
  GrandArgs in;
  void* through;           // [B, N, N] accumulator dtype: the score of the best tree with each arc, -inf where there is none
};
void grand_max_marginals(const GrandMaxArgs& a, const ParallelFor& pf);

}  // namespace structops
