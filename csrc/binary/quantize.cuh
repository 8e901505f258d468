// CUDA quantizers: device code. The contract is quantize.h.
//
// A thread owns eight consecutive elements, so that their codes are whole bytes. Sums by channel are one block a channel: threads
// stride over the channel's elements, then merge by a fixed tree.
#pragma once
#include "binary/quantize.h"
#include "core/cuda/device.cuh"

namespace structops::cuda {

constexpr int kQuantizeThreads = 256;
constexpr double kPi = 3.14159265358979323846;

template <class A> struct Quantizer {
  const QuantizeArgs& a;
  A shift, gain, scale, extra;
  bool has_scale, has_extra;

  STRUCTOPS_DEVICE void at(int64_t c) {
    const auto get = [&](const void* p, A other) { return p ? static_cast<const A*>(p)[c] : other; };
    shift = get(a.shift, A(0));
    gain = get(a.gain, A(1));
    scale = get(a.scale, A(1));
    extra = get(a.extra, A(0));
    has_scale = a.scale != nullptr;
    has_extra = a.extra != nullptr;
  }
  static STRUCTOPS_DEVICE A clamp(A v, A lo, A hi) { return v < lo ? lo : (v > hi ? hi : v); }
  static STRUCTOPS_DEVICE A sign(A v, A zero) { return v > 0 ? A(1) : (v < 0 ? A(-1) : (v == 0 ? zero : v)); }
  static STRUCTOPS_DEVICE A levels(A v, A n) { return rint(clamp(v, A(0), A(1)) * n) / n; }

  STRUCTOPS_DEVICE A input(A x) const { return (x + shift) * gain; }

  // F(u), without the scale; prelu and tanh_levels whole.
  STRUCTOPS_DEVICE A forward(A u) const {
    const A zero = A(a.zero), t = A(a.t);
    switch (a.forward) {
      case Forward::sign: return sign(u, zero);
      case Forward::heaviside: return u > 0 ? A(1) : (u < 0 ? A(0) : (u == 0 ? zero : u));
      case Forward::ternary: {
        const A limit = has_extra ? extra : t, z = fabs(u);
        return u != u ? u : ((zero == 0 ? z > limit : z >= limit) ? sign(u, A(0)) : A(0));
      }
      case Forward::levels: return levels(u, t);
      case Forward::hardtanh: return clamp(u, A(-1), A(1));
      case Forward::sine: return sin(u * t);
      case Forward::square: return sign(sin(u * t), zero);
      case Forward::prelu: return (u > 0 ? u : (has_scale ? scale * u : A(0))) + (has_extra ? extra : A(0));
      case Forward::tanh_levels: return A(2) * levels(tanh(u) * scale * A(0.5) + A(0.5), t) - A(1);
      default: return u;
    }
  }
  STRUCTOPS_DEVICE A output(A u) const {
    const A f = forward(u);
    return a.forward == Forward::prelu || a.forward == Forward::tanh_levels || !has_scale ? f : f * scale;
  }
  STRUCTOPS_DEVICE A slope(A u) const {
    const A p = A(a.p), q = A(a.q), z = fabs(u);
    switch (a.slope) {
      case Slope::clip: return z <= (has_extra && a.forward == Forward::sign ? extra : p) ? A(1) : A(0);
      case Slope::clip_strict: return z < p ? A(1) : A(0);
      case Slope::box: return u >= 0 && u <= p ? A(1) : A(0);
      case Slope::poly: { const A r = A(2) - A(2) * z; return r < 0 ? A(0) : r; }
      case Slope::swish: {
        const A w = fabs(u * p), v = w > A(1000) ? A(1000) : w, e = exp(-v), r = A(1) / (A(1) + e);
        return p * (A(2) - v * (A(1) - e) * r) * (A(2) * e * r * r);
      }
      case Slope::bell: {
        const A e = exp(fabs(u * p) * A(-2)), r = A(1) / (A(1) + e);
        return q * p * A(4) * e * r * r;
      }
      case Slope::fourier: {
        if (!(z <= A(1))) return A(0);
        const A w = u * p, d = sin(w), m = A(a.terms + 1);
        return A(4 * a.p / kPi) * (d == 0 ? m * cos(w) : sin(w * (A(2) * m)) / (A(2) * d));
      }
      case Slope::cosine: return p * cos(u * p);
      case Slope::prelu: return u > 0 ? A(1) : (has_scale ? scale : A(0));
      default: return A(1);
    }
  }
  STRUCTOPS_DEVICE bool signed_slope() const {
    return a.slope == Slope::swish || a.slope == Slope::fourier || a.slope == Slope::cosine;
  }
  STRUCTOPS_DEVICE int code_levels() const {
    return signed_slope() ? (1 << (a.code_bits - 1)) - 1 : (1 << a.code_bits) - 1;
  }
  STRUCTOPS_DEVICE unsigned code(A u) const {
    if (a.slope == Slope::prelu) return u > 0 ? 1u : 0u;
    const int L = code_levels();
    const A add = A(signed_slope() ? L : 0), r = rint(slope(u) * A(L / top)) + add;
    return unsigned(int(r == r ? r : add));
  }
  STRUCTOPS_DEVICE A decoded(unsigned code) const {
    if (a.slope == Slope::prelu) return code ? A(1) : (has_scale ? scale : A(0));
    const int L = code_levels();
    return (A(int(code)) - A(signed_slope() ? L : 0)) * A(top / L);
  }
  // The slope of element i, from its code or from u.
  STRUCTOPS_DEVICE A slope_at(int64_t i, A u) const {
    if (!a.code_bits) return slope(u);
    const int64_t bit = i * a.code_bits;
    return decoded(a.codes_in[bit / 8] >> (bit % 8) & ((1u << a.code_bits) - 1));
  }
  // What d_scale sums, for the gradient g.
  STRUCTOPS_DEVICE A scale_term(int64_t i, A u, A g) const {
    A f;
    if (a.forward == Forward::prelu) {
      f = u > 0 ? A(0) : u;
    } else if (a.save_sign) {
      const uint8_t* const plane = a.codes_in + (a.numel * a.code_bits + 7) / 8;
      f = plane[i / 8] >> (i % 8) & 1 ? A(1) : (a.forward == Forward::heaviside ? A(0) : A(-1));
    } else {
      f = forward(u);
    }
    if (a.learned_step) f -= u * slope_at(i, u);
    return g * f;
  }
  double top;
};

template <class T> __global__ void __launch_bounds__(kQuantizeThreads) quantize_forward(const QuantizeArgs a, double top) {
  using A = Acc<T>;
  Quantizer<A> q{a};
  q.top = top;
  const T* const x = static_cast<const T*>(a.x);
  T* const out = static_cast<T*>(a.out);
  const int64_t groups = (a.numel + 7) / 8;
  uint8_t* const signs = a.codes + (a.numel * a.code_bits + 7) / 8;
  for (int64_t j = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; j < groups; j += int64_t(gridDim.x) * blockDim.x) {
    unsigned long long codes = 0;
    unsigned sign = 0;
    const int n = a.numel - 8 * j < 8 ? int(a.numel - 8 * j) : 8;
    for (int k = 0; k < n; ++k) {
      const int64_t i = 8 * j + k;
      q.at(i / a.inner % a.C);
      const A u = q.input(widen(x[i]));
      out[i] = Narrow<T>::to(q.output(u));
      if (a.code_bits) codes |= (unsigned long long)(q.code(u)) << (k * a.code_bits);
      if (a.save_sign) sign |= (q.forward(u) > 0 ? 1u : 0u) << k;
    }
    for (int b = 0; b < (n * a.code_bits + 7) / 8; ++b) a.codes[j * a.code_bits + b] = uint8_t(codes >> (8 * b));
    if (a.save_sign) signs[j] = uint8_t(sign);
  }
}

template <class T> __global__ void __launch_bounds__(kQuantizeThreads) quantize_backward(const QuantizeArgs a, double top) {
  using A = Acc<T>;
  Quantizer<A> q{a};
  q.top = top;
  const T *const x = static_cast<const T*>(a.x), *const grad = static_cast<const T*>(a.grad);
  T* const out = static_cast<T*>(a.out);
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < a.numel; i += int64_t(gridDim.x) * blockDim.x) {
    q.at(i / a.inner % a.C);
    const A u = x ? q.input(widen(x[i])) : A(0);
    A v = A(widen(grad[i])) * q.slope_at(i, u) * q.gain;
    if (a.scaled) v *= q.scale;
    out[i] = Narrow<T>::to(v);
  }
}

