// Registration of the binary family: check, allocate, launch. One body serves both devices.
#include "binary/cuda.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

using Ints = std::vector<int64_t>;

const uint64_t* words_in(const char* op, const Tensor& t, const char* name) {
  STRUCTOPS_CHECK(t.scalar_type() == ScalarType::Long && t.is_contiguous(), op, ": ", name, " must be contiguous int64 words");
  return static_cast<const uint64_t*>(t.const_data_ptr());
}

template <bool cuda> Tensor bits_pack(Tensor x, OptTensor shift, int64_t test, double limit, bool invert) {
  BitsPackArgs a{};
  a.dtype = dtype_of(x);
  STRUCTOPS_CHECK(test >= 0 && test <= 3, "bits_pack: unknown test");
  STRUCTOPS_CHECK((x.dim() == 2 || x.dim() == 3) && x.is_contiguous(), "bits_pack: x must be a contiguous [A, K] or [A, K, S]");
  a.test = BitTest(test);
  a.limit = limit;
  a.invert = invert;
  a.A = x.size(0);
  a.K = x.size(1);
  a.S = x.dim() == 3 ? x.size(2) : 1;
  a.x = x.const_data_ptr();
  if (shift) {
    STRUCTOPS_CHECK(is_floating(a.dtype) && shift->dim() == 1 && shift->size(0) == a.K && shift->scalar_type() == x.scalar_type() &&
                      shift->is_contiguous(), "bits_pack: shift must be a contiguous [K] of the floating dtype of x");
    a.shift = shift->const_data_ptr();
  }
  const int64_t Wd = words_of(a.K);
  Tensor out = new_empty(x, x.dim() == 3 ? Ints{a.A, a.S, Wd} : Ints{a.A, Wd}, ScalarType::Long);
  a.words = static_cast<uint64_t*>(out.mutable_data_ptr());
  if (a.A * a.S * Wd > 0)
    launch<cuda>(x, a, [](auto& s, auto pf) { structops::bits_pack(s, pf); }, [](auto& s, auto ctx) { cuda::bits_pack(s, ctx); });
  return out;
}

ScalarType scalar_of(int64_t code) {
  constexpr ScalarType types[] = {ScalarType::Float, ScalarType::Double, ScalarType::BFloat16, ScalarType::Half, ScalarType::Int, ScalarType::Long};
  STRUCTOPS_CHECK(code >= 0 && code < 6, "bits_unpack: unknown dtype");
  return types[code];
}

template <bool cuda> Tensor bits_unpack(Tensor words, int64_t K, int64_t dtype, double zero, double one) {
  BitsUnpackArgs a{};
  a.words = words_in("bits_unpack", words, "words");
  STRUCTOPS_CHECK((words.dim() == 2 || words.dim() == 3) && K >= 0 && words.size(words.dim() - 1) == words_of(K),
                  "bits_unpack: words must be [A, W] or [A, S, W] with W = ceil(K / 64)");
  a.dtype = Dtype(dtype);
  a.zero = zero;
  a.one = one;
  a.A = words.size(0);
  a.K = K;
  a.S = words.dim() == 3 ? words.size(1) : 1;
  Tensor out = new_empty(words, words.dim() == 3 ? Ints{a.A, K, a.S} : Ints{a.A, K}, scalar_of(dtype));
  a.out = out.mutable_data_ptr();
  if (a.A * a.S * K > 0)
    launch<cuda>(words, a, [](auto& s, auto pf) { structops::bits_unpack(s, pf); }, [](auto& s, auto ctx) { cuda::bits_unpack(s, ctx); });
  return out;
}

template <bool cuda> Tensor bits_count(Tensor x, OptTensor y, int64_t op) {
  BitsCountArgs a{};
  STRUCTOPS_CHECK(op >= 0 && op <= 2 && (op == 0 || y), "bits_count: unknown op, or b is missing");
  STRUCTOPS_CHECK(x.dim() == 2 && (op == 0 || (y->dim() == 2 && y->size(0) == x.size(0) && y->size(1) == x.size(1))), "bits_count: operands must be [R, W]");
  a.op = BitCount(op);
  a.R = x.size(0);
  a.W = x.size(1);
  a.a = words_in("bits_count", x, "a");
  a.b = op ? words_in("bits_count", *y, "b") : nullptr;
  Tensor out = new_empty(x, {a.R}, ScalarType::Int);
  a.out = static_cast<int32_t*>(out.mutable_data_ptr());
  if (a.R > 0)
    launch<cuda>(x, a, [](auto& s, auto pf) { structops::bits_count(s, pf); }, [](auto& s, auto ctx) { cuda::bits_count(s, ctx); });
  return out;
}

