// Elimination without subtraction of one sentence by one block. The algorithm is in matrix_tree.h.
//
// The halving goes level by level: all parts of a level are eliminated at once, so that a sentence takes about n steps down and n steps
// up rather than n log n. A part is a matrix of which words m - 1 .. keep leave; its leading block is a node of the next level, and
// each node makes two parts of it, the block itself and a copy with the halves exchanged.
#pragma once
#include "tree/extended.cuh"

namespace structops::cuda {

constexpr int kTreeThreads = 256;
constexpr double kForbidden = -0x1p36, kRootShift = 0x1p50, kLeastExponent = -900;  // as in elimination.h

struct TreeParams {
  int multiroot;
  int64_t B, N;
  const void *score, *weight, *v;
  const int64_t* lengths;
  void *logz, *post;
  double* scratch;          // [gridDim.x, numbers]
  int64_t numbers;
};

struct Part {
  int64_t at;                      // of its matrix
  int ld, m, keep, stay, left;     // local word j < keep is word stay + j, the others are left + j - keep
};

enum Outcome { kDone, kNone, kNan, kUnderflow };

struct Shared {
  Product z, rows;
  double shift, root_top;
  int failed, outcome, parts, first;  // parts: made so far; first: of the current level
};

// The block's memory: weights w [n, n + 1], matrices, e [n, n], last [n], the best score of each word [n], parts.
template <class N> struct Engine {
  int64_t n;
  Mat w, e, last;
  double *row, *matrices;
  int64_t plane;                   // of the matrices
  Part* part;
  Shared* s;
  bool root_in_sum;

  // Numbers of the matrices of one plane: the root's, and a copy for every node.
  static __host__ __device__ int64_t matrix_numbers(int64_t n) {
    int64_t total = n * (n + 1);
    for (int64_t m = n, nodes = 1; m > 1; m = (m + 1) / 2, nodes *= 2) total += (nodes < n ? nodes : n) * m * (m + 1);
    return total;
  }
  static __host__ __device__ int64_t numbers(int64_t n, bool outside) {
    const int64_t planes = N::planes, matrices = outside ? matrix_numbers(n) : n * (n + 1);
    return planes * (n * (n + 1) + matrices + n * n + n) + n + 5 * (2 * n + 2);
  }

  STRUCTOPS_DEVICE Engine(double* p, int64_t n_, bool outside, bool multiroot, Shared* shared)
      : n(n_), plane(outside ? matrix_numbers(n_) : n_ * (n_ + 1)), s(shared), root_in_sum(multiroot || N::ext) {
    auto take = [&](int64_t k) { double* const q = p; p += k; return q; };
    w = {take(N::planes * n * (n + 1)), n + 1, n * (n + 1)};
    matrices = take(N::planes * plane);
    e = {take(N::planes * n * n), n, n * n};
    last = {take(N::planes * n), n, n};
    row = take(n);
    part = reinterpret_cast<Part*>(p);
  }

  STRUCTOPS_DEVICE Mat matrix(const Part& q) const { return {matrices + q.at, q.ld, plane}; }

  // w from the scores; outcome kDone, kNone or kNan in shared memory.
  template <class T> STRUCTOPS_DEVICE void prepare(const TreeParams& a, int64_t b) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    const bool one = !a.multiroot;
    const T* const score = static_cast<const T*>(a.score) + b * a.N * a.N;
    if (threadIdx.x == 0) *s = {{1, 0, 0}, {1, 0, 0}, 0, -infinity(), 0, kDone, 0, 0};
    __syncthreads();
    for (int64_t d = warp; d < n; d += warps) {
      double top = -infinity();
      int bad = 0;
      for (int64_t h = lane; h <= n; h += 32) {
        if (h == d + 1) continue;
        const double x = double(widen(score[(d + 1) * a.N + h]));
        bad |= !(x < infinity());
        if ((h > 0 || !one) && x > top) top = x;
      }
#pragma unroll
      for (int i = 16; i >= 1; i /= 2) {
        const double other = __shfl_xor_sync(kFull, top, i);
        top = other > top ? other : top;
      }
      if (one && top == -infinity()) top = double(widen(score[(d + 1) * a.N]));  // this word can only be the root's
      if (lane == 0) row[d] = top;
      if (__any_sync(kFull, bad) && lane == 0) s->outcome = kNan;
    }
    __syncthreads();
    if (threadIdx.x == 0 && s->outcome == kDone) {
      for (int64_t d = 0; d < n; ++d) {
        if (row[d] == -infinity()) s->outcome = kNone;
        s->shift += row[d];
        const double root = double(widen(score[(d + 1) * a.N])) - row[d];
        if (root > s->root_top) s->root_top = root;
      }
      if (one) {
        if (s->root_top == -infinity()) s->outcome = kNone;
        s->shift += s->root_top;
      }
    }
    __syncthreads();
    if (s->outcome != kDone) return;
    const T* const v = N::dual ? static_cast<const T*>(a.v) + b * a.N * a.N : nullptr;
    for (int64_t i = threadIdx.x; i < n * (n + 1); i += blockDim.x) {
      const int64_t d = i / (n + 1), h = i % (n + 1), from = (d + 1) * a.N + h;
      N y = zero<N>();
      if (h != d + 1) {
        const bool root = one && h == 0;
        const double x = double(widen(score[from])) - row[d] - (root ? s->root_top : 0.0);
        if (x > kForbidden) {
          if constexpr (N::ext) {
            const double k = rint(x * 1.44269504088896340736);
            y.m = exp((x - k * 6.93145751953125e-1) - k * 1.42860682030941723212e-6);
            y.e = k - (root ? kRootShift : 0.0);
          } else {
            y.m = exp(x);
          }
          if constexpr (N::dual) y.d = y.m == 0 ? 0.0 : y.m * double(widen(v[from]));
          y = normalised(y);
        }
      }
      put(w, d, h, y);
      put(Mat{matrices, n + 1, plane}, d, h, y);
    }
    __syncthreads();
    if constexpr (!N::ext) {
      using Plain = Num<false, false>;
      for (int64_t d = warp; d < n; d += warps) {
        Plain sum = zero<Plain>();
        for (int64_t h = lane + one; h <= n; h += 32) sum.m += get<N>(w, d, h).m;
        sum = warp_sum(sum);
        if (lane == 0) row[d] = sum.m;
      }
      __syncthreads();
      if (threadIdx.x == 0) {
        double roots = 0;
        for (int64_t d = 0; d < n; ++d) {
          if (row[d] > 0) s->rows.times(Plain{row[d], 0, 0});
          roots += get<N>(w, d, 0).m;
        }
        if (one) s->rows.times(Plain{roots, 0, 0});
      }
      __syncthreads();
    }
  }

