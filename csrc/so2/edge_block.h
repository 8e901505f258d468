// The edge-wise eSCN block and its gradient, a tile of edges at a time.
//
//   z = D(e) [x_src | x_dst]                        e = vec / |vec|, rows |m| <= M in m-primary order (wigner.h)
//   z = z * s                                       s [E, sum_m n_m 2C], shared by +m and -m; s = radial, or W_r radial + b_r
//   p = conv1(z)                                    [gates (L H) | rows of H channels] (so2_conv.h)
//   h = silu(p) for l = 0, p sigmoid(gate_l) else
//   o = conv2(h)
//   y[v] = sum over edges k of row v, in order of k, of env_k D(e)^T o_k
//
// Edge k of row v goes from col[k] into v; its data are at j = eid[k] (eid null: j = k). vec = 0 gives NaN.
//
//   bwd: the gradients of <g, y>. That of vec is the torque form: with X = D^T z_bar the pullback of the gathered features,
//        t_i = env <g, G_i D^T o> - <X, G_i [x_src | x_dst]>,   d_vec = (t x e) / |vec|.
//        It needs no derivative of a frame and is exact at every direction, because the block does not depend on the turn of
//        the frame about the edge. The part of |vec| comes through s and env, which are the caller's functions of it.
//
// Tiles of 84 edges (on a GPU, chunks); nothing of size [E, ..] is kept between kernels but pre and o where the caller gives
// memory for them (keep): the backward then repeats neither product of the forward. Without, it recomputes both.
// Order of summation: edges of a row in order of k. Gradients of nodes and weights: edges in order within at most 8 slices of
// rows, cut by (N, E) alone, then the slices in order. Triton: chunk by chunk, each chunk's edges in order for nodes and in
// slices for weights; chunks and slices follow from the shapes alone.
// Source: eSCN (arXiv:2302.03655), the edge-wise layer of EquiformerV2 and UMA.
#pragma once
#include "so2/so2_conv.h"
#include "so2/wigner.h"

namespace structops {

struct EdgeBlockArgs {
  Dtype dtype;  // f32 or f64
  int64_t N, E, C, H;
  int lmax, mmax;
  bool three;
  int64_t Kr;  // columns of radial
  Index rowptr, col, eid;
  const void* x;        // [N, S, C]
  const void* vec;      // [E, 3]
  const void* radial;   // [E, Kr] or null: no scale
  const void* wr;       // [scales, Kr] or null: Kr = scales
  const void* br;       // [scales] or null
  const void* env;      // [E] or null: 1
  const void *w1, *b1;  // conv1: 2C -> H, L H extra; b1 may be null
  const void *w2, *b2;  // conv2: H -> C
  void* out;            // fwd: [N, S, C]
  void* pre;            // [E, conv1.out()] in order of k, or null
  void* mid;            // o: [E, n C] in order of k, or null

  const void* grad;                      // bwd: [N, S, C]
  void *d_x, *d_vec, *d_radial, *d_env;  // null where not wanted; d_x goes with d_vec
  void *d_w1, *d_b1, *d_w2, *d_b2, *d_wr, *d_br;

  So2Shape conv1() const { return {lmax, mmax, 2 * C, H, lmax * H}; }
  So2Shape conv2() const { return {lmax, mmax, H, C, 0}; }
  int64_t S() const { return int64_t(lmax + 1) * (lmax + 1); }
  int64_t scales() const {  // sum_m n_m 2C
    int64_t n = 0;
    for (int m = 0; m <= mmax; ++m) n += (lmax + 1 - m) * 2 * C;
    return n;
  }
};

void edge_block_fwd(const EdgeBlockArgs& a, const ParallelFor& pf);
void edge_block_bwd(const EdgeBlockArgs& a, const ParallelFor& pf);

}  // namespace structops
