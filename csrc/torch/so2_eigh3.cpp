// Registration of eigen-decompositions: check, allocate, launch. One body serves both devices.
#include "so2/cuda.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

template <class Args> void describe(const char* op, const char* name, const Tensor& matrices, Args& g) {
  STRUCTOPS_CHECK(matrices.dim() == 3 && matrices.size(1) == matrices.size(2) && (matrices.size(1) == 2 || matrices.size(1) == 3) &&
                    matrices.is_contiguous(), op, ": ", name, " must be a contiguous [B, n, n], n = 2 or 3");
  g.dtype = dtype_of(matrices);
  STRUCTOPS_CHECK(g.dtype == Dtype::f32 || g.dtype == Dtype::f64, op, ": float32 and float64 only");
  g.n = int(matrices.size(1));
  g.B = matrices.size(0);
}

template <bool cuda> std::tuple<Tensor, Tensor> eigh3(Tensor a) {
  Eigh3Args g{};
  describe("eigh3", "a", a, g);
  Tensor w = new_empty(a, {g.B, g.n}, a.scalar_type()), v = new_empty(a, {g.B, g.n, g.n}, a.scalar_type());
  g.a = a.const_data_ptr();
  g.w = w.mutable_data_ptr();
  g.v = v.mutable_data_ptr();
  launch<cuda>(a, g, [](auto& s, auto pf) { structops::eigh3(s, pf); }, [](auto& s, auto ctx) { cuda::eigh3(s, ctx); });
  return {w, v};
}

template <bool cuda> Tensor eigh3_bwd(Tensor w, Tensor v, OptTensor gw, OptTensor gv) {
  Eigh3BwdArgs g{};
  describe("eigh3_bwd", "v", v, g);
  auto pointer = [&](const char* name, const Tensor& t, bool matrix) {
    const bool shaped = t.dim() == (matrix ? 3 : 2) && t.size(0) == g.B && t.size(1) == g.n && (!matrix || t.size(2) == g.n);
    STRUCTOPS_CHECK(shaped && t.is_contiguous() && t.scalar_type() == v.scalar_type(), "eigh3_bwd: ", name,
                    " must be contiguous, of the shape and dtype that go with v");
    return t.const_data_ptr();
  };
  g.w = pointer("w", w, false);
  g.v = v.const_data_ptr();
  if (gw) g.gw = pointer("gw", *gw, false);
  if (gv) g.gv = pointer("gv", *gv, true);
  Tensor ga = new_empty(v, {g.B, g.n, g.n}, v.scalar_type());
  g.ga = ga.mutable_data_ptr();
  launch<cuda>(v, g, [](auto& s, auto pf) { structops::eigh3_bwd(s, pf); }, [](auto& s, auto ctx) { cuda::eigh3_bwd(s, ctx); });
  return ga;
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("eigh3", TORCH_BOX(&eigh3<cuda>));
  m.impl("eigh3_bwd", TORCH_BOX(&eigh3_bwd<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
