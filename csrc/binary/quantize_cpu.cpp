// CPU quantizers. The contract is quantize.h.
//
// A block of elements is widened into buffers that stay in the first-level cache; every step (affine map, F, S, packing) is
// one pass over them, so a forward and a slope are two small loops and not a kernel for every pair.
#include "binary/quantize.h"
#include "binary/quantize_rows.h"
#include "binary/trig.h"

namespace structops::STRUCTOPS_ISA {
namespace {

template <class A> STRUCTOPS_INLINE Vec<A> vabs(Vec<A> v) { return v < A(0) ? -v : v; }
template <class A> STRUCTOPS_INLINE Vec<A> vround(Vec<A> v) {
  return (v + MathConst<A>::magic) - MathConst<A>::magic;
}
template <class A> STRUCTOPS_INLINE Vec<A> clamp(Vec<A> v, A lo, A hi) { return v < lo ? splat(lo) : (v > hi ? splat(hi) : v); }
template <class A> STRUCTOPS_INLINE Vec<A> sign(Vec<A> v, A zero) {
  return v > A(0) ? splat(A(1)) : (v < A(0) ? splat(A(-1)) : (v == A(0) ? splat(zero) : v));
}
// round(clamp(v, 0, 1) n) / n; vround would move large n, and NaN stays.
template <class A> STRUCTOPS_INLINE Vec<A> levels(Vec<A> v, A n) { return vround<A>(clamp<A>(v, A(0), A(1)) * n) / n; }

// y = F(u), with scale and extra in their usual or their special part. scale, extra: buffers, or null.
template <class A> void forward(const QuantizeArgs& a, const A* u, const A* scale, const A* extra, A* y, int n) {
  const A zero = A(a.zero), t = A(a.t);
  bool times_scale = scale != nullptr;
  switch (a.forward) {
    case Forward::sign: map<A>(y, u, n, [&](Vec<A> v) { return sign<A>(v, zero); }); break;
    case Forward::heaviside:
      map<A>(y, u, n, [&](Vec<A> v) { return v > A(0) ? splat(A(1)) : (v < A(0) ? splat(A(0)) : (v == A(0) ? splat(zero) : v)); });
      break;
    case Forward::ternary: {
      const bool strict = a.zero == 0;
      for (int i = 0; i < n; i += W<A>) {
        const Vec<A> v = load(u + i), z = vabs<A>(v), limit = extra ? load(extra + i) : splat(t);
        const auto on = strict ? z > limit : z >= limit;
        store(y + i, v != v ? v : (on ? sign<A>(v, A(0)) : splat(A(0))));
      }
      break;
    }
    case Forward::levels: map<A>(y, u, n, [&](Vec<A> v) { return levels<A>(v, t); }); break;
    case Forward::hardtanh: map<A>(y, u, n, [&](Vec<A> v) { return clamp<A>(v, A(-1), A(1)); }); break;
    case Forward::sine: map<A>(y, u, n, [&](Vec<A> v) { return vsin<A>(v * t); }); break;
    case Forward::square: map<A>(y, u, n, [&](Vec<A> v) { return sign<A>(vsin<A>(v * t), zero); }); break;
    case Forward::prelu:
      for (int i = 0; i < n; i += W<A>) {
        const Vec<A> v = load(u + i), neg = scale ? v * load(scale + i) : Vec<A>{};
        const Vec<A> r = v > A(0) ? v : neg;
        store(y + i, extra ? r + load(extra + i) : r);
      }
      times_scale = false;
      break;
    case Forward::tanh_levels:
      for (int i = 0; i < n; i += W<A>) {
        const Vec<A> v = vtanh<A>(load(u + i)) * (scale ? load(scale + i) : splat(A(1)));
        store(y + i, levels<A>(v * A(0.5) + A(0.5), t) * A(2) - A(1));
      }
      times_scale = false;
      break;
    default: map<A>(y, u, n, [](Vec<A> v) { return v; });
  }
  if (times_scale)
    for (int i = 0; i < n; i += W<A>) store(y + i, load(y + i) * load(scale + i));
}

template <class A> void slope(const QuantizeArgs& a, const A* u, const A* scale, const A* limit, A* s, int n) {
  const A p = A(a.p), q = A(a.q);
  const Vec<A> one = splat(A(1)), none{};
  switch (a.slope) {
    case Slope::clip:
      if (limit) for (int i = 0; i < n; i += W<A>) store(s + i, vabs<A>(load(u + i)) <= load(limit + i) ? one : none);
      else map<A>(s, u, n, [&](Vec<A> v) { return vabs<A>(v) <= p ? one : none; });
      break;
    case Slope::clip_strict: map<A>(s, u, n, [&](Vec<A> v) { return vabs<A>(v) < p ? one : none; }); break;
    case Slope::box: map<A>(s, u, n, [&](Vec<A> v) { return (v >= A(0)) & (v <= p) ? one : none; }); break;
    case Slope::poly:
      map<A>(s, u, n, [&](Vec<A> v) {
        const Vec<A> r = A(2) - A(2) * vabs<A>(v);
        return r < A(0) ? none : r;
      });
      break;
    case Slope::swish:
      map<A>(s, u, n, [&](Vec<A> v) {
        Vec<A> z = vabs<A>(v * p);
        z = z > A(1000) ? splat(A(1000)) : z;
        const Vec<A> e = vexp<A>(-z), r = A(1) / (A(1) + e);
        return p * (A(2) - z * (A(1) - e) * r) * (A(2) * e * r * r);
      });
      break;
    case Slope::bell:
      map<A>(s, u, n, [&](Vec<A> v) {
        const Vec<A> e = vexp<A>(vabs<A>(v * p) * A(-2)), r = A(1) / (A(1) + e);
        return q * p * A(4) * e * r * r;
      });
      break;
    case Slope::fourier: {
      const A top = A(4 * a.p / 3.14159265358979323846), m = A(a.terms + 1);
      map<A>(s, u, n, [&](Vec<A> v) {
        const auto inside = vabs<A>(v) <= A(1);
        const Vec<A> w = (inside ? v : none) * p, d = vsin<A>(w);
        const Vec<A> ratio = d == A(0) ? m * vcos<A>(w) : vsin<A>(w * (A(2) * m)) / (A(2) * d);
        return inside ? top * ratio : none;
      });
      break;
    }
    case Slope::cosine: map<A>(s, u, n, [&](Vec<A> v) { return p * vcos<A>(v * p); }); break;
    case Slope::prelu:
      for (int i = 0; i < n; i += W<A>) store(s + i, load(u + i) > A(0) ? one : (scale ? load(scale + i) : none));
      break;
    default: map<A>(s, u, n, [&](Vec<A>) { return one; });
  }
}

template <class A> void to_codes(const QuantizeArgs& a, const A* s, uint8_t* code, int n) {
  const bool offset = changes_sign(a.slope);
  const int levels = offset ? (1 << (a.code_bits - 1)) - 1 : (1 << a.code_bits) - 1;
  const A f = A(levels / slope_top(a)), add = A(offset ? levels : 0);
  bytes<A>(code, s, n, [&](Vec<A> v) {
    const Vec<A> r = vround<A>(v * f) + add;
    return r == r ? r : splat(add);
  });
}

// The slopes of 2 to 8 bits.
template <class A> void from_codes(const QuantizeArgs& a, const uint8_t* code, A* s, int n) {
  const bool offset = changes_sign(a.slope);
  const int levels = offset ? (1 << (a.code_bits - 1)) - 1 : (1 << a.code_bits) - 1;
  const A f = A(slope_top(a) / levels), minus = A(offset ? levels : 0);
  for (int i = 0; i < n; i += W<A>) store(s + i, (from_bytes<A>(code + i) - minus) * f);
}

template <class T> struct Kernel {
  using A = Acc<T>;
  const QuantizeArgs& a;
  Rows rows{a.C, a.inner};
  A affine[kBlock], y[kBlock], s[kBlock], scale[kBlock], extra[kBlock], other[kBlock];
  uint8_t code[kBlock];

  explicit Kernel(const QuantizeArgs& args) : a(args) {}

  const A* vector(const void* p, A* buffer, int64_t begin, int n) const {
    if (!p) return nullptr;
    rows.expand(static_cast<const A*>(p), buffer, begin, n);
    return buffer;
  }

  // Whole blocks of numbers that need no widening are read and written where they are.
  static constexpr bool same = __is_same(T, A);
  const A* block_of(const void* p, A* buffer, int64_t begin, int n) const {
    const T* const from = static_cast<const T*>(p) + begin;
    if constexpr (same) if (n == kBlock) return from;
    load_block(from, buffer, n);
    return buffer;
  }
  A* result(int64_t begin, int n) {
    if constexpr (same) if (n == kBlock) return static_cast<T*>(a.out) + begin;
    return y;
  }
  void put_result(const A* from, int64_t begin, int n) {
    if (from == y) store_block(static_cast<T*>(a.out) + begin, y, n);
  }

  const A* load_u(int64_t begin, int n) {
    const A* from = block_of(a.x, affine, begin, n);
    if (const A* v = vector(a.shift, other, begin, n)) {
      for (int i = 0; i < n; i += W<A>) store(affine + i, load(from + i) + load(v + i));
      from = affine;
    }
    if (const A* v = vector(a.gain, other, begin, n)) {
      for (int i = 0; i < n; i += W<A>) store(affine + i, load(from + i) * load(v + i));
      from = affine;
    }
    return from;
  }

  void fwd(int64_t begin, int n) {
    const A* const u = load_u(begin, n);
    const A* const sc = vector(a.scale, scale, begin, n);
    const A* const ex = vector(a.extra, extra, begin, n);
    A* const to = result(begin, n);
    forward<A>(a, u, sc, ex, to, n);
    put_result(to, begin, n);
    if (a.code_bits == 1) {
      uint8_t* const bits = a.codes + begin / 8;
      const A* const limit = a.forward == Forward::sign ? ex : nullptr;
      const A p = A(a.p);
      if (a.slope == Slope::prelu) {
        pack_bits<A>(bits, u, n, [](Vec<A> v) { return v > A(0); });
      } else if (a.slope == Slope::clip && !limit) {
        pack_bits<A>(bits, u, n, [&](Vec<A> v) { return vabs<A>(v) <= p; });
      } else {
        slope<A>(a, u, sc, limit, s, n);
        const A half = A(slope_top(a) / 2);  // the nearest of 0 and the largest; half of it rounds to even, 0
        pack_bits<A>(bits, s, n, [&](Vec<A> v) { return v > half; });
      }
    } else if (a.code_bits) {
      if (a.slope == Slope::prelu) {
        bytes<A>(code, u, n, [](Vec<A> v) { return v > A(0) ? splat(A(1)) : Vec<A>{}; });
      } else {
        slope<A>(a, u, sc, a.forward == Forward::sign ? ex : nullptr, s, n);
        to_codes<A>(a, s, code, n);
      }
      pack(code, a.code_bits, a.codes + begin * a.code_bits / 8, n);
    }
    if (a.save_sign) {
      if (sc) forward<A>(a, u, nullptr, ex, y, n);
      pack_bits<A>(a.codes + code_bytes(a.numel, a.code_bits) + begin / 8, sc ? y : to, n, [](Vec<A> v) { return v > A(0); });
    }
  }

  // part [3, C]: this task's sums for d_shift, d_scale, d_extra.
  void bwd(int64_t begin, int n, double* part) {
    const A* const g = block_of(a.grad, y, begin, n);
    const A* const sc = vector(a.scale, scale, begin, n);
    const A* const u = a.x ? load_u(begin, n) : nullptr;
    if (a.code_bits == 1) {
      const Vec<A> top = splat(A(slope_top(a))), none{};
      const bool prelu = a.slope == Slope::prelu && sc;
      unpack_bits<A>(a.codes_in + begin / 8, s, n, [&](auto on, int i) { return on ? top : (prelu ? load(sc + i) : none); });
    } else if (a.code_bits) {
      unpack(a.codes_in + begin * a.code_bits / 8, a.code_bits, code, n);
      if (a.slope == Slope::prelu) {
        for (int i = 0; i < n; i += W<A>)
          store(s + i, from_bytes<A>(code + i) > A(0) ? splat(A(1)) : (sc ? load(sc + i) : Vec<A>{}));
      } else {
        from_codes<A>(a, code, s, n);
      }
    } else {
      slope<A>(a, u, sc, a.forward == Forward::sign ? vector(a.extra, extra, begin, n) : nullptr, s, n);
    }
    if (part && a.d_extra) rows.accumulate(part + 2 * a.C, g, begin, n);
    if (part && a.d_scale) {
      A* const f = extra;
      if (a.forward == Forward::prelu) {
        map<A>(f, u, n, [](Vec<A> v) { return v > A(0) ? Vec<A>{} : v; });
      } else if (a.save_sign) {
        const Vec<A> high = splat(A(1)), low = splat(a.forward == Forward::heaviside ? A(0) : A(-1));
        const uint8_t* const plane = a.codes_in + code_bytes(a.numel, a.code_bits) + begin / 8;
        unpack_bits<A>(plane, f, n, [&](auto on, int) { return on ? high : low; });
      } else {
        const A* const ex = a.forward == Forward::ternary ? vector(a.extra, other, begin, n) : nullptr;
        forward<A>(a, u, nullptr, ex, f, n);
      }
      for (int i = 0; i < n; i += W<A>) {
        Vec<A> v = load(f + i);
        if (a.learned_step) v -= load(u + i) * load(s + i);
        store(f + i, v * load(g + i));
      }
      rows.accumulate(part + a.C, f, begin, n);
    }
    const A* const gain = vector(a.gain, other, begin, n);
    A* const to = result(begin, n);
    for (int i = 0; i < n; i += W<A>) {
      Vec<A> v = load(g + i) * load(s + i);
      if (gain) v *= load(gain + i);
      if (a.scaled && sc) v *= load(sc + i);
      store(to + i, v);
    }
    put_result(to, begin, n);
    if (part && a.d_shift) rows.accumulate(part, to, begin, n);
  }
};

template <class T, bool backward> void run(const QuantizeArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  const bool sums = backward && (a.d_shift || a.d_scale || a.d_extra);
  const Parts parts(a.numel, sums ? a.C : 1);
  const Partials partial(sums ? parts.count * 3 * a.C : 0);
  auto body = [&](int64_t begin, int64_t end) {
    Kernel<T> k(a);
    for (int64_t part = begin; part < end; ++part) {
      double* const sum = sums ? partial.data + part * 3 * a.C : nullptr;
      for (int64_t at = part * parts.size; at < a.numel && at < (part + 1) * parts.size; at += kBlock) {
        const int n = int(a.numel - at < kBlock ? a.numel - at : kBlock);
        if constexpr (backward) k.bwd(at, n, sum); else k.fwd(at, n);
      }
    }
  };
  parallel_for(pf, parts.count, 1, body);
  if (!sums) return;
  void* const out[3] = {a.d_shift, a.d_scale, a.d_extra};
  for (int j = 0; j < 3; ++j)
    if (out[j]) partial.total(static_cast<A*>(out[j]), a.C, parts.count, 3 * a.C, j * a.C);
}

template <bool backward> void dispatch(const QuantizeArgs& a, const ParallelFor& pf) {
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) run<T, backward>(a, pf);
  });
}

