// CUDA sums over trees: launch. The contract is chart.h, the algorithm is in chart.cuh and chart_sum.cuh.
#include <type_traits>

#include "tree/chart_launch.cuh"
#include "tree/chart_sum.cuh"

namespace structops::cuda {
namespace {

template <bool dual> void sum(const char* op, const ChartArgs& a, const CudaContext& ctx, bool outside) {
  if (a.B == 0) return;
  ChartParams p = chart_params(op, a);
  p.outside = outside;
  const Form form = form_of(a);
  with_float(op, a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    with_form(form, [&](auto f) {
      const ChartRoom room{sum_elements(form, outside, dual, int(a.N - 1)), 0, true};
      launch_charts<Acc<T>>(op, ctx, chart_sum<T, f.value, dual>, p, chart_threads(form, a.N), room);
    });
  });
}

}  // namespace

void chart_logz(const ChartArgs& a, const CudaContext& ctx) { sum<false>("chart_logz", a, ctx, false); }
void chart_marginals(const ChartArgs& a, const CudaContext& ctx) { sum<false>("chart_marginals", a, ctx, true); }
void chart_hvp(const ChartArgs& a, const CudaContext& ctx) { sum<true>("chart_hvp", a, ctx, true); }

}  // namespace structops::cuda
