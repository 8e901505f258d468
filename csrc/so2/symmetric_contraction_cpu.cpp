// CPU symmetric contractions. The contract is symmetric_contraction.h.
//
// A job is W channels of up to 256 nodes of one element: it sums the coefficients u of its channels once, then takes kNodes<K>
// nodes at a time, a vector of channels each, so that indices and u are read once for all of them. Numbers with directions are
// kept as 2^K coefficients ("jets"), each of a set of directions.
#include "so2/symmetric_contraction.h"

#include "core/transpose.h"
#include "so2/tp_rows.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int64_t kPiece = 256;  // nodes of an element whose gradients of w are summed together
template <int K> constexpr int kNodes = K == 0 ? 4 : K == 1 ? 2 : 1;

// Jets of kNodes nodes, in registers.
template <class A, int K> struct Jets {
  static constexpr int n = 1 << K, R = kNodes<K>, size = n * R * W<A>;
  Vec<A> v[n][R];

  [[gnu::always_inline]] static Jets at(const A* p) {
    Jets j;
#pragma GCC unroll 4
    for (int s = 0; s < n; ++s)
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) j.v[s][r] = load(p + (s * R + r) * W<A>);
    return j;
  }
  [[gnu::always_inline]] void to(A* p) const {
#pragma GCC unroll 4
    for (int s = 0; s < n; ++s)
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) store(p + (s * R + r) * W<A>, v[s][r]);
  }
};

// sum += a * b, in the algebra; only the coefficient of all directions where `top`.
template <bool top, class A, int K> STRUCTOPS_INLINE void add_product(Jets<A, K>& sum, const Jets<A, K>& a, const Jets<A, K>& b) {
  constexpr int n = Jets<A, K>::n;
#pragma GCC unroll 4
  for (int s = top ? n - 1 : 0; s < n; ++s)
#pragma GCC unroll 4
    for (int t = 0; t < n; ++t) {
      if ((t & s) != t) continue;
#pragma GCC unroll 4
      for (int r = 0; r < kNodes<K>; ++r) sum.v[s][r] += a.v[t][r] * b.v[s ^ t][r];
    }
}

template <class A, int K> STRUCTOPS_INLINE void add_product_at(A* sum, const Jets<A, K>& a, const Jets<A, K>& b) {
  Jets<A, K> s = Jets<A, K>::at(sum);
  add_product<false>(s, a, b);
  s.to(sum);
}

// A coefficient u, equal for all nodes: c[0], and its derivatives along single directions if they move w.
template <class A, int K, bool moves> STRUCTOPS_INLINE void add_scaled(Jets<A, K>& sum, const A* c, const Jets<A, K>& a) {
  constexpr int n = Jets<A, K>::n;
  const Vec<A> base = load(c);
#pragma GCC unroll 4
  for (int s = 0; s < n; ++s) {
#pragma GCC unroll 4
    for (int r = 0; r < kNodes<K>; ++r) sum.v[s][r] += base * a.v[s][r];
    if constexpr (moves)
#pragma GCC unroll 2
      for (int j = 0; j < K; ++j) {
        if (!(s >> j & 1)) continue;
        const Vec<A> d = load(c + (j + 1) * W<A>);
#pragma GCC unroll 4
        for (int r = 0; r < kNodes<K>; ++r) sum.v[s][r] += d * a.v[s ^ (1 << j)][r];
      }
  }
}

struct View {
  int64_t row, channel, component;
};

// `count` components of the channels [first, first + lanes) of one node, to[i * step]; null is zero.
template <class T>
void pack(const View& v, int64_t count, const T* from, int64_t node, int64_t first, int lanes, Acc<T>* to, int64_t step) {
  using A = Acc<T>;
  if (!from || lanes < W<A> || v.channel != 1)
    for (int64_t i = 0; i < count; ++i) store(to + i * step, Vec<A>{});
  if (!from) return;
  const T* const p = from + node * v.row + first * v.channel;
  if (v.channel == 1) {
    for (int64_t i = 0; i < count; ++i, to += step) {
      const T* const q = p + i * v.component;
      store(to, lanes == W<A> ? load(q) : load_n(q, lanes));
    }
    return;
  }
  transpose(p, v.channel, lanes, count, to, step);
}

template <class T>
void unpack(const View& v, int64_t count, const Acc<T>* from, int64_t step, T* to, int64_t node, int64_t first, int lanes) {
  using A = Acc<T>;
  T* const p = to + node * v.row + first * v.channel;
  if (v.channel == 1) {
    for (int64_t i = 0; i < count; ++i) {
      if (lanes == W<A>) store<T>(p + i * v.component, load(from + i * step));
      else store_n<T>(p + i * v.component, load(from + i * step), lanes);
    }
    return;
  }
  transpose(from, step, count, lanes, p, v.channel);
}

// Numbers of a job, all [..][W]: u and its gradient; factors and their gradients; g; the result in g.
template <class A> struct Scratch {
  A *u, *gu, *f, *gf, *g, *gg;
};