// The block's sum in thread 0, by a fixed tree.
STRUCTOPS_DEVICE double block_sum(double v, double* shared) {
  shared[threadIdx.x] = v;
  __syncthreads();
  for (int d = kQuantizeThreads / 2; d > 0; d /= 2) {
    if (int(threadIdx.x) < d) shared[threadIdx.x] += shared[threadIdx.x + d];
    __syncthreads();
  }
  const double total = shared[0];
  __syncthreads();
  return total;
}

template <class T> __global__ void __launch_bounds__(kQuantizeThreads) quantize_sums(const QuantizeArgs a, double top) {
  using A = Acc<T>;
  __shared__ double shared[kQuantizeThreads];
  const T *const x = static_cast<const T*>(a.x), *const grad = static_cast<const T*>(a.grad);
  const int64_t n = a.numel / a.C;  // elements of a channel
  for (int64_t c = blockIdx.x; c < a.C; c += gridDim.x) {
    Quantizer<A> q{a};
    q.top = top;
    q.at(c);
    double d_shift = 0, d_scale = 0, d_extra = 0;
    for (int64_t k = threadIdx.x; k < n; k += kQuantizeThreads) {
      const int64_t i = (k / a.inner * a.C + c) * a.inner + k % a.inner;
      const A g = widen(grad[i]), u = x ? q.input(widen(x[i])) : A(0);
      if (a.d_shift) {
        A v = g * q.slope_at(i, u) * q.gain;
        if (a.scaled) v *= q.scale;
        d_shift += double(v);
      }
      if (a.d_scale) d_scale += double(q.scale_term(i, u, g));
      d_extra += double(g);
    }
    const double sums[3] = {block_sum(d_shift, shared), block_sum(d_scale, shared), block_sum(d_extra, shared)};
    if (threadIdx.x == 0) {
      if (a.d_shift) static_cast<A*>(a.d_shift)[c] = A(sums[0]);
      if (a.d_scale) static_cast<A*>(a.d_scale)[c] = A(sums[1]);
      if (a.d_extra) static_cast<A*>(a.d_extra)[c] = A(sums[2]);
    }
  }
}

