// CPU edge block. The contract is edge_block.h.
//
// A group of whole rows is cut into tiles; every step of a tile works on buffers that fit the second-level cache, and the
// packed weights stream from the third. Forward: rows of y are written by the group that owns them.
#include "so2/edge_tile.h"

namespace structops::STRUCTOPS_ISA {
namespace {

struct Freed {  // the buffers of a launch
  void* p;
  ~Freed() { std::free(p); }
};

template <class A>
A* pack_radial(const BlockPlan<A>& p, bool transpose, const ParallelFor& pf) {
  if (!p.wr) return nullptr;
  const int64_t K = transpose ? p.scales : p.a.Kr, N = transpose ? p.a.Kr : p.scales;
  A* const packed = allocate<A>(size_t(packed_floats<A>(K, N) + kSlack));
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j)
      pack_panel<A>(packed, j, K, N, p.wr, transpose ? 1 : p.a.Kr, transpose ? p.a.Kr : 1, A(1), 0, K);
  };
  parallel_for(pf, panels<A>(N), 4, body);
  return packed;
}

template <class A>
void forward_tile(EdgeTile<A>& t, const PackedConv<A>& c1, const A* wr) {
  const BlockPlan<A>& p = t.p;
  t.rotate_in();
  t.scales(wr);
  if (p.radial) t.multiply(t.z, t.z);
  c1.apply(t.T, t.z, p.ldz, t.pre, p.ldp, p.b1, t.tmp);
}

template <class A>
void forward(const EdgeBlockArgs& a, const ParallelFor& pf) {
  const BlockPlan<A> p(a);
  const PackedConv<A> c1(p.s1, static_cast<const A*>(a.w1), false, a.three, pf),
      c2(p.s2, static_cast<const A*>(a.w2), false, a.three, pf);
  A* const wr = pack_radial(p, false, pf);
  const Freed freed_radial{wr};
  const int64_t most = a.E / (8 * kTile) + 1, groups = most < 64 ? most : 64;
  const int64_t tmp = c1.scratch() > c2.scratch() ? c1.scratch() : c2.scratch(), each = EdgeTile<A>::size(p, tmp) + 1024;
  A* const scratch = allocate<A>(size_t(groups * each));
  const Freed freed{scratch};
  const int64_t row_size = p.S * a.C;
  auto body = [&](int64_t begin, int64_t end) {
    Arena<A> arena{scratch + begin * each};
    EdgeTile<A> t(p, arena, tmp);
    for (int64_t g = begin; g < end; ++g) {
      int64_t row = group_row(a.rowptr, a.N, a.E, g, groups);
      const int64_t row_end = group_row(a.rowptr, a.N, a.E, g + 1, groups), k_end = a.rowptr[row_end];
      A* const out = static_cast<A*>(a.out);
      for (int64_t i = row * row_size; i < row_end * row_size; ++i) out[i] = 0;
      for (int64_t k = a.rowptr[row]; k < k_end; k += kTile) {
        row = t.take_edges(k, k_end, row);
        t.frames();
        forward_tile(t, c1, wr);
        t.save(t.pre, p.ldp, p.s1.out(), a.pre);
        t.gate();
        c2.apply(t.T, t.h, p.ldh, t.o, p.ldo, p.b2, t.tmp);
        t.save(t.o, p.ldo, p.s2.out(), a.mid);
        for (int64_t i = 0; i < t.T; ++i)
          rotate_back_edge<A, true>(a.lmax, a.mmax, a.C, t.D + i * p.R, t.o + i * p.ldo, a.C, t.scale_of(i),
                                    out + t.dst[i] * row_size);
      }
    }
  };
  parallel_for(pf, groups, 1, body);
}

// Offsets of the partial sums of a slice: gradients of nodes and of weights.
struct SliceLayout {
  int64_t x, w1, b1, w2, b2, wr, br, size;
};

