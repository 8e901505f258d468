// CPU fast feed-forward networks. The contract is fff.h.
//
// The rows of a leaf are taken kRows at a time, so that each weight that comes from memory meets several rows; hidden units and
// outputs lie along vectors.
#include "binary/fff.h"
#include "core/memory.h"
#include "core/vmath.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kRows = 8;

STRUCTOPS_INLINE float scalar_erf(float x) { return __builtin_erff(x); }
STRUCTOPS_INLINE double scalar_erf(double x) { return __builtin_erf(x); }
STRUCTOPS_INLINE float scalar_exp(float x) { return __builtin_expf(x); }
STRUCTOPS_INLINE double scalar_exp(double x) { return __builtin_exp(x); }

template <class A> STRUCTOPS_INLINE A activate(Activation f, A v) {
  switch (f) {
    case Activation::relu: return v > A(0) ? v : (v == v ? A(0) : v);
    case Activation::gelu: return v * A(0.5) * (A(1) + scalar_erf(v * A(0.70710678118654752440)));
    case Activation::silu: return v / (A(1) + scalar_exp(-v));
    default: return v;
  }
}
template <class A> STRUCTOPS_INLINE A slope(Activation f, A v) {
  switch (f) {
    case Activation::relu: return v > A(0) ? A(1) : A(0);
    case Activation::gelu:
      return A(0.5) * (A(1) + scalar_erf(v * A(0.70710678118654752440))) + v * A(0.39894228040143267794) * scalar_exp(A(-0.5) * v * v);
    case Activation::silu: {
      const A s = A(1) / (A(1) + scalar_exp(-v));
      return s * (A(1) + v * (A(1) - s));
    }
    default: return A(1);
  }
}

template <class T> STRUCTOPS_INLINE Acc<T> dot(const T* x, const T* w, int64_t n) {
  using A = Acc<T>;
  Vec<A> s[4] = {};
  int64_t i = 0;
  for (; i + 4 * W<A> <= n; i += 4 * W<A>)
    for (int k = 0; k < 4; ++k) s[k] += load(x + i + k * W<A>) * load(w + i + k * W<A>);
  for (; i < n; i += W<A>) {
    const int left = n - i < W<A> ? int(n - i) : W<A>;
    s[0] += load_n(x + i, left) * load_n(w + i, left);
  }
  return hsum<A>((s[0] + s[1]) + (s[2] + s[3]));
}

template <class T> void descend(const DescendArgs& a, int64_t begin, int64_t end) {
  using A = Acc<T>;
  const T *const x = static_cast<const T*>(a.x), *const w = static_cast<const T*>(a.node_weight), *const bias = static_cast<const T*>(a.node_bias);
  T* const logit = static_cast<T*>(a.logit);
  for (int64_t b = begin; b < end; ++b) {
    int64_t node = 0;
    for (int t = 0; t < a.depth; ++t) {
      A z = dot(x + b * a.I, w + node * a.I, a.I);
      if (bias) z += widen(bias[node]);
      narrow_to(logit + b * a.depth + t, z);
      node = 2 * node + 1 + ((a.strict ? z > A(0) : z >= A(0)) ? 1 : 0);
    }
    a.leaf[b] = node - ((int64_t(1) << a.depth) - 1);
  }
}

// to[r][o] += sum_k from[r][k] w[k, o], rows r < n, o < O; `from` and `to` are accumulators with row lengths K and O.
template <class T> void multiply(const Acc<T>* from, const T* w, Acc<T>* to, int n, int64_t K, int64_t O) {
  using A = Acc<T>;
  for (int64_t o = 0; o < O; o += W<A>) {
    const int lanes = O - o < W<A> ? int(O - o) : W<A>;
    Vec<A> s[kRows];
    for (int r = 0; r < n; ++r) s[r] = load_n(to + r * O + o, lanes);
    if (n == kRows && lanes == W<A>) {
      for (int64_t k = 0; k < K; ++k) {
        const Vec<A> v = load(w + k * O + o);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) s[r] += v * from[r * K + k];
      }
    } else {
      for (int64_t k = 0; k < K; ++k) {
        const Vec<A> v = load_n(w + k * O + o, lanes);
        for (int r = 0; r < n; ++r) s[r] += v * from[r * K + k];
      }
    }
    for (int r = 0; r < n; ++r) store_n(to + r * O + o, s[r], lanes);
  }
}

