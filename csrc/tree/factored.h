// Second-order charts whose sibling scores are products of factors:
//   sib[b, i, j, k] = sum_d x[b, i, d] y[b, j, d] z[b, k, d]        of the dependent i, its head j and its sibling k
// The recurrences, edges and conventions are those of chart.h; sib of the whole batch is never formed. A task makes that of
// its own sentences, and of these the entries a chart reads, k strictly between i and j, in scratch that later tasks
// overwrite: at most (n + 1)^3 numbers a sentence (logz), twice that (marginals) or four times (hvp) for each thread.
//
//   post_x[i, d] = sum_{j,k} P[i, j, k] y[j, d] z[k, d],  post_y and post_z likewise, P = weight * posterior of the siblings
//   hvp along (v, v_x, v_y, v_z): D = derivative of P along v and the derivative of sib;
//     post_x[i, d] = sum_{j,k} D[i, j, k] y[j, d] z[k, d] + P[i, j, k] (v_y[j, d] z[k, d] + y[j, d] v_z[k, d]), ...
//
// Order of summation: over d ascending for sib; over k, then over the spans in order of their left end, for the factors.
// Fixed, whatever the number of threads. Work: O(n^3 D) multiplications a sentence beside the chart.
//
// Sibling scores have the dtype of the charts: float64 where scores are too large for float32 charts (CPU).
//
// Edges: factors are finite; NaN or inf in what is read gives NaN for the sentence, in its factors too. Rows past the sentence
// are never read, and are 0 in results. D = 0 is first order with sibling scores of 0.
#pragma once
#include "tree/chart.h"

namespace structops {

struct FactoredArgs {
  ChartArgs in;  // float32 or float64, dependency kinds; sib, v_sib and post_sib are null
  int64_t D;
  const void *x, *y, *z;        // [B, N, D]
  const void *v_x, *v_y, *v_z;  // hvp: [B, N, D]
  void *post_x, *post_y, *post_z;
};

void factored_logz(const FactoredArgs& a, const ParallelFor& pf);
void factored_marginals(const FactoredArgs& a, const ParallelFor& pf);  // logz, post, post_x, post_y, post_z
void factored_hvp(const FactoredArgs& a, const ParallelFor& pf);        // the same along v

}  // namespace structops
