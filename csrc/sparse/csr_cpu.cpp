// CPU structure builders. The contract is csr.h.
#include <cstdlib>
#include <cstring>

#include "core/memory.h"
#include "core/simd.h"
#include "sparse/csr.h"

namespace structops::STRUCTOPS_ISA {
namespace {

// Part p of P counts its slice of the index; counts are then scanned group by group, part by part, so that every part
// knows where its first element of each group goes. Stable, and the same for every P.
template <class I> bool build(const I* index, int64_t E, int64_t N, I* rowptr, I* perm, const ParallelFor& pf) {
  const int64_t parts = E < 65536 || N > E * 4 ? 1 : pf.threads;
  I* const count = allocate<I>(size_t(parts * N));
  std::memset(count, 0, size_t(parts * N) * sizeof(I));
  auto slice = [&](int64_t p) { return E * p / parts; };
  bool ok = true;
  auto histogram = [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      I* const c = count + p * N;
      for (int64_t e = slice(p); e < slice(p + 1); ++e) {
        if (uint64_t(index[e]) >= uint64_t(N)) { __atomic_store_n(&ok, false, __ATOMIC_RELAXED); break; }
        ++c[index[e]];
      }
    }
  };
  parallel_for(pf, parts, 1, histogram);
  if (ok) {
    I running = 0;
    for (int64_t n = 0; n < N; ++n) {
      rowptr[n] = running;
      for (int64_t p = 0; p < parts; ++p) {
        const I c = count[p * N + n];
        count[p * N + n] = running;
        running += c;
      }
    }
    rowptr[N] = running;
    auto place = [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        I* const next = count + p * N;
        for (int64_t e = slice(p); e < slice(p + 1); ++e) perm[next[index[e]]++] = I(e);
      }
    };
    parallel_for(pf, parts, 1, place);
  }
  std::free(count);
  return ok;
}

template <class I> Range range(const I* index, int64_t n, bool* sorted, const ParallelFor& pf) {
  constexpr int64_t chunk = 1 << 16;
  const int64_t chunks = (n + chunk - 1) / chunk;
  Range* const part = allocate<Range>(size_t(chunks));
  bool ascending = true;
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t stop = (c + 1) * chunk < n ? (c + 1) * chunk : n;
      I lo = index[c * chunk], hi = lo, falls = c && index[c * chunk - 1] > lo;
      for (int64_t i = c * chunk + 1; i < stop; ++i) {
        const I v = index[i];
        lo = v < lo ? v : lo;
        hi = v > hi ? v : hi;
        falls |= I(index[i - 1] > v);
      }
      part[c] = {lo, hi};
      if (falls) __atomic_store_n(&ascending, false, __ATOMIC_RELAXED);
    }
  };
  parallel_for(pf, chunks, 1, body);
  Range r = part[0];
  for (int64_t c = 1; c < chunks; ++c) {
    r.min = part[c].min < r.min ? part[c].min : r.min;
    r.max = part[c].max > r.max ? part[c].max : r.max;
  }
  std::free(part);
  *sorted = ascending;
  return r;
}

}  // namespace

bool csr_build(const Index& index, int64_t E, int64_t N, void* rowptr, void* perm, const ParallelFor& pf) {
  return index.wide ? build(static_cast<const int64_t*>(index.data), E, N, static_cast<int64_t*>(rowptr), static_cast<int64_t*>(perm), pf)
                    : build(static_cast<const int32_t*>(index.data), E, N, static_cast<int32_t*>(rowptr), static_cast<int32_t*>(perm), pf);
}

Range index_range(const Index& index, int64_t n, bool* sorted, const ParallelFor& pf) {
  return index.wide ? range(static_cast<const int64_t*>(index.data), n, sorted, pf)
                    : range(static_cast<const int32_t*>(index.data), n, sorted, pf);
}

}  // namespace structops::STRUCTOPS_ISA
