// CPU select. The contract is select.h. The backward walks panels of columns: a thread that owns columns needs neither locks nor
// a second ordering of the structure. Panels are as wide as lets the output they write stay in cache, or else a line wide.
#include <cstdlib>

#include "core/memory.h"
#include "core/simd.h"
#include "sparse/select.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int64_t kNear = 768 << 10;  // most of the L2 cache of a core

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

// Into the columns [f0, f1) of one batch: `out` is the panel's first element, `stride` its row. far: it exceeds the cache.
template <class T, class I, bool far>
void scatter(const SelectArgs& a, Acc<T>* out, int64_t stride, int64_t batch, int64_t f0, int64_t f1) {
  constexpr int64_t kAhead = 8;
  const int64_t N = a.N, F = a.F, M = a.M, width = f1 - f0;
  const T* const grad = static_cast<const T*>(a.src) + batch * N * F + f0;
  const I* const idx = static_cast<const I*>(a.idx.data) + batch * N * F + f0;
  for (int64_t n = 0; n < N; ++n) {
    const I* const row = idx + n * F;
    const T* const g = grad + n * F;
    if (n + 2 * kAhead < N)  // pieces of rows, which the hardware does not see coming
      for (int64_t f = 0; f < width; f += 16) {
        __builtin_prefetch(row + 2 * kAhead * F + f);
        __builtin_prefetch(g + 2 * kAhead * F + f);
      }
    if (far && n + kAhead < N)
      for (int64_t f = 0; f < width; ++f) __builtin_prefetch(out + row[kAhead * F + f] * stride + f, 1);
    for (int64_t f = 0; f < width; ++f) {
      asm volatile("");  // a vector gather and scatter are slower
      const int64_t i = row[f];
      if (uint64_t(i) < uint64_t(M)) out[i * stride + f] += widen(g[f]);
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
    constexpr int64_t line = 64 / sizeof(A);
    int64_t width = (a.F + line - 1) / line * line;  // halved until a panel fits the cache of a core, but to no less than a line
    while (width > line && a.M * width * int64_t(sizeof(A)) > kNear) width = (width / line + 1) / 2 * line;
    while (width > 1 && a.B * ((a.F + width - 1) / width) < pf.threads) width /= 2;
    const int64_t panels = (a.F + width - 1) / width;
    const bool far = a.M * width * int64_t(sizeof(A)) > kNear;
    // Rows of a panel apart by a power of two would share few sets of the cache: panels that fit it are kept apart, [M, width].
    const bool apart = sizeof(A) != sizeof(T) || (panels > 1 && !far);
    const int64_t stride = apart ? width : a.F, cells = apart ? a.B * panels * a.M * width : a.B * a.M * a.F;
    A* const acc = apart ? allocate<A>(size_t(cells)) : static_cast<A*>(a.out);
    auto clear = [&](int64_t begin, int64_t end) { std::memset(acc + begin, 0, size_t(end - begin) * sizeof(A)); };
    parallel_for(pf, cells, 1 << 16, clear);
    auto body = [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t batch = task / panels, f0 = task % panels * width, f1 = f0 + width < a.F ? f0 + width : a.F;
        const auto walk = a.idx.wide ? far ? scatter<T, int64_t, true> : scatter<T, int64_t, false>
                                     : far ? scatter<T, int32_t, true> : scatter<T, int32_t, false>;
        walk(a, apart ? acc + task * a.M * width : acc + batch * a.M * a.F + f0, stride, batch, f0, f1);
      }
    };
    parallel_for(pf, a.B * panels, a.B * (a.N + a.M) * a.F < 32768 ? a.B * panels : 1, body);
    if (!apart) return;
    auto finish = [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        for (int64_t p = 0; p < panels; ++p) {
          const A* const from = acc + ((r / a.M * panels + p) * a.M + r % a.M) * width;
          T* const to = static_cast<T*>(a.out) + r * a.F + p * width;
          const int64_t n = p < panels - 1 ? width : a.F - p * width;
          for (int64_t f = 0; f < n; ++f) narrow_to(to + f, from[f]);
        }
    };
    parallel_for(pf, a.B * a.M, 16384 / a.F + 1, finish);
    std::free(acc);
  });
}

}  // namespace structops::STRUCTOPS_ISA
