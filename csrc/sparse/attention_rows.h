// Scores of a row in an array: softmax and its derivative in whole vectors. Include only from *_cpu.cpp.
#pragma once
#include "core/vmath.h"

namespace structops::STRUCTOPS_ISA {
namespace {

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
  A r = m[0];
  for (int i = 1; i < W<A>; ++i) r = m[i] > r ? m[i] : r;
  return r;
}

// ds into s, from the weights in s and <g, value> in dp.
template <class A> STRUCTOPS_INLINE void score_gradients(A* s, A* dp, int n, A delta) {
  pad(dp, n, delta);
  for (int i = 0; i < n; i += W<A>) store(s + i, load(s + i) * (load(dp + i) - delta));
}

}  // namespace
}  // namespace structops::STRUCTOPS_ISA
