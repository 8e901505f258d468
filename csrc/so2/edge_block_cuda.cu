// CUDA SO(2) maps and edge block: launch. The contracts are so2_conv.h and edge_block.h, the device code is edge_block.cuh.
//
// The block runs its steps on chunks of edges, so that scratch does not grow with E. Gradients of sources are summed along the
// transposed structure, which csr_build finds (one synchronisation for its bounds check).
#include "so2/cuda.h"
#include "so2/edge_block.cuh"
#include "sparse/cuda.h"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kChunk = 4096;

template <class F>
void with_real(Dtype t, F f) {
  if (t == Dtype::f64)
    f(static_cast<double*>(nullptr));
  else
    f(static_cast<float*>(nullptr));
}

Shape device_shape(const So2Shape& s) { return {s.lmax, s.mmax, s.Cin, s.Cout, s.extra}; }

template <class T>
void conv(const char* op, const CudaContext& ctx, const So2Shape& s, bool transpose, const T* rows, const T* w, const T* bias,
          T* out, int64_t E) {
  ConvParams p{device_shape(s), rows, rows, w, bias, out, E};
  const int64_t total = E * (transpose ? s.in() : s.out());
  if (total == 0) return;
  launch(op, ctx, transpose ? conv_rows<T, true> : conv_rows<T, false>, blocks_for(total, kThreads), kThreads, p);
}

template <class T>
void wgrad(const char* op, const CudaContext& ctx, const So2Shape& s, const T* x, const T* g, T* out, int64_t E, bool add) {
  const ConvParams p{device_shape(s), x, g, nullptr, nullptr, out, E};
  if (s.weights() == 0) return;
  launch(op, ctx, conv_weight_grad<T>, blocks_for(s.weights(), kThreads), kThreads, p, s.weights(), add);
}

template <class T>
void columns(const char* op, const CudaContext& ctx, const T* rows, int64_t E, int64_t ld, int64_t n, T* out) {
  if (out && n) launch(op, ctx, column_sums<T>, blocks_for(n, kThreads), kThreads, rows, E, ld, n, out, true);
}

template <class T>
void zero(const char* op, const CudaContext& ctx, void* p, int64_t n) {
  if (p && n) check(op, cudaMemsetAsync(p, 0, size_t(n) * sizeof(T), stream_of(ctx)));
}

template <class T>
struct Block {
  const EdgeBlockArgs& a;
  const CudaContext& ctx;
  const char* op;
  So2Shape s1, s2;
  BlockParams<T> p;
  T *D, *dir, *s;
  int64_t scales;

  Block(const EdgeBlockArgs& args, const CudaContext& context, const char* name)
      : a(args), ctx(context), op(name), s1(args.conv1()), s2(args.conv2()), p{}, scales(args.scales()) {
    const int64_t t = a.E < kChunk ? a.E : kChunk;
    p.N = a.N;
    p.C = a.C;
    p.H = a.H;
    p.L = a.lmax;
    p.M = a.mmax;
    p.n = int(s1.n());
    p.S = int(a.S());
    p.R = packed_size(a.lmax, a.mmax);
    p.rowptr = ref(a.rowptr);
    p.col = ref(a.col);
    p.eid = ref(a.eid);
    int64_t* const row = scratch<int64_t>(ctx, a.E);
    p.row = row;
    p.x = static_cast<const T*>(a.x);
    p.vec = static_cast<const T*>(a.vec);
    p.env = static_cast<const T*>(a.env);
    p.grad = static_cast<const T*>(a.grad);
    p.D = D = scratch<T>(ctx, t * p.R);
    p.dir = dir = scratch<T>(ctx, t * 3);
    p.s = s = a.radial ? scratch<T>(ctx, t * scales) : nullptr;
    p.z = scratch<T>(ctx, t * s1.in());
    p.zs = a.radial ? scratch<T>(ctx, t * s1.in()) : nullptr;
    p.pre = scratch<T>(ctx, t * s1.out());
    p.h = scratch<T>(ctx, t * s2.in());
    p.mid = scratch<T>(ctx, t * s2.out());
    if (a.N && a.E) launch(op, ctx, edge_rows<T>, blocks_for(a.N, kThreads), kThreads, p.rowptr, a.N, row);
  }

  const T* scaled() const { return p.zs ? p.zs : p.z; }

  template <class... P, class... A>
  void each(void (*kernel)(P...), int64_t total, A... args) {
    if (total) launch(op, ctx, kernel, blocks_for(total, kThreads), kThreads, args...);
  }