template <bool cuda> Tensor bits_panels(Tensor words) {
  BitsPanelsArgs a{};
  STRUCTOPS_CHECK(words.dim() == 3, "bits_panels: words must be [P, N, W]");
  a.words = words_in("bits_panels", words, "words");
  a.P = words.size(0);
  a.N = words.size(1);
  a.W = words.size(2);
  Tensor out = new_empty(words, {a.P, panels_of(a.N), 2 * a.W, kPanelRows}, ScalarType::Int);
  a.panels = static_cast<uint32_t*>(out.mutable_data_ptr());
  if (out.numel() > 0)
    launch<cuda>(words, a, [](auto& s, auto pf) { structops::bits_panels(s, pf); }, [](auto& s, auto ctx) { cuda::bits_panels(s, ctx); });
  return out;
}

const uint32_t* panels_in(const char* op, const OptTensor& t, int64_t P, int64_t N, int64_t Wd) {
  if (!t) return nullptr;
  STRUCTOPS_CHECK(t->dim() == 4 && t->size(0) == P && t->size(1) == panels_of(N) && t->size(2) == 2 * Wd && t->size(3) == kPanelRows &&
                    t->scalar_type() == ScalarType::Int && t->is_contiguous(), op, ": panels are not those of the words");
  return static_cast<const uint32_t*>(t->const_data_ptr());
}

// ---- epilogue ------------------------------------------------------------------------------------------------------
struct Epilogue {
  const OptTensor &scale, &bias, &residual, &prelu, &shift, &threshold;
  int64_t out;
};

template <class T> const T* column(const char* op, const char* name, const OptTensor& t, int64_t rows, int64_t N, ScalarType type) {
  if (!t) return nullptr;
  const bool shaped = rows == 1 ? t->dim() == 1 && t->size(0) == N : t->dim() == 2 && t->size(0) == rows && t->size(1) == N;
  STRUCTOPS_CHECK(shaped && t->scalar_type() == type && t->is_contiguous(), op, ": ", name, " has a wrong shape or dtype");
  return static_cast<const T*>(t->const_data_ptr());
}

// Fills a.e and allocates the result: lead dimensions and N columns, or words of them.
Tensor set_epilogue(const char* op, BitsGemmArgs& a, const Epilogue& e, const Tensor& like, Ints sizes, int64_t N) {
  STRUCTOPS_CHECK(e.out >= 0 && e.out <= 4, op, ": unknown out");
  BitsEpilogue& p = a.e;
  p.out = BitsOut(e.out);
  const bool bits = p.out == BitsOut::bits;
  p.scale = column<float>(op, "scale", e.scale, 1, N, ScalarType::Float);
  p.bias = column<float>(op, "bias", e.bias, 1, N, ScalarType::Float);
  p.shift = column<float>(op, "shift", e.shift, 1, N, ScalarType::Float);
  if (const float* const prelu = column<float>(op, "prelu", e.prelu, 3, N, ScalarType::Float)) {
    p.gamma = prelu;
    p.slope = prelu + N;
    p.zeta = prelu + 2 * N;
  }
  if (const int32_t* const t = column<int32_t>(op, "threshold", e.threshold, 2, N, ScalarType::Int)) {
    p.threshold = t;
    p.flip = t + N;
  }
  const bool real = p.scale || p.bias || p.slope || e.residual;
  STRUCTOPS_CHECK((!p.threshold || (bits && !real && !p.shift)) && (!p.shift || bits) && (p.out != BitsOut::i32 || !real),
                  op, ": integers take no real epilogue, a threshold is all of its epilogue, threshold and shift give bits");
  Ints full = sizes;
  full.push_back(N);
  if (e.residual) {
    const Dtype t = dtype_of(*e.residual);
    STRUCTOPS_CHECK((t == Dtype::f32 || t == Dtype::bf16 || t == Dtype::f16) && e.residual->is_contiguous() && e.residual->dim() == int64_t(full.size()),
                    op, ": residual must be contiguous float32, bfloat16 or float16, shaped as the result");
    for (size_t i = 0; i < full.size(); ++i) STRUCTOPS_CHECK(e.residual->size(int64_t(i)) == full[i], op, ": residual must be shaped as the result");
    p.residual_dtype = t;
    p.residual = e.residual->const_data_ptr();
  }
  constexpr ScalarType types[] = {ScalarType::Int, ScalarType::Float, ScalarType::BFloat16, ScalarType::Half, ScalarType::Long};
  sizes.push_back(bits ? words_of(N) : N);
  Tensor out = new_empty(like, sizes, types[e.out]);
  p.data = out.mutable_data_ptr();
  return out;
}

