// One tile of the edge block: its buffers and the steps between the products, for instruction-set files.
#pragma once
#include "core/vmath.h"
#include "so2/conv_tile.h"
#include "so2/edge_block.h"
#include "so2/rotate_rows.h"

namespace structops::STRUCTOPS_ISA {
namespace {

// What all tiles share.
template <class A>
struct BlockPlan {
  const EdgeBlockArgs& a;
  So2Shape s1, s2;
  int64_t S, n, R, scales, ldz, ldp, ldh, ldo, lds, ldr;
  const A *x, *vec, *radial, *wr, *br, *env, *b1, *b2, *grad;

  explicit BlockPlan(const EdgeBlockArgs& args)
      : a(args),
        s1(args.conv1()),
        s2(args.conv2()),
        S(args.S()),
        n(s1.n()),
        R(packed_size(args.lmax, args.mmax)),
        scales(args.scales()),
        ldz(padded<A>(s1.in())),
        ldp(padded<A>(s1.out())),
        ldh(padded<A>(s2.in())),
        ldo(padded<A>(s2.out())),
        lds(padded<A>(scales)),
        ldr(padded<A>(args.Kr)),
        x(static_cast<const A*>(args.x)),
        vec(static_cast<const A*>(args.vec)),
        radial(static_cast<const A*>(args.radial)),
        wr(static_cast<const A*>(args.wr)),
        br(static_cast<const A*>(args.br)),
        env(static_cast<const A*>(args.env)),
        b1(static_cast<const A*>(args.b1)),
        b2(static_cast<const A*>(args.b2)),
        grad(static_cast<const A*>(args.grad)) {}
};

// First row of group g of G: groups have about as many edges each, and every row belongs to one.
inline int64_t group_row(const Index& rowptr, int64_t N, int64_t E, int64_t g, int64_t G) {
  if (g >= G) return N;
  const int64_t target = E / G * g + E % G * g / G;
  if (target == 0) return 0;
  int64_t lo = 0, hi = N;
  while (lo < hi) {
    const int64_t mid = (lo + hi) / 2;
    if (rowptr[mid] < target)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

// A buffer cut into pieces, each at a cache line.
template <class A>
struct Arena {
  A* at;
  A* take(int64_t n) {
    A* const p = at;
    at += (n + 15) / 16 * 16;
    return p;
  }
};

template <class A>
struct EdgeTile {
  const BlockPlan<A>& p;
  int64_t T = 0;  // edges in the tile
  int64_t k0 = 0;
  int64_t src[kTile], dst[kTile], edge[kTile];
  A *D, *dir, *z, *s, *r, *pre, *h, *o, *tmp;

  static int64_t size(const BlockPlan<A>& p, int64_t tmp) {
    return kTile * (p.R + 3 + p.ldz + p.lds + p.ldr + p.ldp + p.ldh + p.ldo) + tmp + 10 * 64;
  }
  EdgeTile(const BlockPlan<A>& plan, Arena<A>& m, int64_t tmp_size) : p(plan) {
    D = m.take(kTile * p.R);
    dir = m.take(kTile * 3);
    z = m.take(kTile * p.ldz + kSlack);
    s = m.take(kTile * p.lds + kSlack);
    r = m.take(kTile * p.ldr + kSlack);
    pre = m.take(kTile * p.ldp + kSlack);
    h = m.take(kTile * p.ldh + kSlack);
    o = m.take(kTile * p.ldo + kSlack);
    tmp = m.take(tmp_size);
  }

  int64_t rows() const { return (T + kMR<A> - 1) / kMR<A> * kMR<A>; }
  A scale_of(int64_t t) const { return p.env ? p.env[edge[t]] : A(1); }
  const A* node(int64_t v) const { return p.x + v * p.S * p.a.C; }

  // Edges k..k + T of row `row` and following; returns the row of the next edge.
  int64_t take_edges(int64_t k, int64_t end, int64_t row) {
    const Index &rowptr = p.a.rowptr, &col = p.a.col, &eid = p.a.eid;
    k0 = k;
    T = end - k < kTile ? end - k : int64_t(kTile);
    for (int64_t t = 0; t < T; ++t) {
      while (rowptr[row + 1] <= k + t) ++row;
      dst[t] = row;
      src[t] = col[k + t];
      edge[t] = eid ? eid[k + t] : k + t;
    }
    return row;
  }

  void frames() {
    constexpr int L = W<double>;
    A vec[3 * L];
    for (int64_t t = 0; t < T; t += L) {
      const int n = int(T - t < L ? T - t : L);
      for (int i = 0; i < n; ++i)
        for (int j = 0; j < 3; ++j) vec[3 * i + j] = p.vec[3 * edge[t + i] + j];
      wigner_lanes<A, A>(n, vec, nullptr, p.a.lmax, p.a.mmax, D + t * p.R, dir + 3 * t);
    }
  }

  void rotate_in() {
    const int64_t C = p.a.C;
    for (int64_t t = 0; t < T; ++t) {
      A* const row = z + t * p.ldz;
      rotate_edge(p.a.lmax, p.a.mmax, C, D + t * p.R, node(src[t]), row, 2 * C);
      rotate_edge(p.a.lmax, p.a.mmax, C, D + t * p.R, node(dst[t]), row + C, 2 * C);
    }
    for (int64_t t = T; t < rows(); ++t)
      for (int64_t i = 0; i < p.ldz; ++i) z[t * p.ldz + i] = 0;
  }

  // The scales of the tile; packed: W_r, or null where they are given.
  void scales(const A* packed) {
    if (!p.radial) return;
    const int64_t K = p.a.Kr;
    A* const to = packed ? r : s;
    const int64_t ld = packed ? p.ldr : p.lds;
    for (int64_t t = 0; t < T; ++t) __builtin_memcpy(to + t * ld, p.radial + edge[t] * K, size_t(K) * sizeof(A));
    if (!packed) return;
    for (int64_t t = T; t < rows(); ++t)
      for (int64_t i = 0; i < ld; ++i) r[t * ld + i] = 0;
    gemm<A>(rows(), p.scales, K, r, p.ldr, packed, s, p.lds, 1, false);
    if (p.br)
      for (int64_t t = 0; t < T; ++t)
        for (int64_t i = 0; i < p.scales; ++i) s[t * p.lds + i] += p.br[i];
  }

  // f(first number of a run in a row of z, first number in a row of s, length), for m = 0 and both signs of m > 0.
  template <class F>
  void scaled_runs(F f) const {
    int64_t at = 0;
    for (int m = 0; m <= p.a.mmax; ++m) {
      const int64_t K = p.s1.K(m);
      f(p.s1.in_at(m), at, K);
      if (m) f(p.s1.in_at(m) + K, at, K);
      at += K;
    }
  }

  void multiply(const A* from, A* to) const {  // to = from * s
    scaled_runs([&](int64_t zi, int64_t si, int64_t K) {
      for (int64_t t = 0; t < T; ++t) {
        const A *const f = from + t * p.ldz + zi, *const g = s + t * p.lds + si;
        A* const out = to + t * p.ldz + zi;
        for (int64_t i = 0; i < K; ++i) out[i] = f[i] * g[i];
      }
    });
  }

  // f(pre number, output number) of the rows of degree l, m in m-primary order.
  template <class F>
  void rows_of(int l, F f) const {
    const int k = l < p.a.mmax ? l : p.a.mmax;
    for (int m = -k; m <= k; ++m) {
      const int64_t row = frame_row(p.a.lmax, l, m);
      f(p.s1.extra + row * p.a.H, row * p.a.H);
    }
  }

  void gate() {
    const int64_t H = p.a.H;
    constexpr int V = W<A>;
    for (int64_t t = 0; t < T; ++t) {
      const A* const in = pre + t * p.ldp;
      A* const out = h + t * p.ldh;
      for (int l = 0; l <= p.a.lmax; ++l)
        for (int64_t c = 0; c < H; c += V) {
          const int n = int(H - c < V ? H - c : V);
          const Vec<A> gate = vsigmoid<A>(load_w(in + (l ? (l - 1) * H : p.s1.extra) + c, n));
          rows_of(l, [&](int64_t from, int64_t to)
                         __attribute__((always_inline)) { store_w(out + to + c, load_w(in + from + c, n) * gate, n); });
        }
    }
    for (int64_t t = T; t < rows(); ++t)
      for (int64_t i = 0; i < p.ldh; ++i) h[t * p.ldh + i] = 0;
  }

  // dp from dh, both of the tile; dp [T, ldp].
  void gate_bwd(const A* dh, A* dp) {
    const int64_t H = p.a.H;
    constexpr int V = W<A>;
    for (int64_t t = 0; t < T; ++t) {
      const A *const in = pre + t * p.ldp, *const g = dh + t * p.ldh;
      A* const out = dp + t * p.ldp;
      for (int l = 0; l <= p.a.lmax; ++l)
        for (int64_t c = 0; c < H; c += V) {
          const int n = int(H - c < V ? H - c : V);
          const int64_t at = (l ? (l - 1) * H : p.s1.extra) + c;
          const Vec<A> q = load_w(in + at, n), y = vsigmoid<A>(q);
          if (l == 0) {
            store_w(out + at, load_w(g + c, n) * (y + q * y * (A(1) - y)), n);
            continue;
          }
          Vec<A> sum{};
          rows_of(l, [&](int64_t from, int64_t to) __attribute__((always_inline)) {
            const Vec<A> d = load_w(g + to + c, n);
            sum += d * load_w(in + from + c, n);
            store_w(out + from + c, d * y, n);
          });
          store_w(out + at, sum * y * (A(1) - y), n);
        }
    }
    for (int64_t t = T; t < rows(); ++t)
      for (int64_t i = 0; i < p.ldp; ++i) dp[t * p.ldp + i] = 0;
  }

  void save(const A* from, int64_t ld, int64_t n, void* memory) const {
    if (memory)
      for (int64_t t = 0; t < T; ++t)
        __builtin_memcpy(static_cast<A*>(memory) + (k0 + t) * n, from + t * ld, size_t(n) * sizeof(A));
  }
  void restore(A* to, int64_t ld, int64_t n, const void* memory) const {
    for (int64_t t = 0; t < T; ++t)
      __builtin_memcpy(to + t * ld, static_cast<const A*>(memory) + (k0 + t) * n, size_t(n) * sizeof(A));
  }
};

}  // namespace
}  // namespace structops::STRUCTOPS_ISA
