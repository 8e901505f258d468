// Repacked rows, the tile of M, and the scratch of the tensor-product kernels, for one instruction set. See tp_cpu.cpp.
#pragma once
#include "core/memory.h"
#include "core/transpose.h"
#include "so2/tp.h"

namespace structops::STRUCTOPS_ISA {

constexpr int64_t kLine = 64;
constexpr int kGroup = 4;  // edges into one receiver that share each load and store of its row

// splat adds to zero, which must be computed where a may be -0; a - 0 is a.
template <class A> STRUCTOPS_INLINE Vec<A> spread(A a) { return a - Vec<A>{}; }

// Keeps p one register, so that what follows is addressed by constants from it.
template <class P> STRUCTOPS_INLINE P* anchored(P* p) {
  asm("" : "+r"(p));
  return p;
}

// One kind of row: where its blocks lie when packed as [component][channel, padded].
template <class A> struct Rows {
  const TpBlock* blocks = nullptr;
  int64_t n = 0, dim = 0, size = 0;  // blocks; numbers of a row as the caller has it, and packed
  int64_t* at = nullptr;             // [n]
  int64_t* step = nullptr;           // [n] from component to component
};

// The caller's row to a packed one. Padding is zero.
template <class T> inline void pack(const Rows<Acc<T>>& r, const T* row, Acc<T>* to) {
  using A = Acc<T>;
  for (int64_t b = 0; b < r.n; ++b) {
    const TpBlock& k = r.blocks[b];
    const T* const from = row + k.offset;
    A* const block = to + r.at[b];
    const int64_t step = r.step[b];
    if (k.channel != 1) {
      transpose(from, k.channel, k.mul, k.d, block, step);
      for (int c = 0; c < k.d; ++c)
        for (int64_t u = k.mul; u < step; ++u) block[c * step + u] = 0;
      continue;
    }
    for (int c = 0; c < k.d; ++c) {
      A* const o = block + c * step;
      const T* const p = from + int64_t(c) * k.component;
      int64_t u = 0;
      for (; u + W<A> <= k.mul; u += W<A>) store(o + u, load(p + u));
      if (u < k.mul) store(o + u, load_n(p + u, int(k.mul - u)));
    }
  }
}

template <class T> inline void unpack(const Rows<Acc<T>>& r, const Acc<T>* from, T* row) {
  using A = Acc<T>;
  for (int64_t b = 0; b < r.n; ++b) {
    const TpBlock& k = r.blocks[b];
    T* const to = row + k.offset;
    if (k.channel != 1) {
      transpose(from + r.at[b], r.step[b], k.d, k.mul, to, k.channel);
      continue;
    }
    for (int c = 0; c < k.d; ++c) {
      const A* const p = from + r.at[b] + c * r.step[b];
      T* const o = to + int64_t(c) * k.component;
      int64_t u = 0;
      for (; u + W<A> <= k.mul; u += W<A>) store<T>(o + u, load(p + u));
      if (u < k.mul) store_n<T>(o + u, load(p + u), int(k.mul - u));
    }
  }
}

// Scratch of a task.
template <class A> struct Lanes_ {
  A *x, *out;   // packed rows: of kGroup edges, of a receiver
  A *y, *m;     // [ydim][W], [pairs][W]: W edges side by side
  A *sums;      // [pairs][W]
  Vec<A>* q;    // [pairs]
};

// What all tasks share: packed forms, coefficients in A, the cut into tasks, memory. Freed with it.
template <class A> struct Kit {
  Rows<A> side[2];  // x, out
  const A* cg;      // [entries]
  int64_t tasks, row_numbers;  // of a packed row of either kind, in whole lines
  mutable A* rows = nullptr;

  Kit(const TpArgs& a, const ParallelFor& pf, bool results) : results_(results) {
    const int64_t wanted = pf.threads > 1 ? pf.threads * 8 : 1;
    tasks = a.N < wanted ? a.N : wanted;
    ints_ = allocate<int64_t>(size_t(2 * (a.nx + a.no)));
    int64_t* next = ints_;
    for (int s = 0; s < 2; ++s) {
      Rows<A>& r = side[s];
      r.blocks = a.plan.blocks(s == 1);
      r.n = s ? a.no : a.nx;
      r.dim = s ? a.odim : a.xdim;
      r.at = next;
      r.step = next + r.n;
      next += 2 * r.n;
      for (int64_t b = 0; b < r.n; ++b) {
        r.at[b] = r.size;
        r.step[b] = (r.blocks[b].mul + W<A> - 1) / W<A> * W<A>;
        r.size += r.step[b] * r.blocks[b].d;
      }
    }
    // Whole lines, so that tasks share none.
    auto lines = [](int64_t n) { return (n * int64_t(sizeof(A)) + kLine - 1) / kLine * kLine / int64_t(sizeof(A)); };
    numbers_[0] = lines(side[0].size > side[1].size ? side[0].size : side[1].size);
    numbers_[1] = lines(a.ydim * W<A>);
    numbers_[2] = lines(a.pairs * W<A>);
    row_numbers = numbers_[0];
    per_task_ = (kGroup + 1) * numbers_[0] + numbers_[1] + (results ? 3 : 1) * numbers_[2];
    const int64_t entries = lines(a.entries);
    memory_ = allocate<char>(size_t(entries + tasks * per_task_) * sizeof(A) + kLine);
    A* const base = reinterpret_cast<A*>((reinterpret_cast<uintptr_t>(memory_) + kLine - 1) / kLine * kLine);
    for (int64_t i = 0; i < a.entries; ++i) base[i] = A(a.cg[i]);
    cg = base;
    scratch_ = base + entries;
  }
  ~Kit() {
    std::free(ints_);
    std::free(memory_);
    std::free(rows);
  }
  Kit(const Kit&) = delete;
  Kit& operator=(const Kit&) = delete;

  Lanes_<A> scratch(int64_t task) const {
    Lanes_<A> s{};
    A* p = scratch_ + task * per_task_;
    auto take = [&](int64_t n) { A* const q = p; p += n; return q; };
    s.x = take(kGroup * numbers_[0]);
    s.out = take(numbers_[0]);
    s.y = take(numbers_[1]);
    s.m = take(numbers_[2]);
    if (results_) {
      s.sums = take(numbers_[2]);
      s.q = reinterpret_cast<Vec<A>*>(take(numbers_[2]));
    }
    return s;
  }

  // First edge position of receiver v.
  static int64_t edges(const TpArgs& a, int64_t v) { return a.rowptr ? a.rowptr[v] : v; }

  // First receiver of a task: equal shares of edges and rows.
  int64_t cut(const TpArgs& a, int64_t task) const {
    if (task >= tasks) return a.N;
    const int64_t goal = task * (a.E + a.N) / tasks;
    int64_t lo = 0, hi = a.N;
    while (lo < hi) {
      const int64_t mid = lo + (hi - lo) / 2;
      if (edges(a, mid) + mid < goal) lo = mid + 1;
      else hi = mid;
    }
    return lo;
  }

  // All rows packed, or null where each is read about once.
  template <class T> const A* pack_rows(const TpArgs& a, const ParallelFor& pf, const Rows<A>& r, const T* x, int64_t count) const {
    if (!a.col || a.E < 2 * count) return nullptr;
    rows = allocate<A>(size_t(count * r.size));
    auto body = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) pack<T>(r, x + i * r.dim, rows + i * r.size);
    };
    parallel_for(pf, count, 16, body);
    return rows;
  }

 private:
  bool results_;
  int64_t* ints_;
  char* memory_;
  A* scratch_;
  int64_t numbers_[3], per_task_;
};

