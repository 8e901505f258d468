// CPU eigen-decomposition and its derivative. The contract is eigh_small.h. Matrices are the lanes.
#include "so2/eigh_small.h"
#include "so2/jacobi.h"

namespace structops::STRUCTOPS_ISA {
namespace {

// `count` rows of `size` numbers as lanes, zeros behind; absent rows are zeros.
template <int size, class A> STRUCTOPS_INLINE void gather(const A* rows, int64_t first, int count, Vec<A>* to) {
  alignas(64) A lanes[size][W<A>] = {};
  for (int l = 0; rows && l < count; ++l)
    for (int i = 0; i < size; ++i) lanes[i][l] = rows[(first + l) * size + i];
  for (int i = 0; i < size; ++i) to[i] = load(lanes[i]);
}

template <int size, class A> STRUCTOPS_INLINE void spread(const Vec<A>* from, int64_t first, int count, A* rows) {
  alignas(64) A lanes[size][W<A>];
  for (int i = 0; i < size; ++i) store(lanes[i], from[i]);
  for (int l = 0; l < count; ++l)
    for (int i = 0; i < size; ++i) rows[(first + l) * size + i] = lanes[i][l];
}

// tile(first, count) for blocks of as many matrices as there are lanes.
template <class A, class F> void tiles(int64_t B, const ParallelFor& pf, F tile) {
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * W<A>;
      tile(first, B - first < W<A> ? int(B - first) : W<A>);
    }
  };
  parallel_for(pf, (B + W<A> - 1) / W<A>, 64, body);
}

template <int n, class A> void decompose(const EighSmallArgs& g, const ParallelFor& pf) {
  tiles<A>(g.B, pf, [&](int64_t first, int count) {
    Vec<A> in[n][n], a[n][n], w[n], v[n][n];
    gather<n * n>(static_cast<const A*>(g.a), first, count, in[0]);
    for (int i = 0; i < n; ++i)
      for (int j = i; j < n; ++j) a[i][j] = in[i][j] * A(0.5) + in[j][i] * A(0.5);
    eigh_small<n>(a, w, v);
    spread<n>(w, first, count, static_cast<A*>(g.w));
    spread<n * n>(v[0], first, count, static_cast<A*>(g.v));
  });
}

template <int n, class A> void differentiate(const EighSmallBwdArgs& g, const ParallelFor& pf) {
  tiles<A>(g.B, pf, [&](int64_t first, int count) {
    Vec<A> w[n], v[n][n], gw[n], gv[n][n], ga[n][n];
    gather<n>(static_cast<const A*>(g.w), first, count, w);
    gather<n * n>(static_cast<const A*>(g.v), first, count, v[0]);
    gather<n>(static_cast<const A*>(g.gw), first, count, gw);
    gather<n * n>(static_cast<const A*>(g.gv), first, count, gv[0]);
    eigh_gradient<n>(w, v, gw, gv, g.gv != nullptr, ga);
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < i; ++j) ga[i][j] = ga[j][i];
    spread<n * n>(ga[0], first, count, static_cast<A*>(g.ga));
  });
}

}  // namespace

void eigh_small(const EighSmallArgs& g, const ParallelFor& pf) {
  with_matrix_size(g.n, [&](auto n) { g.dtype == Dtype::f64 ? decompose<n, double>(g, pf) : decompose<n, float>(g, pf); });
}

void eigh_small_bwd(const EighSmallBwdArgs& g, const ParallelFor& pf) {
  with_matrix_size(g.n, [&](auto n) { g.dtype == Dtype::f64 ? differentiate<n, double>(g, pf) : differentiate<n, float>(g, pf); });
}

}  // namespace structops::STRUCTOPS_ISA
