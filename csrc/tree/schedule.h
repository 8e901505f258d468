// Sentences as tasks: longest first, taken by whichever thread is free. For one instruction set.
#pragma once
#include <cstdlib>

#include "core/memory.h"
#include "core/parallel.h"

namespace structops::STRUCTOPS_ISA {

// The sentences in order of descending length, stable. Lengths lie in [0, most]. To be freed.
inline int64_t* longest_first(const int64_t* lengths, int64_t B, int64_t most) {
  int64_t* const order = static_cast<int64_t*>(std::malloc(size_t(B + most + 2) * sizeof(int64_t)));
  if (!order) throw std::bad_alloc();
  int64_t* const at = order + B;  // at[most - n]: where the sentences of n words go
  for (int64_t i = 0; i <= most + 1; ++i) at[i] = 0;
  for (int64_t b = 0; b < B; ++b) ++at[most - lengths[b] + 1];
  for (int64_t i = 0; i <= most; ++i) at[i + 1] += at[i];
  for (int64_t b = 0; b < B; ++b) order[at[most - lengths[b]]++] = b;
  return order;
}

inline int64_t longest(const int64_t* lengths, int64_t B) {
  int64_t most = 0;
  for (int64_t b = 0; b < B; ++b) most = lengths[b] > most ? lengths[b] : most;
  return most;
}

// Calls f(scratch, b, count) until every sentence was in one task b[0..count) of neighbours in length. group(b, left) says how
// many of the `left` next sentences the next task takes. A thread has `bytes` of zeroed scratch of its own.
template <class G, class F>
inline void each_task(const int64_t* lengths, int64_t B, size_t bytes, const ParallelFor& pf, G group, F f) {
  if (B == 0) return;
  const int64_t most = longest(lengths, B);
  double work = 0;  // cells times splits
  for (int64_t b = 0; b < B; ++b) work += double(lengths[b]) * double(lengths[b]) * double(lengths[b]);
  const int64_t workers = work < 20000 ? 1 : pf.threads < B ? pf.threads : B;  // waking a thread costs microseconds
  const size_t stride = (bytes + 127) & ~size_t(63);
  int64_t* const order = longest_first(lengths, B, most);
  int64_t* const task = static_cast<int64_t*>(std::malloc(size_t(B + 1) * sizeof(int64_t)));  // task[i]: where task i begins in order
  char* const scratch = static_cast<char*>(std::calloc(size_t(workers), stride));
  if (!task || !scratch) {
    std::free(order);
    std::free(task);
    std::free(scratch);
    throw std::bad_alloc();
  }
  int64_t tasks = 0, next = 0;
  for (int64_t b = 0; b < B; b += group(order + b, B - b)) task[tasks++] = b;
  task[tasks] = B;
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      char* const mine = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(scratch + worker * stride) + 63) & ~uintptr_t(63));
      for (int64_t i; (i = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < tasks;) f(mine, order + task[i], int(task[i + 1] - task[i]));
    }
  };
  parallel_for(pf, workers, 1, body);
  std::free(scratch);
  std::free(task);
  std::free(order);
}

// f(scratch, b) for every sentence by itself.
template <class F> inline void each_sentence(const int64_t* lengths, int64_t B, size_t bytes, const ParallelFor& pf, F f) {
  auto alone = [](const int64_t*, int64_t) -> int64_t { return 1; };
  each_task(lengths, B, bytes, pf, alone, [&](char* scratch, const int64_t* b, int) { f(scratch, *b); });
}

}  // namespace structops::STRUCTOPS_ISA
