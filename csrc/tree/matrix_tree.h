// Non-projective dependency trees: sum, posteriors, curvature and samples, one sentence at a time.
//
// A tree of a sentence of n words gives each word d = 1..n one head h in 0..n, h != d, without a cycle; position 0 is the root.
// Its weight is the product of w[d,h] = exp(score[b,d,h]). multiroot false: exactly one word has head 0.
//
// Sum, by elimination without subtraction. Word k leaves the graph; walks through it become arcs:
//   D_k = sum_h w[k,h],   p[k,h] = w[k,h] / D_k,   w[d,h] += w[d,k] p[k,h]   over the words and the root that are left,
//   Z = prod_k D_k,  the last word's D being w[d,0].
// This is Gaussian elimination of the Laplacian of the matrix-tree theorem in which the diagonal is never stored but summed from
// the off-diagonal, as Grassmann, Taksar and Heyman do for Markov chains: only sums, products and quotients of positive
// numbers, so every intermediate keeps its relative accuracy whatever the scale of the scores. multiroot false: D_k leaves out
// the root, whose column goes along; what is left in it at the end is the sum over trees with one root arc.
//
// Posteriors. With w[last,0](d) the number left when d is eliminated last, and e[h,d] the probability that a walk from h to heads
// (with probabilities p) meets the root before d,
//   post[d,h] = w[d,h] e[h,d] / w[last,0](d),   e[0,d] = 1, e[d,d] = 0,   e[k,d] = sum_h p[k,h] e[h,d].
// The textbook form inv(L)[d,d] - inv(L)[h,d] is the same number with a cancellation that loses all digits once a cycle is much
// heavier than its way out. All last words at once by halving: eliminate one half, recurse into the other, then the reverse;
// e is filled in on the way back. 7/9 n^3 + 1/2 n^3 multiply-adds, O(n^2) memory, no subtraction anywhere.
// Curvature: the same code on dual numbers.
//
// Range. Rows are scaled by their largest weight and worked on in float64. Products of weights may underflow, which is harmless
// while the probability that heads drawn independently form a tree is above 2^-900: what is lost is below 2^-1022 of a row, and
// Z and the posteriors are multilinear in the rows. Below, the sentence is done again in numbers with 64-bit exponents. There one
// root is the limit of a root column times 2^-(2^50), so that zeros on the way need no pivoting.
//
// Samples. The elimination is run backwards. When k returns to a tree of the others, an arc d -> h of it came through k with
// probability w[d,k] p[k,h] / (w[d,h] after k left); those d become dependents of k, and k chooses its head h with probability
// proportional to w[k,h] among the words that are not below k. (The weights of the possible links of the parts then sum to
// D_k^(parts - 1) times that choice, by Cayley's formula.) Exact, bounded, and O(n^2) steps or few more for each tree.
//
// Sources: Tutte 1948; Koo, Globerson, Carreras and Collins 2007; McDonald and Satta 2007; Grassmann, Taksar and Heyman 1985;
// O'Cinneide 1993 (accuracy of elimination without subtraction).
//
// Every operator is stateless and deterministic; sentences are the unit of parallelism, longest first.
// Edges: n = 0 has one empty tree, logz 0. A score of -inf forbids exactly, and so does one that lies more than 2^36 below the best
// of its word; with no tree left logz = -inf, posteriors are 0 and heads -1. A NaN or +inf that is read gives NaN (heads -1).
// Scores of the diagonal, of the root as dependent and outside the sentence are never read, and their results are 0.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

struct MatrixTreeArgs {
  Dtype dtype;             // of score, v and post
  bool multiroot;
  int64_t B, N;
  const void* score;       // [B, N, N] as [dep, head]
  const int64_t* lengths;  // [B] words, 0 <= n <= N - 1: the caller checks
  const void* weight;      // [B] accumulator dtype (float64 for float64 scores, else float32), or null for ones
  const void* v;           // hvp: [B, N, N] direction
  void* logz;              // [B] accumulator dtype; hvp: the derivative of logz along v, <post, v>
  void* post;              // [B, N, N] weight[b] * d logz / d score;  hvp: weight[b] * (d post / d score) v
};

void matrix_tree_logz(const MatrixTreeArgs& a, const ParallelFor& pf);
void matrix_tree_marginals(const MatrixTreeArgs& a, const ParallelFor& pf);  // logz, post; the same logz bit for bit
void matrix_tree_hvp(const MatrixTreeArgs& a, const ParallelFor& pf);

struct MatrixTreeSampleArgs {
  MatrixTreeArgs in;    // score, lengths
  int64_t S;
  const int64_t* seed;  // [S, B]: of one sentence, equal seeds give equal trees
  int64_t* heads;       // [S, B, N], -1 at the root and past the sentence
};

void matrix_tree_sample(const MatrixTreeSampleArgs& a, const ParallelFor& pf);

}  // namespace structops