template <bool cuda> void run_gemm(const Tensor& like, const BitsGemmArgs& a) {
  launch<cuda>(like, a, [](auto& s, auto pf) { structops::bits_gemm(s, pf); }, [](auto& s, auto ctx) { cuda::bits_gemm(s, ctx); });
}

template <bool cuda>
Tensor bits_gemm(Tensor x, Tensor y, OptTensor panels, int64_t K, Ints coef, Ints col, int64_t row, int64_t base, bool halve, OptTensor scale,
                 OptTensor bias, OptTensor residual, OptTensor prelu, OptTensor shift, OptTensor threshold, int64_t out_code) {
  BitsGemmArgs a{};
  a.batched = x.dim() == 3;
  STRUCTOPS_CHECK(a.batched ? y.dim() == 4 && y.size(1) == x.size(0) : x.dim() == 2 && y.dim() == 3,
                  "bits_gemm: a [M, W] takes b [P, N, W], a [G, M, W] takes b [P, G, N, W]");
  const int64_t Wd = words_of(K);
  a.G = a.batched ? x.size(0) : 1;
  a.M = x.size(x.dim() - 2);
  a.P = y.size(0);
  a.N = y.size(y.dim() - 2);
  a.K = K;
  STRUCTOPS_CHECK(K >= 0 && K < (int64_t(1) << 31) && x.size(x.dim() - 1) == Wd && y.size(y.dim() - 1) == Wd,
                  "bits_gemm: rows must be ceil(K / 64) words, 0 <= K < 2^31");
  STRUCTOPS_CHECK(a.P >= 1 && a.P <= kMaxPlanes && int64_t(coef.size()) == a.P && int64_t(col.size()) == a.P,
                  "bits_gemm: one coef and one col a plane, at most ", kMaxPlanes);
  for (int64_t p = 0; p < a.P; ++p) {
    a.coef[p] = int32_t(coef[size_t(p)]);
    a.col[p] = int32_t(col[size_t(p)]);
  }
  a.row = int32_t(row);
  a.base = int32_t(base);
  a.halve = halve;
  a.a = words_in("bits_gemm", x, "a");
  a.b = words_in("bits_gemm", y, "b");
  a.panels = panels_in("bits_gemm", panels, a.P * a.G, a.N, Wd);
  Tensor out = set_epilogue("bits_gemm", a, {scale, bias, residual, prelu, shift, threshold, out_code}, x,
                            a.batched ? Ints{a.G, a.M} : Ints{a.M}, a.N);
  if (out.numel() > 0) run_gemm<cuda>(x, a);
  return out;
}

