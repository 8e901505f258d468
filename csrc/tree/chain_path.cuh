// CUDA chain_best and chain_sample: device code. The contract is chain.h, the charts are those of chain.cuh.
#pragma once
#include "tree/chain.cuh"

namespace structops::cuda {

// Lists of the M best prefixes of every tag, in global memory: a thread owns the lists of its tags.
template <class T, class A> struct DeviceBest {
  const ChainParams<T, A>& p;
  DeviceChain<T, A, false> chain;  // reads scores
  A *V, *P;                        // [N + 1, T, M]
  int *fromV, *fromP;
  const int64_t T_, K, M;

  STRUCTOPS_DEVICE DeviceBest(const ChainParams<T, A>& p_, A* tile, A* room) : p(p_), chain(p_, tile, room), T_(p_.T_), K(p_.K), M(p_.M) {
    const int64_t size = (p.N + 1) * T_ * M;
    V = p.charts + blockIdx.x * p.chart_size;
    P = V + size;
    fromV = p.from + blockIdx.x * 2 * size;
    fromP = fromV + size;
  }

  STRUCTOPS_DEVICE static void empty(A* list, int64_t M) {
    for (int64_t k = 0; k < M; ++k) list[k] = ninf<A>();
  }
  // Into a descending list, after equal numbers.
  STRUCTOPS_DEVICE bool insert(A* list, int* from, A x, int64_t source) const {
    if (!(x > list[M - 1])) return false;
    int64_t k = M - 1;
    for (; k > 0 && x > list[k - 1]; --k) {
      list[k] = list[k - 1];
      from[k] = from[k - 1];
    }
    list[k] = x;
    from[k] = int(source);
    return true;
  }

  STRUCTOPS_DEVICE void sentence(int64_t b) {
    chain.b = b;
    const int64_t n = chain.n = p.lengths[b];
    chain.bad = 0;
    int64_t* const tags = p.tags + b * M * p.N;
    for (int64_t k = threadIdx.x; k < M * p.N; k += blockDim.x) tags[k] = -1;
    chain.stage();
    for (int64_t t = threadIdx.x; t < T_ && n > 0; t += blockDim.x) {
      empty(P + t * M, M);
      P[t * M] = chain.read(p.score.start, t);
    }
    const bool full = chain.full();
    for (int64_t j = 1; j <= n; ++j) {
      __syncthreads();
      for (int64_t t = threadIdx.x; t < T_; t += blockDim.x) {
        if (j > 1 && !full) {
          A* const list = P + ((j - 1) * T_ + t) * M;
          empty(list, M);
          for (int64_t s = 0; s < T_; ++s) {
            const A x = chain.trans(chain.matrix(j - 1, 1), s, t);
            for (int64_t k = 0; k < M; ++k)
              if (!insert(list, fromP + (list - P), V[((j - 1) * T_ + s) * M + k] + x, s + T_ * k)) break;
          }
        }
        A* const list = V + (j * T_ + t) * M;
        int* const from = fromV + (list - V);
        empty(list, M);
        A acc = 0;
        for (int64_t d = 1; d <= K && d <= j; ++d) {
          const int64_t i = j - d;
          acc += chain.read(p.score.emit, (b * p.N + i) * T_ + t);
          if (d > chain.longest(i, d)) continue;
          const A whole = acc + chain.segment(i, d, t);
          if (full && i > 0) {
            for (int64_t s = 0; s < T_; ++s) {
              const A x = chain.trans(chain.matrix(i, d), s, t);
              for (int64_t k = 0; k < M; ++k)
                if (!insert(list, from, V[(i * T_ + s) * M + k] + x + whole, d - 1 + K * (s + T_ * k))) break;
            }
          } else {
            for (int64_t k = 0; k < M; ++k)
              if (!insert(list, from, P[(i * T_ + t) * M + k] + whole, d - 1 + K * k)) break;
          }
        }
      }
    }
    for (int64_t t = threadIdx.x; t < T_ && n > 0; t += blockDim.x) chain.read(p.score.end, t);
    const bool bad = __syncthreads_or(chain.bad);
    if (threadIdx.x == 0) finish(b, n, bad, tags);
    __syncthreads();
  }

  // The M best ends (into the lists of V[0], which no prefix uses) and their paths.
  STRUCTOPS_DEVICE void finish(int64_t b, int64_t n, bool bad, int64_t* tags) {
    A* const list = V;
    int* const from = fromV;
    empty(list, M);
    if (n == 0) list[0] = 0;
    for (int64_t t = 0; t < T_ && n > 0; ++t)
      for (int64_t k = 0; k < M; ++k)
        if (!insert(list, from, V[(n * T_ + t) * M + k] + chain.peek(p.score.end, t), t + T_ * k)) break;
    for (int64_t m = 0; m < M; ++m) {
      const A nan = Limits<A>::high() - Limits<A>::high();
      p.value[b * M + m] = Acc<T>(bad ? nan : list[m]);
      if (bad || list[m] == ninf<A>()) continue;
      int64_t tag = n > 0 ? from[m] % T_ : 0, rank = n > 0 ? from[m] / T_ : 0;
      for (int64_t j = n; j > 0;) {
        const int64_t back = fromV[(j * T_ + tag) * M + rank], i = j - 1 - back % K;
        tags[m * p.N + i] = tag;
        int64_t source = back / K;
        if (!chain.full()) source = i > 0 ? fromP[(i * T_ + tag) * M + source] : 0;
        tag = source % T_;
        rank = source / T_;
        j = i;
      }
    }
  }
};

template <class T, class A> __global__ void __launch_bounds__(256, 2) chain_lists(const ChainParams<T, A> p) {
  __shared__ A tile[kChainTile * kChainTile];
  __shared__ A room[33];
  DeviceBest<T, A> best(p, tile, room);
  for (int64_t b = blockIdx.x; b < p.B; b += p.G) best.sentence(b);
}

// The first i < count whose cumulative weight exceeds u times the sum of exp(x(i)).
template <class F> STRUCTOPS_DEVICE int64_t choose(int64_t count, double u, F x) {
  double top = ninf<double>(), total = 0, sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double y = x(i);
    top = y > top ? y : top;
  }
  for (int64_t i = 0; i < count; ++i) total += exp(x(i) - top);
  int64_t last = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double e = exp(x(i) - top);
    if (e == 0) continue;
    sum += e;
    last = i;
    if (sum > u * total) break;
  }
  return last;
}

