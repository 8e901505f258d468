// Device arborescence and tree_check: one warp for each sentence. The contract is arborescence.h.
#pragma once
#include "tree/extended.cuh"

namespace structops::cuda {

struct ArborescenceParams {
  int multiroot;
  int64_t B, N;
  const void* score;
  const int64_t* lengths;
  void* value;
  int64_t* heads;
  double* numbers;  // [gridDim.x, N * N + N]
  int* ints;        // [gridDim.x, 2 * N * N + 15 * N]
};

// The contraction of arborescence_cpu.cpp, its loops over positions divided among the lanes. All lanes follow the same path.
struct WarpContraction {
  int64_t n, N;
  int lane;
  double *w, *chosen;
  int *dep, *head, *id, *state, *path, *parent, *arc_dep, *arc_head, *child, *sibling, *stack;
  enum { fresh, on_path, settled, gone };

  STRUCTOPS_DEVICE WarpContraction(double* p, int* q, int64_t n_) : n(n_), N(n_ + 1), lane(threadIdx.x & 31) {
    w = p;
    chosen = p + N * N;
    auto take = [&](int64_t k) { int* const r = q; q += k; return r; };
    dep = take(N * N);
    head = take(N * N);
    id = take(N);
    state = take(N);
    path = take(N);
    parent = take(2 * N);
    arc_dep = take(2 * N);
    arc_head = take(2 * N);
    child = take(2 * N);
    sibling = take(2 * N);
    stack = take(2 * N);
  }

  STRUCTOPS_DEVICE int best(int v, bool one) const {
    double top = -infinity();
    int at = 0x7fffffff;
    for (int64_t u = lane + (one ? 1 : 0); u < N; u += 32)
      if (w[v * N + u] > top) { top = w[v * N + u]; at = int(u); }
#pragma unroll
    for (int i = 16; i >= 1; i /= 2) {
      const double x = __shfl_xor_sync(kFull, top, i);
      const int y = __shfl_xor_sync(kFull, at, i);
      if (x > top || (x == top && y < at)) { top = x; at = y; }
    }
    if (top > -infinity()) return at;
    return w[v * N] > -infinity() ? 0 : -1;
  }

  STRUCTOPS_DEVICE void contract(int64_t from, int64_t size, int into) {
    const int c = path[size - 1];
    for (int64_t i = from; i < size; ++i) {
      const int s = path[i];
      for (int64_t h = lane; h < N; h += 32) w[s * N + h] -= chosen[s];
      if (lane == 0) {
        parent[id[s]] = into;
        sibling[id[s]] = child[into];
        child[into] = id[s];
      }
      __syncwarp();
    }
    for (int64_t i = from; i + 1 < size; ++i) {
      const int s = path[i];
      for (int64_t h = lane; h < N; h += 32)
        if (w[s * N + h] > w[c * N + h]) {
          w[c * N + h] = w[s * N + h];
          dep[c * N + h] = dep[s * N + h];
          head[c * N + h] = head[s * N + h];
        }
      __syncwarp();
      for (int64_t d = 1 + lane; d < N; d += 32) {
        if (w[d * N + s] > w[d * N + c]) {
          w[d * N + c] = w[d * N + s];
          dep[d * N + c] = dep[d * N + s];
          head[d * N + c] = head[d * N + s];
        }
        w[d * N + s] = -infinity();
      }
      if (lane == 0) state[s] = gone;
      __syncwarp();
    }
    for (int64_t i = from + lane; i < size; i += 32) w[c * N + path[i]] = -infinity();
    if (lane == 0) id[c] = into;
    __syncwarp();
  }

