// The parallel-for hook. csrc owns no thread pool: the torch layer passes torch's, `_native` and the core tests pass
// a serial one. Kernels decide how work is cut (never from the number of threads, so results do not depend on it).
#pragma once
#include <cstdint>

namespace structops {

struct ParallelFor {
  using Body = void (*)(int64_t begin, int64_t end, void* ctx);
  void (*run)(int64_t begin, int64_t end, int64_t grain, Body body, void* ctx);
  int threads;  // a hint for how many tasks are worth making
};

inline void run_serial(int64_t begin, int64_t end, int64_t, ParallelFor::Body body, void* ctx) {
  if (end > begin) body(begin, end, ctx);
}

inline constexpr ParallelFor serial_for{run_serial, 1};

// f(begin, end) over [0, n) in chunks of at least `grain`; in the calling thread when n <= grain.
template <class F>
[[gnu::always_inline]] inline void parallel_for(const ParallelFor& pf, int64_t n, int64_t grain, F& f) {
  if (n <= 0) return;
  if (n <= grain || pf.threads == 1) { f(0, n); return; }
  struct Thunk { static void call(int64_t b, int64_t e, void* ctx) { (*static_cast<F*>(ctx))(b, e); } };
  pf.run(0, n, grain, &Thunk::call, &f);
}

}  // namespace structops
