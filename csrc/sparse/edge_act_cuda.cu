// CUDA edge activations. The contract is edge_act.h. A thread takes one feature of one row, or of one source by the reversed edges;
// the threads of a warp read neighbouring features.
#include "core/cuda/device.cuh"
#include "sparse/cuda.h"

namespace structops::cuda {
namespace {

template <class A> STRUCTOPS_DEVICE A sigmoid(A z) { return A(1) / (A(1) + exp(-z)); }

template <class A> STRUCTOPS_DEVICE A activate(Act act, A z, A slope, bool slope_of) {
  switch (act) {
    case Act::identity: return slope_of ? A(1) : z;
    case Act::relu: return z > 0 ? (slope_of ? A(1) : z) : z != z ? z : A(0);
    case Act::leaky: return z > 0 ? (slope_of ? A(1) : z) : slope_of ? slope : slope * z;
    case Act::elu: return z > 0 ? (slope_of ? A(1) : z) : slope_of ? slope * exp(z) : slope * (exp(z) - 1);
    case Act::sigmoid: { const A s = sigmoid(z); return slope_of ? s * (1 - s) : s; }
    case Act::tanh: { const A t = tanh(z); return slope_of ? 1 - t * t : t; }
    case Act::silu: { const A s = sigmoid(z); return slope_of ? s * (1 + z * (1 - s)) : z * s; }
    case Act::softplus: return slope_of ? sigmoid(z) : (z > 0 ? z : z != z ? z : A(0)) + log(1 + exp(z > 0 ? -z : z));
    case Act::gelu: {
      const A phi = A(0.5) * (1 + erf(z * A(0.70710678118654752440)));
      return slope_of ? phi + z * A(0.39894228040143267794) * exp(A(-0.5) * z * z) : z * phi;
    }
    default: {
      const A c = A(0.79788456080286535588), k = A(0.044715), s = sigmoid(2 * c * z * (1 + k * z * z));
      return slope_of ? s + z * s * (1 - s) * 2 * c * (1 + 3 * k * z * z) : z * s;
    }
  }
}

enum class Pass { forward, rows, sources };

struct Structure { IndexRef ptr, other, eid; int64_t rows; };

template <class T, Pass pass> __global__ void __launch_bounds__(128) edge_act_pass(const EdgeActArgs a, const Structure s) {
  using A = Acc<T>;
  constexpr bool by_row = pass != Pass::sources;
  const A slope = A(a.slope);
  const auto at = [&](const void* p, int64_t row, int64_t f) { return widen(static_cast<const T*>(p)[row * a.F + f]); };
  const auto to = [&](void* p, int64_t row, int64_t f, A v) { static_cast<T*>(p)[row * a.F + f] = Narrow<T>::to(v); };
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < s.rows * a.F; i += step) {
    const int64_t r = i / a.F, f = i % a.F, end = s.ptr.at(r + 1);
    const void *const own = by_row ? a.y : a.x, *const far = by_row ? a.x : a.y;
    const A held = own ? at(own, r, f) : A(0);
    const A direction = a.scalar ? at(a.direction, 0, f) : A(0);
    A sum = 0, sum_value = 0, sum_slope = 0, sum_direction = 0;
    for (int64_t k = s.ptr.at(r); k < end; ++k) {
      const int64_t o = s.other.at(k), e = s.eid.data ? s.eid.at(k) : k;
      A z = held;
      if (far) z += at(far, o, f);
      if (a.edge) z += at(a.edge, e, f);
      const A scalar = a.scalar ? widen(static_cast<const T*>(a.scalar)[e]) : A(0);
      if (a.scalar) z += scalar * direction;
      if (pass == Pass::forward) {
        const A times = a.value ? at(a.value, o, f) : A(1);
        sum += activate(a.act, z, slope, false) * times;
        if (a.slopes) sum_slope += activate(a.act, z, slope, true) * times;
      } else if (pass == Pass::rows) {
        A d = activate(a.act, z, slope, true) * at(a.grad, r, f);
        if (a.value) d *= at(a.value, o, f);
        sum += d;
        sum_direction += d * scalar;
        if (a.d_edge) to(a.d_edge, e, f, d);
      } else {
        const A g = at(a.grad, o, f);
        sum += activate(a.act, z, slope, true) * g;
        if (a.value) sum_value += activate(a.act, z, slope, false) * g;
      }
    }
    if (pass == Pass::forward) to(a.out, r, f, sum);
    if (pass == Pass::forward && a.slopes) static_cast<A*>(a.slopes)[r * a.F + f] = sum_slope;
    if (pass == Pass::rows && a.d_y) to(a.d_y, r, f, sum);
    if (pass == Pass::rows && a.d_scalar) static_cast<A*>(a.d_direction)[r * a.F + f] = sum_direction;
    if (pass == Pass::sources) {
      to(a.d_x, r, f, a.value ? sum * at(a.value, r, f) : sum);
      if (a.d_value) to(a.d_value, r, f, sum_value);
    }
  }
}

// The gradient of scalar: a warp for each row, its lanes over the features.
template <class T> __global__ void __launch_bounds__(128) edge_act_scalar(const EdgeActArgs a, const Structure s) {
  using A = Acc<T>;
  const A slope = A(a.slope);
  const auto at = [&](const void* p, int64_t row, int64_t f) { return widen(static_cast<const T*>(p)[row * a.F + f]); };
  const int lane = threadIdx.x & 31;
  const int64_t step = (int64_t(gridDim.x) * blockDim.x) >> 5;
  for (int64_t r = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) >> 5; r < s.rows; r += step) {
    const int64_t end = s.ptr.at(r + 1);
    for (int64_t k = s.ptr.at(r); k < end; ++k) {
      const int64_t o = s.other.at(k), e = s.eid.data ? s.eid.at(k) : k;
      const A scalar = widen(static_cast<const T*>(a.scalar)[e]);
      A sum = 0;
      for (int64_t f = lane; f < a.F; f += 32) {
        const A direction = at(a.direction, 0, f);
        A z = at(a.x, o, f) + scalar * direction;
        if (a.y) z += at(a.y, r, f);
        if (a.edge) z += at(a.edge, e, f);
        A d = activate(a.act, z, slope, true) * at(a.grad, r, f) * direction;
        if (a.value) d *= at(a.value, o, f);
        sum += d;
      }
      for (int d = 16; d > 0; d /= 2) sum += shift_down(sum, d);
      if (lane == 0) static_cast<A*>(a.d_scalar)[e] = sum;
    }
  }
}

