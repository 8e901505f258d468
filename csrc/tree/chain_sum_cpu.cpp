// CPU chain_logz, chain_marginals and chain_hvp. The contract is chain.h.
#include "tree/chain_linear.h"
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

// A worker of linear chains: without logarithms where that is safe, else with.
template <class A> struct Linear {
  LinearChain<A> chain;
  char* scratch;  // of the logarithms
  const SharedSums* shared;
  alignas(64) char storage[sizeof(LogChain<double, false>)];
  LogChain<double, false>* logs = nullptr;

  Linear(const ChainArgs& a, Carver c, const SharedSums* s, const LinearMatrix<A>* common) : chain(a, c, s, common), scratch(c.at), shared(s) {}

  void sentence(int64_t group, int64_t b) {
    const ChainArgs& a = chain.a;
    double logz;
    const bool posteriors = shared != nullptr;
    if (chain.forward(b, &logz) && (!posteriors || chain.backward(weight_of(a, b), group))) return write_one(a.dtype, a.logz, b, logz);
    if (!logs) logs = new (storage) LogChain<double, false>(a, scratch, shared);
    logz = logs->forward(b, nullptr);
    write_one(a.dtype, a.logz, b, logz);
    if (posteriors) logs->backward(logz, 0, weight_of(a, b), group);
  }
};

template <class A> void run_linear(const ChainArgs& a, const ParallelFor& pf, bool posteriors) {
  const Dealt dealt(a, posteriors ? group_count(a, a.post.trans || a.post.start || a.post.end) : a.B);
  const SharedSums sums(a, posteriors ? dealt.G : 0);
  Workers common(serial_for, 1, 0, LinearMatrix<A>::bytes(a) + 64);
  Carver carver{common.scratch(0)};
  LinearMatrix<A> shared(a, carver);
  if (a.kind == Trans::none || a.kind == Trans::shared) shared.load_matrix(a, 0);
  const Workers workers(pf, dealt.G, work_of(a), LinearChain<A>::bytes(a) + LogChain<double, false>::bytes(a, posteriors));
  deal(dealt, workers, pf, [&](char* scratch) { return Linear<A>(a, Carver{scratch}, posteriors ? &sums : nullptr, &shared); },
       [&](Linear<A>& worker, int64_t g, int64_t b) { worker.sentence(g, b); });
  if (posteriors) sums.finish(a, dealt.G);
}

void sums(const ChainArgs& a, const ParallelFor& pf, bool posteriors) {
  const bool linear = a.K == 1 && a.kind != Trans::full && !a.score.segment && !a.score.duration, wide = a.dtype == Dtype::f64;
  if (linear) return wide ? run_linear<double>(a, pf, posteriors) : run_linear<float>(a, pf, posteriors);
  if (wide) run<double, false>(a, pf, posteriors);
  else run<float, false>(a, pf, posteriors);
}

}  // namespace

void chain_logz(const ChainArgs& a, const ParallelFor& pf) { sums(a, pf, false); }
void chain_marginals(const ChainArgs& a, const ParallelFor& pf) { sums(a, pf, true); }
void chain_hvp(const ChainArgs& a, const ParallelFor& pf) { run<double, true>(a, pf, true); }

}  // namespace structops::STRUCTOPS_ISA
