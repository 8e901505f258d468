// Sentences of different lengths over threads. Include only from *_cpu.cpp.
#pragma once
#include <cstdlib>

#include "core/memory.h"
#include "core/parallel.h"
#include "core/simd.h"

namespace structops::STRUCTOPS_ISA {

// f(b, scratch) for every sentence, the longest first, each thread taking the next one when it is free. scratch: `numbers` doubles of
// the thread's own, on a cache line, uninitialised. What f computes must not depend on the thread.
template <class F> void longest_first(const int64_t* lengths, int64_t B, int64_t N, int64_t numbers, const ParallelFor& pf, F& f) {
  int64_t* const order = allocate<int64_t>(size_t(B + N + 1));
  int64_t* const start = order + B;
  for (int64_t n = 0; n <= N; ++n) start[n] = 0;
  for (int64_t b = 0; b < B; ++b) ++start[lengths[b]];
  for (int64_t n = N, at = 0; n >= 0; --n) {
    const int64_t count = start[n];
    start[n] = at;
    at += count;
  }
  for (int64_t b = 0; b < B; ++b) order[start[lengths[b]]++] = b;
  const int64_t workers = pf.threads < B ? pf.threads : B;
  numbers = (numbers + 7) / 8 * 8;
  double *memory, *scratch;
  try {
    memory = allocate<double>(size_t(workers * numbers + 8));
    scratch = reinterpret_cast<double*>((reinterpret_cast<uintptr_t>(memory) + 63) & ~uintptr_t(63));
  } catch (...) {
    std::free(order);
    throw;
  }
  int64_t next = 0;
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t w = begin; w < end; ++w)
      for (int64_t i; (i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < B;) f(order[i], scratch + w * numbers);
  };
  parallel_for(pf, workers, 1, body);
  std::free(memory);
  std::free(order);
}

}  // namespace structops::STRUCTOPS_ISA
