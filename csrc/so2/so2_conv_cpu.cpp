// CPU SO(2) linear maps. The contract is so2_conv.h.
#include "so2/conv_tile.h"

namespace structops::STRUCTOPS_ISA {
namespace {

// Rows [T, n] of the caller to a tile and back; the rest of the last block of kMR rows is zero.
template <class A>
void to_tile(int64_t T, int64_t n, const A* from, A* tile, int64_t ld) {
  for (int64_t t = 0; t < T; ++t) __builtin_memcpy(tile + t * ld, from + t * n, size_t(n) * sizeof(A));
  for (int64_t t = T; t < (T + kMR<A> - 1) / kMR<A> * kMR<A>; ++t)
    for (int64_t i = 0; i < n; ++i) tile[t * ld + i] = 0;
}

template <class A>
void conv(const So2ConvArgs& a, const ParallelFor& pf) {
  const PackedConv<A> w(a.shape, static_cast<const A*>(a.w), a.transpose, a.three, pf);
  const int64_t in = a.transpose ? a.shape.out() : a.shape.in(), out = a.transpose ? a.shape.in() : a.shape.out();
  const int64_t ldi = padded<A>(in), ldo = padded<A>(out), tiles = (a.E + kTile - 1) / kTile, groups = tiles < 32 ? tiles : 32;
  const int64_t each = kTile * (ldi + ldo) + w.scratch() + kSlack;
  A* const scratch = allocate<A>(size_t(groups * each));
  auto body = [&](int64_t begin, int64_t end) {
    A *const x = scratch + begin * each, *const y = x + kTile * ldi, *const tmp = y + kTile * ldo;
    for (int64_t i = begin * tiles / groups; i < end * tiles / groups; ++i) {
      const int64_t k = i * kTile, T = a.E - k < kTile ? a.E - k : int64_t(kTile);
      to_tile(T, in, static_cast<const A*>(a.x) + k * in, x, ldi);
      w.apply(T, x, ldi, y, ldo, static_cast<const A*>(a.bias), tmp);
      for (int64_t t = 0; t < T; ++t)
        __builtin_memcpy(static_cast<A*>(a.out) + (k + t) * out, y + t * ldo, size_t(out) * sizeof(A));
    }
  };
  parallel_for(pf, groups, 1, body);
  std::free(scratch);
}

template <class A>
void wgrad(const So2ConvArgs& a, const ParallelFor& pf) {
  const So2Shape& s = a.shape;
  const int64_t ldx = padded<A>(s.in()), ldg = padded<A>(s.out()), tiles = (a.E + kTile - 1) / kTile, n = s.weights();
  const int64_t slices = tiles < 2 ? 1 : tiles < 8 ? tiles : 8, each = kTile * (ldx + ldg) + kSlack;
  A *const scratch = allocate<A>(size_t(slices * each)), *parts;
  try {
    parts = allocate<A>(size_t(slices * n));
  } catch (...) {
    std::free(scratch);
    throw;
  }
  auto body = [&](int64_t begin, int64_t end) {
    A *const x = scratch + begin * each, *const g = x + kTile * ldx;
    for (int64_t p = begin; p < end; ++p) {
      A* const dw = parts + p * n;
      for (int64_t i = 0; i < n; ++i) dw[i] = 0;
      for (int64_t i = p * tiles / slices; i < (p + 1) * tiles / slices; ++i) {
        const int64_t k = i * kTile, T = a.E - k < kTile ? a.E - k : int64_t(kTile);
        to_tile(T, s.in(), static_cast<const A*>(a.x) + k * s.in(), x, ldx);
        to_tile(T, s.out(), static_cast<const A*>(a.g) + k * s.out(), g, ldg);
        conv_wgrad<A>(s, T, x, ldx, g, ldg, dw);
      }
    }
  };
  parallel_for(pf, slices, 1, body);
  add_slices<A>(slices, n, parts, n, static_cast<A*>(a.out), pf);
  std::free(parts);
  std::free(scratch);
}

}  // namespace

void so2_conv_fwd(const So2ConvArgs& a, const ParallelFor& pf) {
  if (a.E == 0) return;
  if (a.dtype == Dtype::f64)
    conv<double>(a, pf);
  else
    conv<float>(a, pf);
}
void so2_conv_wgrad(const So2ConvArgs& a, const ParallelFor& pf) {
  if (a.dtype == Dtype::f64)
    wgrad<double>(a, pf);
  else
    wgrad<float>(a, pf);
}

}  // namespace structops::STRUCTOPS_ISA
