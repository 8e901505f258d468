// What the CPU kernels of chains share: rows of tags in scratch, and the dealing of sentences to workers.
//
// A row holds T numbers of the accumulator type, padded to Tp, a whole number of vectors; logarithms are padded with -inf.
#pragma once
#include "core/memory.h"
#include "core/vmath.h"
#include "tree/chain.h"

namespace structops::STRUCTOPS_ISA {
namespace {

template <class A> STRUCTOPS_INLINE int padded(int64_t T) { return int((T + W<A> - 1) / W<A> * W<A>); }

template <class A> STRUCTOPS_INLINE A row_max(const A* row, int Tp) {
  Vec<A> m = load(row);
  for (int c = W<A>; c < Tp; c += W<A>) {
    const Vec<A> x = load(row + c);
    m = x > m ? x : m;
  }
  return hmax<A>(m);
}

// Row `at` (of T numbers) of a tensor, as out = or out +=. Returns whether it holds NaN or +inf.
template <class A, bool add> bool read_row(Dtype dtype, const void* base, int64_t at, int T, A* out) {
  bool bad = false;
  auto go = [&](auto* t) {
    using S = Pointee<decltype(t)>;
    if constexpr (is_float_storage<S>) {
      const S* const p = static_cast<const S*>(base) + at * T;
      int wrong = 0;
      for (int i = 0; i < T; ++i) {
        const A x = A(widen(p[i]));
        wrong |= !(x < A(INFINITY));
        out[i] = add ? out[i] + x : x;
      }
      bad = wrong;
    }
  };
  with_dtype(dtype, go);
  return bad;
}

template <class A> void write_row(Dtype dtype, void* base, int64_t at, int T, const A* row, A factor) {
  with_dtype(dtype, [&](auto* t) {
    using S = Pointee<decltype(t)>;
    if constexpr (is_float_storage<S>) {
      S* const p = static_cast<S*>(base) + at * T;
      for (int i = 0; i < T; ++i) narrow_to(p + i, Acc<S>(row[i] * factor));
    }
  });
}

inline void write_one(Dtype dtype, void* base, int64_t at, double x) {
  if (dtype == Dtype::f64) static_cast<double*>(base)[at] = x;
  else static_cast<float*>(base)[at] = float(x);
}
inline double read_one(Dtype dtype, const void* base, int64_t at) {
  return dtype == Dtype::f64 ? static_cast<const double*>(base)[at] : double(static_cast<const float*>(base)[at]);
}

template <class A> inline void fill(A* p, int64_t n, A value) {
  for (int64_t i = 0; i < n; ++i) p[i] = value;
}

// log sum exp over `count` rows of value(r, c), c the first lane of a vector, and the mean of tangent(r, c) under it.
template <class A, bool dual, class Value, class Tangent>
STRUCTOPS_INLINE void log_sum(int count, int Tp, Value value, Tangent tangent, A* out, A* d_out) {
  for (int c = 0; c < Tp; c += W<A>) {
    Vec<A> m = splat(A(-INFINITY)), s{}, d{};
    for (int r = 0; r < count; ++r) {
      const Vec<A> x = value(r, c);
      m = x > m ? x : m;
    }
    const Vec<A> safe = m == A(-INFINITY) ? Vec<A>{} : m;
    for (int r = 0; r < count; ++r) {
      const Vec<A> e = vexp<A>(value(r, c) - safe);
      s += e;
      if constexpr (dual) d += e == A(0) ? Vec<A>{} : e * tangent(r, c);
    }
    store(out + c, safe + vlog<A>(s));
    if constexpr (dual) store(d_out + c, s == A(0) ? Vec<A>{} : d / s);
  }
}

// Makes the largest number of a row of logarithms 0; returns what it was, 0 for a row of -inf.
template <class A> STRUCTOPS_INLINE double normalise(A* row, int Tp) {
  const A m = row_max(row, Tp);
  if (m == A(-INFINITY)) return 0;
  for (int c = 0; c < Tp; c += W<A>) store(row + c, load(row + c) - m);
  return double(m);
}

// Cuts one allocation into arrays.
struct Carver {
  char* at;
  template <class T> T* take(int64_t n) {
    T* const p = reinterpret_cast<T*>(at);
    at += (n * int64_t(sizeof(T)) + 63) / 64 * 64;
    return p;
  }
};

// Sentences longest first, dealt round to G groups. A group is one task: its sentences run in order.
struct Dealt {
  int64_t* order = nullptr;  // [B]
  int64_t G = 0, B = 0;
  Dealt(const ChainArgs& a, int64_t groups) : G(groups), B(a.B) {
    order = allocate<int64_t>(a.B + a.N + 2);
    int64_t* const first = order + a.B;  // [N + 2]: of each length, counted from the longest
    fill(first, a.N + 2, int64_t(0));
    for (int64_t b = 0; b < B; ++b) ++first[a.N - a.lengths[b] + 1];
    for (int64_t l = 0; l <= a.N; ++l) first[l + 1] += first[l];
    for (int64_t b = 0; b < B; ++b) order[first[a.N - a.lengths[b]]++] = b;
  }
  Dealt(const Dealt&) = delete;
  ~Dealt() { std::free(order); }
};

// Scratch of each worker, allocated before they start.
struct Workers {
  char* memory;
  size_t each;
  int count;
  Workers(const ParallelFor& pf, int64_t tasks, double work, size_t bytes) : each((bytes + 4095) / 4096 * 4096 + 64) {
    count = work < 30000 || pf.threads < 1 ? 1 : pf.threads;
    if (count > tasks) count = tasks > 0 ? int(tasks) : 1;
    memory = allocate<char>(each * count + 64);
  }
  Workers(const Workers&) = delete;
  ~Workers() { std::free(memory); }
  char* scratch(int64_t w) const { return reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(memory) + 63) / 64 * 64) + w * each; }
};