Structure structure(const EdgeActArgs& a, bool by_row) {
  if (by_row) return {ref(a.rowptr), ref(a.col), ref(a.eid), a.N};
  return {ref(a.colptr), ref(a.row_t), ref(a.eid_t), a.M};
}

template <Pass pass> void run(const EdgeActArgs& a, const CudaContext& ctx) {
  const Structure s = structure(a, pass != Pass::sources);
  with_float("edge_act", a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    launch("edge_act", ctx, edge_act_pass<T, pass>, dim3(blocks_for(s.rows * a.F, 128)), 128, a, s);
  });
}

}  // namespace

void edge_act_fwd(const EdgeActArgs& a, const CudaContext& ctx) { run<Pass::forward>(a, ctx); }

void edge_act_bwd(const EdgeActArgs& a, const CudaContext& ctx) {
  if (a.d_y || a.d_edge || a.d_scalar) run<Pass::rows>(a, ctx);
  if (a.d_scalar) {
    const Structure s = structure(a, true);
    with_float("edge_act", a.dtype, [&](auto* t) {
      launch("edge_act", ctx, edge_act_scalar<Pointee<decltype(t)>>, dim3(blocks_for(s.rows, 4)), 128, a, s);
    });
  }
  run<Pass::sources>(a, ctx);
}

}  // namespace structops::cuda