  // Words m - 1 .. keep of parts [begin, end) leave; those on the way to word 0 as the last count for z.
  STRUCTOPS_DEVICE void eliminate(int begin, int end, int m_most) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    for (int t = 0;; ++t) {
      int any = 0;
      for (int q = begin + warp; q < end; q += warps) {
        const Part& p = part[q];
        const int k = p.m - 1 - t;
        if (k < p.keep) continue;
        any = 1;
        const Mat a = matrix(p);
        N sum = zero<N>();
        for (int c = lane; c <= k; c += 32)
          if (c > 0 || root_in_sum) sum = add(sum, get<N>(a, k, c));
        const N D = warp_sum(sum);
        if (!(D.m > 0)) {
          s->failed = 1;
          continue;
        }
        if (p.stay == 0 && lane == 0) s->z.times(D);
        const N inv = reciprocal(D);
        for (int c = lane; c <= k; c += 32) put(a, k, c, mul(get<N>(a, k, c), inv));
      }
      if (!__syncthreads_or(any) || s->failed) break;
      const int64_t most = m_most - 1 - t, stride = most * (most + 1);
      for (int64_t i = threadIdx.x; i < (end - begin) * stride; i += blockDim.x) {
        const Part& p = part[begin + int(i / stride)];
        const int64_t x = i % stride, d = x / (most + 1), c = x % (most + 1);
        const int k = p.m - 1 - t;
        if (k < p.keep || d >= k || c > k) continue;
        const Mat a = matrix(p);
        put(a, d, c, fma(get<N>(a, d, c), get<N>(a, d, k + 1), get<N>(a, k, c)));
      }
      __syncthreads();
    }
    __syncthreads();
  }

  // e of the words of parts [begin, end) that left; a thread has columns of its own.
  STRUCTOPS_DEVICE void substitute(int begin, int end, int keep_most) {
    for (int64_t i = threadIdx.x; i < int64_t(end - begin) * keep_most; i += blockDim.x) {
      const Part& p = part[begin + int(i / keep_most)];
      const int d = int(i % keep_most);
      if (d >= p.keep) continue;
      const Mat a = matrix(p);
      for (int k = p.keep; k < p.m; ++k) {
        N sum = get<N>(a, k, 0);
        for (int j = 0; j < p.keep; ++j) sum = fma(sum, get<N>(a, k, j + 1), get<N>(e, p.stay + j, p.stay + d));
        for (int j = p.keep; j < k; ++j) sum = fma(sum, get<N>(a, k, j + 1), get<N>(e, p.left + j - p.keep, p.stay + d));
        put(e, p.left + k - p.keep, p.stay + d, sum);
      }
    }
    __syncthreads();
  }

  // The two parts of a node, or its last word. Thread 0.
  STRUCTOPS_DEVICE void split(int64_t at, int ld, int m, int off, int64_t* copies) {
    if (m == 1) {
      const N x = get<N>(Mat{matrices + at, ld, plane}, 0, 0);
      put(last, 0, off, x);
      put(e, off, off, zero<N>());
      if (!(x.m > 0)) s->failed = 1;
      else if (off == 0) s->z.times(x);
      return;
    }
    const int h = m / 2;
    part[s->parts++] = {at, ld, m, h, off, off + h};
    part[s->parts++] = {*copies, m + 1, m, m - h, off + h, off};
    *copies += int64_t(m) * (m + 1);
  }

  // Everything: z, last and e. levels: [64] in shared memory.
  STRUCTOPS_DEVICE void run_all(int* levels) {
    __shared__ int64_t copies;
    if (threadIdx.x == 0) {
      copies = n * (n + 1);
      split(0, int(n + 1), int(n), 0, &copies);
      levels[0] = 0;
      levels[1] = s->parts;
    }
    __syncthreads();
    int level = 0;
    for (;; ++level) {
      const int begin = levels[level], end = levels[level + 1];
      if (begin == end || s->failed) break;
      int m_most = 0;
      for (int q = begin; q < end; q += 2) m_most = part[q].m > m_most ? part[q].m : m_most;
      const int64_t stride = int64_t(m_most) * (m_most + 1);
      for (int64_t i = threadIdx.x; i < (end - begin) / 2 * stride; i += blockDim.x) {
        const Part &p = part[begin + 2 * int(i / stride)], &to = part[begin + 2 * int(i / stride) + 1];
        const int r = int(i % stride) / (m_most + 1), c = int(i % stride) % (m_most + 1), h = p.keep, m = p.m;
        if (r >= m || c > m) continue;
        const int from = r < m - h ? h + r : r - (m - h), col = c == 0 ? 0 : c <= m - h ? h + c : c - (m - h);
        put(matrix(to), r, c, get<N>(matrix(p), from, col));
      }
      __syncthreads();
      eliminate(begin, end, m_most);
      const bool stop = s->failed;
      __syncthreads();  // before thread 0 may set it
      if (stop) break;
      if (threadIdx.x == 0) {
        for (int q = begin; q < end; ++q) {
          const Part p = part[q];
          split(p.at, p.ld, p.keep, p.stay, &copies);
        }
        levels[level + 2] = s->parts;
      }
      __syncthreads();
    }
    if (s->failed) return;
    while (--level >= 0) {
      int keep_most = 0;
      for (int q = levels[level]; q < levels[level + 1]; ++q) keep_most = part[q].keep > keep_most ? part[q].keep : keep_most;
      substitute(levels[level], levels[level + 1], keep_most);
    }
  }

  // z alone; rows 1 .. n - 1 of the matrix become p, w[d,k] stays in column k + 1.
  STRUCTOPS_DEVICE void run_sum() {
    if (threadIdx.x == 0) part[0] = {0, int(n + 1), int(n), 1, 0, 1};
    __syncthreads();
    if (n > 1) eliminate(0, 1, int(n));
    if (threadIdx.x == 0 && !s->failed) {
      const N x = get<N>(Mat{matrices, n + 1, plane}, 0, 0);
      if (!(x.m > 0)) s->failed = 1; else s->z.times(x);
    }
    __syncthreads();
  }

  // What z says; every thread.
  STRUCTOPS_DEVICE Outcome judge(bool one, bool outside, double* exponent) {
    const double m = s->z.m;
    *exponent = s->z.e + (N::ext && one ? kRootShift : 0.0);
    if constexpr (N::ext) {
      return s->failed || m == 0 || (one && *exponent < -0.5 * kRootShift) ? kNone : kDone;
    } else {
      if (s->failed || !(m > 0 && m < infinity()) || !(*exponent - s->rows.e > kLeastExponent)) return kUnderflow;
      const double gap = *exponent - s->rows.e, top = pow2(gap < 0 ? gap : 0.0) * 0x1p1000;
      int over = 0;
      for (int64_t d = threadIdx.x; outside && d < n; d += blockDim.x) over |= !(get<N>(last, 0, d).m < top);
      return __syncthreads_or(over) ? kUnderflow : kDone;
    }
  }
};

}  // namespace structops::cuda