  void frames_and_scales(int64_t first, int64_t T_) {
    p.first = first;
    p.T_ = T_;
    const WignerParams w{a.vec, nullptr, D, dir, p.eid, T_, first, a.lmax, a.mmax, p.R};
    launch(op, ctx, wigner_edges<T>, dim3(unsigned(T_)), kWignerThreads, w);
    if (!a.radial) return;
    DenseParams<T> q{};
    q.a = static_cast<const T*>(a.radial);
    q.a_index = p.eid;
    q.first = first;
    if (!q.a_index.data) q.a += first * a.Kr;
    q.bias = static_cast<const T*>(a.br);
    q.b = static_cast<const T*>(a.wr);
    q.out = s;
    q.rows = T_;
    q.cols = scales;
    q.depth = a.Kr;
    q.a_row = a.Kr;
    q.a_col = 1;
    q.b_row = 1;
    q.b_col = a.Kr;
    q.out_row = scales;
    if (a.wr) return each(dense<T>, T_ * scales, q);
    each(copy_rows<T>, T_ * scales, q);
  }

  void products(bool need_mid) {
    each(rotate_in<T>, p.T_ * p.n * 2 * p.C, p);
    conv<T>(op, ctx, s1, false, scaled(), static_cast<const T*>(a.w1), static_cast<const T*>(a.b1), p.pre, p.T_);
    each(gate<T>, p.T_ * p.n * p.H, p);
    if (need_mid) conv<T>(op, ctx, s2, false, p.h, static_cast<const T*>(a.w2), static_cast<const T*>(a.b2), p.mid, p.T_);
  }
};

template <class T>
void forward(const EdgeBlockArgs& a, const CudaContext& ctx) {
  Block<T> b(a, ctx, "edge_block");
  zero<T>(b.op, ctx, a.out, a.N * a.S() * a.C);
  for (int64_t first = 0; first < a.E; first += kChunk) {
    const int64_t t = a.E - first < kChunk ? a.E - first : kChunk;
    b.frames_and_scales(first, t);
    b.products(true);
    const auto keep = [&](void* to, const T* from, int64_t width) {
      if (to && width)
        check(b.op, cudaMemcpyAsync(static_cast<T*>(to) + first * width, from, size_t(t * width) * sizeof(T),
                                    cudaMemcpyDeviceToDevice, stream_of(ctx)));
    };
    keep(a.pre, b.p.pre, b.s1.out());
    keep(a.mid, b.p.mid, b.s2.out());
    b.each(sum_messages<T>, a.N * a.S() * a.C, b.p, static_cast<T*>(a.out));
  }
}

