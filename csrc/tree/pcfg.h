// Probabilistic context-free grammars in Chomsky normal form: sums, expected counts, curvature, best parses, max-marginals, samples.
//
// NT nonterminals (symbols 0..NT-1) and T preterminals (symbols NT..S-1, S = NT + T). A parse of words 0..n-1 gives every span of one
// word a preterminal and every longer one a nonterminal. It scores  root[A of the whole] + sum of term[word, preterminal] + sum of
// (rule[A, B, C] + span[i, j, A]) over its binary spans. Inside, over spans [i, j), all of them exponentials:
//   V[i,i+1,t] = term[i,t]        V[i,j,A] = span[i,j,A] sum_{B,C} rule[A,B,C] M[B,C],  M[B,C] = sum_{i<r<j} V[i,r,B] V[r,j,C]
//   logz = sum_A root[A] V[0,n,A]
// where preterminals meet spans of one word only: M has one term for most pairs. O(n^3 NT^2 + n^2 NT S^2) for a sentence.
// Source: Lari and Young 1990; Kim, Dyer and Rush 2019 for the form with preterminals.
//
// Numbers: M is a scaled number per pair (scaled.h). The products with rules run over plain numbers, M relative to its largest pair and
// rules relative to the largest of their A, and where a sum comes out below 2^-60 (float64: 2^-500) of that, it is taken again over
// scaled numbers: no range of scores is too large, and only such sums are slow.
//
// Edges: n = 0 has one empty parse, logz 0; n = 1 has none, since a root is a nonterminal. -inf forbids exactly; without a parse
// logz = -inf, counts are 0, trees -1. Any NaN or +inf that is read gives NaN. Rules and roots are read if n > 1, terms within the
// sentence, spans there of two words and more. Charts are float32 for 16- and 32-bit scores, float64 for float64 and for scores beyond
// 1e4; finite scores beyond 1e14 count as 1e14 in sums. Scores of another dtype than the charts are copied as in grand.h. The number of
// threads changes no bit.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

struct PcfgArgs {
  Dtype dtype;
  int64_t B, N, NT, T;
  bool shared;             // one set of rules for all sentences; likewise of directions
  const void* term;        // [B, N, T]
  const void* rule;        // [B, NT, S, S], shared: [1, NT, S, S]
  const void* root;        // [B, NT]
  const void* span;        // [B, N + 1, N + 1, NT] of (left, right, nonterminal), or null for zeros
  const int64_t* lengths;  // [B] words, 0 <= n <= N: the caller checks
  const void* weight;      // [B] accumulator dtype, or null for ones
  const void *v_term, *v_rule, *v_root;  // hvp: direction
  const void* v_span;      // or null for zeros, whether or not there is a span
  void* logz;              // [B] accumulator dtype; hvp: the derivative of logz along v
  void* post_term;         // [B, N, T] weight[b] * d logz / d term;  hvp: its derivative along v
  void* post_rule;         // [B, NT, S, S], of every sentence by itself
  void* post_root;         // [B, NT]
  void* post_span;         // [B, N + 1, N + 1, NT] weight[b] * probability of (left, right, nonterminal);  hvp: its derivative
};                         // max_marginals: all four of the accumulator dtype, and logz and weight null

void pcfg_logz(const PcfgArgs& a, const ParallelFor& pf);
void pcfg_marginals(const PcfgArgs& a, const ParallelFor& pf);
void pcfg_hvp(const PcfgArgs& a, const ParallelFor& pf);
// In place of counts, the score of the best parse that uses each part; -inf where there is none.
void pcfg_max_marginals(const PcfgArgs& a, const ParallelFor& pf);

// Parses: rows (left, right, symbol) in pre-order, 2n - 1 of max(2N - 1, 0), -1 past them.
struct PcfgTreeArgs {
  PcfgArgs in;
  int64_t K;               // parses for each sentence
  void* value;             // best: [B, K] accumulator dtype, descending, -inf where there are fewer parses
  const double* uniform;   // sample: [K, B, 2N] in [0, 1)
  int64_t* tree;           // best: [B, K, 2N - 1, 3];  sample: [K, B, 2N - 1, 3]
};

// Ties: the first (B, C), then the first r; of K > 1 then the lower ranks of the left part, then of the right one. K > 1 keeps the K
// best derivations of every (i, j, A): O(n^2 NT K) memory for a sentence.
void pcfg_best(const PcfgTreeArgs& a, const ParallelFor& pf);
// Exact and independent, top-down: a number for the symbol of the whole, then, in pre-order, for every longer span one for the pair (B, C)
// and one for r. Each takes the first alternative of positive weight whose cumulative weight reaches u times the total.
void pcfg_sample(const PcfgTreeArgs& a, const ParallelFor& pf);

}  // namespace structops
