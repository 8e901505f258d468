// Registration of the quantizers: check, allocate, launch. One body serves both devices.
#include "binary/quantize_cuda.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {


// [C] of the accumulator's dtype, or null.
const void* vector(const char* op, const OptTensor& v, const Tensor& like, int64_t C) {
  if (!v) return nullptr;
  STRUCTOPS_CHECK(v->dim() == 1 && v->size(0) == C && v->is_contiguous() && v->scalar_type() == accumulator(like), op,
                  ": vectors must be contiguous [", C, "] tensors of the accumulator's dtype");
  return v->const_data_ptr();
}

void check_layout(const char* op, const Tensor& x, int64_t C, int64_t inner) {
  STRUCTOPS_CHECK(x.is_contiguous(), op, ": tensors must be contiguous");
  STRUCTOPS_CHECK(is_floating(dtype_of(x)), op, ": floating dtypes only");
  STRUCTOPS_CHECK(C >= 1 && inner >= 1 && C <= (int64_t(1) << 40) / inner && x.numel() % (C * inner) == 0, op,
                  ": numel must be a multiple of channels * inner");
}

QuantizeArgs arguments(const char* op, const Tensor& like, const OptTensor& shift, const OptTensor& gain, const OptTensor& scale,
                       const OptTensor& extra, int64_t C, int64_t inner, int64_t forward, int64_t slope, double zero, double t,
                       double p, double q, int64_t terms, int64_t code_bits, bool save_sign) {
  check_layout(op, like, C, inner);
  STRUCTOPS_CHECK(forward >= 0 && forward < int64_t(Forward::count) && slope >= 0 && slope < int64_t(Slope::count), op, ": unknown code");
  STRUCTOPS_CHECK(code_bits == 0 || code_bits == 1 || code_bits == 2 || code_bits == 4 || code_bits == 8, op, ": code_bits must be 0, 1, 2, 4 or 8");
  STRUCTOPS_CHECK(terms >= 0 && terms < (1 << 20), op, ": terms out of range");
  QuantizeArgs a{};
  a.dtype = dtype_of(like);
  a.forward = Forward(forward);
  a.slope = Slope(slope);
  STRUCTOPS_CHECK(code_bits != 1 || !changes_sign(a.slope), op, ": a slope that changes sign needs 2 or more bits");
  const bool binary = a.forward == Forward::sign || a.forward == Forward::heaviside || a.forward == Forward::square;
  STRUCTOPS_CHECK(!save_sign || binary, op, ": save_sign is for sign, heaviside and square");
  a.numel = like.numel(); a.C = C; a.inner = inner;
  a.zero = zero; a.t = t; a.p = p; a.q = q;
  a.terms = terms;
  a.code_bits = int(code_bits);
  a.save_sign = save_sign;
  a.shift = vector(op, shift, like, C);
  a.gain = vector(op, gain, like, C);
  a.scale = vector(op, scale, like, C);
  a.extra = vector(op, extra, like, C);
  return a;
}

int64_t all_code_bytes(const QuantizeArgs& a) { return code_bytes(a.numel, a.code_bits) + (a.save_sign ? code_bytes(a.numel, 1) : 0); }

std::vector<int64_t> sizes_of(const Tensor& t) {
  std::vector<int64_t> s(size_t(t.dim()));
  for (size_t i = 0; i < s.size(); ++i) s[i] = t.size(int64_t(i));
  return s;
}

template <bool cuda>
std::tuple<Tensor, Tensor> quantize(Tensor x, OptTensor shift, OptTensor gain, OptTensor scale, OptTensor extra, int64_t channels,
                                    int64_t inner, int64_t forward, int64_t slope, double zero, double t, double p, double q,
                                    int64_t terms, int64_t code_bits, bool save_sign, bool, bool) {
  QuantizeArgs a = arguments("quantize", x, shift, gain, scale, extra, channels, inner, forward, slope, zero, t, p, q, terms, code_bits, save_sign);
  Tensor out = new_empty(x, sizes_of(x), x.scalar_type()), codes = new_empty(x, {all_code_bytes(a)}, ScalarType::Byte);
  a.x = x.const_data_ptr();
  a.out = out.mutable_data_ptr();
  a.codes = static_cast<uint8_t*>(codes.mutable_data_ptr());
  launch<cuda>(x, a, [](auto& s, auto pf) { quantize_fwd(s, pf); }, [](auto& s, auto ctx) { cuda::quantize_fwd(s, ctx); });
  return {out, codes};
}

