// CPU segment_order. The contract is segment_order.h.
//
// An element becomes one unsigned number, its value's bits in sorting order above its position in the row: numbers differ, and
// their order is the contract's. One column of a row is gathered to scratch; quickselect brings what is asked for to its place.
// Up to kShort best are kept in a sorted list instead, which a new element rarely enters.
#include <cstdlib>

#include "core/simd.h"
#include "sparse/row_pieces.h"
#include "sparse/segment_order.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kShort = 32;

__extension__ typedef unsigned __int128 Wide;

template <int bytes> struct KeyOf { using type = uint64_t; };
template <> struct KeyOf<8> { using type = Wide; };

// Bits of a value in unsigned order; every NaN is the largest.
template <class T> STRUCTOPS_INLINE auto ordered(T t) {
  const auto a = widen(t);
  using A = Acc<T>;
  if constexpr (sizeof(A) == 4) {
    if constexpr (!is_float_storage<T>) return uint32_t(a) ^ 0x80000000u;
    else {
      const uint32_t u = bitcast<uint32_t>(a == 0 ? A(0) : a);
      return a != a ? ~0u : u & 0x80000000u ? ~u : u | 0x80000000u;
    }
  } else {
    constexpr uint64_t top = uint64_t(1) << 63;
    if constexpr (!is_float_storage<T>) return uint64_t(a) ^ top;
    else {
      const uint64_t u = bitcast<uint64_t>(a == 0 ? A(0) : a);
      return a != a ? ~uint64_t(0) : u & top ? ~u : u | top;
    }
  }
}

template <class Key> STRUCTOPS_INLINE void swap(Key& a, Key& b) { const Key t = a; a = b; b = t; }

template <class Key> void heap_sort(Key* p, int64_t n) {
  auto sift = [&](int64_t i, int64_t end) {
    const Key v = p[i];
    for (int64_t c; (c = 2 * i + 1) < end; i = c) {
      if (c + 1 < end && p[c] < p[c + 1]) ++c;
      if (!(v < p[c])) break;
      p[i] = p[c];
    }
    p[i] = v;
  };
  for (int64_t i = n / 2; i-- > 0;) sift(i, n);
  for (int64_t end = n - 1; end > 0; --end) {
    swap(p[0], p[end]);
    sift(0, end);
  }
}

template <class Key> void sort(Key* p, int64_t n) {
  if (n > 24) return heap_sort(p, n);
  for (int64_t i = 1; i < n; ++i) {
    const Key v = p[i];
    int64_t j = i;
    for (; j > 0 && v < p[j - 1]; --j) p[j] = p[j - 1];
    p[j] = v;
  }
}

// Brings the element of rank r to p[r], smaller ones before it.
template <class Key> void place(Key* p, int64_t n, int64_t r) {
  int64_t lo = 0, hi = n - 1;
  for (int steps = 0; hi - lo > 16; ++steps) {
    if (steps > 96) return heap_sort(p + lo, hi - lo + 1);  // a row built to defeat the pivots
    const int64_t mid = lo + (hi - lo) / 2;
    if (p[mid] < p[lo]) swap(p[mid], p[lo]);
    if (p[hi] < p[lo]) swap(p[hi], p[lo]);
    if (p[hi] < p[mid]) swap(p[hi], p[mid]);
    const Key pivot = p[mid];
    int64_t i = lo, j = hi;
    while (i <= j) {
      while (p[i] < pivot) ++i;
      while (pivot < p[j]) --j;
      if (i <= j) swap(p[i++], p[j--]);
    }
    if (r <= j) hi = j;
    else if (r >= i) lo = i;
    else return;
  }
  sort(p + lo, hi - lo + 1);
}

template <class Key> STRUCTOPS_INLINE int64_t position(Key key) { return int64_t(uint32_t(key)); }

