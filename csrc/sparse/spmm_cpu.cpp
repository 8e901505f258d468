// CPU spmm. The contract is spmm.h.
//
// 1. Work items come from merge-path cuts (spmm_cut); a cut hub row leaves partial states that fix_up merges in order.
// 2. An item is walked in blocks of edges whose row offsets are computed once into a small buffer. Every tile of output
//    features walks the block with its accumulators in registers, so x is read once per tile and never spilled.
// 3. Gathered rows are prefetched kAhead edges before use: gather latency is the limit when x exceeds the cache.
// 4. A tile is NV full vectors or one masked vector, chosen once per call.
// 5. Rows of at most two vectors take the shorter walk of spmm_narrow_cpu.cpp.
#include "core/memory.h"
#include "core/parallel.h"
#include "sparse/spmm_rows.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kBlock = 512;   // edges a block
constexpr int kRows = 256;    // rows a block
constexpr int kAhead = 16;    // prefetch distance, edges

// How the two operands of a message reach the lanes of an output vector: `any` finds out for every tile.
enum Mode { one, both, e_scalar, x_scalar, any };

struct Block : Batch {
  int64_t xo[kBlock + kAhead], eo[kBlock + kAhead];  // element offsets of the operands' rows
  int32_t end[kRows];                       // edges of segment s: [s ? end[s-1] : 0, end[s])
  int n;                                    // segments
  int64_t row0, k0;                         // output row and edge of the first
  int64_t base, seen;  // first segment: its first edge's lane in the row; edges its carried state already holds
  bool carry_in, carry_out;
  char* state_in;
  char* state_out;
};

// Products are compiled in where `product`; the other messages share one instantiation and a well-predicted branch.
template <class A, bool product> STRUCTOPS_INLINE Vec<A> apply(Message m, Vec<A> x, Vec<A> e) {
  if (product || m == Message::mul) return x * e;
  return m == Message::add ? x + e : m == Message::sub ? x - e : x / e;
}

// Where the lanes of one vector find an operand in its row: all at one place, one after the other, or through a table.
struct Place {
  enum Kind { constant, consecutive, table } kind;
  int first;
  const int32_t* off;
};

// Of features [f, f + n) of an operand of `features` ones that is broadcast by the table `all`, if there is one.
STRUCTOPS_INLINE Place find_place(const int32_t* all, int64_t features, int f, int n) {
  if (!all) return features == 1 ? Place{Place::constant, 0, nullptr} : Place{Place::consecutive, f, nullptr};
  const int32_t* const off = all + f;
  bool same = true, next = true;
  for (int i = 1; i < n; ++i) { same &= off[i] == off[0]; next &= off[i] == off[0] + i; }
  return {same ? Place::constant : next ? Place::consecutive : Place::table, off[0], off};
}

template <class T> STRUCTOPS_INLINE Vec<Acc<T>> load_at(const Place& at, const T* p, int n) {
  using A = Acc<T>;
  if (at.kind == Place::consecutive) return n == W<A> ? load(p + at.first) : load_n(p + at.first, n);
  if (at.kind == Place::constant) return splat<A>(widen(p[at.first]));
  A lane[W<A>] = {};
  for (int i = 0; i < n; ++i) lane[i] = widen(p[at.off[i]]);
  Vec<A> v;
  __builtin_memcpy(&v, lane, sizeof v);
  return v;
}

using TileFn = void (*)(const Block&, int f0, int n);