// make(scratch) for every worker, then each(made, group, sentence); a group stays with one worker.
template <class Make, class Each>
void deal(const Dealt& dealt, const Workers& workers, const ParallelFor& pf, Make make, Each each) {
  int64_t next = 0;
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t w = begin; w < end; ++w) {
      auto made = make(workers.scratch(w));
      for (int64_t g; (g = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < dealt.G;)
        for (int64_t k = g; k < dealt.B; k += dealt.G) each(made, g, dealt.order[k]);
    }
  };
  if (workers.count == 1) body(0, 1);
  else parallel_for(pf, workers.count, 1, body);
}

// Sums of shared posteriors, [G, size] float64: trans, duration, start, end.
struct SharedSums {
  int64_t trans = 0, duration = 0, start = 0, end = 0, size = 0;  // offsets
  double* sums = nullptr;
  SharedSums(const ChainArgs& a, int64_t G) {
    auto place = [&](bool wanted, int64_t n) { const int64_t at = size; size += wanted ? n : 0; return at; };
    trans = place(a.post.trans && a.kind == Trans::shared, a.T * a.T);
    duration = place(a.post.duration, a.K * a.T);
    start = place(a.post.start, a.T);
    end = place(a.post.end, a.T);
    G = G > 0 ? G : 1;  // an empty batch has sums too
    sums = allocate<double>(G * size);
    fill(sums, G * size, 0.0);
  }
  SharedSums(const SharedSums&) = delete;
  ~SharedSums() { std::free(sums); }
  double* of(int64_t group) const { return sums + group * size; }
  // Adds up the groups in order and stores the results.
  void finish(const ChainArgs& a, int64_t G) const {
    for (int64_t g = 1; g < G; ++g)
      for (int64_t i = 0; i < size; ++i) sums[i] += sums[g * size + i];
    auto put = [&](void* p, int64_t at, int64_t rows) {
      for (int64_t r = 0; r < rows; ++r) write_row(a.dtype, p, r, int(a.T), sums + at + r * a.T, 1.0);
    };
    if (a.post.trans && a.kind == Trans::shared) put(a.post.trans, trans, a.T);
    if (a.post.duration) put(a.post.duration, duration, a.K);
    if (a.post.start) put(a.post.start, start, 1);
    if (a.post.end) put(a.post.end, end, 1);
  }
};

// Which [T, T] of trans leads into position i with a segment of length d.
inline int64_t matrix(const ChainArgs& a, int64_t b, int64_t i, int64_t d) {
  switch (a.kind) {
    case Trans::batch: return b;
    case Trans::position: return b * (a.N - 1) + i - 1;
    case Trans::full: return (b * (a.N - 1) + i - 1) * a.K + d - 1;
    default: return 0;
  }
}

// About the number of terms of all sentences.
inline double work_of(const ChainArgs& a) {
  double positions = 0;
  for (int64_t b = 0; b < a.B; ++b) positions += double(a.lengths[b]);
  return positions * double(a.T) * double(a.T + 4 * a.K) * (a.kind == Trans::full ? double(a.K) : 1.0);
}

inline int64_t group_count(const ChainArgs& a, bool shared) { return shared && a.B > 64 ? 64 : a.B; }

}  // namespace
}  // namespace structops::STRUCTOPS_ISA
