// Registration of spherical harmonics and tensor products: check, allocate, launch. One body serves both devices.
#include "so2/cuda.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

using Pair = std::tuple<Tensor, Tensor>;
using Sizes = std::vector<int64_t>;

// ---- tensor products ----------------------------------------------------------------------------------------------

const void* rows(const char* op, const char* name, const Tensor& t, const Tensor& like, int64_t count, int64_t columns) {
  STRUCTOPS_CHECK(t.dim() == 2 && t.size(1) == columns && (count < 0 || t.size(0) == count) && t.is_contiguous() &&
                    t.scalar_type() == like.scalar_type(),
                  op, ": ", name, " must be contiguous, of the dtype of x, with ", columns, " columns");
  return t.const_data_ptr();
}

TpArgs tp_args(const char* op, const Tensor& x, bool transpose, const Tensor& y, const OptTensor& w, const OptTensor& rowptr,
               const OptTensor& col, const OptTensor& eid, const Tensor& plan, const Tensor& cg, const Sizes& sizes) {
  TpArgs a{};
  a.dtype = dtype_of(x);
  STRUCTOPS_CHECK(is_floating(a.dtype), op, ": floating dtypes only");
  STRUCTOPS_CHECK(sizes.size() == kTpHeader, op, ": sizes must have ", int(kTpHeader), " entries");
  STRUCTOPS_CHECK(plan.dim() == 1 && plan.scalar_type() == ScalarType::Int && plan.is_contiguous() && plan.size(0) == sizes[tp_size] &&
                    plan.size(0) >= kTpHeader, op, ": plan must be a contiguous int32 [sizes[-1]]");
  a.plan.data = static_cast<const int32_t*>(plan.const_data_ptr());
  if (x.is_cpu())
    for (int i = 0; i < kTpHeader; ++i) STRUCTOPS_CHECK(a.plan.at(i) == sizes[i], op, ": sizes are not those of plan");
  a.nx = sizes[tp_nx];
  a.no = sizes[tp_no];
  a.paths = sizes[tp_paths];
  a.pairs = sizes[tp_pairs];
  a.entries = sizes[tp_entries];
  a.xdim = sizes[tp_xdim];
  a.ydim = sizes[tp_ydim];
  a.odim = sizes[tp_odim];
  a.wdim = sizes[tp_wdim];
  a.plan_size = sizes[tp_size];
  STRUCTOPS_CHECK(cg.dim() == 1 && cg.scalar_type() == ScalarType::Double && cg.is_contiguous() && cg.size(0) == a.entries,
                  op, ": cg must be a contiguous float64 [entries]");
  a.cg = static_cast<const double*>(cg.const_data_ptr());
  a.transpose = transpose;
  STRUCTOPS_CHECK(x.dim() == 2 && y.dim() == 2, op, ": x and y must be matrices");
  a.rows = x.size(0);
  a.E = y.size(0);
  a.x = rows(op, "x", x, x, -1, transpose ? a.odim : a.xdim);
  a.y = rows(op, "y", y, x, -1, a.ydim);
  if (w) a.w = rows(op, "w", *w, x, a.E, a.wdim);
  a.rowptr = index_of(rowptr);
  a.col = index_of(col);
  a.eid = index_of(eid);
  STRUCTOPS_CHECK(!rowptr || rowptr->size(0) >= 1, op, ": rowptr must not be empty");
  a.N = rowptr ? rowptr->size(0) - 1 : a.E;
  STRUCTOPS_CHECK((!col || col->size(0) == a.E) && (!eid || eid->size(0) == a.E), op, ": col and eid must be [E]");
  STRUCTOPS_CHECK(rowptr || !eid, op, ": without rowptr the edges are in order, eid must be absent");
  STRUCTOPS_CHECK(col || a.rows == a.E, op, ": x must have one row per edge where col is absent");
  return a;
}

template <bool cuda>
Tensor tp_conv(Tensor x, Tensor y, OptTensor w, OptTensor rowptr, OptTensor col, OptTensor eid, OptTensor, OptTensor, OptTensor,
               Tensor plan, Tensor cg, Sizes sizes, bool transpose) {
  TpArgs a = tp_args("tp_conv", x, transpose, y, w, rowptr, col, eid, plan, cg, sizes);
  Tensor out = new_empty(x, {a.N, transpose ? a.xdim : a.odim}, x.scalar_type());
  a.out = out.mutable_data_ptr();
  launch<cuda>(x, a, [](auto& s, auto pf) { structops::tp_conv(s, pf); }, [](auto& s, auto ctx) { cuda::tp_conv(s, ctx); });
  return out;
}

