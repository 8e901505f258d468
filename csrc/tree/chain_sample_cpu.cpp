// CPU chain_sample: charts from the left, then choices from the right. The contract is chain.h.
#include "tree/chain_log.h"

namespace structops::STRUCTOPS_ISA {
namespace {

using Chain = LogChain<double, false>;

// The first i whose cumulative weight exceeds u times the sum; weights are exp of the n logarithms (padded) in row.
int choose(double* row, int n, int np, double u) {
  normalise(row, np);
  double total = 0;
  for (int c = 0; c < np; c += W<double>) store(row + c, vexp<double>(load(row + c)));
  for (int i = 0; i < n; ++i) total += row[i];
  const double target = u * total;
  double sum = 0;
  int last = 0;
  for (int i = 0; i < n; ++i) {
    if (row[i] == 0) continue;
    sum += row[i];
    last = i;
    if (sum > target) break;
  }
  return last;
}

struct Sampler {
  Chain chain;
  double* by_length;  // [K], padded
  int Kp;

  // One path of the sentence in chain's charts.
  void draw(const double* uniform, int64_t* tags) {
    const ChainArgs& a = chain.a;
    const int T = chain.T, Tp = chain.Tp, K = chain.K;
    const bool full = a.kind == Trans::full;
    double* const row = chain.one;
    for (int c = 0; c < Tp; ++c) row[c] = chain.V[chain.n * Tp + c] + chain.en[c];
    int tag = choose(row, T, Tp, *uniform++);
    for (int64_t j = chain.n; j > 0;) {
      int64_t d = 1;
      if (K > 1) {
        fill(by_length, Kp, -double(INFINITY));
        chain.restart();
        double ref = -INFINITY;
        const int64_t first = j > K ? j - K : 0;
        auto base = [&](int64_t i) { return full && i > 0 ? chain.offV[i] : chain.offP[i]; };
        for (int64_t i = first; i < j; ++i) ref = base(i) > ref ? base(i) : ref;
        for (int64_t i = j - 1; i >= first; --i) {
          chain.extend(i);
          if (j - i > chain.longest(i, j - i)) continue;
          const double* from = chain.P + i * Tp;
          if (full && i > 0) {
            chain.load_trans(i, j - i);
            chain.enter(i, chain.out, nullptr);
            from = chain.out;
          }
          chain.segment(from, nullptr, i, j - i, base(i) - ref, chain.val, nullptr);
          by_length[j - i - 1] = chain.val[tag];
        }
        d = 1 + choose(by_length, K, Kp, *uniform++);
      }
      const int64_t i = j - d;
      tags[i] = tag;
      if (i > 0) {
        chain.load_trans(i, d);
        for (int s = 0; s < T; ++s) row[s] = chain.V[i * Tp + s] + chain.tr[s * Tp + tag];
        for (int s = T; s < Tp; ++s) row[s] = -INFINITY;
        tag = choose(row, T, Tp, *uniform++);
      }
      j = i;
    }
  }
};

}  // namespace

void chain_sample(const ChainPathArgs& p, const ParallelFor& pf) {
  const ChainArgs& a = p.in;
  const int Kp = padded<double>(a.K);
  const size_t head = (size_t(Kp) * sizeof(double) + 63) / 64 * 64;
  const int64_t choices = a.K == 1 ? a.N : 2 * a.N;
  const Dealt dealt(a, a.B);
  const Workers workers(pf, dealt.G, work_of(a) + double(p.M) * double(a.B) * double(a.N * (a.T + a.K * a.T)), Chain::bytes(a, false) + head);
  deal(dealt, workers, pf,
       [&](char* scratch) { return Sampler{Chain(a, scratch + head, nullptr), reinterpret_cast<double*>(scratch), Kp}; },
       [&](Sampler& s, int64_t, int64_t b) {
    const double logz = s.chain.forward(b, nullptr);
    for (int64_t m = 0; m < p.M; ++m) {
      int64_t* const tags = p.tags + (m * a.B + b) * a.N;
      fill(tags, a.N, int64_t(-1));
      if (logz > -INFINITY && s.chain.n > 0) s.draw(p.uniform + (m * a.B + b) * choices, tags);
    }
  });
}

}  // namespace structops::STRUCTOPS_ISA