// A thread draws whole paths from the charts of the block's sentence.
template <class T> STRUCTOPS_DEVICE void draw(DeviceChain<T, double, false>& chain, const double* uniform, int64_t* tags) {
  const auto& p = chain.p;
  const int64_t T_ = p.T_, K = p.K;
  int64_t tag = choose(T_, *uniform++, [&](int64_t t) { return chain.V[chain.n * T_ + t] + chain.peek(p.score.end, t); });
  for (int64_t j = chain.n; j > 0;) {
    int64_t d = 1;
    if (K > 1)
      d = 1 + choose(K, *uniform++, [&](int64_t k) {
        const int64_t i = j - 1 - k;
        if (i < 0 || k + 1 > chain.longest(i, k + 1)) return ninf<double>();
        double acc = 0;
        for (int64_t q = j - 1; q >= i; --q) acc += chain.peek(p.score.emit, (chain.b * p.N + q) * T_ + tag);
        const double before = chain.full() && i > 0 ? chain.enter(i, k + 1, tag).value() : chain.P[i * T_ + tag];
        return before + (i > 0 ? chain.offV[i] : 0) - (j > 1 ? chain.offV[j - 1] : 0) + acc + chain.segment(i, k + 1, tag);
      });
    const int64_t i = j - d;
    tags[i] = tag;
    if (i > 0) {
      const int64_t at = chain.matrix(i, d), here = tag;
      tag = choose(T_, *uniform++, [&](int64_t s) { return chain.V[i * T_ + s] + chain.trans(at, s, here); });
    }
    j = i;
  }
}

template <class T> __global__ void __launch_bounds__(256, 2) chain_draws(const ChainParams<T, double> p) {
  __shared__ double tile[kChainTile * kChainTile];
  __shared__ double room[33];
  DeviceChain<T, double, false> chain(p, tile, room);
  const int64_t choices = p.K == 1 ? p.N : 2 * p.N;
  for (int64_t b = blockIdx.x; b < p.B; b += p.G) {
    double ignored;
    const double logz = chain.forward(b, &ignored);
    for (int64_t m = threadIdx.x; m < p.M; m += blockDim.x) {
      int64_t* const tags = p.tags + (m * p.B + b) * p.N;
      for (int64_t i = 0; i < p.N; ++i) tags[i] = -1;
      if (logz > ninf<double>() && chain.n > 0) draw(chain, p.uniform + (m * p.B + b) * choices, tags);
    }
    __syncthreads();
  }
}

}  // namespace structops::cuda
