// CUDA frames, Wigner matrices and rotations: launch. The contract is wigner.h, the device code wigner.cuh.
#include "so2/cuda.h"
#include "so2/wigner.cuh"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256;

RotateParams params(const WignerArgs& a) {
  const int M = a.mmax < 0 ? 0 : a.mmax;
  return {a.d,
          a.x,
          a.z,
          a.vec,
          a.out,
          a.E,
          a.C,
          a.lmax,
          M,
          frame_rows(a.lmax, M),
          (a.lmax + 1) * (a.lmax + 1),
          packed_size(a.lmax, M)};
}

template <class F>
void with_real(Dtype t, F f) {
  if (t == Dtype::f64)
    f(static_cast<double*>(nullptr));
  else
    f(static_cast<float*>(nullptr));
}

}  // namespace

void wigner_fwd(const WignerArgs& a, const CudaContext& ctx) {
  if (a.E == 0) return;
  const WignerParams p{a.vec, a.gamma, a.out, nullptr, {nullptr, 0}, a.E, 0, a.lmax, a.mmax, packed_size(a.lmax, a.mmax)};
  const unsigned blocks = unsigned(a.E < (1 << 20) ? a.E : 1 << 20);
  with_real(a.dtype,
            [&](auto* t) { launch("so2_wigner", ctx, wigner_edges<Pointee<decltype(t)>>, blocks, kWignerThreads, p); });
}

void rotate_fwd(const WignerArgs& a, const CudaContext& ctx) {
  const RotateParams p = params(a);
  const int64_t total = a.E * p.n * a.C;
  if (total == 0) return;
  with_real(a.dtype, [&](auto* t) {
    launch("so2_rotate", ctx, rotate_edges<Pointee<decltype(t)>>, blocks_for(total, kThreads), kThreads, p);
  });
}

void rotate_back(const WignerArgs& a, const CudaContext& ctx) {
  const RotateParams p = params(a);
  const int64_t total = a.E * p.S * a.C;
  if (total == 0) return;
  with_real(a.dtype, [&](auto* t) {
    launch("so2_rotate_back", ctx, rotate_back_edges<Pointee<decltype(t)>>, blocks_for(total, kThreads), kThreads, p);
  });
}

void rotate_outer(const WignerArgs& a, const CudaContext& ctx) {
  const RotateParams p = params(a);
  if (a.E == 0) return;
  with_real(a.dtype, [&](auto* t) {
    launch("so2_rotate_outer", ctx, rotate_outer_edges<Pointee<decltype(t)>>, blocks_for(a.E * p.R, kThreads), kThreads, p);
  });
}

void so3_turn(const WignerArgs& a, const CudaContext& ctx) {
  const RotateParams p = params(a);
  const bool packed = a.mmax >= 0;
  const int64_t total = a.E * (packed ? p.R : p.S * a.C);
  if (total == 0) return;
  with_real(a.dtype, [&](auto* t) {
    launch("so3_turn", ctx, turn_edges<Pointee<decltype(t)>>, blocks_for(total, kThreads), kThreads, p, packed);
  });
}

void so3_torque(const WignerArgs& a, const CudaContext& ctx) {
  const RotateParams p = params(a);
  if (a.E == 0) return;
  with_real(a.dtype, [&](auto* t) {
    launch("so3_torque", ctx, torque_edges<Pointee<decltype(t)>>, blocks_for(a.E * 32, kThreads), kThreads, p, a.mmax >= 0);
  });
}

}  // namespace structops::cuda
