// CUDA relational_spmm: device code. The contract is rspmm.h.
//
// One thread owns one output element and walks its edges in order, neighbouring threads neighbouring features. The gradient of
// rel is cut into kSplits fixed pieces of every relation's edges, merged in order.
#pragma once
#include "core/cuda/device.cuh"
#include "sparse/rspmm.h"

namespace structops::cuda {

constexpr int kRelThreads = 128, kSplits = 32;

struct RspmmParams {
  const void *x, *rel, *weight, *grad;
  const uint8_t* mask;
  IndexRef rowptr, col, eid, type, colptr, row_t, eid_t, type_t;
  IndexRef relptr, order;  // positions of the reversed edges by relation
  int has_eid;
  void *out, *arg, *rest, *d_x, *d_rel, *d_weight;
  void* partial;  // [kSplits, B, R, F] accumulators
  int64_t B, N, M, R, E, F;
  double fill;
  int mul, reduce;
};

template <class T> struct RelAt {
  using A = Acc<T>;
  const RspmmParams& p;
  STRUCTOPS_DEVICE A get(const void* base, int64_t i) const { return widen(static_cast<const T*>(base)[i]); }
  STRUCTOPS_DEVICE int64_t other(int64_t f) const { return f < p.F / 2 ? p.F / 2 : -(p.F / 2); }
  STRUCTOPS_DEVICE A weight(int64_t j) const { return p.weight ? get(p.weight, j) : A(1); }
  STRUCTOPS_DEVICE bool kept(int64_t j) const { return !p.mask || p.mask[j]; }
  STRUCTOPS_DEVICE int64_t edge(int64_t k) const { return p.has_eid ? p.eid.at(k) : k; }
  // rel (x) x at the elements u and r of feature f
  STRUCTOPS_DEVICE A product(int64_t u, int64_t r, int64_t f) const {
    const A x = get(p.x, u);
    switch (RelMul(p.mul)) {
      case RelMul::copy: return x;
      case RelMul::add: return get(p.rel, r) + x;
      case RelMul::mul: return get(p.rel, r) * x;
      case RelMul::min: {
        const A s = get(p.rel, r);
        return x != x || x < s ? x : s;
      }
      default: {
        const int64_t o = other(f);
        const A s = get(p.rel, r), xo = get(p.x, u + o), ro = get(p.rel, r + o);
        return f < p.F / 2 ? x * s - xo * ro : xo * s + x * ro;
      }
    }
  }
  // D of the message of reversed position q at feature f: element u of x, r of rel, v of the result
  STRUCTOPS_DEVICE A message_grad(int64_t v, int64_t u, int64_t r, int64_t f, int64_t row, int64_t j, A w) const {
    const int64_t plane = p.B * p.N * p.F;
    const RelReduce reduce = RelReduce(p.reduce);
    auto won = [&](int64_t i) {
      const int64_t k = IndexRef{p.arg, p.rowptr.wide}.at(i);
      return k < p.E && edge(k) == j;
    };
    auto count = [&] {
      int64_t n = 0;
      const int64_t begin = p.rowptr.at(row), end = p.rowptr.at(row + 1);
      if (!p.mask) n = end - begin;
      else for (int64_t k = begin; k < end; ++k) n += p.mask[edge(k)] != 0;
      return A(n ? n : 1);
    };
    switch (reduce) {
      case RelReduce::sum: return get(p.grad, v);
      case RelReduce::mean: return get(p.grad, v) / count();
      case RelReduce::min:
      case RelReduce::max: return won(v) ? get(p.grad, v) : A(0);
      case RelReduce::logsumexp: {
        const A o = get(p.out, v);
        return o == Limits<A>::low() ? A(0) : get(p.grad, v) * exp(product(u, r, f) * w - o);
      }
      default: {
        const A m = product(u, r, f) * w, mean = get(p.out, v), rest = get(p.rest, v);
        A g = (get(p.grad, v) + A(2) * get(p.grad, plane + v) * (m - mean - rest)) / count();
        if (won(v)) g += get(p.grad, 2 * plane + v);
        if (won(plane + v)) g += get(p.grad, 3 * plane + v);
        return g;
      }
    }
  }
  // What the edge adds to the gradient of x (to_x) or of rel at feature f.
  STRUCTOPS_DEVICE A share(int64_t b, int64_t u, int64_t row, int64_t kind, int64_t j, int64_t f, bool to_x) const {
    const A w = weight(j);
    const int64_t ui = (b * p.M + u) * p.F + f, ri = (b * p.R + kind) * p.F + f, vi = (b * p.N + row) * p.F + f;
    const A t = w * message_grad(vi, ui, ri, f, row, j, w);
    const void* const base = to_x ? p.rel : p.x;
    const int64_t at = to_x ? ri : ui;
    switch (RelMul(p.mul)) {
      case RelMul::mul: return t * get(base, at);
      case RelMul::min: {
        const A x = get(p.x, ui), s = get(p.rel, ri), half = x < s ? A(1) : x == s ? A(0.5) : A(0);
        return t * (to_x ? half : A(1) - half);
      }
      case RelMul::rotate: {
        const int64_t o = other(f);
        const A to = w * message_grad(vi + o, ui + o, ri + o, f + o, row, j, w), turned = get(base, at + (f < p.F / 2 ? o : 0)),
                straight = get(base, at + (f < p.F / 2 ? 0 : o));
        return f < p.F / 2 ? t * straight + to * turned : t * straight - to * turned;
      }
      default: return t;
    }
  }
};

template <class T> __global__ void rspmm_rows(RspmmParams p) {
  using A = Acc<T>;
  const RelAt<T> at{p};
  const int64_t plane = p.B * p.N * p.F;
  const RelReduce reduce = RelReduce(p.reduce);
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < plane; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t f = i % p.F, v = i / p.F % p.N, b = i / p.F / p.N;
    A sum = 0, shift = 0, mean = 0, second = 0, top = Limits<A>::low(), scaled = 0, best[2] = {0, 0};
    int64_t n = 0, arg[2] = {p.E, p.E};
    for (int64_t k = p.rowptr.at(v), end = p.rowptr.at(v + 1); k < end; ++k) {
      const int64_t j = at.edge(k);
      if (!at.kept(j)) continue;
      const A m = at.weight(j) * at.product((b * p.M + p.col.at(k)) * p.F + f, (b * p.R + p.type.at(k)) * p.F + f, f);
      ++n;
      if (reduce <= RelReduce::mean) sum += m;
      if (reduce == RelReduce::logsumexp) {
        const bool rises = m > top;
        const A e = m == top ? A(1) : exp(rises ? top - m : m - top);
        scaled = rises ? scaled * e + A(1) : scaled + e;
        top = rises ? m : top;
      }
      if (reduce == RelReduce::pna) {
        if (n == 1 && m - m == A(0)) shift = m;
        const A shifted = m - shift, d = shifted - mean;
        mean += d / A(n);
        second += d * (shifted - mean);
      }
      for (int s = 0; s < 2; ++s) {  // largest, smallest
        const A c = s ? -m : m;
        if (n == 1 || (!(c <= best[s]) && best[s] == best[s])) { best[s] = c; arg[s] = k; }
      }
    }
    auto put = [&](int64_t to, A value) { static_cast<T*>(p.out)[to] = Narrow<T>::to(value); };
    auto put_arg = [&](int64_t to, int64_t k) {
      if (p.rowptr.wide) static_cast<long long*>(p.arg)[to] = k; else static_cast<int*>(p.arg)[to] = int(k);
    };
    if (reduce == RelReduce::pna) {
      put(i, shift + mean);
      static_cast<T*>(p.rest)[i] = Narrow<T>::to(shift - widen(Narrow<T>::to(shift + mean)) + mean);
      put(plane + i, n ? second / A(n) : A(0));
      put(2 * plane + i, best[0]);
      put(3 * plane + i, n ? -best[1] : A(0));
      put_arg(i, arg[0]);
      put_arg(plane + i, arg[1]);
      continue;
    }
    A value = reduce == RelReduce::mean ? sum / A(n ? n : 1) : sum;
    if (reduce == RelReduce::logsumexp) value = top + log(scaled);
    if (reduce == RelReduce::max) { value = best[0]; put_arg(i, arg[0]); }
    if (reduce == RelReduce::min) { value = -best[1]; put_arg(i, arg[1]); }
    put(i, n ? value : A(p.fill));
  }
}

