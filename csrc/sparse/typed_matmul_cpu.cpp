// CPU typed matmul and the gradient of its matrices. The contract is typed_matmul.h.
//
// The matrices are packed once. A tile gathers (and sums) up to kTile rows into a buffer, multiplies them by the panels of one
// type and writes or adds the products to their rows. Rows that lie in order are multiplied where they are.
#include "sparse/product_tile.h"
#include "sparse/typed_matmul.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int64_t kChunk = 8 * kTile;  // rows of a task where rows are stored
constexpr int64_t kGradTile = 2 * kTile;

// Rows p0 .. p1 of the left operand: where they lie, or gathered into the tile.
template <class T>
const Acc<T>* left_rows(const TypedArgs& a, int64_t p0, int64_t p1, Acc<T>* tile, int64_t ld, int64_t* ld_out) {
  using A = Acc<T>;
  const T* const x = static_cast<const T*>(a.x);
  const A* const c = static_cast<const A*>(a.scale);
  if constexpr (sizeof(T) == sizeof(A))
    if (!a.gather && !a.gptr && !c && (a.x_rows - p1) * a.K >= kMR<A> * (a.K + 1)) {
      *ld_out = a.K;
      return x + p0 * a.K;
    }
  *ld_out = ld;
  constexpr int64_t ahead = 8;
  for (int64_t p = p0; p < p1; ++p) {
    A* const to = tile + (p - p0) * ld;
    const int64_t begin = a.gptr ? a.gptr[p] : p, end = a.gptr ? a.gptr[p + 1] : p + 1;
    if (a.gather && p + ahead < p1) {
      const T* const next = x + a.gather[a.gptr ? a.gptr[p + ahead] : p + ahead] * a.K;
      for (int64_t j = 0; j < a.K; j += 64 / sizeof(T)) __builtin_prefetch(next + j);
    }
    if (begin == end)
      for (int64_t j = 0; j < a.K; ++j) to[j] = 0;
    for (int64_t k = begin; k < end; ++k)
      add_row<T>(to, x + (a.gather ? a.gather[k] : k) * a.K, a.K, c ? c[k] : A(1), k == begin);
  }
  return tile;
}

template <class T>
struct Forward {
  using A = Acc<T>;
  const TypedArgs& a;
  const A* packed;
  A* sums;  // [rows, N] of accumulators, where the rows of out are added to
  int64_t ldk, ldn;

  int64_t scratch() const { return kTile * (ldk + ldn) + kSlack; }

  // Rows [p0, p1) of one type.
  void rows(int64_t type, int64_t p0, int64_t p1, A* tile) const {
    const A* const panels_of = packed + type * packed_floats<A>(a.K, a.N);
    const T* const bias = a.bias ? static_cast<const T*>(a.bias) + type * a.N : nullptr;
    T* const out = static_cast<T*>(a.out);
    A* const c = tile + kTile * ldk;
    for (int64_t p = p0; p < p1; p += kTile) {
      const int64_t m = least(p1 - p, kTile);
      int64_t ld;
      const A* const x = left_rows<T>(a, p, p + m, tile, ldk, &ld);
      int64_t done = 0;
      if constexpr (sizeof(T) == sizeof(A))
        if (!sums && !a.scatter && !bias) {  // whole blocks of rows go straight to their place
          done = m / kMR<A> * kMR<A>;
          if (done) gemm<A>(done, a.N, a.K, x, ld, panels_of, out + p * a.N, a.N, 1, false);
        }
      if (done == m) continue;
      gemm<A>(whole<A>(m - done), a.N, a.K, x + done * ld, ld, panels_of, c, ldn, 1, false);
      for (int64_t i = done; i < m; ++i) {
        const A* const from = c + (i - done) * ldn;
        const int64_t row = a.scatter ? a.scatter[p + i] : p + i;
        if (sums) {
          add_row<A>(sums + row * a.N, from, a.N, 1, false);
          continue;
        }
        T* const to = out + row * a.N;
        for (int64_t j = 0; j < a.N; j += W<A>) {
          const int w = int(least(a.N - j, W<A>));
          Vec<A> v = load(from + j);
          if (bias) v += w == W<A> ? load(bias + j) : load_n(bias + j, w);
          if (w == W<A>) store(to + j, v); else store_n(to + j, v, w);
        }
      }
    }
  }

