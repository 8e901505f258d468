// CUDA charts with factored sibling scores: groups of sentences whose scores fit in kFactoredScratch bytes, one after another,
// each by the chart kernels. Nothing is read back. The contract is factored.h.
#include "tree/cuda.h"
#include "tree/factored.cuh"

namespace structops::cuda {
namespace {

constexpr int64_t kFactoredScratch = int64_t(1) << 28;

enum class Query { logz, marginals, hvp };

template <class A>
const void* past(const void* p, int64_t count) {
  return p ? static_cast<const A*>(p) + count : nullptr;
}
template <class A>
void* past(void* p, int64_t count) {
  return p ? static_cast<A*>(p) + count : nullptr;
}

template <class A>
void run(const char* op, const FactoredArgs& a, const CudaContext& ctx, Query query) {
  const int64_t N = a.in.N, B = a.in.B, cube = N * N * N;
  const bool posts = query != Query::logz, dual = query == Query::hvp;
  const int64_t each = cube * (dual ? 4 : posts ? 2 : 1) * int64_t(sizeof(A));
  int64_t group = kFactoredScratch / each > 1 ? kFactoredScratch / each : 1;
  if (group > B) group = B;
  A* const sib = scratch<A>(ctx, group * cube);
  A* const post = posts ? scratch<A>(ctx, group * cube) : nullptr;
  A* const v_sib = dual ? scratch<A>(ctx, group * cube) : nullptr;
  A* const d_post = dual ? scratch<A>(ctx, group * cube) : nullptr;
  A* const plain_logz = dual ? scratch<A>(ctx, group) : nullptr;
  A* const plain_post = dual ? scratch<A>(ctx, group * N * N) : nullptr;
  for (int64_t b = 0; b < B; b += group) {
    const int64_t G = group < B - b ? group : B - b, f = b * N * a.D;
    ChartArgs c = a.in;
    c.B = G;
    c.score = past<A>(a.in.score, b * N * N);
    c.lengths = a.in.lengths + b;
    c.weight = past<A>(a.in.weight, b);
    c.logz = past<A>(a.in.logz, b);
    c.post = past<A>(a.in.post, b * N * N);
    c.sib = sib;
    c.post_sib = post;
    FactorParams p{G,
                   N,
                   a.D,
                   c.lengths,
                   past<A>(a.x, f),
                   past<A>(a.y, f),
                   past<A>(a.z, f),
                   past<A>(a.v_x, f),
                   past<A>(a.v_y, f),
                   past<A>(a.v_z, f),
                   sib,
                   v_sib,
                   post,
                   d_post,
                   c.logz,
                   past<A>(a.post_x, f),
                   past<A>(a.post_y, f),
                   past<A>(a.post_z, f)};
    const int64_t blocks = (G * cube + kFactorThreads - 1) / kFactorThreads;
    launch(op, ctx, factored_scores<A>, dim3(unsigned(blocks < 65536 ? blocks : 65536)), kFactorThreads, p);
    if (!posts) {
      chart_logz(c, ctx);
      continue;
    }
    if (dual) {
      ChartArgs plain = c;
      plain.logz = plain_logz;
      plain.post = plain_post;
      chart_marginals(plain, ctx);
      c.v = past<A>(a.in.v, b * N * N);
      c.v_sib = v_sib;
      c.post_sib = d_post;
      chart_hvp(c, ctx);
    } else {
      chart_marginals(c, ctx);
    }
    if (a.D > 0) launch(op, ctx, factored_gradients<A>, dim3(unsigned(3 * N * G)), kFactorThreads, p);
  }
}

void by_dtype(const char* op, const FactoredArgs& a, const CudaContext& ctx, Query query) {
  if (a.in.B == 0) return;
  if (a.in.dtype == Dtype::f64)
    run<double>(op, a, ctx, query);
  else
    run<float>(op, a, ctx, query);
}

}  // namespace

void factored_logz(const FactoredArgs& a, const CudaContext& ctx) { by_dtype("factored_logz", a, ctx, Query::logz); }
void factored_marginals(const FactoredArgs& a, const CudaContext& ctx) {
  by_dtype("factored_marginals", a, ctx, Query::marginals);
}
void factored_hvp(const FactoredArgs& a, const CudaContext& ctx) { by_dtype("factored_hvp", a, ctx, Query::hvp); }

}  // namespace structops::cuda
