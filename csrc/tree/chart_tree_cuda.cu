// CUDA best trees and samples: launch. The contract is chart.h, the algorithms are in chart_best.cuh, chart_tree.cuh.
#include <type_traits>

#include "tree/chart_best.cuh"
#include "tree/chart_launch.cuh"

namespace structops::cuda {
namespace {

TreeParams tree_params(const ChartTreeArgs& a) {
  const int64_t N = a.in.N;
  return {a.K, a.value, a.uniform, a.tree, a.in.kind != Chart::span ? N : N > 1 ? 2 * (2 * N - 3) : 0};
}

}  // namespace

void chart_best(const ChartTreeArgs& a, const CudaContext& ctx) {
  const char* const op = "chart_best";
  if (a.in.B == 0) return;
  if (a.K >= 1 << 24) throw std::runtime_error("chart_best: CUDA kernels take k below 2^24");
  Dtype wide = a.in.dtype;
  Widened w(op, ctx, wide);
  const ChartParams p = chart_params(op, a.in, w);
  const TreeParams t = tree_params(a);
  const Form form = form_of(a.in);
  const int n = int(a.in.N - 1), threads = chart_threads(form, a.in.N);
  with_wide(wide, [&](auto* type) {
    using A = Pointee<decltype(type)>;
    with_form(form, [&](auto f) {
      const ChartRoom one{best_elements<A>(form, n), 0, true};
      const ChartRoom lists{kbest_elements(form, n, a.K), kbest_extra(form, n, a.K), false};
      if (a.K == 1) launch_charts<A>(op, ctx, chart_best<A, f.value>, p, threads, one, t);
      else launch_charts<A>(op, ctx, chart_kbest<A, f.value>, p, threads, lists, t);
    });
  });
}

void chart_sample(const ChartTreeArgs& a, const CudaContext& ctx) {
  const char* const op = "chart_sample";
  if (a.in.B == 0 || a.K == 0) return;
  if (a.K >= int64_t(1) << 31) throw std::runtime_error("chart_sample: CUDA kernels draw fewer than 2^31 samples");
  Dtype wide = a.in.dtype;
  Widened w(op, ctx, wide);
  const ChartParams p = chart_params(op, a.in, w);
  const TreeParams t = tree_params(a);
  const Form form = form_of(a.in);
  const int threads = chart_threads(form, a.in.N);
  with_wide(wide, [&](auto* type) {
    using A = Pointee<decltype(type)>;
    with_form(form, [&](auto f) {
      const ChartRoom room{inside_elements(form, int(a.in.N - 1)), threads * stack_depth(a.in.N) * 8, true};
      if constexpr (std::is_same_v<A, double>) launch_charts<A>(op, ctx, chart_sample<A, f.value>, p, threads, room, t);
      else launch_charts_or_wide(op, ctx, chart_sample<A, f.value>, chart_sample_wide<f.value>, p, threads, room, t);
    });
  });
}

}  // namespace structops::cuda