template <bool cuda>
Tensor bits_conv(Tensor x, Tensor w, OptTensor panels, OptTensor taps, int64_t channels, int64_t groups, Ints window, int64_t pad, bool negate,
                 OptTensor scale, OptTensor bias, OptTensor residual, OptTensor prelu, OptTensor shift, OptTensor threshold, int64_t out_code) {
  BitsGemmArgs a{};
  STRUCTOPS_CHECK(x.dim() == 4 && w.dim() == 2 && window.size() == 10, "bits_conv: x must be [B, H, W, words], w [O, words], window 10 numbers");
  STRUCTOPS_CHECK(groups >= 1 && channels >= 1 && channels % groups == 0 && w.size(0) % groups == 0, "bits_conv: groups must divide the channels");
  BitsWindow& v = a.win;
  v = {x.size(1), x.size(2), window[8], window[9], window[0], window[1], window[2], window[3], window[4], window[5], window[6], window[7], BitsPad(pad)};
  STRUCTOPS_CHECK(pad >= 0 && pad <= 2, "bits_conv: unknown pad");
  for (const int64_t n : {v.kh, v.kw, v.sh, v.sw, v.dh, v.dw}) STRUCTOPS_CHECK(n >= 1 && n < (int64_t(1) << 31), "bits_conv: window sizes must be at least 1");
  for (const int64_t n : {v.ph, v.pw, v.OH, v.OW}) STRUCTOPS_CHECK(n >= 0 && n < (int64_t(1) << 31), "bits_conv: window sizes must not be negative");
  STRUCTOPS_CHECK(v.kh < (1 << 15) && v.kw < (1 << 15) && channels < (int64_t(1) << 31), "bits_conv: too large a window");
  a.conv = true;
  a.P = 1;
  a.G = groups;
  a.M = x.size(0) * v.OH * v.OW;
  a.N = w.size(0) / groups;
  STRUCTOPS_CHECK(channels / groups <= ((int64_t(1) << 31) - 1) / (v.kh * v.kw), "bits_conv: kh * kw * channels / groups must stay below 2^31");
  a.K = v.kh * v.kw * (channels / groups);
  const int64_t Wd = words_of(a.K);
  STRUCTOPS_CHECK(x.size(3) == words_of(channels) && w.size(1) == Wd, "bits_conv: words do not match the channels");
  a.coef[0] = negate ? 2 : -2;
  a.base = int32_t(negate ? -a.K : a.K);
  a.a = words_in("bits_conv", x, "x");
  a.b = words_in("bits_conv", w, "w");
  a.panels = panels_in("bits_conv", panels, groups, a.N, Wd);
  if (taps) {
    STRUCTOPS_CHECK(taps->dim() == 2 && taps->size(0) == v.kh * v.kw && taps->size(1) == w.size(0) &&
                      taps->scalar_type() == ScalarType::Int && taps->is_contiguous(),
                    "bits_conv: taps must be a contiguous int32 [kh kw, O]");
    a.taps = static_cast<const int32_t*>(taps->const_data_ptr());
  }
  Tensor out = set_epilogue("bits_conv", a, {scale, bias, residual, prelu, shift, threshold, out_code}, x, {x.size(0), v.OH, v.OW}, w.size(0));
  if (out.numel() > 0) run_gemm<cuda>(x, a);
  return out;
}

// ---- weights of one bit, activations of more ------------------------------------------------------------------------
template <class Numbers> BitsMixedArgs mixed_args(const char* op, const Tensor& x, const Tensor& w, const OptTensor& panels, const Numbers& coef, double base) {
  BitsMixedArgs a{};
  STRUCTOPS_CHECK(x.dim() == 2 && x.is_contiguous() && w.dim() == 3, op, ": x must be a contiguous [M, K], w [P, N, W]");
  a.M = x.size(0);
  a.K = x.size(1);
  a.P = w.size(0);
  a.N = w.size(1);
  STRUCTOPS_CHECK(w.size(2) == words_of(a.K), op, ": w must have ceil(K / 64) words a row");
  STRUCTOPS_CHECK(a.P >= 1 && a.P <= kMaxPlanes && int64_t(coef.size()) == a.P, op, ": one coef a plane, at most ", kMaxPlanes);
  for (int64_t p = 0; p < a.P; ++p) a.coef[p] = double(coef[size_t(p)]);
  a.base = base;
  a.x = x.const_data_ptr();
  a.b = words_in(op, w, "w");
  a.panels = panels_in(op, panels, a.P, a.N, words_of(a.K));
  return a;
}

