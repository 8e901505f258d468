// Rows times the matrix of their type, with gather and scatter lists, and the gradient of the matrices.
//
//   fwd:    out[s_p] (+)= (sum_k c_k x[g_k]) w[t_p] + bias[t_p]     k in [gptr[p], gptr[p + 1])
//   wgrad:  out[t]      = sum of p of type t  (sum_k c_k x[g_k])^T grad[s_p]
//
// Rows p = 0 .. P - 1 come in segments of one type: segment i is [ptr[i], ptr[i + 1]) and of type types[i] (types null: i).
//   gptr null: k = p alone.   gather null: g_k = k.   scale null: c_k = 1.   scatter null: s_p = p.
//   blocks null: every row of out has exactly one p, and is stored.
//   blocks [B + 1]: segments blocks[b] .. blocks[b + 1] scatter into the rows block_rows[b] .. block_rows[b + 1] of out and no
//     others; blocks cover all rows of out. Rows without a p are 0. No bias. Within a segment no row of out comes twice.
//
// The gathered rows and the products live in tiles of some eighty rows: nothing of the size P x K or P x N is stored.
// Order: a gathered sum runs over k; a product over the columns of x; an output adds its p in their order. wgrad sums the rows
// of a type in order of p, in pieces whose number depends on the sizes only. The result does not depend on threads.
// A row's result does not depend on the other rows. NaN and inf propagate from the rows and matrices that meet in an output; w of
// a type without rows is not read, and its gradient is 0. No rows, no columns: out is 0 (or the bias).
//
// The caller guarantees the ranges of all index arrays. Sources: gather and scatter lists in the product and sums per unique
// (node, relation): Hector (ASPLOS 2024); relational convolutions: arXiv:1703.06103.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

struct TypedArgs {
  Dtype dtype;             // floating
  int64_t S, P, B;         // segments, rows, blocks
  int64_t R, K, N;         // types, columns of x, columns of out
  int64_t x_rows, rows;    // of x; of out (fwd) or grad (wgrad)
  Index ptr, types;        // [S + 1], [S]
  Index blocks, block_rows;  // [B + 1], [B + 1]
  Index gptr, gather;      // [P + 1], [gptr[P]]
  Index scatter;           // [P]
  const void* scale;       // [gptr[P]], float, or double where dtype is
  const void* x;           // [x_rows, K]
  const void* w;           // fwd: [R, K, N]
  const void* bias;        // fwd: [R, N] or null
  const void* grad;        // wgrad: [rows, N]
  void* out;               // fwd: [rows, N]; wgrad: [R, K, N]
};

void typed_matmul_fwd(const TypedArgs& a, const ParallelFor& pf);
void typed_matmul_wgrad(const TypedArgs& a, const ParallelFor& pf);

}  // namespace structops
