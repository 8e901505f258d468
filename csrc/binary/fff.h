// Fast feed-forward networks, hard: rows descend a binary tree of linear decisions to a leaf, and go through that leaf's small MLP.
//
// fff_descend  node 0 is the root; at node n:  z = x . node_weight[n] + node_bias[n],  next = 2 n + 1 + (z >= 0, or z > 0 where
//              strict);  after `depth` decisions  leaf[b] = n - (2^depth - 1)  and  logit[b, t] = the z of decision t.
//              NaN compares false. Sums of products run in a fixed order in the accumulator.
// fff_leaf     rows perm[rowptr[l] .. rowptr[l + 1]) belong to leaf l:
//              a = b1[l] + x w1[l],  y = b2[l] + act(a) w2[l]      act: identity, relu, gelu (erf), silu
// fff_leaf_bwd from g = dy: d_x, and by leaf d_w1, d_b1, d_w2, d_b2 (0 for leaves without rows). A leaf's rows are added in order;
//              nothing of the forward but its operands is read.
// Sources: arXiv:2308.14711, arXiv:2405.16836.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

struct DescendArgs {
  Dtype dtype;  // floating
  int64_t B, I;
  int depth;
  bool strict;
  const void* x;            // [B, I]
  const void* node_weight;  // [2^depth - 1, I]
  const void* node_bias;    // [2^depth - 1] or null
  int64_t* leaf;            // [B]
  void* logit;              // [B, depth]
};

enum class Activation : int { identity, relu, gelu, silu, count };

struct LeafArgs {
  Dtype dtype;  // floating
  Activation activation;
  int64_t B, I, H, O, L;
  const int64_t* rowptr;  // [L + 1]
  const int64_t* perm;    // [B]
  const void *x, *w1, *b1, *w2, *b2;  // [B, I]  [L, I, H]  [L, H] or null  [L, H, O]  [L, O] or null
  const void* grad;                   // [B, O], bwd
  void* out;                          // [B, O]
  void *d_x, *d_w1, *d_b1, *d_w2, *d_b2;  // bwd, shapes of the operands; biases null with theirs
};

void fff_descend(const DescendArgs& a, const ParallelFor& pf);
void fff_leaf(const LeafArgs& a, const ParallelFor& pf);
void fff_leaf_bwd(const LeafArgs& a, const ParallelFor& pf);

}  // namespace structops
