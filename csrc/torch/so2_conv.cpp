// Registration of frames, Wigner matrices, SO(2) convolutions and the edge block: check, allocate, launch.
#include "so2/cuda.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

void check_degrees(const char* op, int64_t lmax, int64_t mmax) {
  STRUCTOPS_CHECK(lmax >= 0 && lmax <= kMaxL && mmax >= 0 && mmax <= lmax, op, ": expected 0 <= mmax <= lmax <= 8");
}

const void* real(const char* op, const char* name, const Tensor& t, const std::vector<int64_t>& sizes, ScalarType dtype) {
  STRUCTOPS_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, op, ": float32 or float64 only");
  bool same = t.dim() == int64_t(sizes.size()) && t.is_contiguous() && t.scalar_type() == dtype;
  for (size_t i = 0; same && i < sizes.size(); ++i) same = t.size(int64_t(i)) == sizes[i];
  STRUCTOPS_CHECK(same, op, ": ", name, " has a wrong shape, dtype or is not contiguous");
  return t.const_data_ptr();
}
const void* real(const char* op, const char* name, const OptTensor& t, const std::vector<int64_t>& sizes, ScalarType dtype) {
  return t ? real(op, name, *t, sizes, dtype) : nullptr;
}

int64_t square(int64_t lmax) { return (lmax + 1) * (lmax + 1); }

WignerArgs wigner_args(const char* op, const Tensor& t, int64_t lmax, int64_t mmax) {
  check_degrees(op, lmax, mmax < 0 ? 0 : mmax);
  STRUCTOPS_CHECK(t.dim() >= 2, op, ": operands have at least two dimensions");
  WignerArgs a{};
  a.dtype = dtype_of(t);
  a.E = t.size(0);
  a.lmax = int(lmax);
  a.mmax = int(mmax);
  a.C = t.dim() == 3 ? t.size(2) : 1;
  return a;
}

template <bool cuda, class Cpu, class Cuda>
Tensor run(const Tensor& like, WignerArgs& a, const std::vector<int64_t>& sizes, Cpu cpu_fn, Cuda cuda_fn) {
  Tensor out = new_empty(like, sizes, like.scalar_type());
  a.out = out.mutable_data_ptr();
  launch<cuda>(like, a, cpu_fn, cuda_fn);
  return out;
}

template <bool cuda>
Tensor so2_wigner(Tensor vec, OptTensor gamma, int64_t lmax, int64_t mmax) {
  WignerArgs a = wigner_args("so2_wigner", vec, lmax, mmax < 0 ? 99 : mmax);
  a.vec = real("so2_wigner", "vec", vec, {a.E, 3}, vec.scalar_type());
  a.gamma = real("so2_wigner", "gamma", gamma, {a.E}, vec.scalar_type());
  return run<cuda>(
      vec, a, {a.E, packed_size(a.lmax, a.mmax)}, [](auto& s, auto pf) { wigner_fwd(s, pf); },
      [](auto& s, auto ctx) { cuda::wigner_fwd(s, ctx); });
}

template <bool cuda>
Tensor so2_rotate(Tensor x, Tensor wigner, int64_t lmax, int64_t mmax) {
  const char* op = "so2_rotate";
  WignerArgs a = wigner_args(op, x, lmax, mmax < 0 ? 99 : mmax);
  a.x = real(op, "x", x, {a.E, square(lmax), a.C}, x.scalar_type());
  a.d = real(op, "wigner", wigner, {a.E, packed_size(a.lmax, a.mmax)}, x.scalar_type());
  return run<cuda>(
      x, a, {a.E, frame_rows(a.lmax, a.mmax), a.C}, [](auto& s, auto pf) { rotate_fwd(s, pf); },
      [](auto& s, auto ctx) { cuda::rotate_fwd(s, ctx); });
}

template <bool cuda>
Tensor so2_rotate_back(Tensor z, Tensor wigner, int64_t lmax, int64_t mmax) {
  const char* op = "so2_rotate_back";
  WignerArgs a = wigner_args(op, z, lmax, mmax < 0 ? 99 : mmax);
  a.z = real(op, "z", z, {a.E, frame_rows(a.lmax, a.mmax), a.C}, z.scalar_type());
  a.d = real(op, "wigner", wigner, {a.E, packed_size(a.lmax, a.mmax)}, z.scalar_type());
  return run<cuda>(
      z, a, {a.E, square(lmax), a.C}, [](auto& s, auto pf) { rotate_back(s, pf); },
      [](auto& s, auto ctx) { cuda::rotate_back(s, ctx); });
}