template <class A>
SliceLayout slice_layout(const BlockPlan<A>& p) {
  const EdgeBlockArgs& a = p.a;
  int64_t at = 0;
  auto take = [&](bool wanted, int64_t n) {
    const int64_t begin = at;
    if (wanted) at += (n + 15) / 16 * 16;
    return begin;
  };
  SliceLayout s;
  s.x = take(a.d_x, a.N * p.S * a.C);
  s.w1 = take(a.d_w1, p.s1.weights());
  s.b1 = take(a.d_w1, p.s1.N(0));
  s.w2 = take(a.d_w2, p.s2.weights());
  s.b2 = take(a.d_w2, p.s2.N(0));
  s.wr = take(a.d_wr, p.scales * a.Kr);
  s.br = take(a.d_wr, p.scales);
  s.size = at + 16;
  return s;
}

template <class A>
struct Backward {
  const BlockPlan<A>& p;
  const EdgeBlockArgs& a;
  const PackedConv<A>&c1, &c2, *f1, *f2;  // transposed; forward ones where recomputed
  const A *wr, *wr_t;
  SliceLayout part;

  // Buffers beyond those of EdgeTile.
  struct Extra {
    A *zs, *u, *dh, *dp, *dz, *m, *back;
  };
  int64_t extra_size() const { return kTile * (2 * p.ldz + p.ldo + p.ldh + p.ldp) + 3 * p.S * 2 * a.C + 16 * kSlack; }
  Extra extra(Arena<A>& m) const {
    Extra e;
    e.zs = m.take(kTile * p.ldz + kSlack);
    e.u = m.take(kTile * p.ldo + kSlack);
    e.dh = m.take(kTile * p.ldh + kSlack);
    e.dp = m.take(kTile * p.ldp + kSlack);
    e.dz = m.take(kTile * p.ldz + kSlack);
    e.m = m.take(p.S * a.C + kSlack);
    e.back = m.take(p.S * a.C + kSlack);
    return e;
  }

  void columns(int64_t T, const A* rows, int64_t ld, int64_t n, A* sum) const {
    for (int64_t t = 0; t < T; ++t)
      for (int64_t i = 0; i < n; ++i) sum[i] += rows[t * ld + i];
  }

  void tile(EdgeTile<A>& t, const Extra& e, A* sums) const {
    const int64_t C = a.C, SC = p.S * C, nC = p.s2.out();
    A torque[kTile][3];
    t.frames();
    // z unscaled in t.z, scaled in e.zs.
    t.rotate_in();
    t.scales(wr);
    const A* zs = t.z;
    if (p.radial) {
      t.multiply(t.z, e.zs);
      for (int64_t i = t.T * p.ldz; i < t.rows() * p.ldz; ++i) e.zs[i] = 0;
      zs = e.zs;
    }
    if (a.pre)
      t.restore(t.pre, p.ldp, p.s1.out(), a.pre);
    else
      f1->apply(t.T, zs, p.ldz, t.pre, p.ldp, p.b1, t.tmp);
    const bool need_o = a.d_vec || a.d_env;
    if (a.d_w2 || (need_o && !a.mid)) t.gate();
    if (need_o) {
      if (a.mid)
        t.restore(t.o, p.ldo, nC, a.mid);
      else
        f2->apply(t.T, t.h, p.ldh, t.o, p.ldo, p.b2, t.tmp);
    }
    // The message's side: u = env D g, the gradient of env, the torque of D^T o.
    for (int64_t i = 0; i < t.T; ++i) {
      const A env = t.scale_of(i), *const g = p.grad + t.dst[i] * SC, *const o = t.o + i * p.ldo;
      A* const u = e.u + i * p.ldo;
      rotate_edge(a.lmax, a.mmax, C, t.D + i * p.R, g, u, C);
      if (a.d_env) {
        Vec<A> sum{};
        for (int64_t c = 0; c < nC; c += W<A>) {
          const int n = int(nC - c < W<A> ? nC - c : W<A>);
          sum += load_w(u + c, n) * load_w(o + c, n);
        }
        static_cast<A*>(a.d_env)[t.edge[i]] = hsum<A>(sum);
      }
      for (int64_t c = 0; c < nC; ++c) u[c] *= env;
      torque[i][0] = torque[i][1] = torque[i][2] = 0;
      if (a.d_vec) {
        rotate_back_edge<A, false>(a.lmax, a.mmax, C, t.D + i * p.R, o, C, env, e.m);
        torque_edge(a.lmax, C, g, e.m, torque[i]);
      }
    }
    for (int64_t i = t.T * p.ldo; i < t.rows() * p.ldo; ++i) e.u[i] = 0;
    if (a.d_w2) {
      conv_wgrad<A>(p.s2, t.T, t.h, p.ldh, e.u, p.ldo, sums + part.w2);
      columns(t.T, e.u, p.ldo, p.s2.N(0), sums + part.b2);
    }
    c2.apply(t.T, e.u, p.ldo, e.dh, p.ldh, nullptr, t.tmp);
    t.gate_bwd(e.dh, e.dp);
    if (a.d_w1) {
      conv_wgrad<A>(p.s1, t.T, zs, p.ldz, e.dp, p.ldp, sums + part.w1);
      columns(t.T, e.dp, p.ldp, p.s1.N(0), sums + part.b1);
    }
    const bool wants_radial = p.radial && (a.d_radial || a.d_wr);
    if (!a.d_x && !wants_radial) return;
    c1.apply(t.T, e.dp, p.ldp, e.dz, p.ldz, nullptr, t.tmp);
    if (wants_radial) radial(t, e, sums);
    if (!a.d_x) return;
    if (p.radial) t.multiply(e.dz, e.dz);
    A* const dx = sums + part.x;
    for (int64_t i = 0; i < t.T; ++i) {
      A back_torque[3] = {};
      for (int side = 0; side < 2; ++side) {
        const int64_t v = side ? t.dst[i] : t.src[i];
        rotate_back_edge<A, false>(a.lmax, a.mmax, C, t.D + i * p.R, e.dz + i * p.ldz + side * C, 2 * C, A(1), e.back);
        if (a.d_vec) torque_edge(a.lmax, C, e.back, t.node(v), back_torque);
        A* const to = dx + v * SC;
        for (int64_t c = 0; c < SC; ++c) to[c] += e.back[c];
      }
      if (a.d_vec) direction(t, i, torque[i], back_torque);
    }
  }

