// CPU frames, Wigner matrices and rotations. The contract is wigner.h.
#include "so2/rotate_rows.h"

namespace structops::STRUCTOPS_ISA {
namespace {

template <class F>
void with_real(Dtype t, F f) {
  if (t == Dtype::f64)
    f(static_cast<double*>(nullptr));
  else
    f(static_cast<float*>(nullptr));
}

template <class A>
struct Edges {
  const WignerArgs& a;
  int64_t S, n, R;
  const A *vec, *gamma, *d, *x, *z;
  A* out;
  explicit Edges(const WignerArgs& args)
      : a(args),
        S(int64_t(args.lmax + 1) * (args.lmax + 1)),
        n(frame_rows(args.lmax, args.mmax < 0 ? 0 : args.mmax)),
        R(packed_size(args.lmax, args.mmax < 0 ? 0 : args.mmax)),
        vec(static_cast<const A*>(args.vec)),
        gamma(static_cast<const A*>(args.gamma)),
        d(static_cast<const A*>(args.d)),
        x(static_cast<const A*>(args.x)),
        z(static_cast<const A*>(args.z)),
        out(static_cast<A*>(args.out)) {}
};

// body(edge range) over all edges, for float and double.
template <class F>
void over_edges(const WignerArgs& a, const ParallelFor& pf, int64_t work, F f) {
  with_real(a.dtype, [&](auto* t) {
    using A = Pointee<decltype(t)>;
    const Edges<A> e(a);
    auto body = [&](int64_t begin, int64_t end) { f(e, begin, end); };
    parallel_for(pf, a.E, (32768 + work) / (work + 1), body);
  });
}

// z[row, c] x[s, c] summed over c, for every kept (row, s).
template <class A>
void outer_edge(int L, int M, int64_t C, const A* z, const A* x, A* out) {
  for (int l = 0; l <= L; ++l) {
    const int k = l < M ? l : M;
    for (int m = -k; m <= k; ++m)
      for (int s = 0; s < 2 * l + 1; ++s) {
        const A *const zr = z + frame_row(L, l, m) * C, *const xr = x + (l * l + s) * C;
        Vec<A> sum{};
        for (int64_t c = 0; c < C; c += W<A>) {
          const int n = int(C - c < W<A> ? C - c : W<A>);
          sum += load_w(zr + c, n) * load_w(xr + c, n);
        }
        *out++ = hsum<A>(sum);
      }
  }
}

// y = (v . G) x on features.
template <class A>
void turn_edge(int L, int64_t C, const A* v, const A* x, A* y) {
  const WignerTable& table = wigner_table();
  for (int64_t i = 0; i < int64_t(L + 1) * (L + 1) * C; ++i) y[i] = 0;
  for (int l = 1; l <= L; ++l)
    for (int q = table.gen_begin[l]; q < table.gen_begin[l + 1]; ++q) {
      const GeneratorTerm& w = table.gen[q];
      const A f = A(w.c) * v[w.axis];
      for (int64_t c = 0; c < C; ++c) y[(l * l + w.row) * C + c] += f * x[(l * l + w.col) * C + c];
    }
}

// f(at, size, rows, generator) over the blocks of a packed matrix; (D G)[r, col] takes D[r, row].
template <class F>
void packed_generators(int L, int M, F f) {
  const WignerTable& table = wigner_table();
  int at = 0;
  for (int l = 0; l <= L; ++l) {
    const int rows = kept_rows(l, M), size = 2 * l + 1;
    for (int q = l ? table.gen_begin[l] : 0; q < (l ? table.gen_begin[l + 1] : 0); ++q) f(at, size, rows, table.gen[q]);
    at += rows * size;
  }
}

}  // namespace

void wigner_fwd(const WignerArgs& a, const ParallelFor& pf) {
  constexpr int L = W<double>;
  with_real(a.dtype, [&](auto* t) {
    using A = Pointee<decltype(t)>;
    const Edges<A> e(a);
    auto body = [&](int64_t begin, int64_t end) {
      for (int64_t k = begin * L; k < a.E && k < end * L; k += L)
        wigner_lanes<A, A>(int(a.E - k < L ? a.E - k : L), e.vec + 3 * k, e.gamma ? e.gamma + k : nullptr, a.lmax, a.mmax,
                           e.out + k * e.R, nullptr);
    };
    parallel_for(pf, (a.E + L - 1) / L, 1 + 256 / (e.R + 1), body);
  });
}

void rotate_fwd(const WignerArgs& a, const ParallelFor& pf) {
  over_edges(a, pf, a.C * 16, [&](auto& e, int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k)
      rotate_edge(a.lmax, a.mmax, a.C, e.d + k * e.R, e.x + k * e.S * a.C, e.out + k * e.n * a.C, a.C);
  });
}

void rotate_back(const WignerArgs& a, const ParallelFor& pf) {
  over_edges(a, pf, a.C * 16, [&](auto& e, int64_t begin, int64_t end) {
    using A = Pointee<decltype(e.out)>;
    for (int64_t k = begin; k < end; ++k)
      rotate_back_edge<A, false>(a.lmax, a.mmax, a.C, e.d + k * e.R, e.z + k * e.n * a.C, a.C, A(1), e.out + k * e.S * a.C);
  });
}

void rotate_outer(const WignerArgs& a, const ParallelFor& pf) {
  over_edges(a, pf, a.C * 16, [&](auto& e, int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k)
      outer_edge(a.lmax, a.mmax, a.C, e.z + k * e.n * a.C, e.x + k * e.S * a.C, e.out + k * e.R);
  });
}

void so3_turn(const WignerArgs& a, const ParallelFor& pf) {
  over_edges(a, pf, a.C * 16, [&](auto& e, int64_t begin, int64_t end) {
    using A = Pointee<decltype(e.out)>;
    for (int64_t k = begin; k < end; ++k) {
      const A* const v = e.vec + 3 * k;
      if (a.mmax < 0) {
        turn_edge(a.lmax, a.C, v, e.x + k * e.S * a.C, e.out + k * e.S * a.C);
        continue;
      }
      const A* const x = e.x + k * e.R;
      A* const y = e.out + k * e.R;
      for (int64_t i = 0; i < e.R; ++i) y[i] = 0;
      packed_generators(a.lmax, a.mmax, [&](int at, int size, int rows, const GeneratorTerm& w) {
        for (int r = 0; r < rows; ++r) y[at + r * size + w.col] += A(w.c) * v[w.axis] * x[at + r * size + w.row];
      });
    }
  });
}

void so3_torque(const WignerArgs& a, const ParallelFor& pf) {
  over_edges(a, pf, a.C * 16, [&](auto& e, int64_t begin, int64_t end) {
    using A = Pointee<decltype(e.out)>;
    for (int64_t k = begin; k < end; ++k) {
      A t[3] = {};
      if (a.mmax < 0)
        torque_edge(a.lmax, a.C, e.z + k * e.S * a.C, e.x + k * e.S * a.C, t);
      else {
        const A *const g = e.z + k * e.R, *const x = e.x + k * e.R;
        packed_generators(a.lmax, a.mmax, [&](int at, int size, int rows, const GeneratorTerm& w) {
          for (int r = 0; r < rows; ++r) t[w.axis] += A(w.c) * g[at + r * size + w.col] * x[at + r * size + w.row];
        });
      }
      for (int j = 0; j < 3; ++j) e.out[3 * k + j] = t[j];
    }
  });
}

}  // namespace structops::STRUCTOPS_ISA