template <class T>
void backward(const EdgeBlockArgs& a, const CudaContext& ctx) {
  const char* const op = "edge_block_bwd";
  Block<T> b(a, ctx, op);
  const int64_t SC = a.S() * a.C, most = a.E < kChunk ? a.E : kChunk, wide = a.rowptr.wide ? 8 : 4;
  zero<T>(op, ctx, a.d_x, a.N * SC);
  zero<T>(op, ctx, a.d_w1, b.s1.weights());
  zero<T>(op, ctx, a.d_w2, b.s2.weights());
  zero<T>(op, ctx, a.d_b1, b.s1.N(0));
  zero<T>(op, ctx, a.d_b2, b.s2.N(0));
  zero<T>(op, ctx, a.d_wr, b.scales * a.Kr);
  zero<T>(op, ctx, a.d_br, b.scales);
  if (a.E == 0) return;
  T *const u = scratch<T>(ctx, most * b.s2.out()), *const dh = scratch<T>(ctx, most * b.s2.in()),
           *const dp = scratch<T>(ctx, most * b.s1.out());
  T *const dz = scratch<T>(ctx, most * b.s1.in()), *const ds = scratch<T>(ctx, most * b.scales);
  T *const back = a.d_x ? scratch<T>(ctx, most * 2 * SC) : nullptr, *const msg = a.d_vec ? scratch<T>(ctx, most * SC) : nullptr;
  IndexRef colptr{}, position{};
  if (a.d_x) {
    void *const ptr = scratch<char>(ctx, (a.N + 1) * wide), *const perm = scratch<char>(ctx, a.E * wide);
    if (!csr_build(csr_args(a.col, a.E, a.N, ptr, perm), ctx)) throw std::runtime_error("edge_block_bwd: col out of range");
    colptr = {ptr, int(a.rowptr.wide)};
    position = {perm, int(a.rowptr.wide)};
  }
  for (int64_t first = 0; first < a.E; first += kChunk) {
    const int64_t t = a.E - first < kChunk ? a.E - first : kChunk;
    b.frames_and_scales(first, t);
    b.products(a.d_vec || a.d_env);
    b.each(rotate_grad<T>, t * b.s2.out(), b.p, u);
    b.each(envelope_grad<T>, t * 32, b.p, u, static_cast<T*>(a.d_env));
    if (a.d_w2) wgrad<T>(op, ctx, b.s2, b.p.h, u, static_cast<T*>(a.d_w2), t, true);
    columns<T>(op, ctx, u, t, b.s2.out(), b.s2.N(0), static_cast<T*>(a.d_b2));
    conv<T>(op, ctx, b.s2, true, u, static_cast<const T*>(a.w2), nullptr, dh, t);
    b.each(gate_bwd<T>, t * (a.lmax + 1) * a.H, b.p, dh, dp);
    if (a.d_w1) wgrad<T>(op, ctx, b.s1, b.scaled(), dp, static_cast<T*>(a.d_w1), t, true);
    columns<T>(op, ctx, dp, t, b.s1.out(), b.s1.N(0), static_cast<T*>(a.d_b1));
    conv<T>(op, ctx, b.s1, true, dp, static_cast<const T*>(a.w1), nullptr, dz, t);
    if (a.radial) b.each(scale_grad<T>, t * b.scales, b.p, dz, ds);
    if (a.d_radial) {
      DenseParams<T> q{};
      q.a = ds;
      q.out = static_cast<T*>(a.d_radial);
      q.b = static_cast<const T*>(a.wr);
      q.rows = t;
      q.cols = a.Kr;
      q.depth = b.scales;
      q.a_row = b.scales;
      q.a_col = 1;
      q.b_row = a.Kr;
      q.b_col = 1;
      q.out_row = a.Kr;
      q.out_index = b.p.eid;
      q.first = first;
      if (!q.out_index.data) q.out += first * a.Kr;
      b.each(a.wr ? dense<T> : scatter_rows<T>, t * a.Kr, q);
    }
    if (a.d_wr) {  // d_wr [scales, Kr] += ds^T radial
      DenseParams<T> q{};
      q.a = ds;
      q.out = static_cast<T*>(a.d_wr);
      q.b = static_cast<const T*>(a.radial);
      q.rows = b.scales;
      q.cols = a.Kr;
      q.depth = t;
      q.a_row = 1;
      q.a_col = b.scales;
      q.first = first;
      q.out_row = a.Kr;
      b.each(radial_weight_grad<T>, b.scales * a.Kr, q, b.p.eid);
      columns<T>(op, ctx, ds, t, b.scales, b.scales, static_cast<T*>(a.d_br));
    }
    if (!a.d_x) continue;
    b.each(rotate_ends_back<T>, t * 2 * SC, b.p, dz, back);
    if (a.d_vec) {
      const RotateParams r{b.D, nullptr, b.p.mid, nullptr, msg, t, a.C, a.lmax, a.mmax, b.p.n, b.p.S, b.p.R};
      b.each(rotate_back_edges<T>, t * SC, r);
      b.each(direction_grad<T>, t * 32, b.p, msg, back, static_cast<T*>(a.d_vec));
    }
    b.each(sum_ends<T>, a.N * SC, b.p, back, colptr, position, static_cast<T*>(a.d_x));
  }
}

}  // namespace

void so2_conv_fwd(const So2ConvArgs& a, const CudaContext& ctx) {
  with_real(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    conv<T>("so2_conv", ctx, a.shape, a.transpose, static_cast<const T*>(a.x), static_cast<const T*>(a.w),
            static_cast<const T*>(a.bias), static_cast<T*>(a.out), a.E);
  });
}
void so2_conv_wgrad(const So2ConvArgs& a, const CudaContext& ctx) {
  with_real(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    wgrad<T>("so2_conv_wgrad", ctx, a.shape, static_cast<const T*>(a.x), static_cast<const T*>(a.g), static_cast<T*>(a.out),
             a.E, false);
  });
}
void edge_block_fwd(const EdgeBlockArgs& a, const CudaContext& ctx) {
  with_real(a.dtype, [&](auto* t) { forward<Pointee<decltype(t)>>(a, ctx); });
}
void edge_block_bwd(const EdgeBlockArgs& a, const CudaContext& ctx) {
  with_real(a.dtype, [&](auto* t) { backward<Pointee<decltype(t)>>(a, ctx); });
}

}  // namespace structops::cuda