template <class T, class Op, bool product, Mode mode, int NV, bool masked>
void tile(const Block& b, int f0, int n) {
  using A = Acc<T>;
  using V = Vec<A>;
  using VI = Vec<Int<A>>;
  constexpr int C = Op::C, L = W<A>;
  constexpr int KU = NV == 1 && Op::splits ? 4 : 1;  // states a vector: hides the latency of dependent adds
  const T* const x = reinterpret_cast<const T*>(b.x);
  const T* const e = reinterpret_cast<const T*>(b.e);
  const VI nan = splat(Int<A>(b.a->skip_nan ? 0 : -1));
  const Message msg = b.a->message;
  Place in_x[NV], in_e[NV];
  if constexpr (mode == any)
    for (int v = 0; v < NV; ++v) {
      in_x[v] = find_place(b.a->x_off, b.a->Fx, f0 + v * L, masked ? n : L);
      in_e[v] = find_place(b.a->e_off, b.a->Fe, f0 + v * L, masked ? n : L);
    }

  auto message = [&](int k, int v) __attribute__((always_inline)) {
    const int f = f0 + v * L, lanes = masked ? n : L;
    auto contiguous = [&](const T* p) __attribute__((always_inline)) { return masked ? load_n(p + f, n) : load(p + f); };
    if constexpr (mode == one) return contiguous(x + b.xo[k]);
    else if constexpr (mode == both) return apply<A, product>(msg, contiguous(x + b.xo[k]), contiguous(e + b.eo[k]));
    else if constexpr (mode == e_scalar) return apply<A, product>(msg, contiguous(x + b.xo[k]), splat<A>(widen(e[b.eo[k]])));
    else if constexpr (mode == x_scalar) return apply<A, product>(msg, splat<A>(widen(x[b.xo[k]])), contiguous(e + b.eo[k]));
    else return apply<A, product>(msg, load_at(in_x[v], x + b.xo[k], lanes), load_at(in_e[v], e + b.eo[k], lanes));
  };
  // The streamed operand too: the machine's own prefetcher does not keep up with two streams of rows.
  auto prefetch = [&](int k, int v) __attribute__((always_inline)) {
    const int f = f0 + v * L;
    if constexpr (mode != x_scalar) __builtin_prefetch(x + b.xo[k + kAhead] + (mode == any ? in_x[v].first : f));
    if constexpr (mode != one && mode != e_scalar) __builtin_prefetch(e + b.eo[k + kAhead] + (mode == any ? in_e[v].first : f));
  };

  int k = 0;
  int64_t first = b.k0 - b.base;
  for (int s = 0; s < b.n; ++s) {
    const int begin = k, end = b.end[s];
    const int64_t lane0 = s ? -begin : b.base - begin, count0 = s ? 1 - begin : b.seen + 1 - begin;
    const bool carried = s == 0 && b.carry_in;
    V st[KU][NV][C];
#pragma GCC unroll 4
    for (int u = 0; u < KU; ++u)
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) Op::init(st[u][v], nan);
    if (carried)
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v)
        __builtin_memcpy(st[0][v], b.state_in + sizeof(V) * C * (f0 / L + v), sizeof(V) * C);

    if constexpr (KU > 1) {
      for (; k + KU <= end; k += KU)
#pragma GCC unroll 4
        for (int u = 0; u < KU; ++u) {
          prefetch(k + u, 0);
          Op::step(st[u][0], message(k + u, 0), 0, 0, nan);
        }
    }
    for (; k < end; ++k) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; v++)
        if ((v * (int)sizeof(T) * L) % 64 == 0) prefetch(k, v);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) Op::step(st[0][v], message(k, v), Int<A>(lane0 + k), count0 + k, nan);
    }
    if constexpr (KU > 1) {
#pragma GCC unroll 4
      for (int u = 1; u < KU; ++u) Op::merge(st[0][0], 0, st[u][0], 0, nan);
    }

    if (s == b.n - 1 && b.carry_out) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v)
        __builtin_memcpy(b.state_out + sizeof(V) * C * (f0 / L + v), st[0][v], sizeof(V) * C);
    } else {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v)
        emit<T, Op>(b, st[0][v], b.row0 + s, end + count0 - 1, first, f0 + v * L, masked ? n : L);
    }
    first = b.k0 + end;
  }
}

Item make_item(const SpmmArgs& a, int64_t chunk, int64_t i) {
  Item it{spmm_cut(a.rowptr, a.N, a.E, chunk, i), spmm_cut(a.rowptr, a.N, a.E, chunk, i + 1), false, false};
  it.head = it.begin.row < a.N && it.begin.k > a.rowptr[it.begin.row];
  it.tail = it.end.row < a.N && it.end.k > a.rowptr[it.end.row];
  return it;
}

