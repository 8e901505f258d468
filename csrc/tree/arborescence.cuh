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

// The contraction of contraction.h, its loops over positions divided among the lanes. All lanes follow the same path.
struct WarpContraction {
  int64_t n, N;
  int lane;
  double *w, *chosen;
  int *dep, *head, *id, *state, *path, *parent, *arc_dep, *arc_head, *child, *sibling, *stack;
  int next = 0;
  int64_t roots = 0;
  double total = 0;
  enum { fresh, on_path, gone, settled, beside };

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

  STRUCTOPS_DEVICE bool grow(bool one, int64_t second) {
    next = int(N);
    roots = 0;
    total = 0;
    for (int64_t i = lane; i < 2 * N; i += 32) parent[i] = child[i] = sibling[i] = -1;
    for (int64_t i = lane; i < N * N; i += 32) {
      dep[i] = int(i / N);
      head[i] = int(i % N);
    }
    for (int64_t s = lane; s < N; s += 32) {
      id[s] = int(s);
      state[s] = s == 0 ? settled : s == second ? beside : fresh;
    }
    __syncwarp();
    for (int64_t start = 1; start < N; ++start) {
      if (state[start] != fresh) continue;
      int64_t size = 1;
      if (lane == 0) path[0] = int(start);
      __syncwarp();
      if (lane == 0) state[start] = on_path;
      __syncwarp();
      int end;
      for (;;) {
        const int v = path[size - 1], u = best(v, one);
        if (u < 0) return false;
        if (lane == 0) {
          arc_dep[id[v]] = dep[v * N + u];
          arc_head[id[v]] = head[v * N + u];
          chosen[v] = w[v * N + u];
        }
        total += w[v * N + u];
        roots += u == 0;
        end = state[u];
        __syncwarp();
        if (end == settled || end == beside) break;
        if (end == fresh) {
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
      for (int64_t i = lane; i < size; i += 32) state[path[i]] = end;
      __syncwarp();
    }
    return true;
  }

  STRUCTOPS_DEVICE bool run(bool one, int64_t* heads) {
    if (!grow(one, 0) || (one && roots != 1)) return false;
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

struct KbestParams {
  ArborescenceParams in;  // value [B, K], heads [B, K, N]
  int64_t K;
  double* numbers;    // [gridDim.x, N * N + N + 1 + K]: scores, sums of best scores, values of the parts
  int64_t* trees;     // [gridDim.x, (K + 2) * N + K]: trees of the parts, a solution, the tree in hand; words of the parts
  unsigned* bits;     // [gridDim.x, (K + 1) * words]: forbidden heads
};

// Parts of the set of trees, as in arborescence_cpu.cpp. All lanes follow the same path; lane 0 writes what they share.
struct WarpParts {
  int64_t n, N, K, words, count = 0;
  int lane;
  double *w, *top, *value;
  int64_t *heads, *best, *tree, *word;
  unsigned *forbidden, *bits;

  STRUCTOPS_DEVICE WarpParts(const KbestParams& p, int64_t n_)
      : n(n_), N(n_ + 1), K(p.K), words((p.in.N + 31) / 32), lane(threadIdx.x & 31) {
    const int64_t full = p.in.N;
    w = p.numbers + blockIdx.x * (full * full + full + 1 + K);
    top = w + full * full;
    value = top + full + 1;
    heads = p.trees + blockIdx.x * ((K + 2) * full + K);
    best = heads + K * full;
    tree = best + full;
    word = tree + full;
    forbidden = p.bits + blockIdx.x * (K + 1) * words;
    bits = forbidden + K * words;
  }

  STRUCTOPS_DEVICE bool allowed(int64_t h) const { return !(bits[h / 32] >> (h % 32) & 1); }
  STRUCTOPS_DEVICE int64_t first() const {
    int64_t at = -1;
    for (int64_t i = 0; i < count; ++i)
      if (value[i] > -infinity() && (at < 0 || value[i] > value[at])) at = i;
    return at;
  }
  STRUCTOPS_DEVICE int64_t place(double x) const {
    if (count < K) return count;
    int64_t at = 0;
    for (int64_t i = 1; i < K; ++i)
      if (value[i] <= value[at]) at = i;
    return x > value[at] ? at : -1;
  }
  STRUCTOPS_DEVICE void add(WarpContraction& c, bool one, int64_t d) {
    double bound = -infinity();
    for (int64_t h = 0; h < N; ++h)
      if (allowed(h) && w[d * N + h] > bound) bound = w[d * N + h];
    for (int64_t k = 1; k < d; ++k) bound += w[k * N + tree[k]];
    bound += top[d + 1];
    if (!(bound > -infinity()) || place(bound) < 0) return;
    for (int64_t i = lane; i < N * N; i += 32) {
      const int64_t dep = i / N, head = i % N;
      const bool there = dep > d || (dep == d && allowed(head)) || (dep > 0 && dep < d && tree[dep] == head);
      c.w[i] = there ? w[i] : -infinity();
    }
    __syncwarp();
    if (!c.run(one, best)) return;
    double total = 0;
    for (int64_t k = 1; k < N; ++k) total += w[k * N + best[k]];
    const int64_t at = place(total);
    if (at < 0) return;
    __syncwarp();
    if (at == count) ++count;
    for (int64_t k = 1 + lane; k < N; k += 32) heads[at * N + k] = best[k];
    for (int64_t i = lane; i < words; i += 32) forbidden[at * words + i] = bits[i];
    if (lane == 0) {
      value[at] = total;
      word[at] = d;
    }
    __syncwarp();
  }
};

template <class T> __global__ void __launch_bounds__(32, 1) arborescence_kbest_kernel(KbestParams p) {
  const ArborescenceParams& a = p.in;
  const int lane = threadIdx.x & 31;
  for (int64_t b = blockIdx.x; b < a.B; b += gridDim.x) {
    const int64_t n = a.lengths[b], N = n + 1, K = p.K;
    const T* const score = static_cast<const T*>(a.score) + b * a.N * a.N;
    int64_t* const heads = a.heads + b * K * a.N;
    Acc<T>* const value = static_cast<Acc<T>*>(a.value) + b * K;
    WarpContraction c(a.numbers + blockIdx.x * (a.N * a.N + a.N), a.ints + blockIdx.x * (2 * a.N * a.N + 15 * a.N), n);
    WarpParts parts(p, n);
    int bad = 0;
    for (int64_t i = lane; i < K * a.N; i += 32) heads[i] = -1;
    for (int64_t i = lane; i < N * N; i += 32) {
      const int64_t d = i / N, h = i % N;
      const bool read = d > 0 && d != h;
      parts.w[i] = read ? double(widen(score[d * a.N + h])) : -infinity();
      bad |= !(parts.w[i] < infinity());
    }
    for (int64_t i = lane; i < parts.words; i += 32) parts.bits[i] = 0;
    bad = __any_sync(kFull, bad);
    for (int64_t i = lane; i < K; i += 32) value[i] = Acc<T>(bad ? not_a_number() : i == 0 && n == 0 ? 0.0 : -infinity());
    __syncwarp();
    if (bad || n == 0) continue;
    if (lane == 0) {
      parts.top[N] = 0;
      for (int64_t d = n; d > 0; --d) {
        double most = -infinity();
        for (int64_t h = 0; h < N; ++h) most = parts.w[d * N + h] > most ? parts.w[d * N + h] : most;
        parts.top[d] = parts.top[d + 1] + most;
      }
    }
    __syncwarp();
    parts.add(c, !a.multiroot, 1);
    for (int64_t rank = 0; rank < K; ++rank) {
      const int64_t at = parts.first();
      if (at < 0) break;
      if (lane == 0) value[rank] = Acc<T>(parts.value[at]);
      for (int64_t d = 1 + lane; d < N; d += 32) parts.tree[d] = heads[rank * a.N + d] = parts.heads[at * N + d];
      for (int64_t i = lane; i < parts.words; i += 32) parts.bits[i] = parts.forbidden[at * parts.words + i];
      const int64_t from = parts.word[at];
      __syncwarp();
      if (rank + 1 == K) break;
      if (lane == 0) parts.value[at] = -infinity();
      __syncwarp();
      for (int64_t d = from; d < N; ++d) {
        if (lane == 0) parts.bits[parts.tree[d] / 32] |= 1u << (parts.tree[d] % 32);
        __syncwarp();
        parts.add(c, !a.multiroot, d);
        __syncwarp();
        for (int64_t i = lane; i < parts.words; i += 32) parts.bits[i] = 0;
        __syncwarp();
      }
    }
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