template <bool cuda>
Tensor so2_rotate_outer(Tensor z, Tensor x, int64_t lmax, int64_t mmax) {
  const char* op = "so2_rotate_outer";
  WignerArgs a = wigner_args(op, z, lmax, mmax < 0 ? 99 : mmax);
  a.z = real(op, "z", z, {a.E, frame_rows(a.lmax, a.mmax), a.C}, z.scalar_type());
  a.x = real(op, "x", x, {a.E, square(lmax), a.C}, z.scalar_type());
  return run<cuda>(
      z, a, {a.E, packed_size(a.lmax, a.mmax)}, [](auto& s, auto pf) { rotate_outer(s, pf); },
      [](auto& s, auto ctx) { cuda::rotate_outer(s, ctx); });
}

// The shape of what the generators act on.
std::vector<int64_t> acted_on(const WignerArgs& a) {
  if (a.mmax < 0) return {a.E, square(a.lmax), a.C};
  return {a.E, packed_size(a.lmax, a.mmax)};
}

template <bool cuda>
Tensor so3_turn(Tensor x, Tensor v, int64_t lmax, int64_t mmax) {
  WignerArgs a = wigner_args("so3_turn", x, lmax, mmax);
  a.x = real("so3_turn", "x", x, acted_on(a), x.scalar_type());
  a.vec = real("so3_turn", "v", v, {a.E, 3}, x.scalar_type());
  return run<cuda>(
      x, a, acted_on(a), [](auto& s, auto pf) { structops::so3_turn(s, pf); },
      [](auto& s, auto ctx) { cuda::so3_turn(s, ctx); });
}

template <bool cuda>
Tensor so3_torque(Tensor grad, Tensor x, int64_t lmax, int64_t mmax) {
  WignerArgs a = wigner_args("so3_torque", x, lmax, mmax);
  a.x = real("so3_torque", "x", x, acted_on(a), x.scalar_type());
  a.z = real("so3_torque", "grad", grad, acted_on(a), x.scalar_type());
  return run<cuda>(
      x, a, {a.E, 3}, [](auto& s, auto pf) { structops::so3_torque(s, pf); },
      [](auto& s, auto ctx) { cuda::so3_torque(s, ctx); });
}

So2Shape conv_shape(const char* op, int64_t lmax, int64_t mmax, int64_t Cin, int64_t Cout, int64_t extra) {
  check_degrees(op, lmax, mmax);
  STRUCTOPS_CHECK(Cin >= 0 && Cout >= 0 && extra >= 0 && Cin < (1 << 24) && Cout < (1 << 24) && extra < (1 << 28), op,
                  ": channels out of range");
  return {int(lmax), int(mmax), Cin, Cout, extra};
}

template <bool cuda>
Tensor so2_conv(Tensor x, Tensor weight, OptTensor bias, int64_t lmax, int64_t mmax, int64_t in_channels, int64_t out_channels,
                int64_t extra, bool transpose, bool three) {
  const char* op = "so2_conv";
  So2ConvArgs a{};
  a.shape = conv_shape(op, lmax, mmax, in_channels, out_channels, extra);
  STRUCTOPS_CHECK(x.dim() == 2, op, ": x must be [E, n]");
  STRUCTOPS_CHECK(!transpose || !bias, op, ": the transpose has no bias");
  a.dtype = dtype_of(x);
  a.E = x.size(0);
  a.transpose = transpose;
  a.three = three;
  a.x = real(op, "x", x, {a.E, transpose ? a.shape.out() : a.shape.in()}, x.scalar_type());
  a.w = real(op, "weight", weight, {a.shape.weights()}, x.scalar_type());
  a.bias = real(op, "bias", bias, {a.shape.N(0)}, x.scalar_type());
  Tensor out = new_empty(x, {a.E, transpose ? a.shape.in() : a.shape.out()}, x.scalar_type());
  a.out = out.mutable_data_ptr();
  launch<cuda>(x, a, [](auto& s, auto pf) { so2_conv_fwd(s, pf); }, [](auto& s, auto ctx) { cuda::so2_conv_fwd(s, ctx); });
  return out;
}

