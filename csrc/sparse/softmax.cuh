// CUDA segment softmax: device code. The contract is softmax.h; it is launched by softmax_cuda.cu, and by
// kernels/sparse/softmax_nvrtc.py where there is no nvcc.
//
// The lanes of a warp form P rows x S edge slots x L feature lanes of V features; P and S follow the mean degree, all fixed
// by (N, E, F). One pass over a row folds it to a state per feature, slots merge by a fixed tree, a second pass writes.
// Rows of more than kHeavy edges a slot are left to the whole block, whose warps merge their states in order.
#pragma once
#include "core/cuda/device.cuh"

namespace structops::cuda {

struct SoftmaxParams {
  const void* src;   // [B, E, F]: scores, or the forward result
  const void* grad;  // [B, E, F], backward only
  void* out;         // [B, E, F]
  IndexRef rowptr, eid;  // [N + 1], [E]; null eid: the position
  int64_t N, E, F;
  unsigned planes, tiles;  // planes: feature tiles times B
  int lanes, slots;        // L, S
  int log;
};

constexpr int kSoftmaxThreads = 128, kHeavy = 128;

// No more slots than edges in a mean row.
__host__ __device__ constexpr int softmax_slots(int64_t N, int64_t E, int lanes) {
  int slots = 1;
  while (slots * lanes < 32 && 2 * slots * N <= E) slots *= 2;
  return slots;
}

// The forward state is (max, sum of exp(x - max)), the backward state a sum in its first half.
template <class A> struct SoftmaxState { A a, b; };

template <class A, bool backward> struct SoftmaxOp {
  using State = SoftmaxState<A>;
  static STRUCTOPS_DEVICE State init() { return {backward ? A(0) : Limits<A>::low(), A(0)}; }
  static STRUCTOPS_DEVICE void join(State& s, A m, A weight) {
    const bool rises = m > s.a;
    const A e = m == s.a ? A(1) : exp(rises ? s.a - m : m - s.a);  // equal infinities have no difference
    s.b = rises ? s.b * e + weight : s.b + weight * e;
    s.a = rises ? m : s.a;
  }
  static STRUCTOPS_DEVICE void step(State& s, A x, A g, int log) {
    if (backward) s.a += log ? g : x * g;
    else join(s, x, A(1));
  }
  static STRUCTOPS_DEVICE void merge(State& s, const State& t) {
    if (backward) s.a += t.a;
    else join(s, t.a, t.b);
  }
  // (max, log of the sum), kept apart: their sum would round the logarithm away beside a large maximum. An infinite maximum makes
  // the row NaN.
  static STRUCTOPS_DEVICE State total(const State& s) { return {s.a, backward ? A(0) : log(s.b + (s.a - s.a))}; }
  static STRUCTOPS_DEVICE A value(A x, A g, const State& total, int log) {
    if (backward) return log ? g - exp(x) * total.a : x * (g - total.a);
    const A y = (x - total.a) - total.b;
    return log ? y : exp(y);
  }
};

// Edges k = begin + slot, + slots, ... of one row and the V features of this lane.
template <class T, bool backward, int V> struct SoftmaxWalk {
  using A = Acc<T>;
  using Op = SoftmaxOp<A, backward>;
  static constexpr int U = sizeof(T) * V == 16 ? 2 : 4;  // edges in flight per lane
  const SoftmaxParams& p;
  int64_t base;  // of the batch and the first feature

  template <class F> STRUCTOPS_DEVICE void each(unsigned begin, unsigned end, int slots, F f) const {
    for (unsigned k = begin; k < end; k += slots * U) {
      Word<T, V> x[U], g[U];
      unsigned edge[U];
      const auto at = [&](unsigned e) { return base + int64_t(e) * p.F; };
#pragma unroll
      for (int u = 0; u < U; ++u) {
        const unsigned ku = k + u * slots;
        if (ku < end) edge[u] = p.eid.data ? unsigned(p.eid.at(ku)) : ku;
      }
#pragma unroll
      for (int u = 0; u < U; ++u)
        if (k + u * slots < end) {
          x[u] = load_word<T, V>(static_cast<const T*>(p.src) + at(edge[u]));
          g[u] = backward ? load_word<T, V>(static_cast<const T*>(p.grad) + at(edge[u])) : x[u];
        }
#pragma unroll
      for (int u = 0; u < U; ++u)
        if (k + u * slots < end) {
          A xs[V], gs[V];
          widen_word<T, V>(xs, x[u]);
          widen_word<T, V>(gs, g[u]);
          f(at(edge[u]), xs, gs);
        }
    }
  }

  STRUCTOPS_DEVICE void fold(SoftmaxState<A> (&s)[V], unsigned begin, unsigned end, int slots) const {
    each(begin, end, slots, [&](int64_t, const A (&x)[V], const A (&g)[V]) {
#pragma unroll
      for (int v = 0; v < V; ++v) Op::step(s[v], x[v], g[v], p.log);
    });
  }

  STRUCTOPS_DEVICE void write(const SoftmaxState<A> (&total)[V], unsigned begin, unsigned end, int slots) const {
    each(begin, end, slots, [&](int64_t at, const A (&x)[V], const A (&g)[V]) {
      A r[V];
#pragma unroll
      for (int v = 0; v < V; ++v) r[v] = Op::value(x[v], g[v], total[v], p.log);
      store<T, V>(static_cast<T*>(p.out) + at, r);
    });
  }
};

template <class T, bool backward, int V>
__global__ void __launch_bounds__(kSoftmaxThreads, backward || V == 1 ? 6 : 5) softmax_rows(const SoftmaxParams p) {
  using A = Acc<T>;
  using Op = SoftmaxOp<A, backward>;
  using State = SoftmaxState<A>;
  constexpr int warps = kSoftmaxThreads / 32;
  __shared__ int64_t heavy[kSoftmaxThreads];
  __shared__ int heavies;
  alignas(16) __shared__ unsigned char part_bytes[warps * 32 * V * sizeof(State)];
  State* const part = reinterpret_cast<State*>(part_bytes);  // [warps, L, V]
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int L = p.lanes, S = p.slots, W = L * S, group = lane & ~(W - 1), w = lane - group, l = w & (L - 1), slot = w / L;
  const int64_t row = (int64_t(blockIdx.x) * warps + warp) * (32 / W) + group / W;
  const unsigned begin = row < p.N ? unsigned(p.rowptr.at(row)) : 0, end = row < p.N ? unsigned(p.rowptr.at(row + 1)) : 0;
  const bool is_heavy = end - begin > unsigned(kHeavy * S);
  const unsigned light_end = is_heavy ? begin : end;

  if (threadIdx.x == 0) heavies = 0;
  __syncthreads();
  if (is_heavy && w == 0) heavy[atomicAdd(&heavies, 1)] = row;
  __syncthreads();

  for (unsigned plane = blockIdx.y; plane < p.planes; plane += gridDim.y) {
    const unsigned batch = plane / p.tiles, f = ((plane - batch * p.tiles) * L + l) * V;
    const bool owns = f < p.F;
    const SoftmaxWalk<T, backward, V> walk{p, int64_t(batch) * p.E * p.F + f};
    State s[V], total[V];

    const unsigned k0 = begin + slot, stop = owns ? light_end : k0;
#pragma unroll
    for (int v = 0; v < V; ++v) s[v] = Op::init();
    walk.fold(s, k0, stop, S);
    __syncwarp();
    for (int d = W / 2; d >= L; d >>= 1)
#pragma unroll
      for (int v = 0; v < V; ++v) Op::merge(s[v], shift_down(s[v], d));
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const State t = Op::total(s[v]);
      total[v] = {__shfl_sync(kFull, t.a, group + l), backward ? A(0) : __shfl_sync(kFull, t.b, group + l)};
    }
    walk.write(total, k0, stop, S);

    // Every warp reads the same `heavies`; the order of the list does not matter to the result.
    for (int h = 0; h < heavies; ++h) {
      const unsigned row_begin = unsigned(p.rowptr.at(heavy[h])), row_end = unsigned(p.rowptr.at(heavy[h] + 1));
      const int slots = kSoftmaxThreads / L;
      const unsigned first = row_begin + threadIdx.x / L, last = owns ? row_end : first;
#pragma unroll
      for (int v = 0; v < V; ++v) s[v] = Op::init();
      walk.fold(s, first, last, slots);
      __syncwarp();
      for (int d = 16; d >= L; d >>= 1)
#pragma unroll
        for (int v = 0; v < V; ++v) Op::merge(s[v], shift_down(s[v], d));
      if (lane < L)
#pragma unroll
        for (int v = 0; v < V; ++v) part[(warp * L + lane) * V + v] = s[v];
      __syncthreads();
#pragma unroll
      for (int v = 0; v < V; ++v) {
        State all = part[l * V + v];
        for (int j = 1; j < warps; ++j) Op::merge(all, part[(j * L + l) * V + v]);
        total[v] = Op::total(all);
      }
      walk.write(total, first, last, slots);
      __syncthreads();
    }
  }
}

}  // namespace structops::cuda