template <bool cuda>
std::tuple<Tensor, Tensor, Tensor, Tensor>
quantize_bwd(Tensor grad, OptTensor x, OptTensor codes, OptTensor shift, OptTensor gain, OptTensor scale, OptTensor extra, int64_t channels,
             int64_t inner, int64_t forward, int64_t slope, double zero, double t, double p, double q, int64_t terms, int64_t code_bits,
             bool save_sign, bool scaled, bool learned_step, bool want_shift, bool want_scale, bool want_extra) {
  QuantizeArgs a = arguments("quantize_bwd", grad, shift, gain, scale, extra, channels, inner, forward, slope, zero, t, p, q, terms, code_bits, save_sign);
  STRUCTOPS_CHECK(!x || (x->is_contiguous() && x->scalar_type() == grad.scalar_type() && x->numel() == grad.numel()),
                  "quantize_bwd: x must match grad");
  STRUCTOPS_CHECK(!(a.code_bits || save_sign) || (codes && codes->scalar_type() == ScalarType::Byte && codes->is_contiguous() &&
                                                  codes->numel() == all_code_bytes(a)),
                  "quantize_bwd: codes must be the bytes that quantize gave");
  STRUCTOPS_CHECK(!(want_scale && a.forward == Forward::tanh_levels), "quantize_bwd: the scale of tanh_levels is a constant");
  const bool scale_reads_x = want_scale && (!save_sign || learned_step);
  const bool slope_reads_x = a.code_bits == 0 && a.slope != Slope::identity;
  STRUCTOPS_CHECK(x || !(scale_reads_x || slope_reads_x), "quantize_bwd: x is missing");
  a.x = x ? x->const_data_ptr() : nullptr;
  a.grad = grad.const_data_ptr();
  a.codes_in = codes ? static_cast<const uint8_t*>(codes->const_data_ptr()) : nullptr;
  a.scaled = scaled;
  a.learned_step = learned_step;
  Tensor out = new_empty(grad, sizes_of(grad), grad.scalar_type());
  a.out = out.mutable_data_ptr();
  const auto vec = [&](bool want) { return new_empty(grad, {want ? channels : 0}, accumulator(grad)); };
  Tensor ds = vec(want_shift), dc = vec(want_scale), de = vec(want_extra);
  a.d_shift = want_shift ? ds.mutable_data_ptr() : nullptr;
  a.d_scale = want_scale ? dc.mutable_data_ptr() : nullptr;
  a.d_extra = want_extra ? de.mutable_data_ptr() : nullptr;
  launch<cuda>(grad, a, [](auto& s, auto pf) { structops::quantize_bwd(s, pf); }, [](auto& s, auto ctx) { cuda::quantize_bwd(s, ctx); });
  return {out, ds, dc, de};
}

template <bool cuda> Tensor channel_stats(Tensor x, OptTensor y, OptTensor shift, int64_t channels, int64_t inner) {
  check_layout("channel_stats", x, channels, inner);
  STRUCTOPS_CHECK(!y || (y->is_contiguous() && y->scalar_type() == x.scalar_type() && y->numel() == x.numel()), "channel_stats: y must match x");
  ChannelStatsArgs a{};
  a.dtype = dtype_of(x);
  a.numel = x.numel(); a.C = channels; a.inner = inner;
  a.x = x.const_data_ptr();
  a.y = y ? y->const_data_ptr() : nullptr;
  a.shift = vector("channel_stats", shift, x, channels);
  Tensor out = new_empty(x, {5, channels}, accumulator(x));
  a.out = out.mutable_data_ptr();
  launch<cuda>(x, a, [](auto& s, auto pf) { structops::channel_stats(s, pf); }, [](auto& s, auto ctx) { cuda::channel_stats(s, ctx); });
  return out;
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("quantize", TORCH_BOX(&quantize<cuda>));
  m.impl("quantize_bwd", TORCH_BOX(&quantize_bwd<cuda>));
  m.impl("channel_stats", TORCH_BOX(&channel_stats<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
