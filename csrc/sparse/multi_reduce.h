// Several reductions of the same messages in one pass, times a scale per row: principal neighbourhood aggregation (arXiv:2004.05718).
//
//   m[k, f]         = x[u, f] + edge[k, f]                           edge k: u -> v; one of the two may be absent
//   value[v, i, f]  = REDUCE_i of m[k, f] + y[v, f] over the row     y may be absent
//   out[v, s, i, f] = scale[s, v] * value[v, i, f]                   scale absent: one, of 1
//
// REDUCE  sum; mean; min, max (the first edge wins a tie); var = sum (m - mean)^2 / n; std = sqrt(var + eps).
// A row without edges gives 0, std sqrt(eps); y does not count there. NaN propagates within its feature.
//
// Sums run in the order of the structure. With var or std they are sums of m - shift and of its square, run by run of kMultiRun edges;
// the shift is the first message (0 where that is not finite) and moves to the mean after every run: what cancels in the variance is
// bounded by the run, whatever the offset. On the CPU rows longer than spmm_chunk are cut at fixed positions; every part has runs and
// a shift of its own, and parts are merged in order about their means (Chan, Golub and LeVeque, 1979). The backward cuts rows for
// the gradient of their edges, and never a source. Threads never change a result.
//
// For the backward, where `stat` and `arg` are not null:
//   stat[0, v, f] = mean - centre[f], and stat[1, v, f] = std where std is asked for; kept with var or std, in the accumulator's type.
//                   centre = x[0] + edge[0], each 0 where absent or not finite: a common offset leaves the differences their digits.
//   arg[e, v, f]  = the winner of min, then of max, of those asked for: col[k] where edge is absent, else k; -1 in rows without edges.
//
// Backward. With g_i = sum_s scale[s] grad[s, i] and n the edges of the row, the gradient of a message is
//   a[v] + b[v] (m - centre), plus g_min and g_max at their winners;
//   b = (2 g_var + g_std / std) / n,   a = g_sum + g_mean / n - b (mean - centre).
// So that of x[u] is sum a[v] + sum b[v] (m - centre) over the source's edges, a gather of two numbers whatever the list, plus what
// its row won, which is scattered (select.h). That of y is n g_sum + g_mean + g_min + g_max, 0 without edges. Nothing of size E is kept.
//
// The caller guarantees: indices in range, (colptr, row_t, eid_t) the reversed (rowptr, col, eid), all of one type; contiguous tensors.
// Accumulators are float, double for f64.
#pragma once
#include "sparse/spmm.h"

namespace structops {

constexpr int64_t kMultiRun = 64;
constexpr int kMultiReductions = 16;

// A list of at most kMultiReductions reductions, four bits each.
struct ReduceList {
  uint64_t codes = 0;
  uint32_t set = 0;  // bit r: reduction r is in the list
  int size = 0;
  void push(Reduce r) {
    codes |= uint64_t(r) << (4 * size++);
    set |= 1u << int(r);
  }
};

// Inline in device code too, where constants only may be used.
#if defined(__CUDACC__) || defined(STRUCTOPS_CUDA_SOURCE)
#define STRUCTOPS_ANYWHERE __host__ __device__ __forceinline__
#else
#define STRUCTOPS_ANYWHERE [[gnu::always_inline]] inline
#endif
STRUCTOPS_ANYWHERE Reduce reduction(const ReduceList& l, int i) { return Reduce(l.codes >> (4 * i) & 15); }
STRUCTOPS_ANYWHERE bool has(const ReduceList& l, Reduce r) { return l.set >> int(r) & 1; }
STRUCTOPS_ANYWHERE bool moments(const ReduceList& l) { return has(l, Reduce::var) || has(l, Reduce::std); }
STRUCTOPS_ANYWHERE int extremes(const ReduceList& l) { return has(l, Reduce::min) + has(l, Reduce::max); }
// How many of a and b the gradient of a message needs.
STRUCTOPS_ANYWHERE int terms(const ReduceList& l) { return moments(l) ? 2 : has(l, Reduce::sum) || has(l, Reduce::mean); }

struct MultiReduceArgs {
  Dtype dtype;
  ReduceList list;
  int64_t N, M, E, F, S;
  double eps;
  Index rowptr, col, eid;      // [N + 1], [E] or null: k, [E] or null: k
  Index colptr, row_t, eid_t;  // [M + 1], [E], [E] or null: backward, for d_x
  const void* x;      // [M, F] or null
  const void* edge;   // [E, F] or null
  const void* y;      // [N, F] or null: forward
  const void* scale;  // [S, N] of the accumulator's type, or null
  void* out;   // [N, S, list, F]: forward
  void* stat;  // [1 or 2, N, F] or null
  void* arg;   // [extremes, N, F] of the type of rowptr, or null
  // backward
  const void* grad;  // as out
  void* d_x;         // [M, F] or null
  void* d_y;         // [N, F] or null
  void* d_edge;      // [E, F] or null
};

void multi_reduce_fwd(const MultiReduceArgs& a, const ParallelFor& pf);
void multi_reduce_bwd(const MultiReduceArgs& a, const ParallelFor& pf);

}  // namespace structops