// The functions of one (dtype, reducer, message, mode).
struct Plan {
  int lanes, state_bytes;
  TileFn wide, mid, narrow, masked;
  int wide_nv, mid_nv;
  void (*merge)(const SpmmArgs&, char* a, int64_t na, const char* b, int64_t nb, int vectors);
  void (*finish)(const Block&, const char* state, int64_t row, int64_t count, int64_t first);
};

template <class T, class Op> void merge_states(const SpmmArgs& a, char* s, int64_t na, const char* t, int64_t nb, int vectors) {
  using V = Vec<Acc<T>>;
  const Vec<Int<Acc<T>>> nan = splat(Int<Acc<T>>(a.skip_nan ? 0 : -1));
  for (int v = 0; v < vectors; ++v) {
    V l[Op::C], r[Op::C];
    __builtin_memcpy(l, s + sizeof l * v, sizeof l);
    __builtin_memcpy(r, t + sizeof r * v, sizeof r);
    Op::merge(l, na, r, nb, nan);
    __builtin_memcpy(s + sizeof l * v, l, sizeof l);
  }
}

template <class T, class Op> void finish_row(const Block& b, const char* state, int64_t row, int64_t count, int64_t first) {
  constexpr int L = W<Acc<T>>;
  for (int f = 0; f < b.a->F; f += L) {
    Vec<Acc<T>> s[Op::C];
    __builtin_memcpy(s, state + sizeof s * (f / L), sizeof s);
    const int n = b.a->F - f < L ? int(b.a->F - f) : L;
    emit<T, Op>(b, s, row, count, first, f, n);
  }
}

template <class T, class Op, bool product, Mode mode> void fill_tiles(Plan& p) {
  constexpr int NV = mode == any ? (Op::max_nv < 4 ? Op::max_nv : 4) : Op::max_nv;
  p.wide = tile<T, Op, product, mode, NV, false>;
  p.wide_nv = NV;
  if constexpr (NV >= 8) { p.mid = tile<T, Op, product, mode, 4, false>; p.mid_nv = 4; }
  else { p.mid = p.wide; p.mid_nv = NV; }
  p.narrow = tile<T, Op, product, mode, 1, false>;
  p.masked = tile<T, Op, product, mode, 1, true>;
}

// Products are compiled in for sums only. What is neither a sum nor an extreme, and winners of 16 bits, have one function for every
// mode: their steps cost more than finding the operands, and compiling each takes seconds.
template <class T, class Op> void fill_plan(Plan& p, Message m, Mode mode) {
  p.lanes = W<Acc<T>>;
  p.state_bytes = int(sizeof(Vec<Acc<T>>)) * Op::C;
  p.merge = merge_states<T, Op>;
  p.finish = finish_row<T, Op>;
  if (mode == one) return fill_tiles<T, Op, false, one>(p);
  if constexpr (is_float_storage<T>) {
    if constexpr (Op::max_nv == 8 || (Op::has_arg && sizeof(T) > 2)) {
      constexpr bool sum = __is_same(Op, SumOp<Acc<T>>);
      if (sum && m == Message::mul && mode == both) return fill_tiles<T, Op, sum, both>(p);
      if (sum && m == Message::mul && mode == e_scalar) return fill_tiles<T, Op, sum, e_scalar>(p);
      if (mode == both) return fill_tiles<T, Op, false, both>(p);
      if (mode == e_scalar) return fill_tiles<T, Op, false, e_scalar>(p);
      if (mode == x_scalar) return fill_tiles<T, Op, false, x_scalar>(p);
    }
    fill_tiles<T, Op, false, any>(p);
  }
}