  // d_vec = (t x e) / |vec|
  void direction(const EdgeTile<A>& t, int64_t i, const A* front, const A* back) const {
    const A *const e = t.dir + 3 * i, *const r = p.vec + 3 * t.edge[i];
    A* const out = static_cast<A*>(a.d_vec) + 3 * t.edge[i];
    const A q[3] = {front[0] - back[0], front[1] - back[1], front[2] - back[2]};
    const A length = e[0] * r[0] + e[1] * r[1] + e[2] * r[2];
    out[0] = (q[1] * e[2] - q[2] * e[1]) / length;
    out[1] = (q[2] * e[0] - q[0] * e[2]) / length;
    out[2] = (q[0] * e[1] - q[1] * e[0]) / length;
  }

  // The gradient of the scales, in the place of the scaled z that is no longer needed, and from there those of radial and W_r.
  void radial(EdgeTile<A>& t, const Extra& e, A* sums) const {
    A* const ds = e.zs;
    const int64_t ld = p.ldz;
    int64_t at = 0;
    for (int m = 0; m <= a.mmax; ++m) {
      const int64_t K = p.s1.K(m);
      for (int64_t i = 0; i < t.T; ++i) {
        const A *const d = e.dz + i * p.ldz + p.s1.in_at(m), *const z = t.z + i * p.ldz + p.s1.in_at(m);
        A* const out = ds + i * ld + at;
        for (int64_t c = 0; c < K; ++c) out[c] = m ? d[c] * z[c] + d[K + c] * z[K + c] : d[c] * z[c];
      }
      at += K;
    }
    if (!wr) {
      for (int64_t i = 0; i < t.T; ++i)
        __builtin_memcpy(static_cast<A*>(a.d_radial) + t.edge[i] * a.Kr, ds + i * ld, size_t(a.Kr) * sizeof(A));
      return;
    }
    for (int64_t i = t.T; i < t.rows(); ++i)
      for (int64_t c = 0; c < p.scales; ++c) ds[i * ld + c] = 0;
    if (a.d_wr) {
      gemm_transposed<A>(p.scales, a.Kr, t.T, ds, ld, t.r, p.ldr, sums + part.wr, a.Kr, A(1));
      columns(t.T, ds, ld, p.scales, sums + part.br);
    }
    if (a.d_radial) {
      gemm<A>(t.rows(), a.Kr, p.scales, ds, ld, wr_t, t.r, p.ldr, 1, false);
      for (int64_t i = 0; i < t.T; ++i)
        __builtin_memcpy(static_cast<A*>(a.d_radial) + t.edge[i] * a.Kr, t.r + i * p.ldr, size_t(a.Kr) * sizeof(A));
    }
  }
};