template <bool cuda>
Tensor so2_conv_wgrad(Tensor x, Tensor grad, int64_t lmax, int64_t mmax, int64_t in_channels, int64_t out_channels,
                      int64_t extra) {
  const char* op = "so2_conv_wgrad";
  So2ConvArgs a{};
  a.shape = conv_shape(op, lmax, mmax, in_channels, out_channels, extra);
  STRUCTOPS_CHECK(x.dim() == 2, op, ": x must be [E, n]");
  a.dtype = dtype_of(x);
  a.E = x.size(0);
  a.x = real(op, "x", x, {a.E, a.shape.in()}, x.scalar_type());
  a.g = real(op, "grad", grad, {a.E, a.shape.out()}, x.scalar_type());
  Tensor out = new_empty(x, {a.shape.weights()}, x.scalar_type());
  a.out = out.mutable_data_ptr();
  launch<cuda>(
      x, a, [](auto& s, auto pf) { structops::so2_conv_wgrad(s, pf); },
      [](auto& s, auto ctx) { cuda::so2_conv_wgrad(s, ctx); });
  return out;
}

EdgeBlockArgs block_args(const char* op, const Tensor& x, const Tensor& vec, const OptTensor& radial, const OptTensor& wr,
                         const OptTensor& br, const OptTensor& env, const Tensor& w1, const Tensor& b1, const Tensor& w2,
                         const Tensor& b2, const Tensor& rowptr, const Tensor& col, const OptTensor& eid, int64_t lmax,
                         int64_t mmax, int64_t hidden, bool three) {
  check_degrees(op, lmax, mmax);
  STRUCTOPS_CHECK(x.dim() == 3 && rowptr.dim() == 1 && col.dim() == 1 && rowptr.size(0) == x.size(0) + 1 && hidden >= 0 &&
                      hidden < (1 << 24) && x.size(2) < (1 << 24),
                  op, ": x must be [N, S, C], rowptr [N + 1], col [E]");
  EdgeBlockArgs a{};
  const ScalarType t = x.scalar_type();
  a.dtype = dtype_of(x);
  a.N = x.size(0);
  a.E = col.size(0);
  a.C = x.size(2);
  a.H = hidden;
  a.lmax = int(lmax);
  a.mmax = int(mmax);
  a.three = three;
  a.x = real(op, "x", x, {a.N, a.S(), a.C}, t);
  a.vec = real(op, "vec", vec, {a.E, 3}, t);
  STRUCTOPS_CHECK(radial || (!wr && !br), op, ": radial_weight goes with radial");
  STRUCTOPS_CHECK(wr || !br, op, ": radial_bias goes with radial_weight");
  a.Kr = radial && wr && radial->dim() == 2 ? radial->size(1) : a.scales();
  a.radial = real(op, "radial", radial, {a.E, a.Kr}, t);
  a.wr = real(op, "radial_weight", wr, {a.scales(), a.Kr}, t);
  a.br = real(op, "radial_bias", br, {a.scales()}, t);
  a.env = real(op, "envelope", env, {a.E}, t);
  a.w1 = real(op, "weight1", w1, {a.conv1().weights()}, t);
  a.b1 = real(op, "bias1", b1, {a.conv1().N(0)}, t);
  a.w2 = real(op, "weight2", w2, {a.conv2().weights()}, t);
  a.b2 = real(op, "bias2", b2, {a.conv2().N(0)}, t);
  a.rowptr = index_of(rowptr);
  a.col = index_of(col);
  a.eid = index_of(eid);
  STRUCTOPS_CHECK(a.col.wide == a.rowptr.wide && (!a.eid || a.eid.wide == a.rowptr.wide), op, ": mixed index dtypes");
  STRUCTOPS_CHECK(!eid || eid->numel() == a.E, op, ": eid must be [E]");
  return a;
}