template <class T> void fill_plan(Plan& p, const SpmmArgs& a, Mode mode) {
  using A = Acc<T>;
  const bool arg = a.arg_kind != ArgKind::none || a.skip_nan;
  switch (a.reduce) {
    case Reduce::mean:
    case Reduce::sum: return fill_plan<T, SumOp<A>>(p, a.message, mode);
    case Reduce::prod: return fill_plan<T, ProdOp<A>>(p, a.message, mode);
    case Reduce::min: return arg ? fill_plan<T, ArgOp<A, false>>(p, a.message, mode) : fill_plan<T, ExtremeOp<A, false>>(p, a.message, mode);
    case Reduce::max: return arg ? fill_plan<T, ArgOp<A, true>>(p, a.message, mode) : fill_plan<T, ExtremeOp<A, true>>(p, a.message, mode);
    default: break;
  }
  if constexpr (is_float_storage<T>)
    switch (a.reduce) {
      case Reduce::var:
      case Reduce::std: return fill_plan<T, MomentOp<A>>(p, a.message, mode);
      default: return fill_plan<T, LseOp<A>>(p, a.message, mode);
    }
}

void run_tiles(const Block& b, const Plan& p) {
  const int F = int(b.a->F), L = p.lanes;
  int f = 0;
  for (; F - f >= p.wide_nv * L; f += p.wide_nv * L) p.wide(b, f, L);
  for (; F - f >= p.mid_nv * L; f += p.mid_nv * L) p.mid(b, f, L);
  for (; F - f >= L; f += L) p.narrow(b, f, L);
  if (f < F) p.masked(b, f, F - f);
}

// Element offsets of the operand rows of edges [k, k + n), with a look-ahead of kAhead for prefetching.
void fill_offsets(Block& b, const Index& xi, int64_t x_stride, const Index& ei, int64_t e_stride, int64_t k, int n) {
  const int64_t left = b.a->E - k;
  const int ahead = int(left < n + kAhead ? left : n + kAhead);
  auto fill = [&](int64_t* o, const Index& idx, int64_t stride) {
    if (!idx) for (int i = 0; i < ahead; ++i) o[i] = (k + i) * stride;
    else if (idx.wide) { const int64_t* c = static_cast<const int64_t*>(idx.data) + k; for (int i = 0; i < ahead; ++i) o[i] = c[i] * stride; }
    else { const int32_t* c = static_cast<const int32_t*>(idx.data) + k; for (int i = 0; i < ahead; ++i) o[i] = c[i] * stride; }
    for (int i = ahead; i < n + kAhead; ++i) o[i] = o[n ? n - 1 : 0];
  };
  fill(b.xo, xi, x_stride);
  if (b.e) fill(b.eo, ei, e_stride);
}

// Walks one item. A row that began before the item or goes on after it ends in the state `head` or `tail` and is
// finished by fix_up; `scratch` carries a row of more than kBlock edges from block to block.
void run_item(Block& b, const Plan& p, const Index& xi, int64_t xs, const Index& ei, int64_t es, const Item& it,
              char* head, char* tail, char* scratch) {
  const Index& rowptr = b.a->rowptr;
  auto state_of = [&](int64_t row) {
    if (it.head && row == it.begin.row) return head;
    return it.tail && row == it.end.row ? tail : scratch;
  };
  const int64_t last = it.end.row + (it.tail ? 1 : 0);
  int64_t row = it.begin.row, k = it.begin.k, seen = 0;
  while (row < last) {
    b.row0 = row;
    b.k0 = k;
    b.base = k - rowptr[row];
    b.seen = seen;
    b.carry_in = seen > 0;
    b.carry_out = false;
    b.n = 0;
    int used = 0;
    int64_t last_row = row;
    while (b.n < kRows && row < last && !b.carry_out) {
      const bool cut_after = it.tail && row == it.end.row;
      const int64_t left = (cut_after ? it.end.k : rowptr[row + 1]) - k;
      if (left > kBlock - used) {
        if (used > 0) break;
        used = kBlock;
        seen += kBlock;
        b.carry_out = true;
      } else {
        used += int(left);
        b.carry_out = cut_after || (it.head && row == it.begin.row);
        seen = 0;
      }
      b.end[b.n++] = used;
      last_row = row;
      k = b.k0 + used;
      if (seen == 0) ++row;
    }
    fill_offsets(b, xi, xs, ei, es, b.k0, used);
    b.state_in = state_of(b.row0);
    b.state_out = state_of(last_row);
    run_tiles(b, p);
  }
}

}  // namespace