// Asks for what the next edges read, a share with every path, while these compute: rows of x and w come from L3 and memory.
template <class A, class T> struct Ahead {
  const char *x[kGroup], *w[kGroup];
  int n = 0;
  int64_t x_share = 0;

  Ahead(const TpArgs& a, const Rows<A>& in, const A* packed, int64_t k, int64_t stop, int most) {
    if (a.paths == 0) return;
    for (; n < most && k < stop; ++n, ++k) {
      const int64_t e = a.eid ? a.eid[k] : k;
      x[n] = packed ? reinterpret_cast<const char*>(packed + (a.col ? a.col[k] : e) * in.size) : nullptr;
      w[n] = a.w ? static_cast<const char*>(a.w) + e * a.wdim * int64_t(sizeof(T)) : nullptr;
    }
    x_share = (in.size * int64_t(sizeof(A)) / kLine + a.paths - 1) / a.paths;
  }
  void fetch(int64_t path, const TpPath& p, int64_t mul) const {
    for (int e = 0; e < n; ++e) {
      if (x[e])
        for (int64_t i = 0; i < x_share; ++i) __builtin_prefetch(x[e] + (path * x_share + i) * kLine, 0, 2);
      if (w[e])
        for (int64_t i = 0; i < mul * int64_t(sizeof(T)); i += kLine) __builtin_prefetch(w[e] + p.w * int64_t(sizeof(T)) + i, 0, 2);
    }
  }
};

