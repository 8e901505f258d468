// CUDA grammar charts: one warp for each sentence, a thread for each of 32 neighbouring spans. The contract is pcfg.h; the passes are
// those of the CPU, in pcfg_inside.h, pcfg_outside.h, pcfg_tree.h and pcfg_kbest.h. Charts lie in global memory.
#include "tree/cuda.h"
#include "tree/pcfg_kbest.h"
#include "tree/pcfg_outside.h"
#include "tree/widened.cuh"

namespace structops::cuda {
namespace {

constexpr int64_t kPcfgScratch = int64_t(1) << 30;  // bytes of charts, if one block needs no more

struct PcfgLaunch {
  char* memory;   // [gridDim.x, stride]: charts of the accumulator, then of double
  int64_t stride, first;
  char* stacks;   // [gridDim.x, 32, N + 2] visits
};

template <class A> STRUCTOPS_DEVICE PcfgCharts<A> charts_of(const PcfgArgs& a, char* memory, bool posts, bool dual) {
  const PcfgShape s = pcfg_shape(a, a.N, 32);
  PcfgCharts<A> c{};
  const PcfgRoom room{s.numbers(), s.pairs(), s.NT, 32, posts, dual};
  room.template lay_out<A>(memory, &c);
  return c;
}
STRUCTOPS_DEVICE PcfgVisit* stack_of(const PcfgArgs& a, const PcfgLaunch& q) {
  return reinterpret_cast<PcfgVisit*>(q.stacks) + (int64_t(blockIdx.x) * 32 + lane_id()) * (a.N + 2);
}
STRUCTOPS_DEVICE int64_t row_numbers(const PcfgArgs& a) { return a.N > 0 ? 3 * (2 * a.N - 1) : 0; }

template <class T, bool dual> __global__ void __launch_bounds__(32, 1) pcfg_sum(const PcfgArgs a, const PcfgLaunch q) {
  using A = Acc<T>;
  char* const memory = q.memory + blockIdx.x * q.stride;
  const bool posts = a.post_term != nullptr;
  for (int64_t b = blockIdx.x; b < a.B; b += gridDim.x) {
    const bool done = pcfg_sentence<dual, T>(a, b, charts_of<A>(a, memory, posts, dual));
    if constexpr (sizeof(A) == 4)
      if (!done) pcfg_sentence<dual, T>(a, b, charts_of<double>(a, memory + q.first, posts, dual));
    __syncwarp();
  }
}

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

// ---- launch --------------------------------------------------------------------------------------------------------------------

// Bytes of the charts of A: those of PcfgRoom::lay_out, or a little more.
template <class A> int64_t chart_bytes(const PcfgArgs& a, bool posts, bool dual) {
  const int64_t S = a.NT + a.T, n = a.N, stride = (n + 63) / 32 * 32, numbers = (a.T + (n > 1 ? n - 1 : 0) * a.NT) * stride;
  const int64_t vectors = S * S * 32, rules = a.NT * S * S + 32;
  const int64_t arrays = numbers * (1 + 2 * dual + posts) + vectors * (2 + 3 * dual + posts) + a.NT * 32 * (posts + dual) + rules * (1 + posts);
  return arrays * int64_t(sizeof(A)) + (numbers + vectors + a.NT) * int64_t(sizeof(Int<A>)) + 20 * 64;
}

template <class Args> void launch_in(const char* op, const CudaContext& ctx, const PcfgArgs& a, void (*kernel)(Args, PcfgLaunch),
                                     const Args& args, PcfgLaunch q, bool stacks) {
  const int64_t stack = stacks ? 32 * (a.N + 2) * int64_t(sizeof(PcfgVisit)) : 0;
  int64_t grid = a.B < 4096 ? a.B : 4096;
  const int64_t most = kPcfgScratch / (q.stride + stack);
  if (grid > most) grid = most > 1 ? most : 1;
  q.memory = scratch<char>(ctx, grid * q.stride);
  q.stacks = stacks ? scratch<char>(ctx, grid * stack) : nullptr;
  launch(op, ctx, kernel, dim3(unsigned(grid)), 32, args, q);
}

template <class T, class Args> void launch_pcfg(const char* op, const CudaContext& ctx, const PcfgArgs& a, void (*kernel)(Args, PcfgLaunch),
                                                const Args& args, bool posts, bool dual, bool wide, bool stacks) {
  using A = Acc<T>;
  PcfgLaunch q{};
  q.first = (chart_bytes<A>(a, posts, dual) + 63) / 64 * 64;
  q.stride = q.first + (wide && sizeof(A) == 4 ? (chart_bytes<double>(a, posts, dual) + 63) / 64 * 64 : 0);
  launch_in(op, ctx, a, kernel, args, q, stacks);
}

Widened widened(const char* op, const CudaContext& ctx, PcfgArgs& a, bool narrow_counts = true) {
  Widened w(op, ctx, a.dtype);
  const int64_t terms = a.B * a.N * a.T, S = a.NT + a.T, rule = a.NT * S * S, rules = (a.shared ? 1 : a.B) * rule, roots = a.B * a.NT;
  const int64_t spans = roots * (a.N + 1) * (a.N + 1);
  w.in(a.term, terms);
  w.in(a.rule, rules);
  w.in(a.root, roots);
  w.in(a.v_term, terms);
  w.in(a.v_rule, rules);
  w.in(a.v_root, roots);
  w.in(a.span, spans);
  w.in(a.v_span, spans);
  if (!narrow_counts) return w;
  w.out(a.post_term, terms);
  w.out(a.post_rule, a.B * rule);
  w.out(a.post_root, roots);
  w.out(a.post_span, spans);
  return w;
}

template <bool dual> void sum(const char* op, PcfgArgs a, const CudaContext& ctx) {
  if (a.B == 0) return;
  const Widened w = widened(op, ctx, a);
  with_wide(a.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    launch_pcfg<T>(op, ctx, a, pcfg_sum<T, dual>, a, a.post_term != nullptr, dual, true, false);
  });
  w.narrow();
}

}  // namespace

void pcfg_logz(const PcfgArgs& a, const CudaContext& ctx) { sum<false>("pcfg_logz", a, ctx); }
void pcfg_marginals(const PcfgArgs& a, const CudaContext& ctx) { sum<false>("pcfg_marginals", a, ctx); }
void pcfg_hvp(const PcfgArgs& a, const CudaContext& ctx) { sum<true>("pcfg_hvp", a, ctx); }

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
