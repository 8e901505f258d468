// The best non-projective tree, and checks of given trees, one sentence at a time.
//
// A tree of a sentence of n words gives each word d = 1..n one head h in 0..n, h != d, without a cycle; position 0 is the root.
//
// arborescence: the tree with the largest sum of score[b,d,h]. multiroot false: among trees in which exactly one word has head 0.
// Chu and Liu 1965, Edmonds 1967, on a dense matrix in O(n^2): a path grows along best incoming arcs; where it meets itself, the
// cycle becomes one node. One root is exact and costs nothing: arcs are compared by (fewer root arcs, larger score). Within words all
// counts are 0 and every root arc counts 1, before and after contraction, so a root arc is chosen only where no word is left.
// Sums and differences of scores are float64. Ties: at every choice the first of the equal arcs in the order of heads, contracted
// words standing at the place of the last that joined.
//
// Edges: n = 0 gives value 0. A score of -inf is never chosen; with no tree value = -inf and all heads are -1; with a NaN or +inf
// among the scores read, value = NaN and all heads are -1. The diagonal, the root as dependent and what is outside is not read.
//
// arborescence_kbest: the K trees with the largest sums, descending, each once. Lawler 1972: the trees other than a given one are
// parted by the first word whose head differs; the best tree of each part is an arborescence with the heads of the earlier words
// fixed and those taken already forbidden. A part whose words' best heads do not add up to enough is left out unsolved. At most n
// arborescences for each tree found: O(K n^3). Of equal sums the tree found first comes first. Fewer trees: -inf and -1; NaN as above.
//
// arborescence_max_marginals: of every arc (d, h) the score of the best tree with it, all in O(n^3). For one d, contract as above with d
// as a second root that reads no arcs: F, the best forest of two trees, and on its nodes v the chosen arcs c(v) and scores r(v, u). With
// the arc h -> d, d's tree hangs below h. If h is below the root, the best tree is F with the arc. Else the arc closes a cycle, and
// contraction goes on: the nodes from h up to d become one, whose best incoming arc, from u into v, loses c(v) - r(v, u) >= 0 against F;
// u's nodes join the cycle, or are below the root. That is Dijkstra's search: a node joins at the least sum of losses on a way to it from
// h, and the ways along chosen arcs are free. So the best tree with h -> d is F + score - (length of the shortest way from h to the root
// over arcs v -> u of length c(v) - r(v, u), none from d), and one search back from the root finds it for all h. One root: counts of root
// arcs go before scores, so only the last arc of a way can raise the count, and what has another count than 1 is -inf. -inf where there
// is no such tree, on the diagonal and outside; NaN at all arcs of a sentence with a NaN or +inf among the scores read.
//
// tree_check: bits of a head sequence. kTree: every head of 1..n is in 0..n and there is no cycle. Of trees only: kProjective: no two
// arcs cross, the root's included. kSingleRoot: exactly one word has head 0. The empty tree has all bits.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

struct ArborescenceArgs {
  Dtype dtype;
  bool multiroot;
  int64_t B, N;
  const void* score;       // [B, N, N] as [dep, head]
  const int64_t* lengths;  // [B] words, 0 <= n <= N - 1: the caller checks
  void* value;             // [B] accumulator dtype: float64 for float64 scores, else float32
  int64_t* heads;          // [B, N], -1 at the root and past the sentence
};

void arborescence(const ArborescenceArgs& a, const ParallelFor& pf);

struct ArborescenceKbestArgs {
  ArborescenceArgs in;  // value [B, K] and heads [B, K, N]
  int64_t K;
};

void arborescence_kbest(const ArborescenceKbestArgs& a, const ParallelFor& pf);

struct ArborescenceMaxArgs {
  ArborescenceArgs in;  // without value and heads
  void* through;        // [B, N, N] accumulator dtype
};

void arborescence_max_marginals(const ArborescenceMaxArgs& a, const ParallelFor& pf);

enum TreeFlag : int64_t { kTree = 1, kProjective = 2, kSingleRoot = 4 };

struct TreeCheckArgs {
  int64_t B, N;
  const int64_t* heads;    // [B, N]; position 0 and positions past the sentence are not read
  const int64_t* lengths;  // [B]
  int64_t* flags;          // [B]
};

void tree_check(const TreeCheckArgs& a, const ParallelFor& pf);

}  // namespace structops
