// What the tiled products of the sparse family share. Include only from *_cpu.cpp.
#pragma once
#include "core/gemm.h"
#include "core/memory.h"
#include "core/parallel.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int64_t kSlack = 64;  // numbers that the micro-kernel may read beyond a buffer

template <class A>
struct Memory {
  A* p;
  explicit Memory(int64_t n) : p(allocate<A>(size_t(n))) {}
  Memory(const Memory&) = delete;
  ~Memory() { std::free(p); }
};

STRUCTOPS_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

template <class A>
STRUCTOPS_INLINE int64_t whole(int64_t m) {
  return (m + kMR<A> - 1) / kMR<A> * kMR<A>;
}

// How many tasks share `items`: each has scratch of its own, no item depends on its task.
inline int64_t task_count(const ParallelFor& pf, int64_t items) { return least(items, pf.threads == 1 ? 1 : 4 * pf.threads); }

// Calls f(task, begin, end) for every task.
template <class F>
void in_tasks(const ParallelFor& pf, int64_t items, int64_t tasks, F f) {
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) f(t, items * t / tasks, items * (t + 1) / tasks);
  };
  parallel_for(pf, tasks, 1, body);
}

// to = c from, or to += c from.
template <class T>
STRUCTOPS_INLINE void add_row(Acc<T>* to, const T* from, int64_t n, Acc<T> c, bool first) {
  using A = Acc<T>;
  for (int64_t j = 0; j < n; j += W<A>) {
    const int w = int(least(n - j, W<A>));
    const Vec<A> v = c * (w == W<A> ? load(from + j) : load_n(from + j, w));
    const Vec<A> sum = first ? v : (w == W<A> ? load(to + j) : load_n(to + j, w)) + v;
    if (w == W<A>) store(to + j, sum); else store_n(to + j, sum, w);
  }
}

template <class T>
STRUCTOPS_INLINE void copy_out(T* to, const Acc<T>* from, int64_t n) {
  using A = Acc<T>;
  for (int64_t j = 0; j < n; j += W<A>) {
    const int w = int(least(n - j, W<A>));
    if (w == W<A>) store(to + j, load(from + j)); else store_n(to + j, load_n(from + j, w), w);
  }
}

// out = the sum of `count` parts of n numbers, in their order.
template <class T>
void sum_parts(const ParallelFor& pf, const Acc<T>* parts, int64_t count, int64_t n, T* out) {
  using A = Acc<T>;
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t j = begin * W<A>; j < least(end * W<A>, n); j += W<A>) {
      const int w = int(least(n - j, W<A>));
      Vec<A> sum{};
      for (int64_t q = 0; q < count; ++q) sum += load_n(parts + q * n + j, w);
      store_n(out + j, sum, w);
    }
  };
  parallel_for(pf, (n + W<A> - 1) / W<A>, 4096, body);
}

}  // namespace
}  // namespace structops::STRUCTOPS_ISA