// All terms for the nodes of a tile.
template <class A, int K, bool moves>
void terms(const SymmetricPlan& p, const Scratch<A>& s, bool want_x, bool want_w, bool want_g) {
  using J = Jets<A, K>;
  constexpr int top = J::n - 1, R = kNodes<K>, coefs = moves ? K + 1 : 1;
  for (int64_t q = 0; q < p.pairs; ++q) {
    J product{};
    add_product<false>(product, J::at(s.f + p.pair[2 * q] * J::size), J::at(s.f + p.pair[2 * q + 1] * J::size));
    product.to(s.f + (1 + p.D + q) * J::size);
  }
  if (want_x)
    for (int64_t i = 0; i < (1 + p.D + p.pairs) * J::size; i += W<A>) store(s.gf + i, Vec<A>{});
  for (int64_t o = 0; o < p.O; ++o) {
    J sum{};
    const J g = J::at(s.g + o * J::size);
    for (int32_t t = p.out_ptr[o]; t < p.out_ptr[o + 1]; ++t) {
      const int64_t at = p.factors[2 * t] * int64_t(J::size), bt = p.factors[2 * t + 1] * int64_t(J::size);
      const J a = J::at(s.f + at), b = J::at(s.f + bt);
      const A* const u = s.u + int64_t(t) * coefs * W<A>;
      if (want_g || want_w) {
        J product{};
        add_product<false>(product, a, b);
        if (want_g) add_scaled<A, K, moves>(sum, u, product);
        if (want_w) {
          J gp{};
          add_product<true>(gp, product, g);
          Vec<A> total = gp.v[top][0];
#pragma GCC unroll 4
          for (int r = 1; r < R; ++r) total += gp.v[top][r];
          A* const gu = s.gu + int64_t(t) * W<A>;
          store(gu, load(gu) + total);
        }
      }
      if (want_x) {
        J ug{};
        add_scaled<A, K, moves>(ug, u, g);
        add_product_at(s.gf + at, ug, b);
        add_product_at(s.gf + bt, ug, a);
      }
    }
    if (want_g)
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) store(s.gg + (o * R + r) * W<A>, sum.v[top][r]);
  }
  if (!want_x) return;
  for (int64_t q = 0; q < p.pairs; ++q) {
    const J g = J::at(s.gf + (1 + p.D + q) * J::size);
    const int64_t a = p.pair[2 * q] * int64_t(J::size), b = p.pair[2 * q + 1] * int64_t(J::size);
    add_product_at(s.gf + a, g, J::at(s.f + b));
    add_product_at(s.gf + b, g, J::at(s.f + a));
  }
}

