// CPU eigen-decomposition. The contract is eigh3.h. Matrices are the lanes.
#include "so2/eigh3.h"
#include "so2/jacobi.h"

namespace structops::STRUCTOPS_ISA {
namespace {

template <int n, class A> void decompose(const Eigh3Args& g, const ParallelFor& pf) {
  const A* const in = static_cast<const A*>(g.a);
  A *const out_w = static_cast<A*>(g.w), *const out_v = static_cast<A*>(g.v);
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * W<A>;
      const int count = g.B - first < W<A> ? int(g.B - first) : W<A>;
      alignas(64) A lanes[n * n][W<A>] = {};
      for (int l = 0; l < count; ++l)
        for (int i = 0; i < n * n; ++i) lanes[i][l] = in[(first + l) * n * n + i];
      Vec<A> a[n][n], w[n], v[n][n];
      for (int i = 0; i < n; ++i)
        for (int j = i; j < n; ++j) a[i][j] = load(lanes[i * n + j]) * A(0.5) + load(lanes[j * n + i]) * A(0.5);
      eigh_small<n>(a, w, v);
      for (int i = 0; i < n * n; ++i) store(lanes[i], v[i / n][i % n]);
      for (int l = 0; l < count; ++l) {
        for (int i = 0; i < n; ++i) out_w[(first + l) * n + i] = w[i][l];
        for (int i = 0; i < n * n; ++i) out_v[(first + l) * n * n + i] = lanes[i][l];
      }
    }
  };
  parallel_for(pf, (g.B + W<A> - 1) / W<A>, 64, body);
}

template <class A> void sizes(const Eigh3Args& g, const ParallelFor& pf) {
  g.n == 2 ? decompose<2, A>(g, pf) : decompose<3, A>(g, pf);
}

}  // namespace

void eigh3(const Eigh3Args& g, const ParallelFor& pf) { g.dtype == Dtype::f64 ? sizes<double>(g, pf) : sizes<float>(g, pf); }

}  // namespace structops::STRUCTOPS_ISA
