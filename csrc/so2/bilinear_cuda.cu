// CUDA sparse bilinear maps: launch. The contract is bilinear.h.
#include "so2/bilinear.cuh"
#include "so2/cuda.h"

namespace structops::cuda {

void sparse_bilinear(const BilinearArgs& a, const CudaContext& ctx) {
  constexpr const char* op = "sparse_bilinear";
  if (a.C <= 0 || a.R <= 0 || (a.N <= 0 && !a.total)) return;
  BilinearParams p{};
  p.N = a.N;
  p.C = a.C;
  p.a_row = a.a_rows == 1 ? 0 : a.A * a.C;
  p.b_row = a.b_rows == 1 ? 0 : a.B * a.C;
  p.out_row = a.R * a.C;
  p.a_channel = a.components_last ? a.A : 1;
  p.b_channel = a.components_last ? a.B : 1;
  p.out_channel = a.components_last ? a.R : 1;
  p.a_component = p.b_component = p.out_component = a.components_last ? 1 : a.C;
  p.R = int(a.R);
  p.row_ptr = a.lists;
  p.pairs = a.lists + a.R + 1;
  p.b_list = p.pairs + 2 * a.pairs;
  p.coef = a.coef;
  p.a = a.a;
  p.b = a.b;
  p.out = a.out;
  with_float(op, a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    const int64_t jobs = a.total ? a.R * a.C : a.N * a.C;
    launch(op, ctx, a.total ? bilinear_total_kernel<T> : bilinear_kernel<T>, dim3(blocks_for(jobs, 128)), 128, p);
  });
}

}  // namespace structops::cuda