// to[r][k] = sum_o from[r][o] w[k, o].
template <class T> void multiply_transposed(const Acc<T>* from, const T* w, Acc<T>* to, int n, int64_t K, int64_t O) {
  using A = Acc<T>;
  for (int64_t k = 0; k < K; ++k)
    for (int r = 0; r < n; ++r) {
      Vec<A> s{};
      for (int64_t o = 0; o < O; o += W<A>) {
        const int lanes = O - o < W<A> ? int(O - o) : W<A>;
        s += load_n(w + k * O + o, lanes) * load_n(from + r * O + o, lanes);
      }
      to[r * K + k] = hsum<A>(s);
    }
}

// to[k, o] += sum_r from[r][k] g[r][o], in order of r.
template <class A> void outer(const A* from, const A* g, A* to, int n, int64_t K, int64_t O) {
  for (int64_t k = 0; k < K; ++k)
    for (int64_t o = 0; o < O; o += W<A>) {
      const int lanes = O - o < W<A> ? int(O - o) : W<A>;
      Vec<A> s = load_n(to + k * O + o, lanes);
      for (int r = 0; r < n; ++r) s += load_n(g + r * O + o, lanes) * from[r * K + k];
      store_n(to + k * O + o, s, lanes);
    }
}

template <class A> struct Buffer {
  A* const data;
  explicit Buffer(int64_t n) : data(static_cast<A*>(std::malloc(size_t(n ? n : 1) * sizeof(A)))) {}
  ~Buffer() { std::free(data); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
};

template <class T> struct Leaf {
  using A = Acc<T>;
  const LeafArgs& a;
  const T *x, *w1, *b1, *w2, *b2;
  A *rows, *hidden;  // [kRows, I], [kRows, H]

  void load_rows(const T* from, A* to, int64_t first, int n, int64_t width) const {
    for (int r = 0; r < n; ++r)
      for (int64_t i = 0; i < width; ++i) to[r * width + i] = widen(from[a.perm[first + r] * width + i]);
  }
  // The rows' hidden units before the activation.
  void pre_activation(int64_t l, int64_t first, int n) const {
    load_rows(x, rows, first, n, a.I);
    for (int r = 0; r < n; ++r)
      for (int64_t h = 0; h < a.H; ++h) hidden[r * a.H + h] = b1 ? A(widen(b1[l * a.H + h])) : A(0);
    multiply<T>(rows, w1 + l * a.I * a.H, hidden, n, a.I, a.H);
  }
};

template <class T> Leaf<T> leaf_of(const LeafArgs& a, Acc<T>* rows, Acc<T>* hidden) {
  const auto at = [](const void* p) { return static_cast<const T*>(p); };
  return {a, at(a.x), at(a.w1), at(a.b1), at(a.w2), at(a.b2), rows, hidden};
}

// Chunks of rows before leaf l: every leaf's rows are cut into chunks of kRows.
int64_t find_leaf(const LeafArgs& a, const int64_t* chunks, int64_t chunk) {
  int64_t lo = 0, hi = a.L;
  while (hi - lo > 1) {
    const int64_t mid = (lo + hi) / 2;
    if (chunks[mid] <= chunk) lo = mid; else hi = mid;
  }
  return lo;
}

template <class T> void forward(const LeafArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  Buffer<int64_t> chunks(a.L + 1);
  if (!chunks.data) throw std::bad_alloc();
  chunks.data[0] = 0;
  for (int64_t l = 0; l < a.L; ++l) chunks.data[l + 1] = chunks.data[l] + (a.rowptr[l + 1] - a.rowptr[l] + kRows - 1) / kRows;
  bool failed = false;
  auto body = [&](int64_t begin, int64_t end) {
    const Buffer<A> scratch(kRows * (a.I + a.H + a.O));
    if (!scratch.data) { failed = true; return; }
    A *const rows = scratch.data, *const hidden = rows + kRows * a.I, *const y = hidden + kRows * a.H;
    const Leaf<T> leaf = leaf_of<T>(a, rows, hidden);
    int64_t l = find_leaf(a, chunks.data, begin);
    for (int64_t c = begin; c < end; ++c) {
      while (chunks.data[l + 1] <= c) ++l;
      const int64_t first = a.rowptr[l] + (c - chunks.data[l]) * kRows, left = a.rowptr[l + 1] - first;
      const int n = left < kRows ? int(left) : kRows;
      leaf.pre_activation(l, first, n);
      for (int64_t i = 0; i < n * a.H; ++i) hidden[i] = activate<A>(a.activation, hidden[i]);
      for (int r = 0; r < n; ++r)
        for (int64_t o = 0; o < a.O; ++o) y[r * a.O + o] = leaf.b2 ? A(widen(leaf.b2[l * a.O + o])) : A(0);
      multiply<T>(hidden, leaf.w2 + l * a.H * a.O, y, n, a.H, a.O);
      for (int r = 0; r < n; ++r)
        for (int64_t o = 0; o < a.O; ++o) narrow_to(static_cast<T*>(a.out) + a.perm[first + r] * a.O + o, y[r * a.O + o]);
    }
  };
  const int64_t work = kRows * (a.I + a.O) * a.H + 1;
  parallel_for(pf, chunks.data[a.L], (32768 + work - 1) / work, body);
  if (failed) throw std::bad_alloc();
}

template <class T> void backward(const LeafArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  bool failed = false;
  auto body = [&](int64_t begin, int64_t end) {
    const int64_t weights = a.I * a.H + a.H + a.H * a.O + a.O;
    const Buffer<A> scratch(kRows * (2 * a.I + 3 * a.H + a.O) + weights);
    if (!scratch.data) { failed = true; return; }
    A *const rows = scratch.data, *const hidden = rows + kRows * a.I, *const act = hidden + kRows * a.H, *const dh = act + kRows * a.H;
    A *const dx = dh + kRows * a.H, *const g = dx + kRows * a.I, *const dw1 = g + kRows * a.O;
    A *const db1 = dw1 + a.I * a.H, *const dw2 = db1 + a.H, *const db2 = dw2 + a.H * a.O;
    const Leaf<T> leaf = leaf_of<T>(a, rows, hidden);
    for (int64_t l = begin; l < end; ++l) {
      for (int64_t i = 0; i < weights; ++i) dw1[i] = 0;
      for (int64_t first = a.rowptr[l]; first < a.rowptr[l + 1]; first += kRows) {
        const int64_t left = a.rowptr[l + 1] - first;
        const int n = left < kRows ? int(left) : kRows;
        leaf.pre_activation(l, first, n);
        leaf.load_rows(static_cast<const T*>(a.grad), g, first, n, a.O);
        for (int64_t i = 0; i < n * a.H; ++i) act[i] = activate<A>(a.activation, hidden[i]);
        multiply_transposed<T>(g, leaf.w2 + l * a.H * a.O, dh, n, a.H, a.O);
        for (int64_t i = 0; i < n * a.H; ++i) dh[i] *= slope<A>(a.activation, hidden[i]);
        outer<A>(act, g, dw2, n, a.H, a.O);
        outer<A>(rows, dh, dw1, n, a.I, a.H);
        for (int r = 0; r < n; ++r) {
          for (int64_t o = 0; o < a.O; ++o) db2[o] += g[r * a.O + o];
          for (int64_t h = 0; h < a.H; ++h) db1[h] += dh[r * a.H + h];
        }
        multiply_transposed<T>(dh, leaf.w1 + l * a.I * a.H, dx, n, a.I, a.H);
        for (int r = 0; r < n; ++r)
          for (int64_t i = 0; i < a.I; ++i) narrow_to(static_cast<T*>(a.d_x) + a.perm[first + r] * a.I + i, dx[r * a.I + i]);
      }
      const auto put = [&](void* to, const A* from, int64_t n) {
        if (to) for (int64_t i = 0; i < n; ++i) narrow_to(static_cast<T*>(to) + l * n + i, from[i]);
      };
      put(a.d_w1, dw1, a.I * a.H);
      put(a.d_b1, db1, a.H);
      put(a.d_w2, dw2, a.H * a.O);
      put(a.d_b2, db2, a.O);
    }
  };
  parallel_for(pf, a.L, 1, body);
  if (failed) throw std::bad_alloc();
}

}  // namespace

void fff_descend(const DescendArgs& a, const ParallelFor& pf) {
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) {
      auto body = [&](int64_t begin, int64_t end) { descend<T>(a, begin, end); };
      const int64_t work = a.I * a.depth + 1;
      parallel_for(pf, a.B, (32768 + work - 1) / work, body);
    }
  });
}

void fff_leaf(const LeafArgs& a, const ParallelFor& pf) {
  if (a.B == 0 || a.L == 0) return;
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) forward<T>(a, pf);
  });
}

void fff_leaf_bwd(const LeafArgs& a, const ParallelFor& pf) {
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) backward<T>(a, pf);
  });
}

}  // namespace structops::STRUCTOPS_ISA
