// Scores of a row in an array: sums over features, softmax and its derivative, in whole vectors. Include only from *_cpu.cpp.
#pragma once
#include "core/vmath.h"
#include "sparse/row_vectors.h"

namespace structops::STRUCTOPS_ISA {
namespace {

// The lanes of each of four vectors added up, in the first four lanes.
template <class A> STRUCTOPS_INLINE Vec<A> hsum4(Vec<A> v0, Vec<A> v1, Vec<A> v2, Vec<A> v3) {
  constexpr int L = W<A>;
#ifndef __clang__
  if constexpr (L >= 4) {
    Vec<Int<A>> even, odd, low, high;
    for (int i = 0; i < L; ++i) {
      even[i] = i % 2 ? L + i - 1 : i;
      odd[i] = i % 2 ? L + i : i + 1;
      low[i] = i % 4 < 2 ? i : L + i - 2;
      high[i] = i % 4 < 2 ? i + 2 : L + i;
    }
    const Vec<A> a = __builtin_shuffle(v0, v1, even) + __builtin_shuffle(v0, v1, odd);
    const Vec<A> b = __builtin_shuffle(v2, v3, even) + __builtin_shuffle(v2, v3, odd);
    Vec<A> c = __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
#pragma GCC unroll 4
    for (int w = L / 2; w >= 4; w /= 2) {
      Vec<Int<A>> other;
      for (int i = 0; i < L; ++i) other[i] = i ^ w;
      c += __builtin_shuffle(c, other);
    }
    return c;
  }
#endif
  Vec<A> c{};
  if constexpr (L >= 4) { c[0] = hsum<A>(v0); c[1] = hsum<A>(v1); c[2] = hsum<A>(v2); c[3] = hsum<A>(v3); }
  return c;
}

// to[r] = the sum of the lanes of vector r
template <class A> STRUCTOPS_INLINE void store_sums4(A* to, Vec<A> v0, Vec<A> v1, Vec<A> v2, Vec<A> v3) {
  if constexpr (W<A> >= 4) {
    const Vec<A> c = hsum4<A>(v0, v1, v2, v3);
    for (int r = 0; r < 4; ++r) to[r] = c[r];
  } else {
    to[0] = hsum<A>(v0); to[1] = hsum<A>(v1); to[2] = hsum<A>(v2); to[3] = hsum<A>(v3);
  }
}

// to[i] = the sum of the lanes of f(i), for n > 0 edges and up to the next multiple of four.
template <class A, class F> STRUCTOPS_INLINE void lane_sums(A* to, int n, F f) {
  for (int i = 0; i < n; i += 4) {
    store_sums4<A>(to + i, f(i), f(i + 1), f(i + 2), f(i + 3));
  }
}

// Products of two rows, added up lane by lane.
template <class P, class Q> STRUCTOPS_INLINE Vec<Acc<P>> products(const P* p, const Q* q, int64_t n) {
  Vec<Acc<P>> s{};
  for (int64_t j = 0; j < n; j += W<Acc<P>>) s += get(p + j, n - j) * get(q + j, n - j);
  return s;
}

template <class A> STRUCTOPS_INLINE A finite_or_zero(A lse) { return lse == A(-INFINITY) ? A(0) : lse; }

// A tile's arrays are read in whole vectors: what stands behind its n edges is -inf in scores, 0 in everything else.
template <class A> STRUCTOPS_INLINE void pad(A* s, int n, A with) {
  for (int i = n; i % W<A>; ++i) s[i] = with;
}

// The scores s of a head become exp(s - shift); returns their sum.
template <class A> STRUCTOPS_INLINE A exponentials(A* s, A shift, int n) {
  Vec<A> total{};
  for (int i = 0; i < n; i += W<A>) {
    const Vec<A> p = vexp<A>(load(s + i) - shift);
    total += p;
    store(s + i, p);
  }
  return hsum<A>(total);
}

template <class A> STRUCTOPS_INLINE A largest(const A* s, int n, A start) {
  Vec<A> m = splat(start);
  for (int i = 0; i < n; i += W<A>) m = load(s + i) > m ? load(s + i) : m;
  return hmax<A>(m);
}

// ds into s, from the weights in s and <g, value> in dp.
template <class A> STRUCTOPS_INLINE void score_gradients(A* s, A* dp, int n, A delta) {
  pad(dp, n, delta);
  for (int i = 0; i < n; i += W<A>) store(s + i, load(s + i) * (load(dp + i) - delta));
}

}  // namespace
}  // namespace structops::STRUCTOPS_ISA
