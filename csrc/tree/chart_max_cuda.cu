// CUDA max-marginals of charts: launch. The contract is chart.h, the algorithm is in chart_max.cuh.
#include "tree/chart_max.cuh"
#include "tree/cuda.h"

namespace structops::cuda {

void chart_max_marginals(const ChartMaxArgs& x, const CudaContext& ctx) {
  constexpr const char* op = "chart_max_marginals";
  const ChartArgs& a = x.in;
  if (a.B == 0) return;
  if (a.N > 8192) throw std::runtime_error("chart_max_marginals: CUDA kernels take at most 8192 positions");
  with_float(op, a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    const int64_t bytes = 2 * kMaxCharts * a.N * a.N * int64_t(sizeof(Acc<T>)), most = (int64_t(1) << 30) / bytes;
    int64_t grid = a.B < 2048 ? a.B : 2048;
    if (grid > most) grid = most > 1 ? most : 1;
    MaxParams p{a.score, a.sib, a.lengths, x.through, a.B, a.N, a.kind == Chart::span, a.kind == Chart::dep_single, nullptr};
    p.memory = scratch<char>(ctx, grid * bytes);
    launch(op, ctx, chart_max<T>, dim3(unsigned(grid)), kMaxThreads, p);
  });
}

}  // namespace structops::cuda
