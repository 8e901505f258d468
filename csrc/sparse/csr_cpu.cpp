// CPU structure builders. The contract is csr.h.
#include <cstdlib>
#include <cstring>

#include "core/memory.h"
#include "core/simd.h"
#include "sparse/csr.h"

namespace structops::STRUCTOPS_ISA {
namespace {

// What an element carries to its place beside its number. A walk sees the elements of one slice in order.
struct Nothing {
  void start(int64_t) {}
  void put(int64_t, int64_t) {}
};

template <class I, class O> struct Other {
  const I* other;
  O* carried;
  void start(int64_t) {}
  void put(int64_t k, int64_t at) { carried[at] = O(other[k]); }
};

template <class I, class O> struct Row {
  const I* rowptr;
  int64_t rows;
  O* carried;
  int64_t row, end;
  void start(int64_t k) {  // the last row that begins at or before k: rows without elements come before it
    int64_t low = 0, high = rows;
    while (high - low > 1) {
      const int64_t mid = (low + high) / 2;
      (rowptr[mid] <= I(k) ? low : high) = mid;
    }
    row = low;
    end = rows ? rowptr[row + 1] : 0;
  }
  void put(int64_t k, int64_t at) {
    while (k >= end && row + 1 < rows) end = rowptr[++row + 1];
    carried[at] = O(row);
  }
};

// Part p of P counts its slice of the keys; counts are then scanned group by group, part by part, so that every part
// knows where its first element of each group goes. Stable, and the same for every P.
template <class I, class O, class Carry> bool build(const CsrArgs& a, const Carry& carry, const ParallelFor& pf) {
  const int64_t E = a.E, N = a.N;
  const I *const key = static_cast<const I*>(a.key.data), *const number = static_cast<const I*>(a.number.data);
  O *const ptr = static_cast<O*>(a.ptr), *const perm = static_cast<O*>(a.perm);
  const int64_t parts = E < 65536 || N > E * 4 ? 1 : pf.threads;
  O* const count = allocate<O>(size_t(parts * N));
  std::memset(count, 0, size_t(parts * N) * sizeof(O));
  auto slice = [&](int64_t p) { return E * p / parts; };
  bool ok = true;
  auto histogram = [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      O* const c = count + p * N;
      for (int64_t k = slice(p); k < slice(p + 1); ++k) {
        if (uint64_t(key[k]) >= uint64_t(N)) { __atomic_store_n(&ok, false, __ATOMIC_RELAXED); break; }
        ++c[key[k]];
      }
    }
  };
  parallel_for(pf, parts, 1, histogram);
  if (ok) {
    O running = 0;
    for (int64_t n = 0; n < N; ++n) {
      ptr[n] = running;
      for (int64_t p = 0; p < parts; ++p) {
        const O c = count[p * N + n];
        count[p * N + n] = running;
        running += c;
      }
    }
    ptr[N] = running;
    auto place = [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        O* const next = count + p * N;
        Carry walk = carry;
        walk.start(slice(p));
        for (int64_t k = slice(p); k < slice(p + 1); ++k) {
          const O at = next[key[k]]++;
          perm[at] = number ? O(number[k]) : O(k);
          walk.put(k, at);
        }
      }
    };
    parallel_for(pf, parts, 1, place);
  }
  std::free(count);
  return ok;
}

template <class I, class O> bool build(const CsrArgs& a, const ParallelFor& pf) {
  O* const carried = static_cast<O*>(a.carried);
  if (a.other) return build<I, O>(a, Other<I, O>{static_cast<const I*>(a.other.data), carried}, pf);
  if (a.rowptr) return build<I, O>(a, Row<I, O>{static_cast<const I*>(a.rowptr.data), a.rows, carried, 0, 0}, pf);
  return build<I, O>(a, Nothing{}, pf);
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

bool csr_build(const CsrArgs& a, const ParallelFor& pf) {
  if (!a.key.wide) return a.wide ? build<int32_t, int64_t>(a, pf) : build<int32_t, int32_t>(a, pf);
  return a.wide ? build<int64_t, int64_t>(a, pf) : build<int64_t, int32_t>(a, pf);
}

Range index_range(const Index& index, int64_t n, bool* sorted, const ParallelFor& pf) {
  return index.wide ? range(static_cast<const int64_t*>(index.data), n, sorted, pf)
                    : range(static_cast<const int32_t*>(index.data), n, sorted, pf);
}

}  // namespace structops::STRUCTOPS_ISA
