// One sentence in the dtype of its charts, for one instruction set. The quartic charts and those of grammars are compiled for scores
// of float and of double. Scores of 16 bits, and scores too large for charts of float, are copied first and posteriors copied back: a
// pass over the operands beside many over the charts.
#pragma once
#include "tree/numbers.h"
#include "tree/tables.h"

namespace structops::STRUCTOPS_ISA {

template <class A> [[gnu::noinline]] void widen_row(A* to, Numbers from, int64_t count) {
  with_storage(from.dtype, [&](auto* t) {
    const auto* const p = static_cast<const Pointee<decltype(t)>*>(from.data);
    for (int64_t i = 0; i < count; i += W<A>) {
      const int n = int(count - i < W<A> ? count - i : W<A>);
      store_n(to + i, load_as<A>(p + i, n), n);
    }
  });
}
template <class A> [[gnu::noinline]] void narrow_row(Results to, const A* from, int64_t count) {
  with_storage(to.dtype, [&](auto* t) {
    auto* const p = static_cast<Pointee<decltype(t)>*>(to.data);
    for (int64_t i = 0; i < count; i += W<A>) {
      const int n = int(count - i < W<A> ? count - i : W<A>);
      store_as<A>(p + i, load_n(from + i, n), n);
    }
  });
}

// f(first number, how many) for what n words use of a table.
template <class F> inline void each_run(const Table& t, int64_t n, F f) {
  const int64_t used = n + t.more, rows = t.rank < 2 ? 1 : t.rank == 2 ? used : used * used;
  for (int64_t r = 0; r < rows; ++r)
    f((t.rank == 3 ? r / used * t.side + r % used : r) * t.side * t.inner, t.rank ? used * t.inner : t.inner);
}

template <class A> constexpr int64_t table_bytes(const Table& t) { return (t.numbers() * int64_t(sizeof(A)) + 63) / 64 * 64; }

template <class A, class Args> class Widened {
 public:
  Args args;   // where charts of A read sentence `at` of,
  int64_t at;  // and write to

  // outputs: the dtype of the posteriors. memory: bytes().
  Widened(const Args& all, int64_t b, Dtype outputs, char* memory)
      : args(all), at(b), all_(all), b_(b), narrow_(outputs != dtype), copied_(all.dtype != dtype), memory_(memory) {
    if (!copied_) return;
    const int64_t n = all.lengths[b];
    at = 0;
    args.B = 1;
    args.dtype = dtype;
    args.lengths = all.lengths + b;
    each_input(args, [&](const void*& p, const Table& t) {
      if (!p) return;
      A* const to = take(t);
      const Numbers from = Numbers{p, all.dtype} + (t.shared ? 0 : b * t.numbers());
      each_run(t, n, [&](int64_t first, int64_t count) { widen_row(to + first, from + first, count); });
      p = to;
    });
    posts_ = memory_;
    each_output(args, [&](void*& p, const Table& t) {
      if (p) p = narrow_ ? take(t) : static_cast<A*>(p) + b * t.numbers();
    });
    if (args.weight) {
      weight_ = read_one<A>({all.weight, accumulator_of(all.dtype)}, b);
      args.weight = &weight_;
    }
    if (args.logz) args.logz = &logz_;
  }
  Widened(const Widened&) = delete;
  // The results to where they belong.
  void finish() {
    if (!copied_) return;
    const int64_t n = all_.lengths[b_];
    memory_ = posts_;
    each_output(all_, [&](void* p, const Table& t) {
      if (!p || !narrow_) return;
      const A* const from = take(t);
      const Results to = Results{p, all_.dtype} + b_ * t.numbers();
      fill(to, t.numbers(), A(0));
      each_run(t, n, [&](int64_t first, int64_t count) { narrow_row(to + first, from + first, count); });
    });
    if (all_.logz) fill(Results{all_.logz, accumulator_of(all_.dtype)} + b_, 1, logz_);
  }

  static size_t bytes(Args a, Dtype outputs) {
    int64_t sum = 0;
    if (a.dtype == dtype) return 0;
    each_input(a, [&](const void* p, const Table& t) { sum += p ? table_bytes<A>(t) : 0; });
    each_output(a, [&](void* p, const Table& t) { sum += p && outputs != dtype ? table_bytes<A>(t) : 0; });
    return size_t(sum);
  }

 private:
  static constexpr Dtype dtype = sizeof(A) == 8 ? Dtype::f64 : Dtype::f32;
  A* take(const Table& t) {
    A* const p = reinterpret_cast<A*>(memory_);
    memory_ += table_bytes<A>(t);
    return p;
  }

  Args all_;
  int64_t b_;
  bool narrow_, copied_;
  char *memory_, *posts_ = nullptr;
  A weight_ = 1, logz_ = 0;
};

}  // namespace structops::STRUCTOPS_ISA
