#include "tests.h"

#include "sparse/csr.h"
#include "support.h"

namespace structops::tests {

namespace {

template <class I> void test_csr(int64_t E, int64_t N, Rng& rng) {
  std::unique_ptr<I[]> index(new I[size_t(E)]), ptr(new I[size_t(N) + 1]), perm(new I[size_t(E)]);
  for (int64_t e = 0; e < E; ++e) index[size_t(e)] = I(rng.below(N));
  const Index idx{index.get(), sizeof(I) == 8};
  for (const ParallelFor* pf : {&serial_for, &threaded}) {
    std::fill(perm.get(), perm.get() + E, I(-1));
    expect(csr_build(idx, E, N, ptr.get(), perm.get(), *pf), "csr_build", "refused");
    bool ok = ptr[0] == 0 && ptr[size_t(N)] == E;
    for (int64_t n = 0; ok && n < N; ++n)
      for (int64_t k = ptr[size_t(n)]; ok && k < ptr[size_t(n) + 1]; ++k)
        ok = index[size_t(perm[size_t(k)])] == n && (k == ptr[size_t(n)] || perm[size_t(k)] > perm[size_t(k) - 1]);
    expect(ok, "csr_build", "not a stable sort");
    if (E == 0) continue;
    bool sorted = true;
    const Range r = index_range(idx, E, &sorted, *pf);
    const auto [lo, hi] = std::minmax_element(index.get(), index.get() + E);
    expect(r.min == *lo && r.max == *hi && sorted == std::is_sorted(index.get(), index.get() + E), "index_range", "wrong");
    const I keep = index[size_t(E / 2)];
    for (I bad : {I(-1), I(N), std::numeric_limits<I>::max(), std::numeric_limits<I>::min()}) {
      index[size_t(E / 2)] = bad;
      expect(!csr_build(idx, E, N, ptr.get(), perm.get(), *pf), "csr_build", "an index out of range was accepted");
    }
    index[size_t(E / 2)] = keep;
  }
}

}  // namespace

void test_csr_all(Rng& rng) {
  const int64_t sizes[][2] = {{0, 1}, {1, 1}, {100, 7}, {100, 5000}, {65'536, 3}, {200'000, 1000}, {70'000, 400'000}};
  for (const auto& s : sizes) {
    test_csr<int32_t>(s[0], s[1], rng);
    test_csr<int64_t>(s[0], s[1], rng);
  }
  std::vector<int64_t> up(200'000);
  for (size_t i = 0; i < up.size(); ++i) up[i] = int64_t(i / 3);
  for (size_t dip : {size_t(0), size_t(65'535), size_t(65'536), size_t(131'072), up.size() - 1}) {
    std::vector<int64_t> index = up;
    if (dip) index[dip] = -1;
    const IndexArray idx(index);
    for (bool wide : {false, true})
      for (const ParallelFor* pf : {&serial_for, &threaded}) {
        bool sorted = false;
        const Range r = index_range(idx.index(wide), int64_t(index.size()), &sorted, *pf);
        expect(sorted == (dip == 0) && r.min == (dip ? -1 : 0), "index_range", "order or minimum is wrong");
      }
  }
}

}  // namespace structops::tests
