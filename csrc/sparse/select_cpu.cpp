// CPU select. The contract is select.h. The backward walks panels of a cache line's width: a thread that owns columns needs
// neither locks nor a second ordering of the structure, and the panel of the output it writes stays in cache.
#include <cstdlib>

#include "core/memory.h"
#include "core/simd.h"
#include "sparse/select.h"

namespace structops::STRUCTOPS_ISA {
namespace {

template <class T, class I> void gather(const SelectArgs& a, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const T* const src = static_cast<const T*>(a.src) + r / a.N * a.M * a.F;
    const I* const idx = static_cast<const I*>(a.idx.data) + r * a.F;
    T* const out = static_cast<T*>(a.out) + r * a.F;
    for (int64_t f = 0; f < a.F; ++f) {
      const bool inside = uint64_t(idx[f]) < uint64_t(a.M);
      out[f] = inside ? src[idx[f] * a.F + f] : T{};
    }
  }
}

template <class T, class I> void scatter(const SelectArgs& a, Acc<T>* acc, int64_t batch, int64_t f0, int64_t f1) {
  constexpr int64_t kAhead = 8;
  const int64_t F = a.F, M = a.M;
  const T* const grad = static_cast<const T*>(a.src) + batch * a.N * F;
  const I* const idx = static_cast<const I*>(a.idx.data) + batch * a.N * F;
  Acc<T>* const out = acc + batch * M * F;
  for (int64_t n = 0; n < a.N; ++n) {
    const I* const row = idx + n * F;
    if (n + kAhead < a.N)
      for (int64_t f = f0; f < f1; ++f) __builtin_prefetch(out + row[kAhead * F + f] * F + f, 1);
    for (int64_t f = f0; f < f1; ++f) {
      const int64_t i = row[f];
      if (uint64_t(i) < uint64_t(M)) out[i * F + f] += widen(grad[n * F + f]);
    }
  }
}

}  // namespace

void select_fwd(const SelectArgs& a, const ParallelFor& pf) {
  if (a.F == 0) return;
  auto body = [&](int64_t begin, int64_t end) {
    with_dtype(a.dtype, [&](auto* t) {
      using T = Pointee<decltype(t)>;
      if (a.idx.wide) gather<T, int64_t>(a, begin, end); else gather<T, int32_t>(a, begin, end);
    });
  };
  parallel_for(pf, a.B * a.N, 16384 / a.F + 1, body);
}

void select_bwd(const SelectArgs& a, const ParallelFor& pf) {
  if (a.B == 0 || a.M == 0 || a.F == 0) return;
  with_dtype(a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    using A = Acc<T>;
    const int64_t cells = a.B * a.M * a.F;
    A* const acc = sizeof(A) == sizeof(T) ? static_cast<A*>(a.out) : allocate<A>(size_t(cells));
    int64_t width = 64 / sizeof(A);
    while (width > 1 && a.B * ((a.F + width - 1) / width) < pf.threads) width /= 2;
    const int64_t panels = (a.F + width - 1) / width;
    auto clear = [&](int64_t begin, int64_t end) { std::memset(acc + begin, 0, size_t(end - begin) * sizeof(A)); };
    parallel_for(pf, cells, 1 << 16, clear);
    auto body = [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t f0 = task % panels * width, f1 = f0 + width < a.F ? f0 + width : a.F;
        if (a.idx.wide) scatter<T, int64_t>(a, acc, task / panels, f0, f1);
        else scatter<T, int32_t>(a, acc, task / panels, f0, f1);
      }
    };
    parallel_for(pf, a.B * panels, a.B * (a.N + a.M) * a.F < 32768 ? a.B * panels : 1, body);
    if (sizeof(A) != sizeof(T)) {
      T* const out = static_cast<T*>(a.out);
      auto narrow = [&](int64_t begin, int64_t end) { for (int64_t i = begin; i < end; ++i) narrow_to(out + i, acc[i]); };
      parallel_for(pf, cells, 16384, narrow);
      std::free(acc);
    }
  });
}

}  // namespace structops::STRUCTOPS_ISA
