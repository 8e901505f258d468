// CUDA max-marginals of charts: one block for each sentence, a thread for each span of a width. The contract is chart.h.
// Charts are [n + 1, n + 1] squares in global memory: five of best values, then five of what an item scores outside itself at best.
// Left parts of splits rise before right ones: within each step, no two threads write to one cell.
#pragma once
#include "tree/chart.cuh"

namespace structops::cuda {

constexpr int kMaxCharts = 5, kMaxThreads = 128;
enum MaxItem { kMaxCR, kMaxCL, kMaxIR, kMaxIL, kMaxS };  // of spans: V is IL

struct MaxParams {
  const void *score, *sib;
  const int64_t* lengths;
  void* through;
  int64_t B, N;
  int span, single;
  char* memory;  // [gridDim.x, 2 kMaxCharts N N] of the accumulator
};

template <class T> struct MaxCharts {
  using A = Acc<T>;
  const MaxParams& p;
  int64_t b;
  int n;
  A* charts;

  STRUCTOPS_DEVICE A& in(int item, int i, int j) const { return charts[(int64_t(item) * (n + 1) + i) * (n + 1) + j]; }
  STRUCTOPS_DEVICE A& out(int item, int i, int j) const { return in(kMaxCharts + item, i, j); }
  STRUCTOPS_DEVICE A score(int row, int column) const {
    return A(widen(static_cast<const T*>(p.score)[(b * p.N + row) * p.N + column]));
  }
  STRUCTOPS_DEVICE A sib(int dep, int head, int s) const {
    return A(widen(static_cast<const T*>(p.sib)[((b * p.N + dep) * p.N + head) * p.N + s]));
  }
  STRUCTOPS_DEVICE bool second() const { return p.sib != nullptr; }
  STRUCTOPS_DEVICE bool inner(bool left, int i) const { return left || i > 0 || !p.single; }  // whether siblings are possible
  STRUCTOPS_DEVICE bool cut(int i, int j) const { return i == 0 && p.single && !second() && j < n; }
  STRUCTOPS_DEVICE static void raise(A& x, A y) {
    if (y > x) x = y;
  }
  STRUCTOPS_DEVICE A best(int L, int R, int i, int j, int r0, int r1, int gap) const {
    A top = Limits<A>::low();
    for (int r = r0; r < r1; ++r) raise(top, in(L, i, r) + in(R, r + gap, j));
    return top;
  }
  // The left or the right parts of the splits of an item whose best outside is o.
  STRUCTOPS_DEVICE void spread(bool left, A o, int L, int R, int i, int j, int r0, int r1, int gap) const {
    for (int r = r0; r < r1; ++r) {
      if (left) raise(out(L, i, r), o + in(R, r + gap, j));
      else raise(out(R, r + gap, j), o + in(L, i, r));
    }
  }
  template <class F> STRUCTOPS_DEVICE void each(int w, F f) const {
    for (int i = threadIdx.x; i + w <= n; i += blockDim.x) f(i, i + w);
    __syncthreads();
  }

  STRUCTOPS_DEVICE void inside() const {
    for (int64_t k = threadIdx.x; k < int64_t(2 * kMaxCharts) * (n + 1) * (n + 1); k += blockDim.x) charts[k] = Limits<A>::low();
    __syncthreads();
    if (p.span) {
      for (int w = 1; w <= n; ++w)
        each(w, [&](int i, int j) { in(kMaxIL, i, j) = score(i, j) + (w == 1 ? A(0) : best(kMaxIL, kMaxIL, i, j, i + 1, j, 0)); });
      return;
    }
    each(0, [&](int i, int) { in(kMaxCR, i, i) = in(kMaxCL, i, i) = A(0); });
    for (int w = 1; w <= n; ++w) {
      each(w, [&](int i, int j) {
        const A halves = in(kMaxS, i, j) = best(kMaxCR, kMaxCL, i, j, i, j, 1);
        for (int side = 0; side < 2; ++side) {
          const bool left = side == 0;
          if (left && i == 0) continue;
          const int dep = left ? i : j, head = left ? j : i;
          A top = halves;
          if (second()) {
            top = left ? in(kMaxCR, i, j - 1) : in(kMaxCL, i + 1, j);
            for (int r = i + 1; inner(left, i) && r < j; ++r)
              raise(top, (left ? in(kMaxS, i, r) + in(kMaxIL, r, j) : in(kMaxIR, i, r) + in(kMaxS, r, j)) + sib(dep, head, r));
          }
          in(left ? kMaxIL : kMaxIR, i, j) = top + score(dep, head);
        }
      });
      each(w, [&](int i, int j) {
        if (i > 0) in(kMaxCL, i, j) = best(kMaxCL, kMaxIL, i, j, i, j, 0);
        if (!cut(i, j)) in(kMaxCR, i, j) = best(kMaxIR, kMaxCR, i, j, i + 1, j + 1, 0);
      });
    }
  }

  STRUCTOPS_DEVICE void outside(A* through) const {
    if (threadIdx.x == 0) out(p.span ? kMaxIL : kMaxCR, 0, n) = A(0);
    __syncthreads();
    for (int w = n; w >= 1; --w) {
      if (p.span) {
        each(w, [&](int i, int j) { through[int64_t(i) * p.N + j] = in(kMaxIL, i, j) + out(kMaxIL, i, j); });
        for (int side = 0; side < 2; ++side)
          each(w, [&](int i, int j) { spread(side == 0, out(kMaxIL, i, j) + score(i, j), kMaxIL, kMaxIL, i, j, i + 1, j, 0); });
        continue;
      }
      for (int side = 0; side < 2; ++side)
        each(w, [&](int i, int j) {
          if (!cut(i, j)) spread(side == 0, out(kMaxCR, i, j), kMaxIR, kMaxCR, i, j, i + 1, j + 1, 0);
          if (i > 0) spread(side == 0, out(kMaxCL, i, j), kMaxCL, kMaxIL, i, j, i, j, 0);
        });
      each(w, [&](int i, int j) {
        if (i > 0) through[int64_t(i) * p.N + j] = in(kMaxIL, i, j) + out(kMaxIL, i, j);
        through[int64_t(j) * p.N + i] = in(kMaxIR, i, j) + out(kMaxIR, i, j);
      });
      for (int side = 0; second() && side < 4; ++side)  // of IL, then of IR: left parts, then right ones
        each(w, [&](int i, int j) {
          const bool left = side < 2, low = side % 2 == 0;
          if (left && i == 0) return;
          const int dep = left ? i : j, head = left ? j : i, X = left ? kMaxS : kMaxIR, Y = left ? kMaxIL : kMaxS;
          const A o = out(left ? kMaxIL : kMaxIR, i, j) + score(dep, head);
          if (low) raise(left ? out(kMaxCR, i, j - 1) : out(kMaxCL, i + 1, j), o);
          for (int r = i + 1; inner(left, i) && r < j; ++r) {
            const A x = o + sib(dep, head, r);
            if (low) raise(out(X, i, r), x + in(Y, r, j));
            else raise(out(Y, r, j), x + in(X, i, r));
          }
        });
      for (int side = 0; side < 2; ++side)
        each(w, [&](int i, int j) {
          A o = out(kMaxS, i, j);
          if (!second()) {
            o = out(kMaxIR, i, j) + score(j, i);
            if (i > 0) raise(o, out(kMaxIL, i, j) + score(i, j));
          }
          spread(side == 0, o, kMaxCR, kMaxCL, i, j, i, j, 1);
        });
    }
  }

  // Whether a NaN or +inf is read.
  STRUCTOPS_DEVICE bool invalid() const {
    bool mine = false;
    const auto bad = [](A x) { return !(x < Limits<A>::high()); };
    for (int k = threadIdx.x; k < (n + 1) * (n + 1); k += blockDim.x) {
      const int row = k / (n + 1), column = k % (n + 1);
      if (!reads(row, column)) continue;
      mine |= bad(score(row, column));
      const int low = row < column ? row : column, high = row < column ? column : row;
      for (int r = low + 1; second() && inner(column > row, low) && r < high; ++r) mine |= bad(sib(row, column, r));
    }
    return __syncthreads_or(mine) != 0;
  }
  STRUCTOPS_DEVICE bool reads(int row, int column) const { return p.span ? row < column : row > 0 && row != column; }

  STRUCTOPS_DEVICE void run() const {
    A* const through = static_cast<A*>(p.through) + b * p.N * p.N;
    const bool failed = invalid();
    for (int64_t k = threadIdx.x; k < p.N * p.N; k += blockDim.x) {
      const int row = int(k / p.N), column = int(k % p.N);
      const bool read = row <= n && column <= n && reads(row, column);
      through[k] = failed && read ? A(NAN) : Limits<A>::low();
    }
    __syncthreads();
    if (failed || n == 0) return;
    inside();
    outside(through);
  }
};

template <class T> __global__ void __launch_bounds__(kMaxThreads, 1) chart_max(const MaxParams p) {
  using A = Acc<T>;
  A* const charts = reinterpret_cast<A*>(p.memory) + blockIdx.x * 2 * kMaxCharts * p.N * p.N;
  for (int64_t b = blockIdx.x; b < p.B; b += gridDim.x) {
    MaxCharts<T>{p, b, int(p.lengths[b]), charts}.run();
    __syncthreads();
  }
}

}  // namespace structops::cuda
