// Registration of eigen-decompositions: check, allocate, launch. One body serves both devices.
#include "so2/cuda.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

template <class Args> void describe(const char* op, const char* name, const Tensor& matrices, Args& g) {
  STRUCTOPS_CHECK(matrices.dim() == 3 && matrices.size(1) == matrices.size(2) && matrices.size(1) >= 2 && matrices.size(1) <= 8 &&
                    matrices.is_contiguous(), op, ": ", name, " must be a contiguous [B, n, n], n = 2 to 8");
  g.dtype = dtype_of(matrices);
  STRUCTOPS_CHECK(g.dtype == Dtype::f32 || g.dtype == Dtype::f64, op, ": float32 and float64 only");
  g.n = int(matrices.size(1));
  g.B = matrices.size(0);
}

template <bool cuda> std::tuple<Tensor, Tensor> eigh_small(Tensor a) {
  EighSmallArgs g{};
  describe("eigh_small", "a", a, g);
  Tensor w = new_empty(a, {g.B, g.n}, a.scalar_type()), v = new_empty(a, {g.B, g.n, g.n}, a.scalar_type());
  g.a = a.const_data_ptr();
  g.w = w.mutable_data_ptr();
  g.v = v.mutable_data_ptr();
  launch<cuda>(a, g, [](auto& s, auto pf) { structops::eigh_small(s, pf); }, [](auto& s, auto ctx) { cuda::eigh_small(s, ctx); });
  return {w, v};
}

template <bool cuda> Tensor eigh_small_bwd(Tensor w, Tensor v, OptTensor gw, OptTensor gv) {
  EighSmallBwdArgs g{};
  describe("eigh_small_bwd", "v", v, g);
  auto pointer = [&](const char* name, const Tensor& t, bool matrix) {
    const bool shaped = t.dim() == (matrix ? 3 : 2) && t.size(0) == g.B && t.size(1) == g.n && (!matrix || t.size(2) == g.n);
    STRUCTOPS_CHECK(shaped && t.is_contiguous() && t.scalar_type() == v.scalar_type(), "eigh_small_bwd: ", name,
                    " must be contiguous, of the shape and dtype that go with v");
    return t.const_data_ptr();
  };
  g.w = pointer("w", w, false);
  g.v = v.const_data_ptr();
  if (gw) g.gw = pointer("gw", *gw, false);
  if (gv) g.gv = pointer("gv", *gv, true);
  Tensor ga = new_empty(v, {g.B, g.n, g.n}, v.scalar_type());
  g.ga = ga.mutable_data_ptr();
  launch<cuda>(v, g, [](auto& s, auto pf) { structops::eigh_small_bwd(s, pf); }, [](auto& s, auto ctx) { cuda::eigh_small_bwd(s, ctx); });
  return ga;
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("eigh_small", TORCH_BOX(&eigh_small<cuda>));
  m.impl("eigh_small_bwd", TORCH_BOX(&eigh_small_bwd<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
