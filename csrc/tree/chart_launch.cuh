// CUDA chart operators: how they are launched. Host code.
#pragma once
#include "tree/chart.cuh"
#include "tree/cuda.h"
#include "tree/widened.cuh"

namespace structops::cuda {

constexpr int kChartLongest = 8192;                  // charts are addressed by 32-bit offsets
constexpr int64_t kChartScratch = int64_t(1) << 30;  // bytes of charts in global memory, if one block needs no more
constexpr int64_t kWideBlocks = 16;                  // of charts of double for scores of float

inline Form form_of(const ChartArgs& a) {
  return a.kind == Chart::span ? Form::span : a.sib ? Form::second : Form::first;
}

// What kernels read, from what they get: siblings widened, whose posteriors w.narrow() returns.
inline ChartParams chart_params(const char* op, ChartArgs a, Widened& w) {
  if (a.N > kChartLongest || a.B >= int64_t(1) << 31)
    throw std::runtime_error(std::string(op) + ": CUDA kernels take fewer than 2^31 sentences of at most " +
                             std::to_string(kChartLongest) + " positions");
  const int64_t siblings = a.B * a.N * a.N * a.N;
  w.in(a.sib, siblings);
  w.in(a.v_sib, siblings);
  if (a.sib) w.out(a.post_sib, siblings);
  ChartParams p{};
  p.dtype = a.dtype;
  p.score = a.score;
  p.sib = a.sib;
  p.weight = a.weight;
  p.v = a.v;
  p.v_sib = a.v_sib;
  p.lengths = a.lengths;
  p.logz = a.logz;
  p.post = a.post;
  p.post_sib = a.post_sib;
  p.B = a.B;
  p.N = int(a.N);
  p.single = a.kind == Chart::dep_single;
  return p;
}

// Threads of a block: about one for every kSplits splits of the fullest width.
inline int chart_threads(Form form, int64_t N) {
  const int64_t lanes = N * N * (form == Form::second ? 3 : form == Form::first ? 2 : 1) / (4 * kSplits);
  return lanes <= 32 ? 32 : lanes <= 64 ? 64 : lanes <= 160 ? 128 : lanes <= 640 ? 256 : 512;
}

// What a block needs: charts of `elements` of A, in shared memory if they fit there, else there for the short sentences
// and in scratch for the long ones (shared: false: always in scratch); and `extra` bytes of scratch.
struct ChartRoom {
  int64_t elements, extra;
  bool shared;
};

// Launches kernel(p, more...). As many blocks as the device holds at once share the sentences.
template <class A, class... M>
void launch_charts(const char* op, const CudaContext& ctx, void (*kernel)(ChartParams, M...), ChartParams p,
                   int threads, const ChartRoom& room, M... more) {
  int device = 0, most = 0, processors = 0, blocks = 0;
  check(op, cudaGetDevice(&device));
  check(op, cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  check(op, cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  most -= 64;  // of the kernel's own
  const int64_t need = room.elements * int64_t(sizeof(A));
  const bool fits = room.shared && need <= most;
  const int bytes = !room.shared ? 0 : fits ? int(need) : (most / 2 - 1024) & ~15;
  // Always the same limit: other threads may launch the kernel with other sizes meanwhile.
  check(op, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
  check(op, cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, size_t(bytes)));
  const int64_t held = int64_t(blocks > 0 ? blocks : 1) * processors, each = (fits ? 0 : need) + room.extra;
  int64_t grid = held < p.B ? held : p.B;
  if (grid * each > kChartScratch) grid = kChartScratch / each > 1 ? kChartScratch / each : 1;
  p.shared = int(bytes / sizeof(A));
  p.room = room.elements;
  p.extra_room = room.extra;
  if (!fits) p.global = scratch<A>(ctx, grid * room.elements);
  p.extra = scratch<char>(ctx, grid * room.extra);
  if (grid < p.B) {
    int* const order = scratch<int>(ctx, p.B + 1);
    p.order = order;
    p.queue = order + p.B;
    const dim3 blocks_of_order(unsigned(div_up(p.B, kOrderThreads)));
    launch(op, ctx, chart_order<kOrderThreads>, blocks_of_order, kOrderThreads, p.lengths, p.B, order, p.queue);
  }
  void* args[] = {&p, &more...};
  const dim3 grid_size{unsigned(grid)}, block_size{unsigned(threads)};
  check(op, cudaLaunchKernel(kernel, grid_size, block_size, args, size_t(bytes), stream_of(ctx)));
}

// The kernel of float charts, then that of double charts for the sentences whose scores are too large for float: few blocks, as
// such sentences are rare, which find them by p.wide.
template <class... M>
void launch_charts_or_wide(const char* op, const CudaContext& ctx, void (*kernel)(ChartParams, M...),
                           void (*wide)(ChartParams, M...), ChartParams p, int threads, const ChartRoom& room, M... more) {
  p.wide = scratch<int>(ctx, p.B);
  launch_charts<float>(op, ctx, kernel, p, threads, room, more...);
  const int64_t each = room.elements * int64_t(sizeof(double)) + room.extra, fit = kChartScratch / 4 / each;
  int64_t grid = p.B < kWideBlocks ? p.B : kWideBlocks;
  if (grid > fit) grid = fit > 1 ? fit : 1;
  p.room = room.elements;
  p.extra_room = room.extra;
  p.global = scratch<double>(ctx, grid * room.elements);
  p.extra = scratch<char>(ctx, grid * room.extra);
  launch(op, ctx, wide, dim3(unsigned(grid)), threads < kWideThreads ? threads : kWideThreads, p, more...);
}

// Calls f with the form as a constant.
template <class F> void with_form(Form form, F&& f) {
  if (form == Form::first) f(std::integral_constant<Form, Form::first>{});
  else if (form == Form::second) f(std::integral_constant<Form, Form::second>{});
  else f(std::integral_constant<Form, Form::span>{});
}

}  // namespace structops::cuda