template <class A>
void backward(const EdgeBlockArgs& a, const ParallelFor& pf) {
  const BlockPlan<A> p(a);
  const A *const w1 = static_cast<const A*>(a.w1), *const w2 = static_cast<const A*>(a.w2);
  const PackedConv<A> c1(p.s1, w1, true, a.three, pf), c2(p.s2, w2, true, a.three, pf);
  const So2Shape none{0, 0, 0, 0, 0};
  const PackedConv<A> f1(a.pre ? none : p.s1, w1, false, a.three, pf), f2(a.mid ? none : p.s2, w2, false, a.three, pf);
  A* const wr = pack_radial(p, false, pf);
  const Freed freed_radial{wr};
  A* const wr_t = pack_radial(p, true, pf);
  const Freed freed_transpose{wr_t};
  const Backward<A> b{p, a, c1, c2, &f1, &f2, wr, wr_t, slice_layout(p)};
  const int64_t most = a.E / (4 * kTile) + 1, slices = most < 8 ? most : 8;
  int64_t tmp = 0;
  const PackedConv<A>* const convs[] = {&c1, &c2, &f1, &f2};
  for (const PackedConv<A>* c : convs) tmp = c->scratch() > tmp ? c->scratch() : tmp;
  const int64_t each = EdgeTile<A>::size(p, tmp) + b.extra_size() + 1024;
  A* const scratch = allocate<A>(size_t(slices * each));
  const Freed freed{scratch};
  A* const sums = allocate<A>(size_t(slices * b.part.size));
  const Freed freed_sums{sums};
  auto body = [&](int64_t begin, int64_t end) {
    Arena<A> arena{scratch + begin * each};
    EdgeTile<A> t(p, arena, tmp);
    const typename Backward<A>::Extra extra = b.extra(arena);
    for (int64_t s = begin; s < end; ++s) {
      A* const part = sums + s * b.part.size;
      for (int64_t i = 0; i < b.part.size; ++i) part[i] = 0;
      int64_t row = group_row(a.rowptr, a.N, a.E, s, slices);
      const int64_t k_end = a.rowptr[group_row(a.rowptr, a.N, a.E, s + 1, slices)];
      for (int64_t k = a.rowptr[row]; k < k_end; k += kTile) {
        row = t.take_edges(k, k_end, row);
        b.tile(t, extra, part);
      }
    }
  };
  parallel_for(pf, slices, 1, body);
  auto add = [&](void* out, int64_t at, int64_t n) {
    if (out) add_slices<A>(slices, n, sums + at, b.part.size, static_cast<A*>(out), pf);
  };
  add(a.d_x, b.part.x, a.N * p.S * a.C);
  add(a.d_w1, b.part.w1, p.s1.weights());
  add(a.d_b1, b.part.b1, p.s1.N(0));
  add(a.d_w2, b.part.w2, p.s2.weights());
  add(a.d_b2, b.part.b2, p.s2.N(0));
  add(a.d_wr, b.part.wr, p.scales * a.Kr);
  add(a.d_br, b.part.br, p.scales);
}

}  // namespace

void edge_block_fwd(const EdgeBlockArgs& a, const ParallelFor& pf) {
  if (a.dtype == Dtype::f64)
    forward<double>(a, pf);
  else
    forward<float>(a, pf);
}
void edge_block_bwd(const EdgeBlockArgs& a, const ParallelFor& pf) {
  if (a.dtype == Dtype::f64)
    backward<double>(a, pf);
  else
    backward<float>(a, pf);
}

}  // namespace structops::STRUCTOPS_ISA
