// The sibling scores of one sentence from its factors, and the factors' gradients from those of the scores, for one instruction
// set. A table is [N, N, N] (dependent, head, sibling) of which the siblings between dependent and head are used.
//
// All is done for one left end i at a time, the arcs over the spans [i, j] being rows: 2r for dependent i and head j = i + 2 +
// r, 2r + 1 for dependent j and head i. Then every step is a product of small matrices, with siblings k = i + 1 + c as columns:
//   A[row, d] = x[dep, d] y[head, d];  sib = A Z^T;  sums over k = P Z;  post_z += P^T A.
// A row has the columns c <= r: the products leave out blocks of rows or columns beyond.
#pragma once
#include "tree/chart_scratch.h"

namespace structops::STRUCTOPS_ISA {

constexpr int kTileRows = 8;

// out[r] += sum_p a[r as + p ap] b[p bs ..], a tile of kTileRows rows and one vector. Named accumulators: they stay in
// registers.
template <class A>
STRUCTOPS_INLINE void tile(Vec<A>* out, const A* a, int64_t as, int64_t ap, const A* b, int64_t bs, int count) {
  static_assert(kTileRows == 8);
  Vec<A> c0 = out[0], c1 = out[1], c2 = out[2], c3 = out[3], c4 = out[4], c5 = out[5], c6 = out[6], c7 = out[7];
  const A *a0 = a, *a4 = a + 4 * as;
  for (int p = 0; p < count; ++p, a0 += ap, a4 += ap, b += bs) {
    const Vec<A> y = load(b);
    c0 += a0[0] * y;
    c1 += a0[as] * y;
    c2 += a0[2 * as] * y;
    c3 += a0[3 * as] * y;
    c4 += a4[0] * y;
    c5 += a4[as] * y;
    c6 += a4[2 * as] * y;
    c7 += a4[3 * as] * y;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3, out[4] = c4, out[5] = c5, out[6] = c6, out[7] = c7;
}

template <class A>
constexpr int64_t whole_vectors(int64_t n) {
  return (n + W<A> - 1) / W<A> * W<A>;
}

template <class A>
struct Factors {  // of one sentence, rows of `pitch` numbers, 0 past D
  const A *x, *y, *z;
};

template <class A>
struct FactorRoom {
  int64_t N, D, pitch, across;  // across: numbers in a row of siblings
  bool dual;

  FactorRoom(int64_t words, int64_t D_, bool dual_)
      : N(words + 1), D(D_), pitch(whole_vectors<A>(D_)), across(whole_vectors<A>(words) + 2 * W<A>), dual(dual_) {}
  int64_t rows() const { return whole_vectors<A>(2 * N) + kTileRows; }
  int64_t numbers() const {
    const int64_t factors = 3 * N * pitch, transposed = D * (across + W<A>);
    const int64_t matrices = rows() * (2 * pitch + across);  // A and the sums; P of one left end
    return (dual ? 2 : 1) * (factors + transposed + matrices) + 3 * N * pitch + 2 * W<A>;
  }
};

// Factors of one sentence at hand, and the products above. One: factors; with dual also their tangents.
template <class A>
class SentenceFactors {
 public:
  SentenceFactors(const FactorRoom<A>& room, int n, A* memory) : r_(room), n_(n), memory_(memory) {
    auto take = [&](int64_t count) {
      A* const p = memory;
      memory += count;
      return p;
    };
    for (int t = 0; t < (room.dual ? 2 : 1); ++t) {
      for (auto& f : f_[t]) f = take(room.N * room.pitch);
      zt_[t] = take(room.D * (room.across + W<A>));
      a_[t] = take(room.rows() * room.pitch);
      p_[t] = take(room.rows() * room.across);
      sums_[t] = take(room.rows() * room.pitch);
    }
    for (auto& g : g_) g = take(room.N * room.pitch);
  }

  // Copies the factors (t = 0) or their tangents (t = 1) of a sentence in; x, y, z: [n + 1, D].
  void read(int t, Numbers x, Numbers y, Numbers z) {
    const Numbers from[3] = {x, y, z};
    for (int s = 0; s < 3; ++s)
      for (int i = 0; i <= n_; ++i)
        for (int64_t d = 0; d < r_.pitch; d += W<A>) {
          const int count = i > 0 || s == 1 ? int(r_.D - d < W<A> ? r_.D - d : W<A>) : 0;  // the root is no dependent and no sibling
          store(f_[t][s] + i * r_.pitch + d, read_vector<A>(from[s] + (i * r_.D + d), count));
        }
    for (int64_t d = 0; d < r_.D; ++d)
      for (int64_t k = 0; k < pitch_t(); ++k) zt_[t][d * pitch_t() + k] = k <= n_ ? f_[t][2][k * r_.pitch + d] : A(0);
  }

  // The used entries of a table with rows of `side` numbers; with tangents: of its derivative.
  void scores(A* table, int64_t side, bool tangent) {
    for (int i = 0; i + 2 <= n_; ++i) {
      const int rows = 2 * (n_ - i - 1);
      products(i, rows, tangent);
      for (int r0 = 0; r0 < rows; r0 += kTileRows) {
        const int columns = columns_of(r0, rows);
        for (int c0 = 0; c0 < columns; c0 += W<A>) {
          Vec<A> out[kTileRows] = {};
          const int64_t z = i + 1 + c0;
          if (tangent) {
            tile<A>(out, a_[0] + r0 * r_.pitch, r_.pitch, 1, zt_[1] + z, pitch_t(), int(r_.D));
            tile<A>(out, a_[1] + r0 * r_.pitch, r_.pitch, 1, zt_[0] + z, pitch_t(), int(r_.D));
          } else {
            tile<A>(out, a_[0] + r0 * r_.pitch, r_.pitch, 1, zt_[0] + z, pitch_t(), int(r_.D));
          }
          for (int r = 0; r < kTileRows && r0 + r < rows; ++r) {
            const int count = (r0 + r) / 2 + 1 - c0;
            if (count > 0) store_n(row(table, side, i, r0 + r) + c0, out[r], count < W<A> ? count : W<A>);
          }
        }
      }
    }
  }

  // Gradients from P (and D, with tangents) to x, y, z: [n + 1, D], overwritten.
  void gradients(const A* P, const A* D, int64_t side, Results x, Results y, Results z) {
    for (auto& g : g_)
      for (int64_t k = 0; k < r_.N * r_.pitch; ++k) g[k] = 0;
    const bool tangent = D != nullptr;
    for (int i = 0; i + 2 <= n_; ++i) {
      const int rows = 2 * (n_ - i - 1);
      products(i, rows, tangent);
      gather(p_[0], tangent ? D : P, side, i, rows);
      if (tangent) gather(p_[1], P, side, i, rows);
      // With T the sums over k: to x[dep] goes T y[head], to y[head] T x[dep].
      sums(sums_[0], i, rows, p_[0], f_[0][2]);
      if (tangent) {
        sums(sums_[1], i, rows, p_[1], f_[0][2]);
        sums(sums_[0], i, rows, p_[1], f_[1][2], true);
      }
      for (int r = 0; r < rows; ++r) {
        const int64_t dep = (r & 1 ? i + 2 + r / 2 : i) * r_.pitch, head = (r & 1 ? i : i + 2 + r / 2) * r_.pitch;
        if (dep == 0) continue;
        for (int64_t d = 0; d < r_.pitch; d += W<A>) {
          const Vec<A> t = load(sums_[0] + r * r_.pitch + d);
          Vec<A> to_x = t * load(f_[0][1] + head + d), to_y = t * load(f_[0][0] + dep + d);
          if (tangent) {
            const Vec<A> u = load(sums_[1] + r * r_.pitch + d);
            to_x += u * load(f_[1][1] + head + d);
            to_y += u * load(f_[1][0] + dep + d);
          }
          add_to<A>(g_[0] + dep + d, to_x);
          add_to<A>(g_[1] + head + d, to_y);
        }
      }
      to_siblings(i, rows, p_[0], a_[0]);
      if (tangent) to_siblings(i, rows, p_[1], a_[1]);
    }
    const Results to[3] = {x, y, z};
    for (int s = 0; s < 3; ++s)
      for (int i = 0; i <= n_; ++i)
        for (int64_t d = 0; d < r_.D; d += W<A>)
          write_vector<A>(to[s] + (i * r_.D + d), load(g_[s] + i * r_.pitch + d), int(r_.D - d < W<A> ? r_.D - d : W<A>));
  }

 private:
  int64_t pitch_t() const { return r_.across + W<A>; }
  // Columns of the rows r0 .. r0 + kTileRows.
  int columns_of(int r0, int rows) const {
    const int last = r0 + kTileRows < rows ? r0 + kTileRows : rows;
    return (last - 1) / 2 + 1;
  }
  template <class P>
  static P* row(P* table, int64_t side, int i, int r) {
    const int64_t j = i + 2 + r / 2;
    return table + (r & 1 ? j * side + i : i * side + j) * side + i + 1;
  }

  void products(int i, int rows, bool tangent) {
    const int filled = (rows + kTileRows - 1) / kTileRows * kTileRows;
    for (int r = 0; r < filled; ++r) {
      const int64_t dep = (r & 1 ? i + 2 + r / 2 : i) * r_.pitch, head = (r & 1 ? i : i + 2 + r / 2) * r_.pitch;
      for (int64_t d = 0; d < r_.pitch; d += W<A>) {
        const int64_t to = r * r_.pitch + d;
        const bool there = r < rows;
        const Vec<A> x = there ? load(f_[0][0] + dep + d) : Vec<A>{}, y = there ? load(f_[0][1] + head + d) : Vec<A>{};
        store(a_[0] + to, x * y);
        if (tangent) store(a_[1] + to, there ? load(f_[1][0] + dep + d) * y + x * load(f_[1][1] + head + d) : Vec<A>{});
      }
    }
  }

  // The rows of one left end side by side, 0 where they have no column. An arc to the root has none.
  void gather(A* to, const A* table, int64_t side, int i, int rows) const {
    const int filled = (rows + kTileRows - 1) / kTileRows * kTileRows;
    const int64_t across = whole_vectors<A>(n_ - i - 1);
    for (int r = 0; r < filled; ++r) {
      const int count = r < rows && !(i == 0 && !(r & 1)) ? r / 2 + 1 : 0;
      const A* const from = r < rows ? row(table, side, i, r) : table;
      for (int64_t c = 0; c < across; c += W<A>) {
        const int64_t left = count - c;
        store(to + r * r_.across + c, left <= 0 ? Vec<A>{} : left >= W<A> ? load(from + c) : load_n(from + c, int(left)));
      }
    }
  }

  void sums(A* to, int i, int rows, const A* p, const A* z, bool add = false) const {
    for (int r0 = 0; r0 < rows; r0 += kTileRows)
      for (int64_t d = 0; d < r_.pitch; d += W<A>) {
        Vec<A> out[kTileRows] = {};
        tile<A>(out, p + r0 * r_.across, r_.across, 1, z + (i + 1) * r_.pitch + d, r_.pitch, columns_of(r0, rows));
        for (int r = 0; r < kTileRows; ++r) {
          A* const at = to + (r0 + r) * r_.pitch + d;
          store(at, add ? load(at) + out[r] : out[r]);
        }
      }
  }

  void to_siblings(int i, int rows, const A* p, const A* a) {
    const int columns = n_ - i - 1;
    for (int c0 = 0; c0 < columns; c0 += kTileRows)
      for (int64_t d = 0; d < r_.pitch; d += W<A>) {
        Vec<A> out[kTileRows] = {};
        const int r0 = 2 * c0;  // the first row that has column c0
        tile<A>(out, p + r0 * r_.across + c0, 1, r_.across, a + r0 * r_.pitch + d, r_.pitch, rows - r0);
        for (int c = 0; c < kTileRows && c0 + c < columns; ++c) add_to<A>(g_[2] + (i + 1 + c0 + c) * r_.pitch + d, out[c]);
      }
  }

  FactorRoom<A> r_;
  int n_;
  A* memory_;
  A *f_[2][3], *zt_[2], *a_[2], *p_[2], *sums_[2], *g_[3];  // [0]: factors, [1]: tangents
};

}  // namespace structops::STRUCTOPS_ISA