  STRUCTOPS_DEVICE bool run(bool one, int64_t* heads) {
    int next = int(N);
    for (int64_t i = lane; i < 2 * N; i += 32) parent[i] = child[i] = sibling[i] = -1;
    for (int64_t i = lane; i < N * N; i += 32) {
      dep[i] = int(i / N);
      head[i] = int(i % N);
    }
    for (int64_t s = lane; s < N; s += 32) {
      id[s] = int(s);
      state[s] = s ? fresh : settled;
    }
    __syncwarp();
    int64_t roots = 0;
    for (int64_t start = 1; start < N; ++start) {
      if (state[start] != fresh) continue;
      int64_t size = 1;
      if (lane == 0) path[0] = int(start);
      __syncwarp();
      if (lane == 0) state[start] = on_path;
      __syncwarp();
      for (;;) {
        const int v = path[size - 1], u = best(v, one);
        if (u < 0) return false;
        if (lane == 0) {
          arc_dep[id[v]] = dep[v * N + u];
          arc_head[id[v]] = head[v * N + u];
          chosen[v] = w[v * N + u];
        }
        roots += u == 0;
        const int reached = state[u];
        __syncwarp();
        if (reached == settled) break;
        if (reached == fresh) {
          if (lane == 0) {
            state[u] = on_path;
            path[size] = u;
          }
          ++size;
          __syncwarp();
          continue;
        }
        int64_t from = size - 1;
        while (path[from] != u) --from;
        contract(from, size, next++);
        const int last = path[size - 1];
        __syncwarp();
        if (lane == 0) path[from] = last;
        size = from + 1;
        __syncwarp();
      }
      for (int64_t i = lane; i < size; i += 32) state[path[i]] = settled;
      __syncwarp();
    }
    if (one && roots != 1) return false;
    if (lane == 0) {
      int64_t size = 0;
      for (int64_t s = 1; s < N; ++s)
        if (state[s] == settled) stack[size++] = id[s];
      while (size) {
        const int top = stack[--size], d = arc_dep[top];
        heads[d] = arc_head[top];
        for (int x = d; x != top; x = parent[x])
          for (int y = child[parent[x]]; y >= 0; y = sibling[y])
            if (y != x) stack[size++] = y;
      }
    }
    __syncwarp();
    return true;
  }
};

template <class T> __global__ void __launch_bounds__(32, 1) arborescence_kernel(ArborescenceParams a) {
  const int lane = threadIdx.x & 31;
  for (int64_t b = blockIdx.x; b < a.B; b += gridDim.x) {
    const int64_t n = a.lengths[b], N = n + 1;
    const T* const score = static_cast<const T*>(a.score) + b * a.N * a.N;
    int64_t* const heads = a.heads + b * a.N;
    WarpContraction c(a.numbers + blockIdx.x * (a.N * a.N + a.N), a.ints + blockIdx.x * (2 * a.N * a.N + 15 * a.N), n);
    int bad = 0;
    for (int64_t i = lane; i < a.N; i += 32) heads[i] = -1;
    for (int64_t i = lane; i < N * N; i += 32) {
      const int64_t d = i / N, h = i % N;
      const bool read = d > 0 && d != h;
      c.w[i] = read ? double(widen(score[d * a.N + h])) : -infinity();
      bad |= !(c.w[i] < infinity());
    }
    __syncwarp();
    double value = 0;
    if (__any_sync(kFull, bad)) {
      value = not_a_number();
    } else if (n > 0 && !c.run(!a.multiroot, heads)) {
      value = -infinity();
      for (int64_t i = lane; i < a.N; i += 32) heads[i] = -1;
    } else if (lane == 0) {
      for (int64_t d = 1; d < N; ++d) value += double(widen(score[d * a.N + heads[d]]));
    }
    if (lane == 0) static_cast<Acc<T>*>(a.value)[b] = Acc<T>(value);
    __syncwarp();
  }
}

struct TreeCheckParams {
  int64_t B, N;
  const int64_t *heads, *lengths;
  int64_t* flags;
  int* ints;  // [gridDim.x, 2, N]
};

// Heads of heads, doubled until every word of a tree has reached the root; arcs in pairs for crossings.
__global__ void __launch_bounds__(32) tree_check_kernel(TreeCheckParams a) {
  const int lane = threadIdx.x & 31;
  for (int64_t b = blockIdx.x; b < a.B; b += gridDim.x) {
    const int64_t n = a.lengths[b];
    const int64_t* const heads = a.heads + b * a.N;
    int *up = a.ints + blockIdx.x * 2 * a.N, *next = up + a.N;
    int outside = 0, roots = 0;
    for (int64_t d = lane; d <= n; d += 32) {
      const int64_t h = d ? heads[d] : 0;
      outside |= h < 0 || h > n;
      roots += d > 0 && h == 0;
      up[d] = h < 0 || h > n ? 0 : int(h);
    }
#pragma unroll
    for (int i = 16; i >= 1; i /= 2) roots += __shfl_xor_sync(kFull, roots, i);
    __syncwarp();
    for (int64_t reach = 1; reach < n; reach *= 2) {
      for (int64_t d = lane; d <= n; d += 32) next[d] = up[up[d]];
      __syncwarp();
      int* const swap = up;
      up = next;
      next = swap;
    }
    for (int64_t d = lane; d <= n; d += 32) outside |= up[d] != 0;
    const bool tree = !__any_sync(kFull, outside);
    int crossing = 0;
    for (int64_t d = 1 + lane; tree && d <= n; d += 32) {
      const int64_t lo = heads[d] < d ? heads[d] : d, hi = heads[d] < d ? d : heads[d];
      for (int64_t c = 1; c <= n; ++c) {
        const int64_t from = heads[c] < c ? heads[c] : c, to = heads[c] < c ? c : heads[c];
        crossing |= lo < from && from < hi && hi < to;
      }
    }
    const bool projective = !__any_sync(kFull, crossing);
    if (lane == 0) a.flags[b] = !tree ? 0 : 1 + (projective ? 2 : 0) + (roots == 1 || n == 0 ? 4 : 0);
    __syncwarp();
  }
}

}  // namespace structops::cuda