template <class T, int K, bool moves> void contract(const SymmetricArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  using J = Jets<A, K>;
  constexpr int R = kNodes<K>, coefs = moves ? K + 1 : 1;
  const SymmetricPlan& p = a.plan;
  auto view = [&](int64_t count) { return a.components_last ? View{count * a.C, count, 1} : View{count * a.C, 1, a.C}; };
  const View vx = view(p.D), vo = view(p.O);
  const int64_t chunks = (a.C + W<A> - 1) / W<A>, width = chunks * W<A>, factors = 1 + p.D + p.pairs;

  int64_t pieces = 0;
  for (int64_t z = 0; z < a.Z; ++z) pieces += (a.ptr[z + 1] - a.ptr[z] + kPiece - 1) / kPiece;
  const int64_t jobs = pieces * chunks, wanted = pf.threads > 1 ? pf.threads * 8 : 1, tasks = jobs < wanted ? jobs : wanted;
  const int64_t sizes[6] = {p.terms * coefs * W<A>, p.terms * W<A>, factors * J::size, factors * J::size, p.O * J::size,
                            p.O * R * W<A>};
  int64_t numbers = 0;
  for (int64_t n : sizes) numbers += n;
  const int64_t shared = 2 * p.entries, partial = a.gw ? pieces * p.P * width : 0;
  struct Memory {
    char* p;
    ~Memory() { std::free(p); }
  } memory{allocate<char>(size_t(tasks * numbers + partial + shared) * sizeof(A) + kLine)},
    ints{allocate<char>(size_t(3 * pieces) * 8)};
  A* const base = reinterpret_cast<A*>((reinterpret_cast<uintptr_t>(memory.p) + kLine - 1) / kLine * kLine);
  A *const sums = base + tasks * numbers, *const by_term = sums + partial, *const by_path = by_term + p.entries;
  for (int64_t e = 0; e < p.entries; ++e) by_term[e] = A(p.by_term[e]), by_path[e] = A(p.by_path[e]);
  struct Piece {
    int64_t z, begin, end;
  };
  Piece* const piece = reinterpret_cast<Piece*>(ints.p);
  pieces = 0;
  for (int64_t z = 0; z < a.Z; ++z)
    for (int64_t k = a.ptr[z]; k < a.ptr[z + 1]; k += kPiece)
      piece[pieces++] = {z, k, k + kPiece < a.ptr[z + 1] ? k + kPiece : a.ptr[z + 1]};

  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      A* next = base + task * numbers;
      auto take = [&](int i) { A* const q = next; next += sizes[i]; return q; };
      const Scratch<A> s{take(0), take(1), take(2), take(3), take(4), take(5)};
      for (int i = 0; i < J::size; i += W<A>) store(s.f + i, splat(i < R * W<A> ? A(1) : A(0)));
      for (int64_t job = task * jobs / tasks; job < (task + 1) * jobs / tasks; ++job) {
        const Piece& here = piece[job / chunks];
        const int64_t first = job % chunks * W<A>;
        const int lanes = a.C - first < W<A> ? int(a.C - first) : W<A>;
        for (int j = 0; j < coefs; ++j) {
          const T* const w = static_cast<const T*>(a.w[j]);
          for (int64_t t = 0; t < p.terms; ++t) {
            Vec<A> u{};
            for (int32_t e = p.term_ptr[t]; w && e < p.term_ptr[t + 1]; ++e) {
              const T* const from = w + (here.z * p.P + p.entry_path[e]) * a.C + first;
              u += spread(by_term[e]) * (lanes == W<A> ? load(from) : load_n(from, lanes));
            }
            store(s.u + (t * coefs + j) * W<A>, u);
          }
        }
        if (a.gw)
          for (int64_t t = 0; t < p.terms; ++t) store(s.gu + t * W<A>, Vec<A>{});
        for (int64_t k = here.begin; k < here.end; k += R) {
          for (int r = 0; r < R; ++r) {
            const bool real = k + r < here.end;
            const int64_t node = real ? a.nodes[k + r] : 0;
            for (int set = 0; set < J::n; ++set) {
              const int j = set == 3 ? -1 : set;  // both directions at once move nothing
              auto part = [&](const void* const* from) { return real && j >= 0 ? static_cast<const T*>(from[j]) : nullptr; };
              const int64_t at = (set * R + r) * W<A>;
              pack<T>(vx, p.D, part(a.x), node, first, lanes, s.f + J::size + at, J::size);
              pack<T>(vo, p.O, part(a.g), node, first, lanes, s.g + at, J::size);
            }
          }
          terms<A, K, moves>(p, s, a.gx, a.gw, a.gg);
          for (int r = 0; r < R && k + r < here.end; ++r) {
            const int64_t node = a.nodes[k + r], at = ((J::n - 1) * R + r) * W<A>;
            if (a.gx) unpack<T>(vx, p.D, s.gf + J::size + at, J::size, static_cast<T*>(a.gx), node, first, lanes);
            if (a.gg) unpack<T>(vo, p.O, s.gg + r * W<A>, R * W<A>, static_cast<T*>(a.gg), node, first, lanes);
          }
        }
        if (!a.gw) continue;
        for (int64_t q = 0; q < p.P; ++q) {
          Vec<A> sum{};
          for (int32_t e = p.path_ptr[q]; e < p.path_ptr[q + 1]; ++e)
            sum += spread(by_path[e]) * load(s.gu + int64_t(p.entry_term[e]) * W<A>);
          store(sums + (job / chunks * p.P + q) * width + first, sum);
        }
      }
    }
  };
  parallel_for(pf, tasks, 1, body);
  if (!a.gw) return;

  auto total = [&](int64_t begin, int64_t end) {
    int64_t next = 0;
    while (next < pieces && piece[next].z < begin) ++next;
    for (int64_t z = begin; z < end; ++z) {
      const int64_t from = next;
      while (next < pieces && piece[next].z == z) ++next;
      T* const out = static_cast<T*>(a.gw) + z * p.P * a.C;
      for (int64_t q = 0; q < p.P; ++q)
        for (int64_t c = 0; c < a.C; c += W<A>) {
          Vec<A> sum{};
          for (int64_t i = from; i < next; ++i) sum += load(sums + (i * p.P + q) * width + c);
          if (a.C - c >= W<A>) store<T>(out + q * a.C + c, sum);
          else store_n<T>(out + q * a.C + c, sum, int(a.C - c));
        }
    }
  };
  parallel_for(pf, a.Z, 1, total);
}

}  // namespace

void symmetric_contraction(const SymmetricArgs& a, const ParallelFor& pf) {
  if (a.C <= 0) return;
  const bool moves = (a.order > 0 && a.w[1]) || (a.order > 1 && a.w[2]);
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) {
      if (a.order == 0) contract<T, 0, false>(a, pf);
      else if (a.order == 1) moves ? contract<T, 1, true>(a, pf) : contract<T, 1, false>(a, pf);
      else moves ? contract<T, 2, true>(a, pf) : contract<T, 2, false>(a, pf);
    }
  });
}

}  // namespace structops::STRUCTOPS_ISA