template <bool cuda> Tensor bits_w1a8(Tensor x, Tensor w, OptTensor panels, Ints coef, int64_t base) {
  STRUCTOPS_CHECK(x.scalar_type() == ScalarType::Char, "bits_w1a8: x must be int8");
  BitsMixedArgs a = mixed_args("bits_w1a8", x, w, panels, coef, double(base));
  Tensor out = new_empty(x, {a.M, a.N}, ScalarType::Int);
  a.out = out.mutable_data_ptr();
  if (out.numel() > 0)
    launch<cuda>(x, a, [](auto& s, auto pf) { structops::bits_w1a8(s, pf); }, [](auto& s, auto ctx) { cuda::bits_w1a8(s, ctx); });
  return out;
}

template <bool cuda> Tensor bits_w1a16(Tensor x, Tensor w, OptTensor panels, std::vector<double> coef, double base) {
  const Dtype dtype = dtype_of(x);
  STRUCTOPS_CHECK(dtype == Dtype::f32 || dtype == Dtype::bf16 || dtype == Dtype::f16, "bits_w1a16: x must be float32, bfloat16 or float16");
  BitsMixedArgs a = mixed_args("bits_w1a16", x, w, panels, coef, base);
  a.dtype = dtype;
  Tensor out = new_empty(x, {a.M, a.N}, ScalarType::Float);
  a.out = out.mutable_data_ptr();
  if (out.numel() > 0)
    launch<cuda>(x, a, [](auto& s, auto pf) { structops::bits_w1a16(s, pf); }, [](auto& s, auto ctx) { cuda::bits_w1a16(s, ctx); });
  return out;
}

// ---- bags -----------------------------------------------------------------------------------------------------------
template <bool cuda> Tensor bits_bag(Tensor table, Tensor index, Tensor offsets, int64_t K, int64_t zero, int64_t one, int64_t reduce) {
  BitsBagArgs a{};
  STRUCTOPS_CHECK(reduce >= 0 && reduce <= 2, "bits_bag: unknown reduce");
  STRUCTOPS_CHECK(zero >= -1 && zero <= 1 && one >= -1 && one <= 1, "bits_bag: bits stand for -1, 0 or 1");
  STRUCTOPS_CHECK(table.dim() == 2 && K >= 0 && table.size(1) == words_of(K), "bits_bag: table must be [N, ceil(K / 64)]");
  STRUCTOPS_CHECK(index.dim() == 1 && offsets.dim() == 1 && offsets.size(0) >= 1, "bits_bag: index must be [E], offsets [B + 1]");
  a.reduce = BagReduce(reduce);
  a.zero = int32_t(zero);
  a.one = int32_t(one);
  a.B = offsets.size(0) - 1;
  a.E = index.size(0);
  a.K = K;
  a.offsets = index_of(offsets);
  a.index = index_of(index);
  if (offsets.is_cpu()) STRUCTOPS_CHECK(a.offsets[0] == 0 && a.offsets[a.B] == a.E, "bits_bag: offsets must run from 0 to the number of indices, ", a.E);
  a.table = words_in("bits_bag", table, "table");
  Tensor out = new_empty(table, {a.B, K}, ScalarType::Float);
  a.out = static_cast<float*>(out.mutable_data_ptr());
  if (out.numel() > 0)
    launch<cuda>(table, a, [](auto& s, auto pf) { structops::bits_bag(s, pf); }, [](auto& s, auto ctx) { cuda::bits_bag(s, ctx); });
  return out;
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("bits_pack", TORCH_BOX(&bits_pack<cuda>));
  m.impl("bits_unpack", TORCH_BOX(&bits_unpack<cuda>));
  m.impl("bits_count", TORCH_BOX(&bits_count<cuda>));
  m.impl("bits_panels", TORCH_BOX(&bits_panels<cuda>));
  m.impl("bits_gemm", TORCH_BOX(&bits_gemm<cuda>));
  m.impl("bits_conv", TORCH_BOX(&bits_conv<cuda>));
  m.impl("bits_w1a8", TORCH_BOX(&bits_w1a8<cuda>));
  m.impl("bits_w1a16", TORCH_BOX(&bits_w1a16<cuda>));
  m.impl("bits_bag", TORCH_BOX(&bits_bag<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