template <class T> __global__ void rspmm_to_x(RspmmParams p) {
  const RelAt<T> at{p};
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < p.B * p.M * p.F; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t f = i % p.F, u = i / p.F % p.M, b = i / p.F / p.M;
    Acc<T> s = 0;
    for (int64_t q = p.colptr.at(u), end = p.colptr.at(u + 1); q < end; ++q) {
      const int64_t j = p.eid_t.at(q);
      if (at.kept(j)) s += at.share(b, u, p.row_t.at(q), p.type_t.at(q), j, f, true);
    }
    static_cast<T*>(p.d_x)[i] = Narrow<T>::to(s);
  }
}

// The source row of reversed position q: the last with colptr[row] <= q.
STRUCTOPS_DEVICE int64_t row_of(const IndexRef& ptr, int64_t rows, int64_t q) {
  int64_t lo = 0, hi = rows;
  while (lo < hi) {
    const int64_t mid = (lo + hi) / 2;
    if (ptr.at(mid + 1) <= q) lo = mid + 1; else hi = mid;
  }
  return lo;
}

template <class T> __global__ void rspmm_to_rel(RspmmParams p) {
  const RelAt<T> at{p};
  const int64_t size = p.B * p.R * p.F;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size * kSplits; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t split = i / size, f = i % p.F, kind = i / p.F % p.R, b = i % size / p.F / p.R;
    const int64_t begin = p.relptr.at(kind), count = p.relptr.at(kind + 1) - begin;
    Acc<T> s = 0;
    for (int64_t k = begin + count * split / kSplits, end = begin + count * (split + 1) / kSplits; k < end; ++k) {
      const int64_t q = p.order.at(k), j = p.eid_t.at(q);
      if (at.kept(j)) s += at.share(b, row_of(p.colptr, p.M, q), p.row_t.at(q), kind, j, f, false);
    }
    static_cast<Acc<T>*>(p.partial)[i] = s;
  }
}