// M of W consecutive edge positions, lane by lane.
template <class A, class T> struct Tile {
  int64_t begin, end;

  Tile(const TpArgs& args, const Kit<A>& kit_, const Lanes_<A>& scratch, int64_t from, int64_t stop)
      : begin(from), end(from), a(args), kit(kit_), s(scratch), stop_(stop) {}

  // M at the lane of position k, where those of n <= W positions from k lie side by side; positions come in order. W edges are
  // elementwise: where a tile begins changes no number.
  const A* at(int64_t k, int n) {
    if (k + n > end) fill(k);
    return s.m + (k - begin);
  }

 private:
  void fill(int64_t k) {
    begin = k;
    end = k + W<A> < stop_ ? k + W<A> : stop_;
    const T* const y = static_cast<const T*>(a.y);
    for (int64_t e = 0; e < W<A>; ++e) {
      if (begin + e >= end) {
        for (int64_t j = 0; j < a.ydim; ++j) s.y[j * W<A> + e] = 0;
        continue;
      }
      const T* const row = y + (a.eid ? a.eid[begin + e] : begin + e) * a.ydim;
      for (int64_t j = 0; j < a.ydim; ++j) s.y[j * W<A> + e] = widen(row[j]);
    }
    const int32_t *const ptr = a.plan.pair_ptr(), *const column = a.plan.entry_y();
    for (int64_t q = 0; q < a.pairs; ++q) {
      Vec<A> m{};
      for (int32_t i = ptr[q]; i < ptr[q + 1]; ++i) m += spread(kit.cg[i]) * load(s.y + int64_t(column[i]) * W<A>);
      store(s.m + q * W<A>, m);
    }
  }

  const TpArgs& a;
  const Kit<A>& kit;
  const Lanes_<A>& s;
  int64_t stop_;
};

template <class A> STRUCTOPS_INLINE Vec<A> pair_sums(Vec<A> l, Vec<A> r) {
#ifdef __clang__
  Vec<A> s;
  for (int i = 0; i < W<A>; ++i) s[i] = i < W<A> / 2 ? l[2 * i] + l[2 * i + 1] : r[2 * i - W<A>] + r[2 * i + 1 - W<A>];
  return s;
#else
  Vec<Int<A>> even;
  for (int i = 0; i < W<A>; ++i) even[i] = 2 * i;
  return __builtin_shuffle(l, r, even) + __builtin_shuffle(l, r, even + 1);
#endif
}

// to[i * W] = the sum of the lanes of q[i]; q is overwritten.
template <class A> inline void sums_to_lane(Vec<A>* q, int n, A* to) {
  for (int i = 0; i < n; i += W<A>) {
    Vec<A> v[W<A>];
    for (int r = 0; r < W<A>; ++r) v[r] = i + r < n ? q[i + r] : Vec<A>{};
#pragma GCC unroll 4
    for (int left = W<A> / 2; left >= 1; left /= 2)
#pragma GCC unroll 8
      for (int r = 0; r < left; ++r) v[r] = pair_sums<A>(v[2 * r], v[2 * r + 1]);
    const int m = n - i < W<A> ? n - i : W<A>;
    for (int r = 0; r < m; ++r) to[(i + r) * W<A>] = v[0][r];
  }
}

// The gradient in y of the edges at positions [begin, end), from the sums of a tile.
template <class T> inline void gather_gy(const TpArgs& a, const Kit<Acc<T>>& kit, const Lanes_<Acc<T>>& s, int64_t begin, int64_t end) {
  using A = Acc<T>;
  for (int64_t j = 0; j < a.ydim; ++j) store(s.y + j * W<A>, Vec<A>{});
  const int32_t *const ptr = a.plan.pair_ptr(), *const column = a.plan.entry_y();
  for (int64_t q = 0; q < a.pairs; ++q) {
    const Vec<A> sum = load(s.sums + q * W<A>);
    for (int32_t i = ptr[q]; i < ptr[q + 1]; ++i) {
      A* const g = s.y + int64_t(column[i]) * W<A>;
      store(g, load(g) + spread(kit.cg[i]) * sum);
    }
  }
  T* const gy = static_cast<T*>(a.gy);
  for (int64_t k = begin; k < end; ++k) {
    T* const row = gy + (a.eid ? a.eid[k] : k) * a.ydim;
    for (int64_t j = 0; j < a.ydim; ++j) narrow_to(row + j, s.y[j * W<A> + (k - begin)]);
  }
}

}  // namespace structops::STRUCTOPS_ISA
