// CUDA spherical harmonics: launch. The contract is sph.h.
#include "so2/cuda.h"
#include "so2/sph.cuh"

namespace structops::cuda {
namespace {

SphParams params(const SphArgs& a) {
  return {a.lmax, a.normalize ? 1 : 0, a.N, a.x, a.g, a.y, a.dy, a.d2y, sph_tables(a.norm)};
}

}  // namespace

void spherical_harmonics(const SphArgs& a, const CudaContext& ctx) {
  constexpr const char* op = "spherical_harmonics";
  with_float(op, a.dtype, [&](auto* t) {
    launch(op, ctx, sph_kernel<Pointee<decltype(t)>>, dim3(blocks_for(a.N, kSphThreads)), kSphThreads, params(a));
  });
}

void spherical_harmonics_bwd(const SphArgs& a, const CudaContext& ctx) {
  constexpr const char* op = "spherical_harmonics_bwd";
  with_float(op, a.dtype, [&](auto* t) {
    launch(op, ctx, sph_bwd_kernel<Pointee<decltype(t)>>, dim3(blocks_for(a.N, kSphThreads)), kSphThreads, params(a));
  });
}

void spherical_harmonics_jet(const SphArgs& a, const CudaContext& ctx) {
  constexpr const char* op = "spherical_harmonics_jet";
  with_float(op, a.dtype, [&](auto* t) {
    launch(op, ctx, sph_jet_kernel<Pointee<decltype(t)>>, dim3(blocks_for(a.N, kSphThreads)), kSphThreads, params(a));
  });
}

}  // namespace structops::cuda
