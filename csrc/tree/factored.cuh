// Device side of the factored sibling scores: the scores of a group of sentences from their factors, and the factors'
// gradients from those of the scores. The contract is factored.h; the charts between are those of chart_sum.cuh.
#pragma once
#include "core/cuda/device.cuh"

namespace structops::cuda {

constexpr int kFactorThreads = 128;

struct FactorParams {
  int64_t G, N, D;                          // sentences of the group
  const int64_t* lengths;                   // [G]
  const void *x, *y, *z, *v_x, *v_y, *v_z;  // [G, N, D]; v_*: null without tangents
  void *sib, *v_sib;                        // [G, N, N, N]
  const void *post, *d_post;                // [G, N, N, N]; d_post: null without tangents
  const void* logz;                         // [G]: NaN makes the gradients NaN
  void *to_x, *to_y, *to_z;                 // [G, N, D]
};

// One thread for each (sentence, dependent, head, sibling).
template <class A>
__global__ void __launch_bounds__(kFactorThreads) factored_scores(const FactorParams p) {
  const A *x = static_cast<const A*>(p.x), *y = static_cast<const A*>(p.y), *z = static_cast<const A*>(p.z);
  const A *vx = static_cast<const A*>(p.v_x), *vy = static_cast<const A*>(p.v_y), *vz = static_cast<const A*>(p.v_z);
  const int64_t all = p.G * p.N * p.N * p.N, step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t o = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; o < all; o += step) {
    const int64_t k = o % p.N, j = o / p.N % p.N, i = o / (p.N * p.N) % p.N, b = o / (p.N * p.N * p.N), n = p.lengths[b];
    A sum = A(0), tangent = A(0);
    if (i > 0 && i <= n && j <= n && (i < j ? i < k && k < j : j < k && k < i)) {
      const int64_t at_i = (b * p.N + i) * p.D, at_j = (b * p.N + j) * p.D, at_k = (b * p.N + k) * p.D;
      for (int64_t d = 0; d < p.D; ++d) {
        const A s = x[at_i + d], t = y[at_j + d], u = z[at_k + d];
        sum += s * t * u;
        if (vx) tangent += vx[at_i + d] * t * u + s * vy[at_j + d] * u + s * t * vz[at_k + d];
      }
    }
    static_cast<A*>(p.sib)[o] = sum;
    if (vx) static_cast<A*>(p.v_sib)[o] = tangent;
  }
}

// One block for each (sentence, position, which factor); threads over d. role 0: x, 1: y, 2: z.
template <class A>
__global__ void __launch_bounds__(kFactorThreads) factored_gradients(const FactorParams p) {
  const int64_t which = int64_t(blockIdx.x), role = which % 3, at = which / 3 % p.N, b = which / 3 / p.N, n = p.lengths[b];
  // The other two factors, their directions, and this one's gradient: pointers, since an array of them would lie in local memory.
  const A* const f1 = static_cast<const A*>(role == 0 ? p.y : p.x);
  const A* const f2 = static_cast<const A*>(role == 2 ? p.y : p.z);
  const A* const v1 = static_cast<const A*>(role == 0 ? p.v_y : p.v_x);
  const A* const v2 = static_cast<const A*>(role == 2 ? p.v_y : p.v_z);
  A* const to = static_cast<A*>(role == 0 ? p.to_x : role == 1 ? p.to_y : p.to_z);
  const A logz = static_cast<const A*>(p.logz)[b];
  const bool failed = logz != logz;
  const A *post = static_cast<const A*>(p.post), *d_post = static_cast<const A*>(p.d_post);
  for (int64_t d = threadIdx.x; d < p.D; d += blockDim.x) {
    A sum = A(0);
    for (int64_t s = 0; at <= n && !failed && s <= n; ++s)
      for (int64_t t = 0; t <= n; ++t) {
        const int64_t i = role == 0 ? at : s, j = role == 1 ? at : role == 0 ? s : t, k = role == 2 ? at : t;
        if (i == 0 || !(i < j ? i < k && k < j : j < k && k < i)) continue;
        const int64_t o = ((b * p.N + i) * p.N + j) * p.N + k, q = (b * p.N + s) * p.D + d, r = (b * p.N + t) * p.D + d;
        if (d_post) {
          sum += d_post[o] * f1[q] * f2[r] + post[o] * (v1[q] * f2[r] + f1[q] * v2[r]);
        } else {
          sum += post[o] * f1[q] * f2[r];
        }
      }
    to[(b * p.N + at) * p.D + d] = at <= n && failed ? A(NAN) : sum;
  }
}

}  // namespace structops::cuda
