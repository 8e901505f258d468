// Registration of eigen-decompositions: check, allocate, launch. One body serves both devices.
#include "so2/cuda.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

template <bool cuda> std::tuple<Tensor, Tensor> eigh3(Tensor a) {
  STRUCTOPS_CHECK(a.dim() == 3 && a.size(1) == a.size(2) && (a.size(1) == 2 || a.size(1) == 3) && a.is_contiguous(),
                  "eigh3: a must be a contiguous [B, n, n], n = 2 or 3");
  Eigh3Args g{};
  g.dtype = dtype_of(a);
  STRUCTOPS_CHECK(g.dtype == Dtype::f32 || g.dtype == Dtype::f64, "eigh3: float32 and float64 only");
  g.n = int(a.size(1));
  g.B = a.size(0);
  Tensor w = new_empty(a, {g.B, g.n}, a.scalar_type()), v = new_empty(a, {g.B, g.n, g.n}, a.scalar_type());
  g.a = a.const_data_ptr();
  g.w = w.mutable_data_ptr();
  g.v = v.mutable_data_ptr();
  launch<cuda>(a, g, [](auto& s, auto pf) { structops::eigh3(s, pf); }, [](auto& s, auto ctx) { cuda::eigh3(s, ctx); });
  return {w, v};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { m.impl("eigh3", TORCH_BOX(&eigh3<false>)); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { m.impl("eigh3", TORCH_BOX(&eigh3<true>)); }

}  // namespace structops::torch_layer