  void chunk(int64_t p0, int64_t p1, A* tile) const {
    int64_t lo = 0, hi = a.S;  // the last segment that begins at or before p0
    while (hi - lo > 1) {
      const int64_t mid = (lo + hi) / 2;
      (a.ptr[mid] <= p0 ? lo : hi) = mid;
    }
    for (int64_t s = lo; s < a.S && a.ptr[s] < p1; ++s) {
      const int64_t begin = a.ptr[s] > p0 ? a.ptr[s] : p0, end = least(a.ptr[s + 1], p1);
      if (begin < end) rows(a.types ? a.types[s] : s, begin, end, tile);
    }
  }

  void block(int64_t b, A* tile) const {
    const int64_t begin = a.block_rows[b] * a.N, end = a.block_rows[b + 1] * a.N;
    __builtin_memset(sums + begin, 0, size_t(end - begin) * sizeof(A));
    for (int64_t s = a.blocks[b]; s < a.blocks[b + 1]; ++s) rows(a.types ? a.types[s] : s, a.ptr[s], a.ptr[s + 1], tile);
    if constexpr (sizeof(T) < sizeof(A))
      copy_out<T>(static_cast<T*>(a.out) + begin, sums + begin, end - begin);
  }
};

template <class T>
void forward(const TypedArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  const int64_t panel_count = panels<A>(a.N), size = packed_floats<A>(a.K, a.N);
  const Memory<char> used(a.R);
  __builtin_memset(used.p, 0, size_t(a.R));
  for (int64_t s = 0; s < a.S; ++s)
    if (a.ptr[s + 1] > a.ptr[s]) used.p[a.types ? a.types[s] : s] = 1;
  const Memory<A> packed(a.R * size + kSlack);
  auto pack = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t t = i / panel_count;
      if (used.p[t]) pack_panel<A>(packed.p + t * size, i % panel_count, a.K, a.N, static_cast<const T*>(a.w) + t * a.K * a.N, 1, a.N, A(1), 0, a.K);
    }
  };
  parallel_for(pf, a.R * panel_count, 16, pack);
  constexpr bool narrow = sizeof(T) < sizeof(A);
  const Memory<A> wide(narrow && a.blocks ? a.rows * a.N : 0);
  const Forward<T> f{a, packed.p, !a.blocks ? nullptr : narrow ? wide.p : static_cast<A*>(a.out), padded<A>(a.K), padded<A>(a.N)};
  const int64_t items = a.blocks ? a.B : (a.P + kChunk - 1) / kChunk;
  const int64_t tasks = task_count(pf, items);
  const Memory<A> scratch(tasks * f.scratch());
  in_tasks(pf, items, tasks, [&](int64_t task, int64_t begin, int64_t end) {
    A* const tile = scratch.p + task * f.scratch();
    for (int64_t i = begin; i < end; ++i)
      if (a.blocks) f.block(i, tile);
      else f.chunk(i * kChunk, least((i + 1) * kChunk, a.P), tile);
  });
}

// Where a piece of a type's rows begins: `skip` rows into the segment order[at].
struct Piece {
  int64_t type, at, skip, rows;
};