// The k smallest of n numbers get(i), sorted, into best.
template <class Key, class Get> STRUCTOPS_INLINE void shortlist(Get get, int64_t n, Key* best, int64_t k) {
  for (int64_t i = 0; i < n; ++i) {
    const Key v = get(i);
    if (i >= k && !(v < best[k - 1])) continue;
    int64_t j = i < k ? i : k - 1;
    for (; j > 0 && v < best[j - 1]; --j) best[j] = best[j - 1];
    best[j] = v;
  }
}

template <class T, class O> bool rows(const SegmentOrderArgs& a, int64_t batch, int64_t v0, int64_t v1) {
  using Bits = decltype(ordered(T{}));
  using Key = typename KeyOf<sizeof(Bits)>::type;
  int64_t longest = 0;
  for (int64_t v = v0; v < v1; ++v) {
    const int64_t n = a.rowptr[v + 1] - a.rowptr[v];
    longest = n > longest ? n : longest;
  }
  Key* const buf = static_cast<Key*>(std::malloc(size_t(longest + kShort) * sizeof(Key)));
  if (!buf) return false;
  const T* const src = static_cast<const T*>(a.src) + batch * a.E * a.F;
  O* const out = static_cast<O*>(a.out) + batch * a.N * a.K * a.F;
  const Bits flip = a.largest ? ~Bits(0) : Bits(0), nan = ~Bits(0) ^ flip;
  for (int64_t v = v0; v < v1; ++v) {
    const int64_t begin = a.rowptr[v], n = a.rowptr[v + 1] - begin, k = a.K < n ? a.K : n;
    for (int64_t f = 0; f < a.F; ++f) {
      const T* const column = src + begin * a.F + f;
      O* const result = out + v * a.K * a.F + f;
      auto key = [&](int64_t i) __attribute__((always_inline)) { return Key(ordered(column[i * a.F]) ^ flip) << 32 | Key(uint32_t(i)); };
      if (a.rank) {
        int64_t first_nan = -1;
        for (int64_t i = n; i-- > 0;) {
          buf[i] = key(i);
          if (Bits(buf[i] >> 32) == nan) first_nan = i;
        }
        if (!is_float_storage<T>) first_nan = -1;
        const bool sorted = a.K > 4;
        if (sorted) sort(buf, n);
        for (int64_t j = 0; j < a.K; ++j) {
          const int64_t r = a.rank[v * a.K + j];
          int64_t at = -1;
          if (r >= 0 && r < n) {
            if (first_nan < 0 && !sorted) place(buf, n, r);
            at = begin + (first_nan >= 0 ? first_nan : position(buf[r]));
          }
          result[j * a.F] = O(at);
        }
        continue;
      }
      if (k <= kShort) {
        shortlist<Key>(key, n, buf, k);
      } else {
        for (int64_t i = 0; i < n; ++i) buf[i] = key(i);
        if (k < n) place(buf, n, k - 1);
        sort(buf, k);
      }
      for (int64_t j = 0; j < a.K; ++j) result[j * a.F] = O(j < k ? begin + position(buf[j]) : -1);
    }
  }
  std::free(buf);
  return true;
}

}  // namespace

bool segment_order_fwd(const SegmentOrderArgs& a, const ParallelFor& pf) {
  if (a.B == 0 || a.N == 0 || a.F == 0 || a.K == 0) return true;
  bool failed = false;
  const auto piece = [&](int64_t task, int64_t first, int64_t last) {
    const int64_t batch = task / row_pieces(a.N, a.E);
    with_dtype(a.dtype, [&](auto* t) {
      using T = Pointee<decltype(t)>;
      const bool ok = a.rowptr.wide ? rows<T, int64_t>(a, batch, first, last) : rows<T, int32_t>(a, batch, first, last);
      if (!ok) __atomic_store_n(&failed, true, __ATOMIC_RELAXED);
    });
  };
  for_row_pieces(a.rowptr, a.N, a.E, a.F * 8, pf, piece, a.B);
  return !failed;
}

}  // namespace structops::STRUCTOPS_ISA
