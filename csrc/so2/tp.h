// Channel-wise tensor products of irreps along the edges of a graph: gather, product, segment sum in one pass.
//
//   out[v, o(p), k, u] = sum over edges e into v, over paths p, of
//                        w[e, p, u] * sum_{i,j} C[p, i, j, k] * x[src(e), b(p), i, u] * y[e, j]
//
// x, out: rows of blocks (mul channels u, d components); y: one row per edge, shared by the channels; w: one number per edge, path
// and channel, or none (1). C: sparse real Clebsch-Gordan coefficients with the paths' factors.
//
// Evaluation: M[p, i, k] = sum_j C[p, i, j, k] y[e, j] for W edges at a time (edges are the lanes), then for each edge and path
// t[k, u] = sum_i M[p, i, k] x[i, u] with channels as the lanes, and out[k, u] += w[u] t[k, u]. Pairs (i, k) whose M is 0 by
// selection rules are not stored. Nothing of size [E, paths] exists.
//
// The form T(x, y, w, g) = <g, out> is linear in each argument, so two kernels give derivatives of every order:
//   tp_conv                the gradient of T in g; with `transpose`, and the reversed edges, that in x;
//   tp_conv_edge           the gradients of T in y and in w, edge by edge.
//
// Structure, edge position k = 0..E-1:   edge id e = eid[k] or k;   row of x = col[k] or e;   receiver v: rowptr[v] <= k < rowptr[v + 1],
// or k without rowptr and eid (each edge has a row of its own, N = E). Every receiver owns its row: no atomics.
// Order of summation: receivers add their edges in the order of k, an edge its paths in order, a path k by k in order of i, j by j;
// the sum over channels of the gradient in y is taken lane-wise, then over lanes as a tree. It depends on the instruction set, never on
// threads. NaN and infinities propagate to what they are multiplied into; entries of C that are 0 are not multiplied.
//
// Accumulators: float for float32, bfloat16 and float16; double for float64.
//
// The caller guarantees: indices in range, plan made by pyops/so2/_plan.py (self-consistent), rows contiguous.
//
// Source: the paths, normalisations and layouts of e3nn (o3.TensorProduct, mode uvu); Geiger and Smidt 2022. The factoring through M
// and the closure of derivatives: above.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

#if defined(__CUDACC__) || defined(STRUCTOPS_CUDA_SOURCE)
#define STRUCTOPS_ANYWHERE __host__ __device__
#else
#define STRUCTOPS_ANYWHERE
#endif

namespace structops {

// The plan: int32, one array. All offsets of lists count from the array's begin.
//   header [kTpHeader], blocks of x [nx][5], blocks of out [no][5], paths [P][8], pair_ptr [pairs + 1], entry_y [entries],
//   runs [..][3], items [..][2]
// block: mul, d, offset in the row, stride of channels, stride of components.
// path: block of x, block of out, offset in w or -1, stride of channels in w, runs [begin, end), transposed runs [begin, end).
// pair: its entries [pair_ptr[q], pair_ptr[q + 1]); entry: a column of y, and a coefficient in cg (float64).
// run: component of the result, items [begin, end); item: component of the operand, pair.
// Runs of a path are in order of k, transposed runs in order of i; pairs belong to one path, in the order of its runs.
enum TpHeader : int {
  tp_nx, tp_no, tp_paths, tp_pairs, tp_entries, tp_xdim, tp_ydim, tp_odim, tp_wdim,
  tp_blocks_at, tp_paths_at, tp_pair_ptr_at, tp_entry_at, tp_runs_at, tp_items_at, tp_size, kTpHeader
};
struct TpBlock { int32_t mul, d, offset, channel, component; };
struct TpPath { int32_t x, o, w, w_stride, run, run_end, run_t, run_t_end; };
struct TpRun { int32_t component, begin, end; };
struct TpItem { int32_t component, pair; };

struct TpPlan {
  const int32_t* data;  // [size]
  STRUCTOPS_ANYWHERE int32_t at(int i) const { return data[i]; }
  STRUCTOPS_ANYWHERE const TpBlock* blocks(bool out) const { return reinterpret_cast<const TpBlock*>(data + data[tp_blocks_at]) + (out ? data[tp_nx] : 0); }
  STRUCTOPS_ANYWHERE const TpPath* paths() const { return reinterpret_cast<const TpPath*>(data + data[tp_paths_at]); }
  STRUCTOPS_ANYWHERE const int32_t* pair_ptr() const { return data + data[tp_pair_ptr_at]; }
  STRUCTOPS_ANYWHERE const int32_t* entry_y() const { return data + data[tp_entry_at]; }
  STRUCTOPS_ANYWHERE const TpRun* runs() const { return reinterpret_cast<const TpRun*>(data + data[tp_runs_at]); }
  STRUCTOPS_ANYWHERE const TpItem* items() const { return reinterpret_cast<const TpItem*>(data + data[tp_items_at]); }
};

struct TpArgs {
  Dtype dtype;
  bool transpose;      // tp_conv: x and out change places, the plan stays
  int64_t rows, E, N;  // rows of x, edges, receivers
  TpPlan plan;         // on the device of the tensors
  int64_t nx, no, paths, pairs, entries, xdim, ydim, odim, wdim, plan_size;  // the header's, on the host
  const double* cg;    // [entries]
  const void* x;       // [rows, xdim]; transposed: [rows, odim]
  const void* y;       // [E, ydim]
  const void* w;       // [E, wdim] or null
  const void* g;       // tp_conv_edge: [N, odim]
  Index rowptr, col, eid;  // [N + 1], [E], [E]; each may be absent
  void* out;           // tp_conv: [N, odim]; transposed: [N, xdim]
  void* gy;            // tp_conv_edge: [E, ydim]
  void* gw;            // tp_conv_edge: [E, wdim] or null
};

void tp_conv(const TpArgs& a, const ParallelFor& pf);
void tp_conv_edge(const TpArgs& a, const ParallelFor& pf);

}  // namespace structops
