// Chains of tagged segments: linear-chain CRFs (segments of one position) and semi-Markov CRFs (of up to K positions).
//
// A path cuts positions 0..n-1 into segments [i, i + d), 1 <= d <= K, each with one of T tags. Its score adds
//   per segment   S(i, d, t) = sum_{i <= p < i+d} emit[b, p, t] + segment[b, i, d-1, t] + duration[d-1, t]
//   per border    trans(s, t): tag s ends at i, the segment [i, i + d) has tag t
//   start[t] for the first segment, end[t] for the last.
// K is the size of segment, of duration, of a 5-dimensional trans, or 1. A null score counts as zeros. Kinds of trans:
//   none; shared [T, T]; batch [B, T, T]; position [B, N-1, T, T], read at i - 1;
//   full [B, N-1, K, T, T], read at (i - 1, d - 1): then the first segment has d = 1.
// Always [source, destination].
//
// V[j, t] sums the paths of [0, j) that end with t, P[i, t] those of [0, i) with the border into t:
//   P[0, t] = start[t]      P[i, t] = log sum_s exp(V[i, s] + trans(s, t))
//   V[j, t] = log sum_d exp(P[j-d, t] + S(j-d, d, t))             logz = log sum_t exp(V[n, t] + end[t])
// and from the right, B[j, s] after a segment with tag s and Q[i, t] before one with tag t:
//   B[n, s] = end[s]        B[j, s] = log sum_t exp(trans(s, t) + Q[j, t])
//   Q[i, t] = log sum_d exp(S(i, d, t) + B[i+d, t])
//   P(segment i, d, t) = exp(P[i, t] + S(i, d, t) + B[i+d, t] - logz),  P(s -> t at i) = exp(V[i, s] + trans(s, t) + Q[i, t] - logz)
// Sources: Lafferty, McCallum and Pereira 2001; Sarawagi and Cohen 2004.
//
// Every operator is stateless: O((N + K) T) scratch per worker, and one [T, T] for each of at most 64 groups of sentences where
// parameters are shared. Sentences are dealt longest first. No result of a sentence depends on the batch or on the number of
// threads; sums over the batch have an order that lengths alone decide.
//
// Edges: n = 0 has one empty path, logz 0. A score of -inf forbids exactly; with no path left logz = -inf, posteriors are 0 and
// tags are -1. Any NaN or +inf that is read gives NaN, and tags -1. Entries past the sentence are never read, and are 0 in
// results. Sums are float32 with a float64 scale for 16- and 32-bit scores, float64 for float64.
#pragma once
#include "core/parallel.h"
#include "core/types.h"

namespace structops {

enum class Trans : int { none, shared, batch, position, full };

// Scores of a chain, in one dtype; the same struct holds directions and posteriors.
struct ChainScores {
  const void* emit;      // [B, N, T]
  const void* segment;   // [B, N, K, T] or null
  const void* duration;  // [K, T] or null
  const void* trans;     // see Trans
  const void* start;     // [T] or null
  const void* end;       // [T] or null
};

struct ChainPosteriors {  // null where the score is null
  void *emit, *segment, *duration, *trans, *start, *end;
};

struct ChainArgs {
  Dtype dtype;             // of scores, directions and posteriors
  Trans kind;
  int64_t B, N, T, K;
  ChainScores score;
  const int64_t* lengths;  // [B] positions, 0 <= n <= N: the caller checks
  const void* weight;      // [B] accumulator dtype (float64 for float64 scores, else float32), or null for ones
  ChainScores v;           // hvp: a direction for each score, null for zeros
  void* logz;              // [B] accumulator dtype; hvp: the derivative of logz along v, <posterior, v>
  ChainPosteriors post;    // weight[b] * d logz / d score;  hvp: weight[b] * (d posterior / d score) v
                           // of shared scores: summed over the batch
};

void chain_logz(const ChainArgs& a, const ParallelFor& pf);
void chain_marginals(const ChainArgs& a, const ParallelFor& pf);
void chain_hvp(const ChainArgs& a, const ParallelFor& pf);

struct ChainPathArgs {
  ChainArgs in;
  int64_t M;               // best: paths wanted; sample: paths drawn for each sentence
  void* value;             // best: [B, M] accumulator dtype, descending, -inf where there are fewer paths
  const double* uniform;   // sample: [M, B, K == 1 ? N : 2N] in [0, 1)
  int64_t* tags;           // best: [B, M, N]; sample: [M, B, N]. The tag at the first position of each segment, -1 elsewhere
};

// Ties: paths compared from the last segment on, the smaller tag comes first, then the shorter segment.
void chain_best(const ChainPathArgs& a, const ParallelFor& pf);
// Exact and independent samples, from the last segment to the first. Choice c of a path uses its c-th uniform number; a choice is
// a tag or, for K > 1, first the length of a segment and then the tag before it.
void chain_sample(const ChainPathArgs& a, const ParallelFor& pf);

struct ChainMaxArgs {
  ChainArgs in;
  void* through;           // [B, N, K, T] accumulator dtype
};

// At (i, d - 1, t) the score of the best path with the segment [i, i + d) of tag t; -inf where there is none, and past the sentence.
// V, P, B and Q above with max in place of log sum exp, plain numbers: through = P[i, t] + S(i, d, t) + B[i+d, t].
void chain_max_marginals(const ChainMaxArgs& a, const ParallelFor& pf);

}  // namespace structops
