// Large buffers. A fresh buffer of a large result costs a page fault for every 4 KiB; asking for huge pages before the
// first touch makes that one per 2 MiB where the system allows it (transparent_hugepage = madvise or always).
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace structops {

inline void advise_huge([[maybe_unused]] void* p, [[maybe_unused]] size_t bytes) {
#ifdef __linux__
  constexpr uintptr_t page = uintptr_t(2) << 20;
  if (bytes < 2 * page) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(p) + page - 1) & ~(page - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(p) + bytes) & ~(page - 1);
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// Uninitialised memory, to be given to std::free. Throws std::bad_alloc: never call it for a large buffer inside a parallel body.
template <class T> inline T* allocate(size_t n) {
  void* const p = std::malloc(n ? n * sizeof(T) : 1);
  if (!p) throw std::bad_alloc();
  advise_huge(p, n * sizeof(T));
  return static_cast<T*>(p);
}

}  // namespace structops