template <bool cuda>
Pair tp_conv_edge(Tensor x, Tensor g, Tensor y, OptTensor w, OptTensor rowptr, OptTensor col, OptTensor eid, OptTensor, OptTensor,
                  OptTensor, Tensor plan, Tensor cg, Sizes sizes, bool want_y, bool want_w) {
  TpArgs a = tp_args("tp_conv_edge", x, false, y, w, rowptr, col, eid, plan, cg, sizes);
  a.g = rows("tp_conv_edge", "g", g, x, a.N, a.odim);
  Tensor gy = want_y ? new_empty(x, {a.E, a.ydim}, x.scalar_type()) : new_empty(x, {0}, x.scalar_type());
  Tensor gw = want_w ? new_empty(x, {a.E, a.wdim}, x.scalar_type()) : new_empty(x, {0}, x.scalar_type());
  if (want_y) a.gy = gy.mutable_data_ptr();
  if (want_w) a.gw = gw.mutable_data_ptr();
  launch<cuda>(x, a, [](auto& s, auto pf) { structops::tp_conv_edge(s, pf); }, [](auto& s, auto ctx) { cuda::tp_conv_edge(s, ctx); });
  return {gy, gw};
}

// ---- spherical harmonics -------------------------------------------------------------------------------------------

SphArgs sph_args(const char* op, const Tensor& x, int64_t lmax, int64_t norm, bool normalize) {
  SphArgs a{};
  a.dtype = dtype_of(x);
  STRUCTOPS_CHECK(is_floating(a.dtype), op, ": floating dtypes only");
  STRUCTOPS_CHECK(x.dim() == 2 && x.size(1) == 3 && x.is_contiguous(), op, ": x must be a contiguous [N, 3]");
  STRUCTOPS_CHECK(lmax >= 0 && lmax <= kSphMax, op, ": lmax must lie in 0..", kSphMax, ", got ", lmax);
  STRUCTOPS_CHECK(norm >= 0 && norm <= 2, op, ": norm must lie in 0..2, got ", norm);
  a.lmax = int(lmax);
  a.norm = SphNorm(norm);
  a.normalize = normalize;
  a.N = x.size(0);
  a.x = x.const_data_ptr();
  return a;
}

template <bool cuda> Tensor spherical_harmonics(Tensor x, int64_t lmax, int64_t norm, bool normalize) {
  SphArgs a = sph_args("spherical_harmonics", x, lmax, norm, normalize);
  Tensor y = new_empty(x, {a.N, (lmax + 1) * (lmax + 1)}, x.scalar_type());
  a.y = y.mutable_data_ptr();
  launch<cuda>(x, a, [](auto& s, auto pf) { structops::spherical_harmonics(s, pf); },
               [](auto& s, auto ctx) { cuda::spherical_harmonics(s, ctx); });
  return y;
}

template <bool cuda> Tensor spherical_harmonics_bwd(Tensor x, Tensor g, int64_t lmax, int64_t norm, bool normalize) {
  SphArgs a = sph_args("spherical_harmonics_bwd", x, lmax, norm, normalize);
  a.g = rows("spherical_harmonics_bwd", "g", g, x, a.N, (lmax + 1) * (lmax + 1));
  Tensor gx = new_empty(x, {a.N, 3}, x.scalar_type());
  a.y = gx.mutable_data_ptr();
  launch<cuda>(x, a, [](auto& s, auto pf) { structops::spherical_harmonics_bwd(s, pf); },
               [](auto& s, auto ctx) { cuda::spherical_harmonics_bwd(s, ctx); });
  return gx;
}

template <bool cuda>
std::tuple<Tensor, Tensor, Tensor> spherical_harmonics_jet(Tensor x, int64_t lmax, int64_t norm, bool normalize, int64_t order) {
  SphArgs a = sph_args("spherical_harmonics_jet", x, lmax, norm, normalize);
  STRUCTOPS_CHECK(order == 1 || order == 2, "spherical_harmonics_jet: order must be 1 or 2, got ", order);
  const int64_t S = (lmax + 1) * (lmax + 1);
  Tensor y = new_empty(x, {a.N, S}, x.scalar_type());
  Tensor dy = new_empty(x, {a.N, 3, S}, x.scalar_type());
  Tensor d2y = order == 2 ? new_empty(x, {a.N, 3, 3, S}, x.scalar_type()) : new_empty(x, {0}, x.scalar_type());
  a.y = y.mutable_data_ptr();
  a.dy = dy.mutable_data_ptr();
  if (order == 2) a.d2y = d2y.mutable_data_ptr();
  launch<cuda>(x, a, [](auto& s, auto pf) { structops::spherical_harmonics_jet(s, pf); },
               [](auto& s, auto ctx) { cuda::spherical_harmonics_jet(s, ctx); });
  return {y, dy, d2y};
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("spherical_harmonics", TORCH_BOX(&spherical_harmonics<cuda>));
  m.impl("spherical_harmonics_bwd", TORCH_BOX(&spherical_harmonics_bwd<cuda>));
  m.impl("spherical_harmonics_jet", TORCH_BOX(&spherical_harmonics_jet<cuda>));
  m.impl("tp_conv", TORCH_BOX(&tp_conv<cuda>));
  m.impl("tp_conv_edge", TORCH_BOX(&tp_conv_edge<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
