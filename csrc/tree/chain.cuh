// CUDA chains: device code. The contract is chain.h; launches are in chain_cuda.cu.
//
// A block takes one sentence at a time, a thread the tags t = threadIdx.x, + blockDim.x, ... Charts are logarithms in global
// scratch of the block; the rows of V and B are relative to their largest number, which goes to a float64 offset. Small
// transition matrices of a sentence are staged in shared memory. dual: beside each logarithm its derivative along v.
#pragma once
#include "core/cuda/device.cuh"
#include "tree/chain.h"

namespace structops::cuda {

constexpr int kChainTile = 64;  // T up to which transitions are staged

template <class T> struct ChainScoresOf { const T *emit, *segment, *duration, *trans, *start, *end; };
template <class T> struct ChainPostOf { T *emit, *segment, *duration, *trans, *start, *end; };

template <class T, class A> struct ChainParams {
  ChainScoresOf<T> score, v;
  ChainPostOf<T> post;
  const int64_t* lengths;
  Acc<T>*logz, *value;
  const Acc<T>* weight;
  const double* uniform;
  int64_t* tags;
  int kind, posteriors;
  int64_t B, N, T_, K, M, G;  // G: blocks
  A* charts;          // [G, chart_size]
  double* offsets;    // [G, 3, N + 1]
  double* cover;      // [G, N + 1, T], K > 1
  double* sums;       // [G, sum_size]: trans, duration, start, end
  int64_t chart_size, sum_size, sum_duration, sum_start, sum_end;
  int* from;          // best: [G, 2, N + 1, T, M]
};

template <class A> STRUCTOPS_DEVICE A ninf() { return Limits<A>::low(); }

// A running log sum exp, and the mean of the tangents under it.
template <class A, bool dual> struct LogSum {
  A m, s, d;
  STRUCTOPS_DEVICE LogSum() : m(ninf<A>()), s(0), d(0) {}
  STRUCTOPS_DEVICE void add(A x, A dx) {
    if (x == ninf<A>()) return;
    if (x > m) {
      const A e = exp(m - x);
      s = s * e + A(1);
      if (dual) d = d * e + dx;
      m = x;
    } else {
      const A e = exp(x - m);
      s += e;
      if (dual && e != A(0)) d += e * dx;
    }
  }
  STRUCTOPS_DEVICE A value() const { return s == A(0) ? ninf<A>() : m + log(s); }
  STRUCTOPS_DEVICE A tangent() const { return dual && s != A(0) ? d / s : A(0); }
};

// The largest number, or the sum, of all threads; every thread calls and gets it. `room` is shared memory for 33 numbers.
template <class A, bool sum> STRUCTOPS_DEVICE A block_fold(A x, A* room) {
  for (int w = 16; w > 0; w >>= 1) {
    const A y = __shfl_xor_sync(kFull, x, w);
    x = sum ? x + y : (y > x ? y : x);
  }
  const int warps = blockDim.x >> 5;
  if (warps == 1) return x;
  __syncthreads();
  if ((threadIdx.x & 31) == 0) room[threadIdx.x >> 5] = x;
  __syncthreads();
  A all = room[0];
  for (int i = 1; i < warps; ++i) all = sum ? all + room[i] : (room[i] > all ? room[i] : all);
  return all;
}

template <class T, class A, bool dual> struct DeviceChain {
  using Sum = LogSum<A, dual>;
  const ChainParams<T, A>& p;
  A *tile, *room;  // shared memory
  int bad = 0;
  int64_t b = 0, n = 0, T_, K, N1;
  A *V, *P, *Bx, *Q, *dV, *dP, *dB, *dQ;
  double *offV, *offP, *offB, *cover;

  static int64_t size(int64_t N, int64_t T_, int64_t K) { return (dual ? 2 : 1) * (3 * (N + 1) + K) * T_; }

  STRUCTOPS_DEVICE DeviceChain(const ChainParams<T, A>& p_, A* tile_, A* room_) : p(p_), tile(tile_), room(room_), T_(p_.T_), K(p_.K), N1(p_.N + 1) {
    A* at = p.charts + blockIdx.x * p.chart_size;
    const auto take = [&](int64_t rows) { A* q = at; at += rows * T_; return q; };
    V = take(N1); P = take(N1); Bx = take(N1); Q = take(K);
    dV = dP = dB = dQ = nullptr;
    if (dual) { dV = take(N1); dP = take(N1); dB = take(N1); dQ = take(K); }
    offV = p.offsets + blockIdx.x * 3 * N1;
    offP = offV + N1;
    offB = offP + N1;
    cover = p.cover ? p.cover + blockIdx.x * N1 * T_ : nullptr;
  }

  STRUCTOPS_DEVICE bool full() const { return p.kind == int(Trans::full); }
  STRUCTOPS_DEVICE A read(const T* q, int64_t at) {
    if (!q) return A(0);
    const A x = A(widen(load_one(q + at)));
    bad |= !(x < Limits<A>::high());
    return x;
  }
  STRUCTOPS_DEVICE A peek(const T* q, int64_t at) const { return q ? A(widen(load_one(q + at))) : A(0); }
  STRUCTOPS_DEVICE int64_t matrix(int64_t i, int64_t d) const {
    switch (Trans(p.kind)) {
      case Trans::batch: return b;
      case Trans::position: return b * (p.N - 1) + i - 1;
      case Trans::full: return (b * (p.N - 1) + i - 1) * K + d - 1;
      default: return 0;
    }
  }
  STRUCTOPS_DEVICE bool staged() const { return T_ <= kChainTile && (p.kind == int(Trans::shared) || p.kind == int(Trans::batch)); }
  STRUCTOPS_DEVICE void stage() {
    __syncthreads();
    if (staged() && n > 1)
      for (int64_t k = threadIdx.x; k < T_ * T_; k += blockDim.x) tile[k] = read(p.score.trans, matrix(1, 1) * T_ * T_ + k);
    __syncthreads();
  }
  STRUCTOPS_DEVICE A trans(int64_t at, int64_t s, int64_t t) { return staged() ? tile[s * T_ + t] : read(p.score.trans, (at * T_ + s) * T_ + t); }
  STRUCTOPS_DEVICE A d_trans(int64_t at, int64_t s, int64_t t) const { return dual ? peek(p.v.trans, (at * T_ + s) * T_ + t) : A(0); }
  STRUCTOPS_DEVICE int64_t longest(int64_t i, int64_t room_) const { return full() && i == 0 ? (room_ < 1 ? room_ : 1) : room_ < K ? room_ : K; }
  STRUCTOPS_DEVICE A segment(int64_t i, int64_t d, int64_t t) {  // without the emissions
    return read(p.score.segment, ((b * p.N + i) * K + d - 1) * T_ + t) + read(p.score.duration, (d - 1) * T_ + t);
  }
  STRUCTOPS_DEVICE A d_segment(int64_t i, int64_t d, int64_t t) const {
    return dual ? peek(p.v.segment, ((b * p.N + i) * K + d - 1) * T_ + t) + peek(p.v.duration, (d - 1) * T_ + t) : A(0);
  }

  STRUCTOPS_DEVICE Sum enter(int64_t i, int64_t d, int64_t t) {  // sum_s V[i, s] + trans(s, t)
    Sum sum;
    const int64_t at = matrix(i, d);
    for (int64_t s = 0; s < T_; ++s) sum.add(V[i * T_ + s] + trans(at, s, t), dual ? dV[i * T_ + s] + d_trans(at, s, t) : A(0));
    return sum;
  }

  // Subtracts the largest number of a row that each thread wrote its tags of; visible to all after it.
  STRUCTOPS_DEVICE double normalise(A* row) {
    A top = ninf<A>();
    for (int64_t t = threadIdx.x; t < T_; t += blockDim.x) top = row[t] > top ? row[t] : top;
    top = block_fold<A, false>(top, room);
    if (top == ninf<A>()) top = 0;
    for (int64_t t = threadIdx.x; t < T_; t += blockDim.x) row[t] -= top;
    __syncthreads();
    return double(top);
  }

  STRUCTOPS_DEVICE double forward(int64_t b_, double* d_logz) {
    b = b_;
    n = p.lengths[b];
    bad = 0;
    *d_logz = 0;
    stage();
    if (n == 0) return 0;
    for (int64_t t = threadIdx.x; t < T_; t += blockDim.x) {
      P[t] = read(p.score.start, t);
      if (dual) dP[t] = peek(p.v.start, t);
    }
    if (threadIdx.x == 0) offP[0] = 0;
    __syncthreads();
    for (int64_t j = 1; j <= n; ++j) {
      const double ref = j > 1 ? offV[j - 1] : 0;
      for (int64_t t = threadIdx.x; t < T_; t += blockDim.x) {
        if (j > 1 && !full()) {
          const Sum in = enter(j - 1, 1, t);
          P[(j - 1) * T_ + t] = in.value();
          if (dual) dP[(j - 1) * T_ + t] = in.tangent();
        }
        Sum sum;
        A acc = 0, d_acc = 0;
        for (int64_t d = 1; d <= K && d <= j; ++d) {
          const int64_t i = j - d;
          acc += read(p.score.emit, (b * p.N + i) * T_ + t);
          if (dual) d_acc += peek(p.v.emit, (b * p.N + i) * T_ + t);
          if (d > longest(i, d)) continue;
          A before = P[i * T_ + t], d_before = dual ? dP[i * T_ + t] : A(0);
          if (full() && i > 0) {
            const Sum in = enter(i, d, t);
            before = in.value();
            d_before = in.tangent();
          }
          const double base = i > 0 ? offV[i] : 0;  // P[i] shares the offset of V[i]
          sum.add(before + A(base - ref) + acc + segment(i, d, t), d_before + d_acc + d_segment(i, d, t));
        }
        V[j * T_ + t] = sum.value();
        if (dual) dV[j * T_ + t] = sum.tangent();
      }
      const double top = normalise(V + j * T_);
      if (threadIdx.x == 0) offV[j] = ref + top;
      __syncthreads();
    }
    A top = ninf<A>();
    for (int64_t t = threadIdx.x; t < T_; t += blockDim.x) {
      const A x = V[n * T_ + t] + read(p.score.end, t);
      top = x > top ? x : top;
    }
    top = block_fold<A, false>(top, room);
    A s = 0, d = 0;
    for (int64_t t = threadIdx.x; t < T_ && top > ninf<A>(); t += blockDim.x) {
      const A e = exp(V[n * T_ + t] + peek(p.score.end, t) - top);
      s += e;
      if (dual && e != A(0)) d += e * (dV[n * T_ + t] + peek(p.v.end, t));
    }
    s = block_fold<A, true>(s, room);
    if (dual) d = block_fold<A, true>(d, room);
    bad = __syncthreads_or(bad);
    if (bad) { *d_logz = double(Limits<double>::high()) - double(Limits<double>::high()); return *d_logz; }
    if (!(s > A(0))) return double(ninf<double>());
    *d_logz = double(d / s);
    return offV[n] + double(top) + log(double(s));
  }

  STRUCTOPS_DEVICE A posterior(A x, A dx, A d_logz) const {
    const A e = exp(x);
    return dual ? (e == A(0) ? A(0) : e * (dx - d_logz)) : e;
  }
  STRUCTOPS_DEVICE static void put(T* q, int64_t at, double x) { q[at] = Narrow<T>::to(Acc<T>(x)); }

  STRUCTOPS_DEVICE void put_segment(int64_t i, int64_t d, int64_t t, A x, double w, double* sums) {
    if (p.post.segment) put(p.post.segment, ((b * p.N + i) * K + d - 1) * T_ + t, x * w);
    if (p.post.duration) sums[p.sum_duration + (d - 1) * T_ + t] += w * x;
    if (K == 1) {
      put(p.post.emit, (b * p.N + i) * T_ + t, x * w);
    } else {
      cover[i * T_ + t] += x;
      cover[(i + d) * T_ + t] -= x;
    }
    if (i == 0 && p.post.start) sums[p.sum_start + t] += w * x;
    if (i + d == n && p.post.end) sums[p.sum_end + t] += w * x;
  }
  STRUCTOPS_DEVICE void put_border(int64_t at, int64_t s, int64_t t, A x, double w, double* sums) {
    if (p.kind == int(Trans::shared)) sums[s * T_ + t] += w * x;
    else if (p.kind == int(Trans::batch)) sums[s * T_ + t] += w * x;  // written and cleared at the end of the sentence
    else if (p.kind != int(Trans::none)) put(p.post.trans, (at * T_ + s) * T_ + t, x * w);
  }

  // fill: the value of the sentence's posteriors where there are none to compute.
  STRUCTOPS_DEVICE void clear(double inside) {
    const auto each = [&](T* q, int64_t rows, auto within) {
      if (q)
        for (int64_t k = threadIdx.x; k < rows * T_; k += blockDim.x) put(q, b * rows * T_ + k, within(k / T_) ? inside : 0.0);
    };
    const bool empty = n == 0;
    each(p.post.emit, p.N, [&](int64_t r) { return r < n; });
    each(p.post.segment, p.N * K, [&](int64_t r) { return r / K + r % K < n; });
    if (p.kind == int(Trans::batch)) each(p.post.trans, T_, [&](int64_t) { return !empty; });
    if (p.kind == int(Trans::position)) each(p.post.trans, (p.N - 1) * T_, [&](int64_t r) { return r / T_ + 1 < n; });
    if (full()) each(p.post.trans, (p.N - 1) * K * T_, [&](int64_t r) { return r / T_ / K + 1 + r / T_ % K < n; });
    __syncthreads();
  }

  STRUCTOPS_DEVICE void backward(double logz, double d_logz_, double w, double* sums) {
    const bool nan = logz != logz;
    clear(nan ? logz : 0.0);
    if (nan) {
      for (int64_t k = threadIdx.x; k < p.sum_size; k += blockDim.x)
        if (p.kind != int(Trans::batch) || k >= T_ * T_) sums[k] = logz;
    }
    if (n == 0 || nan || logz == double(ninf<double>())) return;
    const A d_logz = A(d_logz_);
    for (int64_t t = threadIdx.x; t < T_; t += blockDim.x) {
      Bx[n * T_ + t] = peek(p.score.end, t);
      if (dual) dB[n * T_ + t] = peek(p.v.end, t);
      if (cover)
        for (int64_t i = 0; i <= n; ++i) cover[i * T_ + t] = 0;
    }
    if (threadIdx.x == 0) offB[n] = 0;
    __syncthreads();
    for (int64_t i = n - 1; i >= 0; --i) {
      const int64_t most = longest(i, n - i);
      const double ref = offB[i + 1], off = i > 0 ? offV[i] : 0;
      const A shift = A(off + ref - logz);
      for (int64_t t = threadIdx.x; t < T_; t += blockDim.x) {
        A acc = 0, d_acc = 0;
        Sum q;
        for (int64_t d = 1; d <= most; ++d) {
          acc += peek(p.score.emit, (b * p.N + i + d - 1) * T_ + t);
          if (dual) d_acc += peek(p.v.emit, (b * p.N + i + d - 1) * T_ + t);
          const A x = Bx[(i + d) * T_ + t] + A(offB[i + d] - ref) + acc + segment(i, d, t);
          const A dx = dual ? dB[(i + d) * T_ + t] + d_acc + d_segment(i, d, t) : A(0);
          q.add(x, dx);
          if (full() && i > 0) {
            const int64_t at = matrix(i, d);
            Q[(d - 1) * T_ + t] = x;
            if (dual) dQ[(d - 1) * T_ + t] = dx;
            A total = 0;
            for (int64_t s = 0; s < T_; ++s) {
              const A y = posterior(V[i * T_ + s] + trans(at, s, t) + x + shift, dual ? dV[i * T_ + s] + d_trans(at, s, t) + dx : A(0), d_logz);
              put_border(at, s, t, y, w, sums);
              total += y;
            }
            put_segment(i, d, t, total, w, sums);
          } else {
            put_segment(i, d, t, posterior(P[i * T_ + t] + x + shift, dual ? dP[i * T_ + t] + dx : A(0), d_logz), w, sums);
          }
        }
        if (full() || i == 0) continue;
        Q[t] = q.value();
        if (dual) dQ[t] = q.tangent();
        const int64_t at = matrix(i, 1);
        for (int64_t s = 0; s < T_ && p.kind != int(Trans::none); ++s)
          put_border(at, s, t, posterior(V[i * T_ + s] + trans(at, s, t) + Q[t] + shift, dual ? dV[i * T_ + s] + d_trans(at, s, t) + dQ[t] : A(0), d_logz), w, sums);
      }
      if (i == 0) break;
      __syncthreads();
      for (int64_t s = threadIdx.x; s < T_; s += blockDim.x) {
        Sum sum;
        for (int64_t d = 1; d <= (full() ? most : 1); ++d) {
          const int64_t at = matrix(i, d);
          for (int64_t t = 0; t < T_; ++t) sum.add(trans(at, s, t) + Q[(d - 1) * T_ + t], dual ? d_trans(at, s, t) + dQ[(d - 1) * T_ + t] : A(0));
        }
        Bx[i * T_ + s] = sum.value();
        if (dual) dB[i * T_ + s] = sum.tangent();
      }
      const double top = normalise(Bx + i * T_);
      if (threadIdx.x == 0) offB[i] = ref + top;
      __syncthreads();
    }
    for (int64_t t = threadIdx.x; t < T_; t += blockDim.x) {
      if (cover) {
        double x = 0;
        for (int64_t i = 0; i < n; ++i) {
          x += cover[i * T_ + t];
          const int64_t at = (b * p.N + i) * T_ + t;
          put(p.post.emit, at, peek(p.score.emit, at) == ninf<A>() ? 0.0 : x * w);
        }
      }
      if (p.kind == int(Trans::batch))
        for (int64_t s = 0; s < T_; ++s) {
          put(p.post.trans, (b * T_ + s) * T_ + t, sums[s * T_ + t]);
          sums[s * T_ + t] = 0;
        }
    }
  }
};

template <class T, class A, bool dual> __global__ void __launch_bounds__(256, 2) chain_sums(const ChainParams<T, A> p) {
  __shared__ A tile[kChainTile * kChainTile];
  __shared__ A room[33];
  DeviceChain<T, A, dual> chain(p, tile, room);
  double* const sums = p.posteriors ? p.sums + blockIdx.x * p.sum_size : nullptr;
  if (p.posteriors)
    for (int64_t k = threadIdx.x; k < p.sum_size; k += blockDim.x) sums[k] = 0;
  __syncthreads();
  for (int64_t b = blockIdx.x; b < p.B; b += p.G) {
    double d_logz;
    const double logz = chain.forward(b, &d_logz);
    if (threadIdx.x == 0) p.logz[b] = Acc<T>(dual ? d_logz : logz);
    if (p.posteriors) chain.backward(logz, d_logz, p.weight ? double(p.weight[b]) : 1.0, sums);
    __syncthreads();
  }
}

// Adds up the blocks' sums in order.
template <class T> __global__ void chain_finish(const double* sums, int64_t G, int64_t size, int64_t begin, int64_t count, T* out) {
  const int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k >= count) return;
  double x = 0;
  for (int64_t g = 0; g < G; ++g) x += sums[g * size + begin + k];
  out[k] = Narrow<T>::to(Acc<T>(x));
}

}  // namespace structops::cuda