// ---- channel statistics ----------------------------------------------------------------------------------------------

template <class T> void stats(const ChannelStatsArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  const Rows rows{a.C, a.inner};
  const Parts parts(a.numel, a.C);
  const Partials partial(parts.count * 5 * a.C);
  auto body = [&](int64_t begin, int64_t end) {
    A v[kBlock], w[kBlock], shift[kBlock];
    for (int64_t part = begin; part < end; ++part) {
      double* const sum = partial.data + part * 5 * a.C;
      for (int64_t at = part * parts.size; at < a.numel && at < (part + 1) * parts.size; at += kBlock) {
        const int n = int(a.numel - at < kBlock ? a.numel - at : kBlock);
        load_block(static_cast<const T*>(a.x) + at, v, n);
        if (a.shift) {
          rows.expand(static_cast<const A*>(a.shift), shift, at, n);
          for (int i = 0; i < n; i += W<A>) store(v + i, load(v + i) + load(shift + i));
        }
        rows.accumulate(sum, v, at, n);
        map<A>(w, v, n, [](Vec<A> x) { return vabs<A>(x); });
        rows.accumulate(sum + a.C, w, at, n);
        rows.maximum(sum + 3 * a.C, w, at, n);
        map<A>(w, v, n, [](Vec<A> x) { return x * x; });
        rows.accumulate(sum + 2 * a.C, w, at, n);
        if (a.y) {
          load_block(static_cast<const T*>(a.y) + at, w, n);
          for (int i = 0; i < n; i += W<A>) store(w + i, load(w + i) * load(v + i));
          rows.accumulate(sum + 4 * a.C, w, at, n);
        }
      }
    }
  };
  parallel_for(pf, parts.count, 1, body);
  A* const out = static_cast<A*>(a.out);
  for (int j = 0; j < 5; ++j) partial.total(out + j * a.C, a.C, parts.count, 5 * a.C, j * a.C, j == 3);
}

}  // namespace

void quantize_fwd(const QuantizeArgs& a, const ParallelFor& pf) { dispatch<false>(a, pf); }
void quantize_bwd(const QuantizeArgs& a, const ParallelFor& pf) { dispatch<true>(a, pf); }
void channel_stats(const ChannelStatsArgs& a, const ParallelFor& pf) {
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) stats<T>(a, pf);
  });
}

}  // namespace structops::STRUCTOPS_ISA
