// Best parses, samples and max-marginals of grammar charts.
#include "tree/pcfg_launch.cuh"

namespace structops::cuda {
namespace {

template <class T> __global__ void __launch_bounds__(32, 1) pcfg_best(const PcfgTreeArgs t, const PcfgLaunch q) {
  using A = Acc<T>;
  const PcfgArgs& a = t.in;
  for (int64_t b = blockIdx.x; b < a.B; b += gridDim.x) {
    const PcfgShape s = pcfg_shape(a, a.lengths[b], 32);
    const PcfgInput<T> in = pcfg_input<T>(a, b);
    const PcfgCharts<A> c = charts_of<A>(a, q.memory + blockIdx.x * q.stride, false, false);
    int64_t* const rows = t.tree + b * row_numbers(a);
    for (int64_t k = lane_id(); k < row_numbers(a); k += 32) rows[k] = -1;
    Found<A> found = best_parses(c, s, in);
    found.invalid = any_lane<A>(found.invalid);
    __syncwarp();
    if (first_lane()) {
      const A value = best_parse(c, s, in, stack_of(a, q), rows, found);
      static_cast<A*>(t.value)[b] = found.invalid ? A(__longlong_as_double(0x7ff8000000000000ll)) : value;
    }
    __syncwarp();
  }
}

template <class T> __global__ void __launch_bounds__(32, 1) pcfg_kbest(const PcfgTreeArgs t, const PcfgLaunch q) {
  using A = Acc<T>;
  const PcfgArgs& a = t.in;
  const int64_t K = t.K, size = row_numbers(a);
  char* const memory = q.memory + blockIdx.x * q.stride;
  for (int64_t b = blockIdx.x; b < a.B; b += gridDim.x) {
    PcfgKBest<T, A> s{pcfg_shape(a, a.lengths[b], 32), pcfg_input<T>(a, b), charts_of<A>(a, memory, false, false), {}, int(K), {}};
    lay_out_lists<A>(memory + q.first, a.N, a.NT, K, 32, 32, &s.p);
    for (int64_t k = lane_id(); k < K * size; k += 32) t.tree[b * K * size + k] = -1;
    __syncwarp();
    s.run(stack_of(a, q), static_cast<A*>(t.value) + b * K, t.tree + b * K * size, size);
  }
}

template <class T> __global__ void __launch_bounds__(32, 1) pcfg_max(const PcfgArgs a, const PcfgLaunch q) {
  for (int64_t b = blockIdx.x; b < a.B; b += gridDim.x) {
    max_sentence<T>(a, b, charts_of<Acc<T>>(a, q.memory + blockIdx.x * q.stride, true, false));
    __syncwarp();
  }
}

// False if the scores leave the charts of A.
template <class T, class A> STRUCTOPS_DEVICE bool samples(const PcfgTreeArgs& t, int64_t b, const PcfgCharts<A>& c, PcfgVisit* stack) {
  const PcfgArgs& a = t.in;
  const PcfgShape s = pcfg_shape(a, a.lengths[b], 32);
  const PcfgInput<T> in = pcfg_input<T>(a, b);
  Found<A> found = pcfg_inside<false>(c, s, in);
  const bool some = all_parses<false>(c, s, in, found).value().m > A(0);
  const bool invalid = any_lane<A>(found.invalid), wide = any_lane<A>(found.wide);
  if (sizeof(A) == 4 && !invalid && wide) return false;
  for (int64_t k = lane_id(); k < t.K; k += 32) {
    int64_t* const rows = t.tree + (k * a.B + b) * row_numbers(a);
    for (int64_t r = 0; r < row_numbers(a); ++r) rows[r] = -1;
    if (some && !invalid) sample_parse<T>(c, s, in, stack, t.uniform + (k * a.B + b) * 2 * a.N, rows);
  }
  __syncwarp();
  return true;
}

template <class T> __global__ void __launch_bounds__(32, 1) pcfg_sample(const PcfgTreeArgs t, const PcfgLaunch q) {
  using A = Acc<T>;
  char* const memory = q.memory + blockIdx.x * q.stride;
  for (int64_t b = blockIdx.x; b < t.in.B; b += gridDim.x) {
    const bool done = samples<T>(t, b, charts_of<A>(t.in, memory, false, false), stack_of(t.in, q));
    if constexpr (sizeof(A) == 4)
      if (!done) samples<T>(t, b, charts_of<double>(t.in, memory + q.first, false, false), stack_of(t.in, q));
  }
}

}  // namespace

void pcfg_max_marginals(const PcfgArgs& args, const CudaContext& ctx) {
  PcfgArgs a = args;
  if (a.B == 0) return;
  widened("pcfg_max_marginals", ctx, a, false);
  with_wide(a.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    launch_pcfg<T>("pcfg_max_marginals", ctx, a, pcfg_max<T>, a, true, false, false, false);
  });
}

void pcfg_best(const PcfgTreeArgs& args, const CudaContext& ctx) {
  PcfgTreeArgs t = args;
  if (t.in.B == 0) return;
  widened("pcfg_best", ctx, t.in);
  with_wide(t.in.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    if (t.K != 1) {
      PcfgLaunch q{};
      PcfgLists<Acc<T>> lists{};
      q.first = (chart_bytes<Acc<T>>(t.in, false, false) + 63) / 64 * 64;
      q.stride = q.first + lay_out_lists<Acc<T>>(nullptr, t.in.N, t.in.NT, t.K, 32, 32, &lists);
      return launch_in("pcfg_best", ctx, t.in, pcfg_kbest<T>, t, q, true);
    }
    launch_pcfg<T>("pcfg_best", ctx, t.in, pcfg_best<T>, t, false, false, false, true);
  });
}

void pcfg_sample(const PcfgTreeArgs& args, const CudaContext& ctx) {
  PcfgTreeArgs t = args;
  if (t.in.B == 0 || t.K == 0) return;
  widened("pcfg_sample", ctx, t.in);
  with_wide(t.in.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    launch_pcfg<T>("pcfg_sample", ctx, t.in, pcfg_sample<T>, t, false, false, true, true);
  });
}

}  // namespace structops::cuda
