// CPU chain_logz, chain_marginals and chain_hvp. The contract is chain.h.
#include "tree/chain_log.h"

namespace structops::STRUCTOPS_ISA {
namespace {

double weight_of(const ChainArgs& a, int64_t b) { return a.weight ? read_one(a.dtype, a.weight, b) : 1.0; }

template <class A, bool dual> void run(const ChainArgs& a, const ParallelFor& pf, bool posteriors) {
  const SharedSums* shared = nullptr;
  const Dealt dealt(a, posteriors ? group_count(a, a.post.trans || a.post.duration || a.post.start || a.post.end) : a.B);
  const SharedSums sums(a, posteriors ? dealt.G : 0);
  if (posteriors) shared = &sums;
  const Workers workers(pf, dealt.G, work_of(a), LogChain<A, dual>::bytes(a, posteriors));
  deal(dealt, workers, pf, [&](char* scratch) { return LogChain<A, dual>(a, scratch, shared); },
       [&](LogChain<A, dual>& chain, int64_t g, int64_t b) {
    double d_logz = 0;
    const double logz = chain.forward(b, dual ? &d_logz : nullptr);
    write_one(a.dtype, a.logz, b, dual ? d_logz : logz);
    if (posteriors) chain.backward(logz, d_logz, weight_of(a, b), g);
  });
  if (posteriors) sums.finish(a, dealt.G);
}

void sums(const ChainArgs& a, const ParallelFor& pf, bool posteriors) {
  if (a.dtype == Dtype::f64) run<double, false>(a, pf, posteriors);
  else run<float, false>(a, pf, posteriors);
}

}  // namespace

void chain_logz(const ChainArgs& a, const ParallelFor& pf) { sums(a, pf, false); }
void chain_marginals(const ChainArgs& a, const ParallelFor& pf) { sums(a, pf, true); }
void chain_hvp(const ChainArgs& a, const ParallelFor& pf) { run<double, true>(a, pf, true); }

}  // namespace structops::STRUCTOPS_ISA
