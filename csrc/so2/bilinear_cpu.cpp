// CPU sparse bilinear maps. The contract is bilinear.h.
//
// A tile is up to kVectors vectors of lanes: channels of one row where they are contiguous and fill a vector, else pairs
// (row, channel) one after the other, copied in and out. One broadcast of a coefficient serves all vectors of a tile.
#include "so2/bilinear.h"
#include "so2/tp_rows.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kVectors = 4;

// One operand or the result: the numbers between rows, channels and components.
struct View {
  int64_t row, channel, component;
  bool joined(int64_t C) const { return component == 1 && row == C * channel; }  // pairs (row, channel) are channel apart
};

View view(const BilinearArgs& a, int64_t rows, int64_t dim) {
  const int64_t row = rows == 1 ? 0 : dim * a.C;
  return a.components_last ? View{row, dim, 1} : View{row, 1, a.C};
}

template <class A> struct Lists {
  const int32_t* row_ptr;
  const BilinearPair* pairs;
  const int32_t* b;
  const A* coef;
};

// out[r] (= or +=) the sum of its terms, for V vectors of lanes.
template <class A, int V, class Store>
STRUCTOPS_INLINE void product(const BilinearArgs& args, const Lists<A>& l, const A* a, int64_t a_step, const A* b, int64_t b_step,
                              Store put) {
  int32_t t = 0;
  for (int64_t r = 0; r < args.R; ++r) {
    Vec<A> sum[V] = {};
    for (int32_t p = l.row_ptr[r]; p < l.row_ptr[r + 1]; ++p) {
      Vec<A> s[V] = {};
      for (; t < l.pairs[p].end; ++t) {
        const Vec<A> c = spread(l.coef[t]);
        const A* const from = b + l.b[t] * b_step;
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) s[v] += c * load(from + v * W<A>);
      }
      const A* const from = a + l.pairs[p].a * a_step;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[v] += s[v] * load(from + v * W<A>);
    }
    put(r, sum);
  }
}

// `lanes` pairs (row, channel) from the flat pair `first` on, as [component][kVectors * W].
template <class T> void pack(const View& v, int64_t dim, int64_t C, const T* from, int64_t first, int lanes, Acc<T>* to) {
  constexpr int step = kVectors * W<Acc<T>>;
  if (v.joined(C)) {
    transpose(from + first * v.channel, v.channel, lanes, dim, to, step);
    for (int64_t i = 0; i < dim; ++i)
      for (int e = lanes; e < step; ++e) to[i * step + e] = 0;
    return;
  }
  for (int e = 0; e < step; ++e) {
    if (e >= lanes) {
      for (int64_t i = 0; i < dim; ++i) to[i * step + e] = 0;
      continue;
    }
    const T* const p = from + (first + e) / C * v.row + (first + e) % C * v.channel;
    for (int64_t i = 0; i < dim; ++i) to[i * step + e] = widen(p[i * v.component]);
  }
}

template <class T> void unpack(const View& v, int64_t dim, int64_t C, const Acc<T>* from, int64_t first, int lanes, T* to) {
  constexpr int step = kVectors * W<Acc<T>>;
  if (v.joined(C)) return transpose(from, step, dim, lanes, to + first * v.channel, v.channel);
  for (int e = 0; e < lanes; ++e) {
    T* const p = to + (first + e) / C * v.row + (first + e) % C * v.channel;
    for (int64_t i = 0; i < dim; ++i) narrow_to(p + i * v.component, from[i * step + e]);
  }
}

template <int n> struct Number { static constexpr int value = n; };
template <class A, class F> STRUCTOPS_INLINE void with_vectors(int lanes, F f) {
  if (lanes <= W<A>) f(Number<1>{});
  else if (lanes <= 2 * W<A>) f(Number<2>{});
  else f(Number<kVectors>{});
}