template <class T> __global__ void __launch_bounds__(kQuantizeThreads) channel_statistics(const ChannelStatsArgs a) {
  using A = Acc<T>;
  __shared__ double shared[kQuantizeThreads];
  const T *const x = static_cast<const T*>(a.x), *const y = static_cast<const T*>(a.y);
  const int64_t n = a.numel / a.C;
  for (int64_t c = blockIdx.x; c < a.C; c += gridDim.x) {
    const A shift = a.shift ? static_cast<const A*>(a.shift)[c] : A(0);
    double sum = 0, size = 0, square = 0, top = 0, product = 0;
    for (int64_t k = threadIdx.x; k < n; k += kQuantizeThreads) {
      const int64_t i = (k / a.inner * a.C + c) * a.inner + k % a.inner;
      const A v = A(widen(x[i])) + shift, z = fabs(v);
      sum += double(v);
      size += double(z);
      square += double(v) * double(v);
      top = double(z) > top || z != z ? double(z) : top;
      if (y) product += double(v) * double(widen(y[i]));
    }
    const double sums[3] = {block_sum(sum, shared), block_sum(size, shared), block_sum(square, shared)};
    const double last = block_sum(product, shared);
    shared[threadIdx.x] = top;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int t = 1; t < kQuantizeThreads; ++t) top = shared[t] > top || shared[t] != shared[t] ? shared[t] : top;
      A* const out = static_cast<A*>(a.out) + c;
      for (int j = 0; j < 3; ++j) out[j * a.C] = A(sums[j]);
      out[3 * a.C] = A(top);
      out[4 * a.C] = A(last);
    }
    __syncthreads();
  }
}

}  // namespace structops::cuda