void spmm_fwd(const SpmmArgs& a, const ParallelFor& pf) {
  if (a.B == 0 || a.N == 0 || a.F == 0) return;
  const bool copy = a.message == Message::copy_u || a.message == Message::copy_e;
  const Mode mode = copy ? one : a.x_off ? any : a.Fx == a.Fe ? both : a.Fe == 1 ? e_scalar : x_scalar;
  Plan p;
  with_dtype(a.dtype, [&](auto* t) { fill_plan<Pointee<decltype(t)>>(p, a, mode); });
  const int64_t item_size = dtype_size(a.dtype), arg_size = a.rowptr.wide ? 8 : 4;
  const bool from_e = a.message == Message::copy_e;  // a copy message has one operand, read as x
  const char* const x = static_cast<const char*>(from_e ? a.e : a.x);
  const int64_t xs = from_e ? a.Fe : a.Fx, x_batch = (from_e ? a.e_batch : a.x_batch) * item_size;
  const Index& xi = from_e ? a.eid : a.col;
  const bool weighted = a.message == Message::mul && (mode == e_scalar || (mode == both && a.F == 1));
  const NarrowFn narrow = copy || weighted ? narrow_rows(a, xi, weighted) : nullptr;

  const int64_t chunk = spmm_chunk(a.N, a.E), items = (a.N + a.E + chunk - 1) / chunk;
  const int vectors = int((a.F + p.lanes - 1) / p.lanes);
  const int64_t slot = int64_t(p.state_bytes) * vectors;
  // Partial states of cut rows, head and tail of every item; touched, and so paid for, only where a row is cut.
  char* const states = items > 1 ? allocate<char>(size_t(2 * slot * items * a.B)) : nullptr;
  bool any_cut = false;

  auto prepare = [&](Block& b, int64_t batch) {
    b.a = &a;
    b.x = x + batch * x_batch;
    b.e = copy ? nullptr : static_cast<const char*>(a.e) + batch * a.e_batch * item_size;
    b.out = static_cast<char*>(a.out) + batch * a.N * a.F * item_size;
    b.arg = a.arg ? static_cast<char*>(a.arg) + batch * a.N * a.F * arg_size : nullptr;
  };
  auto head_of = [&](int64_t task) { return states + 2 * slot * task; };

  auto body = [&](int64_t begin, int64_t end) {
    Block b;
    char* const scratch = allocate<char>(size_t(slot));
    for (int64_t task = begin; task < end; ++task) {
      const Item it = make_item(a, chunk, task % items);
      prepare(b, task / items);
      if (narrow) narrow(b, xi, it, head_of(task), head_of(task) + slot);
      else run_item(b, p, xi, xs, a.eid, a.Fe, it, head_of(task), head_of(task) + slot, scratch);
      if (it.tail) __atomic_store_n(&any_cut, true, __ATOMIC_RELAXED);
    }
    std::free(scratch);
  };
  const int64_t work = (a.N + a.E) / items * a.F + 1;  // elements an item
  parallel_for(pf, a.B * items, (32768 + work - 1) / work, body);

  if (any_cut) {
    auto fix_up = [&](int64_t begin, int64_t end) {
      Block b;
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first_item = task % items;
        const Item it = make_item(a, chunk, first_item);
        const bool starts_here = it.begin.row < it.end.row || !it.head;
        if (!it.tail || !starts_here) continue;
        const int64_t row = it.end.row, row_begin = a.rowptr[row];
        char* const state = it.begin.row == row && it.head ? head_of(task) : head_of(task) + slot;
        int64_t done = it.end.k - row_begin;
        for (int64_t j = 1; done < a.rowptr[row + 1] - row_begin; ++j) {
          const Item next = make_item(a, chunk, first_item + j);
          const int64_t stop = next.end.row > row ? a.rowptr[row + 1] : next.end.k;
          const int64_t count = stop - row_begin - done;
          if (count > 0) p.merge(a, state, done, head_of(task + j), count, vectors);
          done += count;
        }
        prepare(b, task / items);
        p.finish(b, state, row, done, row_begin);
      }
    };
    parallel_for(pf, a.B * items, 1, fix_up);
  }
  std::free(states);
}

}  // namespace structops::STRUCTOPS_ISA