template <class T> void run(const BilinearArgs& args, const ParallelFor& pf) {
  using A = Acc<T>;
  constexpr int step = kVectors * W<A>;
  const View va = view(args, args.a_rows, args.A), vb = view(args, args.b_rows, args.B);
  const View vo = view(args, args.total ? 1 : args.N, args.R);
  const T *const a = static_cast<const T*>(args.a), *const b = static_cast<const T*>(args.b);
  T* const out = static_cast<T*>(args.out);
  // Tiles never reach from one row into the next where channels fill vectors, and where rows are summed.
  const bool by_row = args.total || (!args.components_last && args.C >= W<A>);
  const bool direct = sizeof(T) == sizeof(A) && !args.components_last && by_row;
  const int64_t row_tiles = (args.C + step - 1) / step;
  const int64_t tiles = args.total ? row_tiles : by_row ? args.N * row_tiles : (args.N * args.C + step - 1) / step;
  const int64_t wanted = pf.threads > 1 ? pf.threads * 8 : 1, tasks = tiles < wanted ? tiles : wanted;
  const int64_t numbers = (args.A + args.B + args.R) * step;
  struct Memory {
    A* p;
    ~Memory() { std::free(p); }
  } memory{allocate<A>(size_t(tasks * numbers + args.terms))};
  A* const coef = memory.p + tasks * numbers;
  for (int64_t t = 0; t < args.terms; ++t) coef[t] = A(args.coef[t]);
  const int32_t* const pairs = args.lists + args.R + 1;
  const Lists<A> lists{args.lists, reinterpret_cast<const BilinearPair*>(pairs), pairs + 2 * args.pairs, coef};

  auto tile = [&](int64_t n, int64_t first, int lanes, A* scratch) {
    // first: a channel of row n, or a flat pair with n = 0.
    A *const pa = scratch, *const pb = pa + args.A * step, *const po = pb + args.B * step;
    with_vectors<A>(lanes, [&](auto number) {
      constexpr int V = decltype(number)::value;
      const A *xa = pa, *xb = pb;
      int64_t sa = step, sb = step;
      bool whole = false;
      if constexpr (sizeof(T) == sizeof(A)) whole = direct && lanes == V * W<A>;
      if constexpr (sizeof(T) == sizeof(A)) {
        if (whole) {
          xa = a + n * va.row + first, xb = b + n * vb.row + first;
          sa = va.component, sb = vb.component;
        }
      }
      if (!whole) {
        pack<T>(va, args.A, args.C, a + n * va.row, first, lanes, pa);
        pack<T>(vb, args.B, args.C, b + n * vb.row, first, lanes, pb);
      }
      if (args.total) {
        product<A, V>(args, lists, xa, sa, xb, sb, [&](int64_t r, const Vec<A>(&sum)[V]) {
          for (int v = 0; v < V; ++v) store(po + r * step + v * W<A>, load(po + r * step + v * W<A>) + sum[v]);
        });
      } else if (whole) {
        if constexpr (sizeof(T) == sizeof(A))
          product<A, V>(args, lists, xa, sa, xb, sb, [&](int64_t r, const Vec<A>(&sum)[V]) {
            T* const o = out + n * vo.row + r * vo.component + first;
            for (int v = 0; v < V; ++v) store<T>(o + v * W<A>, sum[v]);
          });
      } else {
        product<A, V>(args, lists, xa, sa, xb, sb, [&](int64_t r, const Vec<A>(&sum)[V]) {
          for (int v = 0; v < V; ++v) store(po + r * step + v * W<A>, sum[v]);
        });
        unpack<T>(vo, args.R, args.C, po, first, lanes, out + n * vo.row);
      }
    });
  };

  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      A* const scratch = memory.p + task * numbers;
      for (int64_t t = task * tiles / tasks; t < (task + 1) * tiles / tasks; ++t) {
        const int64_t first = by_row ? t % row_tiles * step : t * step;
        const int64_t left = (by_row ? args.C : args.N * args.C) - first;
        const int lanes = left < step ? int(left) : step;
        if (!args.total) {
          tile(by_row ? t / row_tiles : 0, first, lanes, scratch);
          continue;
        }
        A* const po = scratch + (args.A + args.B) * step;
        for (int64_t i = 0; i < args.R * step; ++i) po[i] = 0;
        for (int64_t n = 0; n < args.N; ++n) tile(n, first, lanes, scratch);
        unpack<T>(vo, args.R, args.C, po, first, lanes, out);
      }
    }
  };
  parallel_for(pf, tasks, 1, body);
}

}  // namespace

void sparse_bilinear(const BilinearArgs& a, const ParallelFor& pf) {
  if (a.C <= 0 || a.R <= 0 || (a.N <= 0 && !a.total)) return;
  with_dtype(a.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    if constexpr (is_float_storage<T>) run<T>(a, pf);
  });
}

}  // namespace structops::STRUCTOPS_ISA
