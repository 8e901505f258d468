// Device matrix-tree operators: one block for each sentence. The contract is matrix_tree.h, the algorithm in elimination.cuh.
#pragma once
#include "tree/elimination.cuh"

namespace structops::cuda {

template <class N, class T, bool outside>
STRUCTOPS_DEVICE Outcome matrix_tree_sentence(const TreeParams& a, int64_t b, int64_t n, double* scratch, Shared* shared, int* levels,
                                              double weight, double* logz, T* post) {
  Engine<N> engine(scratch, n, outside, a.multiroot, shared);
  engine.template prepare<T>(a, b);
  if (shared->outcome != kDone) return Outcome(shared->outcome);
  if constexpr (outside) engine.run_all(levels); else engine.run_sum();
  __syncthreads();
  double exponent;
  const Outcome outcome = engine.judge(!a.multiroot, outside, &exponent);
  if (outcome != kDone) return outcome;
  *logz = N::dual ? shared->z.t : shared->shift + (log(shared->z.m) + exponent * 0.693147180559945309417);
  if constexpr (outside) {
    for (int64_t i = threadIdx.x; i < n * (n + 1); i += blockDim.x) {
      const int64_t d = i / (n + 1), h = i % (n + 1);
      if (h == d + 1) continue;
      const N x = get<N>(engine.w, d, h), inv = reciprocal(get<N>(engine.last, 0, d));
      const N y = h ? get<N>(engine.e, h - 1, d) : N{1, 0, 0};
      const double value = x.m * y.m * inv.m;
      double result = value;
      if constexpr (N::dual) result = (x.d * y.m + x.m * y.d) * inv.m + x.m * y.m * inv.d;
      if constexpr (N::ext) {  // exponents are at most a few: posteriors are at most 1. One root's shift cancels.
        const double e = x.e + y.e + inv.e - 8.0;
        result *= pow2(e < 0 ? e : 0.0) * 256.0;
      }
      if (value == 0) result = 0; else result *= weight;
      post[(d + 1) * a.N + h] = Narrow<T>::to(Acc<T>(result));
    }
  }
  return kDone;
}

template <class T, bool outside, bool dual> __global__ void __launch_bounds__(kTreeThreads, 1) matrix_tree_kernel(TreeParams a) {
  __shared__ Shared shared;
  __shared__ int levels[64];
  double* const scratch = a.scratch + blockIdx.x * a.numbers;
  for (int64_t b = blockIdx.x; b < a.B; b += gridDim.x) {
    const int64_t n = a.lengths[b];
    T* const post = outside ? static_cast<T*>(a.post) + b * a.N * a.N : nullptr;
    for (int64_t i = threadIdx.x; outside && i < a.N * a.N; i += blockDim.x) post[i] = Narrow<T>::to(Acc<T>(0));
    __syncthreads();
    double logz = 0;
    if (n > 0) {
      const double weight = a.weight ? double(static_cast<const Acc<T>*>(a.weight)[b]) : 1.0;
      Outcome outcome = matrix_tree_sentence<Num<false, dual>, T, outside>(a, b, n, scratch, &shared, levels, weight, &logz, post);
      __syncthreads();
      if (outcome == kUnderflow)
        outcome = matrix_tree_sentence<Num<true, dual>, T, outside>(a, b, n, scratch, &shared, levels, weight, &logz, post);
      if (outcome == kNone) logz = dual ? 0.0 : -infinity();
      if (outcome == kNan) {
        logz = not_a_number();
        for (int64_t i = threadIdx.x; outside && i < n * (n + 1); i += blockDim.x) {
          const int64_t d = i / (n + 1) + 1, h = i % (n + 1);
          if (h != d) post[d * a.N + h] = Narrow<T>::to(Acc<T>(not_a_number()));
        }
      }
    }
    if (threadIdx.x == 0) static_cast<Acc<T>*>(a.logz)[b] = Acc<T>(logz);
    __syncthreads();
  }
}

// ---- samples ---------------------------------------------------------------------------------------------------------------

struct TreeSampleParams {
  TreeParams in;
  int64_t S;
  const int64_t* seed;
  int64_t* heads;
  int* ints;  // [gridDim.x, blockDim.x, 3, N] scratch
};

struct Uniforms {  // as in matrix_tree_sample_cpu.cpp
  unsigned long long state;
  STRUCTOPS_DEVICE double next() {
    unsigned long long z = state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return double((z ^ (z >> 31)) >> 11) * 0x1p-53;
  }
};

// One tree by one thread; the names are those of matrix_tree_sample_cpu.cpp. Weights are computed anew instead of kept.
template <class N> struct Sampler {
  int64_t n;
  Mat w, a;
  bool root_in_sum;
  int64_t* heads;
  int *via, *below, *walk;

  // One of `count` alternatives with weights term(i), whose tangents are not read.
  template <class F> STRUCTOPS_DEVICE int64_t choose(int64_t count, double u, F term) const {
    double top = N::ext ? kZeroExponent : 0, total = 0, running = 0;
    for (int64_t i = 0; N::ext && i < count; ++i) {
      const N x = term(i);
      if (x.m > 0 && x.e > top) top = x.e;
    }
    const auto weight = [&](int64_t i) {
      const N x = term(i);
      return x.m > 0 ? (N::ext ? x.m * pow2(x.e - top) : x.m) : 0.0;
    };
    for (int64_t i = 0; i < count; ++i) total += weight(i);
    int64_t last = -1;
    for (int64_t i = 0; i < count; ++i) {
      const double x = weight(i);
      if (!(x > 0)) continue;
      running += x;
      last = i;
      if (running > u * total) break;
    }
    return last;
  }

  STRUCTOPS_DEVICE void expand(int64_t d, int64_t h, int64_t k, double u) {
    const int64_t i = choose(1 + n - k, u, [&](int64_t j) {
      if (j == 0) return get<N>(w, d, h);
      const N x = get<N>(a, d, k + j), y = get<N>(a, k + j - 1, h);
      return N{x.m * y.m, 0, x.e + y.e};
    });
    heads[d + 1] = h;
    via[d] = int(i > 0 ? k + i - 1 : n);
  }

  STRUCTOPS_DEVICE bool mark(int64_t k) {
    bool any = false;
    for (int64_t d = 0; d < k; ++d) {
      below[d] = via[d] == k ? 1 : -1;
      any |= via[d] == k;
    }
    for (int64_t d = 0; any && d < k; ++d) {
      int64_t size = 0, x = d;
      while (x >= 0 && below[x] < 0) {
        walk[size++] = int(x);
        x = heads[x + 1] - 1;
      }
      const int found = x < 0 ? 0 : below[x];
      while (size) below[walk[--size]] = found;
    }
    return any;
  }

  STRUCTOPS_DEVICE void tree(Uniforms u) {
    expand(0, 0, 1, u.next());
    for (int64_t k = 1; k < n; ++k) {
      const bool any = mark(k);
      bool word = false;
      for (int64_t h = 1; h <= k; ++h) word |= !(any && below[h - 1]) && get<N>(a, k, h).m > 0;
      const int64_t head = choose(k + 1, u.next(), [&](int64_t h) {
        const bool open = h ? !(any && below[h - 1]) : root_in_sum || !word;
        return open ? get<N>(a, k, h) : zero<N>();
      });
      expand(k, head < 0 ? 0 : head, k + 1, u.next());
      for (int64_t d = 0; any && d < k; ++d)
        if (via[d] == k) expand(d, k + 1, k + 1, u.next());
    }
  }
};

template <class N, class T>
STRUCTOPS_DEVICE Outcome matrix_tree_samples(const TreeSampleParams& q, int64_t b, int64_t n, double* scratch, Shared* shared) {
  const TreeParams& a = q.in;
  Engine<N> engine(scratch, n, false, a.multiroot, shared);
  engine.template prepare<T>(a, b);
  if (shared->outcome != kDone) return Outcome(shared->outcome);
  engine.run_sum();
  double exponent;
  const Outcome outcome = engine.judge(!a.multiroot, false, &exponent);
  if (outcome != kDone) return outcome;
  int* const ints = q.ints + (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * 3 * a.N;
  const Mat p{engine.matrices, n + 1, engine.plane};
  for (int64_t i = threadIdx.x; i < q.S; i += blockDim.x) {
    Sampler<N> sampler{n, engine.w, p, engine.root_in_sum, q.heads + (i * a.B + b) * a.N, ints, ints + a.N, ints + 2 * a.N};
    sampler.tree({static_cast<unsigned long long>(q.seed[i * a.B + b])});
  }
  return kDone;
}

template <class T> __global__ void __launch_bounds__(kTreeThreads, 1) matrix_tree_sample_kernel(TreeSampleParams q) {
  __shared__ Shared shared;
  const TreeParams& a = q.in;
  double* const scratch = a.scratch + blockIdx.x * a.numbers;
  for (int64_t b = blockIdx.x; b < a.B; b += gridDim.x) {
    const int64_t n = a.lengths[b];
    for (int64_t i = threadIdx.x; i < q.S * a.N; i += blockDim.x) q.heads[(i / a.N * a.B + b) * a.N + i % a.N] = -1;
    __syncthreads();
    if (n == 0) continue;
    const Outcome outcome = matrix_tree_samples<Num<false, false>, T>(q, b, n, scratch, &shared);
    __syncthreads();
    if (outcome == kUnderflow) matrix_tree_samples<Num<true, false>, T>(q, b, n, scratch, &shared);
    __syncthreads();
  }
}

}  // namespace structops::cuda