template <class T>
void weight_grad(const TypedArgs& a, const ParallelFor& pf) {
  using A = Acc<T>;
  const int64_t size = a.K * a.N, ldk = padded<A>(a.K), ldn = padded<A>(a.N);
  const int64_t goal = (a.P + 63) / 64, piece_rows = goal > 1024 ? goal : 1024;

  // Segments by type, stably, and the pieces of every type.
  const Memory<int64_t> first(a.R + 1), order(a.S), piece_first(a.R + 1);
  const Memory<Piece> pieces(a.R + a.P / piece_rows + 1);
  for (int64_t t = 0; t <= a.R; ++t) first.p[t] = 0;
  auto type = [&](int64_t s) { return a.types ? a.types[s] : s; };
  for (int64_t s = 0; s < a.S; ++s) ++first.p[type(s) + 1];
  for (int64_t t = 0; t < a.R; ++t) first.p[t + 1] += first.p[t];
  for (int64_t t = 0; t < a.R; ++t) piece_first.p[t] = first.p[t];
  for (int64_t s = 0; s < a.S; ++s) order.p[piece_first.p[type(s)]++] = s;
  int64_t count = 0;
  for (int64_t t = 0; t < a.R; ++t) {
    piece_first.p[t] = count;
    int64_t rows = 0;
    for (int64_t i = first.p[t]; i < first.p[t + 1]; ++i) {
      const int64_t n = a.ptr[order.p[i] + 1] - a.ptr[order.p[i]];
      for (int64_t taken = 0; taken < n;) {
        if (rows % piece_rows == 0) pieces.p[count++] = {t, i, taken, 0}, rows = 0;
        const int64_t add = least(n - taken, piece_rows - rows);
        pieces.p[count - 1].rows += add;
        rows += add;
        taken += add;
      }
    }
  }
  piece_first.p[a.R] = count;

  const int64_t each = kGradTile * (ldk + ldn) + kSlack, tasks = task_count(pf, count);
  const Memory<A> scratch(tasks * each), parts(count * size);
  const T* const grad = static_cast<const T*>(a.grad);
  in_tasks(pf, count, tasks, [&](int64_t task, int64_t begin, int64_t end) {
    A *const left = scratch.p + task * each, *const right = left + kGradTile * ldk;
    for (int64_t q = begin; q < end; ++q) {
      const Piece& piece = pieces.p[q];
      A* const part = parts.p + q * size;
      __builtin_memset(part, 0, size_t(size) * sizeof(A));
      int64_t at = piece.at, skip = piece.skip;
      for (int64_t done = 0; done < piece.rows;) {
        const int64_t goal_rows = least(piece.rows - done, kGradTile);
        int64_t m = 0;
        while (m < goal_rows) {  // a tile may span segments
          const int64_t s = order.p[at], p0 = a.ptr[s] + skip, n = least(a.ptr[s + 1] - p0, goal_rows - m);
          int64_t ld;
          const A* const x = left_rows<T>(a, p0, p0 + n, left + m * ldk, ldk, &ld);
          if (x != left + m * ldk)
            for (int64_t i = 0; i < n; ++i) __builtin_memcpy(left + (m + i) * ldk, x + i * ld, size_t(a.K) * sizeof(A));
          for (int64_t i = 0; i < n; ++i)
            add_row<T>(right + (m + i) * ldn, grad + (a.scatter ? a.scatter[p0 + i] : p0 + i) * a.N, a.N, 1, true);
          m += n;
          skip += n;
          if (p0 + n == a.ptr[s + 1]) ++at, skip = 0;
        }
        gemm_transposed<A>(a.K, a.N, m, left, ldk, right, ldn, part, a.N, 1);
        done += m;
      }
    }
  });
  T* const out = static_cast<T*>(a.out);
  auto total = [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t q0 = piece_first.p[t], q1 = piece_first.p[t + 1];
      for (int64_t j = 0; j < size; j += W<A>) {
        const int w = int(least(size - j, W<A>));
        Vec<A> sum{};
        for (int64_t q = q0; q < q1; ++q) sum += load_n(parts.p + q * size + j, w);
        store_n(out + t * size + j, sum, w);
      }
    }
  };
  parallel_for(pf, a.R, 1 + 16384 / (size + 1), total);
}

}  // namespace

void typed_matmul_fwd(const TypedArgs& a, const ParallelFor& pf) {
  if (a.rows == 0 || a.N == 0) return;
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) forward<T>(a, pf);
  });
}

void typed_matmul_wgrad(const TypedArgs& a, const ParallelFor& pf) {
  if (a.R == 0 || a.K == 0 || a.N == 0) return;
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    if constexpr (is_float_storage<T>) weight_grad<T>(a, pf);
  });
}

}  // namespace structops::STRUCTOPS_ISA
