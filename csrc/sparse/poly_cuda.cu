// CUDA poly_filter: launches. The contract is poly.h, the kernels are in poly.cuh.
#include "sparse/poly.cuh"
#include "sparse/poly_cuda.h"

namespace structops::cuda {
namespace {

template <class T> struct Job {
  using A = Acc<T>;
  const char* op;
  const PolyArgs& a;
  const CudaContext& ctx;
  const int64_t N = a.N, C = a.C, K = a.K, n = N * C;
  double* const part = scratch<double>(ctx, kPolyParts * C);
  const A* const gate = static_cast<const A*>(a.gate);
  const T* const weight = static_cast<const T*>(a.weight);

  const A* alpha(int64_t k) const { return static_cast<const A*>(a.alpha) + k * a.Ca; }
  const A* recur(int which, int64_t k) const { return static_cast<const A*>(a.recur) + (which * K + k) * a.Cr; }

  void step(const Index& ptr, const Index& col, const Index& eid, int64_t k, const A* c, const A* h, const A* prev, const A* base, A* next,
            A* product) const {
    const PolyStep<A> p{ref(ptr), ref(col), ref(eid), N, C, a.Cr, h, prev, recur(0, k), recur(1, k), c, base, next, product};
    launch(op, ctx, poly_step<T>, dim3(blocks_for(N, kPolyThreads / 32)), kPolyThreads, p, weight);
  }
  template <class X> void emit(const X* x, const A* q, const A* al, const A* dq, bool add, A* z) const {
    launch(op, ctx, poly_emit<X, A>, dim3(blocks_for(n, 256)), 256, x, q, al, a.Ca, dq, gate, N, C, add, z);
  }
  void gates(const A* h, const T* g, int64_t k, A* q, A* dq) const {
    launch(op, ctx, poly_gate<T>, dim3(blocks_for(N, kPolyThreads / 32)), kPolyThreads, h, g, gate, alpha(k), a.Ca, N, C, q, dq);
  }
  template <class X> void columns(const X* x, const A* y, const A* scale, int64_t cols, bool add, A* out) const {
    const unsigned tiles = unsigned(div_up(cols, 64));
    launch(op, ctx, poly_columns<X, A>, dim3(tiles, kPolyParts), 64, x, y, scale, N, cols, part);
    launch(op, ctx, poly_join<A>, dim3(tiles), 64, static_cast<const double*>(part), cols, add, out);
  }
  void narrow(const A* z, int64_t count, const Index& to, void* out) const {
    launch(op, ctx, poly_narrow<T, A>, dim3(blocks_for(count, 256)), 256, z, count, ref(to), static_cast<T*>(out));
  }

  void forward() const {
    A *h = scratch<A>(ctx, n), *prev = scratch<A>(ctx, n), *const z = scratch<A>(ctx, n), *const q = gate ? scratch<A>(ctx, N) : nullptr;
    emit(static_cast<const T*>(a.x), nullptr, nullptr, nullptr, false, h);
    for (int64_t k = 0; k <= K; ++k) {
      if (k > 0) {
        step(a.rowptr, a.col, a.eid, k - 1, k > 1 ? recur(2, k - 1) : nullptr, h, prev, nullptr, prev, nullptr);
        A* const t = h;
        h = prev;
        prev = t;
      }
      if (gate) gates(h, nullptr, k, q, nullptr);
      emit(static_cast<const A*>(h), q, alpha(k), nullptr, k > 0, z);
      if (a.dot) columns(static_cast<const T*>(a.dot), h, nullptr, C, false, static_cast<A*>(a.dots) + k * C);
    }
    narrow(z, n, {}, a.out);
  }

  void backward() const {
    const T* const g = static_cast<const T*>(a.grad);
    A *const hs = scratch<A>(ctx, (K + 1) * n), *l = scratch<A>(ctx, n), *next = scratch<A>(ctx, n), *const base = scratch<A>(ctx, n);
    A *const product = scratch<A>(ctx, n), *const q = gate ? scratch<A>(ctx, N) : nullptr, *const dq = gate ? scratch<A>(ctx, N) : nullptr;
    A* const dw = a.d_weight ? scratch<A>(ctx, a.E) : nullptr;
    A *const d_alpha = static_cast<A*>(a.dots), *const d_recur = static_cast<A*>(a.d_recur), *const d_gate = static_cast<A*>(a.d_gate);
    const A* const none = nullptr;
    if (dw) check(op, cudaMemsetAsync(dw, 0, size_t(a.E) * sizeof(A), stream_of(ctx)));
    if (K > 0) check(op, cudaMemsetAsync(d_recur + 2 * K * C, 0, size_t(C) * sizeof(A), stream_of(ctx)));
    emit(static_cast<const T*>(a.x), nullptr, nullptr, nullptr, false, hs);
    for (int64_t k = 0; k < K; ++k)
      step(a.rowptr, a.col, a.eid, k, k ? recur(2, k) : nullptr, hs + k * n, k ? hs + (k - 1) * n : nullptr, nullptr, hs + (k + 1) * n, nullptr);
    for (int64_t k = K; k >= 0; --k) {
      const A* const h = hs + k * n;
      if (gate) gates(h, g, k, q, dq);
      columns(g, h, q, C, false, d_alpha + k * C);
      if (gate) {
        columns(none, h, dq, C, k < K, d_gate);
        columns(none, none, dq, 1, k < K, d_gate + C);
      }
      emit(g, q, alpha(k), dq, false, k == K ? l : base);
      if (k < K) {
        step(a.colptr, a.row_t, a.eid_t, k, k + 2 <= K ? recur(2, k + 1) : nullptr, next, l, base, l, product);
        columns(static_cast<const A*>(product), h, none, C, false, d_recur + k * C);
        columns(static_cast<const A*>(next), h, none, C, false, d_recur + (K + k) * C);
        if (k > 0) columns(static_cast<const A*>(next), static_cast<const A*>(hs + (k - 1) * n), none, C, false, d_recur + (2 * K + k) * C);
        if (dw)
          launch(op, ctx, poly_weights<A>, dim3(blocks_for(N, kPolyThreads / 32)), kPolyThreads, ref(a.colptr), ref(a.row_t), h,
                 static_cast<const A*>(next), recur(0, k), a.Cr, N, C, dw);
      }
      A* const t = next;
      next = l;
      l = t;
    }
    narrow(next, n, {}, a.out);
    if (dw) narrow(dw, a.E, a.eid_t, a.d_weight);
  }
};

void clear(const char* op, const PolyArgs& a, const CudaContext& ctx) {
  const size_t size = a.dtype == Dtype::f64 ? 8 : 4;
  const auto zero = [&](void* p, size_t bytes) { if (p && bytes) check(op, cudaMemsetAsync(p, 0, bytes, stream_of(ctx))); };
  zero(a.dots, size_t((a.K + 1) * a.C) * size);
  zero(a.d_recur, size_t(3 * a.K * a.C) * size);
  zero(a.d_gate, size_t(a.C + 1) * size);
  zero(a.d_weight, size_t(a.E * dtype_size(a.dtype)));
}

template <bool backward> void run(const char* op, const PolyArgs& a, const CudaContext& ctx) {
  if (a.N == 0 || a.C == 0) return clear(op, a, ctx);
  with_float(op, a.dtype, [&](auto* t) {
    const Job<Pointee<decltype(t)>> job{op, a, ctx};
    if constexpr (backward) job.backward(); else job.forward();
  });
}

}  // namespace

void poly_fwd(const PolyArgs& a, const CudaContext& ctx) { run<false>("poly_filter", a, ctx); }
void poly_bwd(const PolyArgs& a, const CudaContext& ctx) { run<true>("poly_filter_bwd", a, ctx); }

}  // namespace structops::cuda
