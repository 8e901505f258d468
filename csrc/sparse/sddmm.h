// sddmm: generalised sampled dense-dense product (g-SDDMM): one value per edge and feature, no structure is built.
//
//   out[b, eid[k], fo] = sum over r in [0, R) of  op(lhs[b, l, l_off[fo*R + r]], rhs[b, r', r_off[fo*R + r]])
//
// for every edge k of row v, where an operand's row is v (target v), col[k] (target u) or eid[k] (target e).
// Without offset tables feature fo*R + r is read directly, or feature 0 when the operand has one feature.
// `dot` is mul with R > 1. copy ignores rhs. eid null: the position k; col null: k.
// Accumulation over r: float for f32/bf16/f16, double for f64, in an order that depends on R and the instruction set.
// The caller guarantees valid rowptr, col and eid, and that eid is a permutation of [0, E).
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

enum class EdgeOp : int { copy, add, sub, mul, div };
enum class Target : int { u, v, e };

struct SddmmArgs {
  Dtype dtype;
  EdgeOp op;
  Target lhs_target, rhs_target;
  int64_t B, N, E, Fo, R;
  const void* lhs;  // [B, *, Fl]
  int64_t Fl, lhs_batch;
  const void* rhs;  // [B, *, Fr] or null for copy
  int64_t Fr, rhs_batch;
  Index rowptr, col, eid;  // [N + 1], [E], [E]
  const int32_t* l_off;    // [Fo * R] or null
  const int32_t* r_off;    // [Fo * R] or null
  void* out;               // [B, E, Fo]
};

void sddmm_fwd(const SddmmArgs& a, const ParallelFor& pf);

}  // namespace structops
