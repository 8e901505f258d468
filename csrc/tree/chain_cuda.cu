// CUDA chains: launch. The contract is chain.h, the algorithm is in chain.cuh, chain_path.cuh and chain_max.cuh.
#include "tree/chain_max.cuh"
#include "tree/chain_path.cuh"
#include "tree/cuda.h"

namespace structops::cuda {
namespace {

constexpr int64_t kScratch = int64_t(1) << 28;  // bytes of scratch beyond which fewer blocks take more sentences each

template <class T> ChainScoresOf<T> typed(const ChainScores& s) {
  const auto as = [](const void* q) { return static_cast<const T*>(q); };
  return {as(s.emit), as(s.segment), as(s.duration), as(s.trans), as(s.start), as(s.end)};
}

// The arguments of every kernel; `bytes`: scratch of a block beyond its charts and sums.
template <class T, class A> ChainParams<T, A> params(const ChainArgs& a, bool posteriors, int64_t chart_size, int64_t bytes, const CudaContext& ctx) {
  ChainParams<T, A> p{};
  p.score = typed<T>(a.score);
  p.v = typed<T>(a.v);
  const auto as = [](void* q) { return static_cast<T*>(q); };
  p.post = {as(a.post.emit), as(a.post.segment), as(a.post.duration), as(a.post.trans), as(a.post.start), as(a.post.end)};
  p.lengths = a.lengths;
  p.logz = static_cast<Acc<T>*>(a.logz);
  p.weight = static_cast<const Acc<T>*>(a.weight);
  p.kind = int(a.kind);
  p.posteriors = posteriors;
  p.B = a.B; p.N = a.N; p.T_ = a.T; p.K = a.K; p.M = 1;
  p.chart_size = chart_size;
  if (posteriors) {
    const auto place = [&](bool wanted, int64_t n) { const int64_t at = p.sum_size; p.sum_size += wanted ? n : 0; return at; };
    place(a.kind == Trans::shared || a.kind == Trans::batch, a.T * a.T);
    p.sum_duration = place(a.post.duration, a.K * a.T);
    p.sum_start = place(a.post.start, a.T);
    p.sum_end = place(a.post.end, a.T);
  }
  const bool covers = posteriors && a.K > 1;
  const int64_t each = chart_size * int64_t(sizeof(A)) + 8 * (p.sum_size + 3 * (a.N + 1) + (covers ? (a.N + 1) * a.T : 0)) + bytes;
  p.G = a.B < 1024 ? a.B : 1024;
  while (p.G > 64 && p.G * each > kScratch) p.G = div_up(p.G, 2);
  if (p.G < 1) p.G = 1;
  p.charts = scratch<A>(ctx, p.G * chart_size);
  p.offsets = scratch<double>(ctx, p.G * 3 * (a.N + 1));
  p.sums = scratch<double>(ctx, p.G * p.sum_size);
  p.cover = covers ? scratch<double>(ctx, p.G * (a.N + 1) * a.T) : nullptr;
  return p;
}

int threads(int64_t T) { return T >= 256 ? 256 : int(div_up(T, 32) * 32); }

// B = 0 launches one block all the same: shared posteriors are then 0.
template <class A, bool dual> void sums(const char* op, const ChainArgs& a, bool posteriors, const CudaContext& ctx) {
  if (a.B == 0 && !posteriors) return;
  with_float(op, a.dtype, [&](auto* tag) {
    using T = Pointee<decltype(tag)>;
    if constexpr (sizeof(A) >= sizeof(Acc<T>)) {
      const auto p = params<T, A>(a, posteriors, DeviceChain<T, A, dual>::size(a.N, a.T, a.K), 0, ctx);
      launch(op, ctx, chain_sums<T, A, dual>, dim3(unsigned(p.G)), threads(a.T), p);
      const auto finish = [&](void* out, int64_t begin, int64_t count) {
        if (out && count > 0)
          launch(op, ctx, chain_finish<T>, dim3(unsigned(div_up(count, 128))), 128, static_cast<const double*>(p.sums), p.G, p.sum_size, begin, count,
                 static_cast<T*>(out));
      };
      if (!posteriors) return;
      if (a.kind == Trans::shared) finish(a.post.trans, 0, a.T * a.T);
      finish(a.post.duration, p.sum_duration, a.K * a.T);
      finish(a.post.start, p.sum_start, a.T);
      finish(a.post.end, p.sum_end, a.T);
    }
  });
}

void sums_in(const char* op, const ChainArgs& a, bool posteriors, const CudaContext& ctx) {
  if (a.dtype == Dtype::f64) sums<double, false>(op, a, posteriors, ctx);
  else sums<float, false>(op, a, posteriors, ctx);
}

}  // namespace

void chain_logz(const ChainArgs& a, const CudaContext& ctx) { sums_in("chain_logz", a, false, ctx); }
void chain_marginals(const ChainArgs& a, const CudaContext& ctx) { sums_in("chain_marginals", a, true, ctx); }
void chain_hvp(const ChainArgs& a, const CudaContext& ctx) { sums<double, true>("chain_hvp", a, true, ctx); }

void chain_best(const ChainPathArgs& q, const CudaContext& ctx) {
  const ChainArgs& a = q.in;
  if (a.B == 0) return;
  if (double(a.T) * double(a.K) * double(q.M) > 2e9) throw std::runtime_error("chain_best: CUDA kernels take fewer than 2^31 tags times lengths times paths");
  with_float("chain_best", a.dtype, [&](auto* tag) {
    using T = Pointee<decltype(tag)>;
    using A = Acc<T>;
    const int64_t lists = (a.N + 1) * a.T * q.M, charts = DeviceChain<T, A, false>::size(a.N, a.T, a.K);
    auto p = params<T, A>(a, false, lists * 2 > charts ? lists * 2 : charts, lists * 8, ctx);
    p.M = q.M;
    p.value = static_cast<A*>(q.value);
    p.tags = q.tags;
    p.from = scratch<int>(ctx, p.G * 2 * lists);
    launch("chain_best", ctx, chain_lists<T, A>, dim3(unsigned(p.G)), threads(a.T), p);
  });
}

void chain_sample(const ChainPathArgs& q, const CudaContext& ctx) {
  const ChainArgs& a = q.in;
  if (a.B == 0 || q.M == 0) return;
  with_float("chain_sample", a.dtype, [&](auto* tag) {
    using T = Pointee<decltype(tag)>;
    auto p = params<T, double>(a, false, DeviceChain<T, double, false>::size(a.N, a.T, a.K), 0, ctx);
    p.M = q.M;
    p.uniform = q.uniform;
    p.tags = q.tags;
    launch("chain_sample", ctx, chain_draws<T>, dim3(unsigned(p.G)), threads(a.T), p);
  });
}

void chain_max_marginals(const ChainMaxArgs& x, const CudaContext& ctx) {
  const ChainArgs& a = x.in;
  if (a.B == 0) return;
  with_float("chain_max_marginals", a.dtype, [&](auto* tag) {
    using T = Pointee<decltype(tag)>;
    using A = Acc<T>;
    auto p = params<T, A>(a, false, DeviceChain<T, A, false>::size(a.N, a.T, a.K), 0, ctx);
    p.value = static_cast<A*>(x.through);
    launch("chain_max_marginals", ctx, chain_max<T, A>, dim3(unsigned(p.G)), threads(a.T), p);
  });
}

}  // namespace structops::cuda