template <class T> __global__ void rspmm_merge(RspmmParams p) {
  const int64_t size = p.B * p.R * p.F;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size; i += int64_t(gridDim.x) * blockDim.x) {
    Acc<T> s = 0;
    for (int split = 0; split < kSplits; ++split) s += static_cast<const Acc<T>*>(p.partial)[split * size + i];
    static_cast<T*>(p.d_rel)[i] = Narrow<T>::to(s);
  }
}

// A warp an edge; lanes take features in turn and are added by a fixed tree.
template <class T> __global__ void rspmm_to_weight(RspmmParams p) {
  using A = Acc<T>;
  const RelAt<T> at{p};
  const int lane = threadIdx.x & 31;
  const int64_t warps = int64_t(gridDim.x) * blockDim.x / 32;
  for (int64_t q = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / 32; q < p.E; q += warps) {
    const int64_t j = p.eid_t.at(q), u = row_of(p.colptr, p.M, q), row = p.row_t.at(q), kind = p.type_t.at(q);
    A s = 0;
    if (at.kept(j))
      for (int64_t i = lane; i < p.B * p.F; i += 32) {
        const int64_t b = i / p.F, f = i % p.F, ui = (b * p.M + u) * p.F + f, ri = (b * p.R + kind) * p.F + f;
        s += at.message_grad((b * p.N + row) * p.F + f, ui, ri, f, row, j, at.weight(j)) * at.product(ui, ri, f);
      }
    for (int d = 16; d > 0; d /= 2) s += shift_down(s, d);
    if (lane == 0) static_cast<T*>(p.d_weight)[j] = Narrow<T>::to(s);
  }
}

}  // namespace structops::cuda
