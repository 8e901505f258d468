// Symmetric contractions (the product basis of MACE) and their derivatives along directions.
//
//   F(x, w, g) = sum over nodes n, channels c, terms t of   u_t[z(n), c] * g[n, o_t, c] * prod over v in vars_t of x[n, v, c]
//   u_t[z, c]  = sum over paths p of  U[t, p] * w[z, p, c]
//
// A term is a monomial of degree 1 to 4 in the components of x that some path of output component o_t holds: polynomials are
// symmetrised and merged when the plan is made, and what selection rules leave out is not there. z(n): the element of node n.
//
// The operator is the gradient of  D_1 .. D_K F  (K = 0, 1, 2) in x, in w and in g, where D_j is the derivative along the direction
// (x_j, w_j, g_j). K = 0 gives the contraction itself (the gradient in g) and its backward; the gradients of a call are calls with
// one direction more, or with one direction exchanged.
//
// Evaluation: with the factors f = (1, x, products of two components) every term is u_t * f[a] * f[b]. Derivatives along directions
// are carried in the algebra with generators e_j, e_j e_j = 0: x + sum_j e_j x_j and so on; the result stands at e_1 .. e_K.
// Nothing larger than x, w, g exists, but one sum of u for the nodes at hand, and gradients of w for each 256 nodes of an element.
//
// Operands: x [N, D, C] and g, out [N, O, C], or [N, C, D] and [N, C, O] with components_last; w [Z, P, C]. Nodes of element z:
// order[ptr[z]] .. order[ptr[z + 1] - 1]. A direction without a part (null) is zero there.
// Order of summation: terms of an output component in order; gradients of w over the nodes of an element in order, 256 at a time.
// Never by the number of threads. NaN and infinities propagate within their node and channel, and to the gradients of w.
// Accumulators: float for float32, bfloat16 and float16; double for float64.
//
// The caller guarantees: lists made by pyops/so2/_symmetric.py, ptr and order of csr_build, contiguous tensors.
//
// Source: Batatia et al., arXiv:2206.07697, equations 10 and 11.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

constexpr int kSymmetricDegree = 4, kSymmetricOrder = 2;

// The plan: int32 lists one after the other, as named, and coefficients U twice: by term, by path.
enum SymmetricSizes : int { sc_vars, sc_outs, sc_paths, sc_terms, sc_pairs, sc_entries, sc_uses, kSymmetricSizes };
struct SymmetricPlan {
  int64_t D, O, P, terms, pairs, entries, uses;
  const int32_t* out_ptr;   // [O + 1]: the terms of an output component
  const int32_t* factors;   // [terms][2]: f[0] = 1, f[1..D] = x, then pairs
  const int32_t* vars;      // [terms][4]: components of x, -1 beyond the degree
  const int32_t* term_out;  // [terms]
  const int32_t* pair;      // [pairs][2]: factors 1..D
  const int32_t* term_ptr;  // [terms + 1]: the entries of a term
  const int32_t* entry_path;  // [entries]
  const int32_t* path_ptr;  // [P + 1]: the entries of a path
  const int32_t* entry_term;  // [entries]
  const int32_t* use_ptr;   // [D + 1]: where a component of x occurs
  const int32_t* use;       // [uses]: 4 * term + position in vars
  const double* by_term;    // [entries]
  const double* by_path;    // [entries]

  static int64_t numbers(const int64_t* s) {
    return s[sc_outs] + s[sc_paths] + s[sc_vars] + 8 * s[sc_terms] + 2 * s[sc_pairs] + 2 * s[sc_entries] + s[sc_uses] + 4;
  }
  static SymmetricPlan make(const int64_t* s, const int32_t* lists, const double* coef) {
    SymmetricPlan p{};
    p.D = s[sc_vars], p.O = s[sc_outs], p.P = s[sc_paths], p.terms = s[sc_terms];
    p.pairs = s[sc_pairs], p.entries = s[sc_entries], p.uses = s[sc_uses];
    auto take = [&](int64_t n) { const int32_t* const q = lists; lists += n; return q; };
    p.out_ptr = take(p.O + 1);
    p.factors = take(2 * p.terms);
    p.vars = take(4 * p.terms);
    p.term_out = take(p.terms);
    p.pair = take(2 * p.pairs);
    p.term_ptr = take(p.terms + 1);
    p.entry_path = take(p.entries);
    p.path_ptr = take(p.P + 1);
    p.entry_term = take(p.entries);
    p.use_ptr = take(p.D + 1);
    p.use = take(p.uses);
    p.by_term = coef;
    p.by_path = coef + p.entries;
    return p;
  }
};

struct SymmetricArgs {
  Dtype dtype;
  bool components_last;
  int order;              // K
  int64_t N, C, Z;
  SymmetricPlan plan;     // lists and coefficients on the device of the tensors
  const void* x[3];       // x, x_1, x_2; directions may be null
  const void* w[3];
  const void* g[3];       // g[0] may be null where only gg is wanted
  Index ptr, nodes;       // [Z + 1], [N]
  void *gx, *gw, *gg;     // gradients in x, w, g; null where not wanted
};

void symmetric_contraction(const SymmetricArgs& a, const ParallelFor& pf);

}  // namespace structops