using Triple = std::tuple<Tensor, Tensor, Tensor>;
using Ten = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <bool cuda>
Triple edge_block(Tensor x, Tensor vec, OptTensor radial, OptTensor wr, OptTensor br, OptTensor env, Tensor w1, Tensor b1,
                  Tensor w2, Tensor b2, Tensor rowptr, Tensor col, OptTensor eid, int64_t lmax, int64_t mmax, int64_t hidden,
                  bool three, bool keep) {
  EdgeBlockArgs a =
      block_args("edge_block", x, vec, radial, wr, br, env, w1, b1, w2, b2, rowptr, col, eid, lmax, mmax, hidden, three);
  Tensor out = new_empty(x, {a.N, a.S(), a.C}, x.scalar_type());
  Tensor pre = new_empty(x, {keep ? a.E : 0, keep ? a.conv1().out() : 0}, x.scalar_type());
  Tensor mid = new_empty(x, {keep ? a.E : 0, keep ? a.conv2().out() : 0}, x.scalar_type());
  a.out = out.mutable_data_ptr();
  if (keep) {
    a.pre = pre.mutable_data_ptr();
    a.mid = mid.mutable_data_ptr();
  }
  launch<cuda>(x, a, [](auto& s, auto pf) { edge_block_fwd(s, pf); }, [](auto& s, auto ctx) { cuda::edge_block_fwd(s, ctx); });
  return {out, pre, mid};
}

template <bool cuda>
Ten edge_block_bwd(Tensor grad, Tensor x, Tensor vec, OptTensor radial, OptTensor wr, OptTensor br, OptTensor env, Tensor w1,
                   Tensor b1, Tensor w2, Tensor b2, Tensor rowptr, Tensor col, OptTensor eid, OptTensor pre, OptTensor mid,
                   int64_t lmax, int64_t mmax, int64_t hidden, bool three, int64_t wanted) {
  const char* op = "edge_block_bwd";
  EdgeBlockArgs a = block_args(op, x, vec, radial, wr, br, env, w1, b1, w2, b2, rowptr, col, eid, lmax, mmax, hidden, three);
  a.grad = real(op, "grad", grad, {a.N, a.S(), a.C}, x.scalar_type());
  if (pre && pre->numel()) a.pre = const_cast<void*>(real(op, "pre", *pre, {a.E, a.conv1().out()}, x.scalar_type()));
  if (mid && mid->numel()) a.mid = const_cast<void*>(real(op, "mid", *mid, {a.E, a.conv2().out()}, x.scalar_type()));
  const auto like = [&](const OptTensor& t, bool want, void** at) {
    std::vector<int64_t> sizes(want && t ? size_t(t->dim()) : 1, 0);
    if (want && t)
      for (int64_t i = 0; i < t->dim(); ++i) sizes[size_t(i)] = t->size(i);
    Tensor out = new_empty(x, sizes, x.scalar_type());
    if (want && t) *at = out.mutable_data_ptr();
    return out;
  };
  const bool nodes = wanted & 1, weights = wanted & 8;
  Tensor d_x = like(x, nodes, &a.d_x), d_vec = like(vec, nodes, &a.d_vec), d_radial = like(radial, wanted & 2, &a.d_radial);
  Tensor d_wr = like(wr, weights, &a.d_wr), d_br = like(br, weights, &a.d_br), d_env = like(env, wanted & 4, &a.d_env);
  Tensor d_w1 = like(w1, weights, &a.d_w1), d_b1 = like(b1, weights, &a.d_b1);
  Tensor d_w2 = like(w2, weights, &a.d_w2), d_b2 = like(b2, weights, &a.d_b2);
  launch<cuda>(
      x, a, [](auto& s, auto pf) { structops::edge_block_bwd(s, pf); },
      [](auto& s, auto ctx) { cuda::edge_block_bwd(s, ctx); });
  return {d_x, d_vec, d_radial, d_wr, d_br, d_env, d_w1, d_b1, d_w2, d_b2};
}

template <bool cuda>
void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("so2_wigner", TORCH_BOX(&so2_wigner<cuda>));
  m.impl("so2_rotate", TORCH_BOX(&so2_rotate<cuda>));
  m.impl("so2_rotate_back", TORCH_BOX(&so2_rotate_back<cuda>));
  m.impl("so2_rotate_outer", TORCH_BOX(&so2_rotate_outer<cuda>));
  m.impl("so3_turn", TORCH_BOX(&so3_turn<cuda>));
  m.impl("so3_torque", TORCH_BOX(&so3_torque<cuda>));
  m.impl("so2_conv", TORCH_BOX(&so2_conv<cuda>));
  m.impl("so2_conv_wgrad", TORCH_BOX(&so2_conv_wgrad<cuda>));
  m.impl("edge_block", TORCH_BOX(&edge_block<cuda>));
  m.impl("edge_block_bwd", TORCH_BOX(&edge_block_bwd<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
