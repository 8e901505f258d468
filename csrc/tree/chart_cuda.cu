// CUDA sums over trees: launch. The contract is chart.h, the algorithm is in chart.cuh and chart_sum.cuh.
#include <type_traits>

#include "tree/chart_launch.cuh"
#include "tree/chart_sum.cuh"

namespace structops::cuda {
namespace {

template <bool dual> void sum(const char* op, const ChartArgs& a, const CudaContext& ctx, bool outside) {
  if (a.B == 0) return;
  Dtype wide = a.dtype;
  Widened w(op, ctx, wide);
  ChartParams p = chart_params(op, a, w);
  p.outside = outside;
  const Form form = form_of(a);
  with_wide(wide, [&](auto* t) {
    using A = Pointee<decltype(t)>;
    with_form(form, [&](auto f) {
      const ChartRoom room{sum_elements(form, outside, dual, int(a.N - 1)), 0, true};
      const int threads = chart_threads(form, a.N);
      if constexpr (std::is_same_v<A, double>) launch_charts<A>(op, ctx, chart_sum<A, f.value, dual>, p, threads, room);
      else launch_charts_or_wide(op, ctx, chart_sum<A, f.value, dual>, chart_sum_wide<f.value, dual>, p, threads, room);
    });
  });
  w.narrow();
}

}  // namespace

void chart_logz(const ChartArgs& a, const CudaContext& ctx) { sum<false>("chart_logz", a, ctx, false); }
void chart_marginals(const ChartArgs& a, const CudaContext& ctx) { sum<false>("chart_marginals", a, ctx, true); }
void chart_hvp(const ChartArgs& a, const CudaContext& ctx) { sum<true>("chart_hvp", a, ctx, true); }

}  // namespace structops::cuda
