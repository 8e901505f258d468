#include "tests.h"

#include <numeric>

#include "sparse/csr.h"
#include "support.h"

namespace structops::tests {

namespace {

// A stable sort by key, with the numbers and whatever is carried at their places.
template <class I, class O> void check_order(const CsrArgs& a, const I* key, const std::vector<I>& number, const std::vector<I>& carry) {
  const O *const ptr = static_cast<const O*>(a.ptr), *const perm = static_cast<const O*>(a.perm), *const carried = static_cast<const O*>(a.carried);
  std::vector<int64_t> order(static_cast<size_t>(a.E));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) { return key[i] < key[j]; });
  bool ok = ptr[0] == 0 && ptr[a.N] == a.E, same = true;
  for (int64_t n = 0; ok && n < a.N; ++n)
    for (int64_t k = ptr[n]; ok && k < ptr[n + 1]; ++k) ok = key[order[size_t(k)]] == n;
  for (int64_t k = 0; k < a.E; ++k) {
    const size_t from = size_t(order[size_t(k)]);
    ok &= perm[k] == (number.empty() ? O(from) : O(number[from]));
    if (carried) same &= carried[k] == O(carry[from]);
  }
  expect(ok, "csr_build", "not a stable sort");
  expect(same, "csr_build", "what is carried is at a wrong place");
}

template <class I, class O> void test_csr(int64_t E, int64_t N, Rng& rng) {
  constexpr bool wide = sizeof(I) == 8;
  const size_t n = static_cast<size_t>(E);
  std::unique_ptr<I[]> index(new I[n]);
  std::unique_ptr<O[]> ptr(new O[size_t(N) + 1]), perm(new O[n]), carried(new O[n]);
  const int64_t rows = E / 3 + 1;
  std::vector<I> other(n), number(n), row(n), rowptr(size_t(rows) + 1, 0);
  for (size_t e = 0; e < n; ++e) {
    index[e] = I(rng.below(N));
    other[e] = I(rng.below(1000));
    number[e] = I(E - 1 - int64_t(e));
    row[e] = I(rng.below(rows));
  }
  std::sort(row.begin(), row.end());
  for (const I r : row) ++rowptr[size_t(r) + 1];
  std::partial_sum(rowptr.begin(), rowptr.end(), rowptr.begin());
  CsrArgs a = csr_args({index.get(), wide}, E, N, ptr.get(), perm.get());
  a.wide = sizeof(O) == 8;
  CsrArgs coo = a, transpose = a;
  coo.other = {other.data(), wide};
  transpose.rowptr = {rowptr.data(), wide};
  transpose.rows = rows;
  transpose.number = {number.data(), wide};
  coo.carried = transpose.carried = carried.get();
  for (const ParallelFor* pf : {&serial_for, &threaded}) {
    std::fill(perm.get(), perm.get() + E, O(-1));
    expect(csr_build(a, *pf), "csr_build", "refused");
    check_order<I, O>(a, index.get(), {}, {});
    expect(csr_build(coo, *pf), "csr_build", "refused");
    check_order<I, O>(coo, index.get(), {}, other);
    if (E == 0) continue;  // without a pointer an index is absent
    expect(csr_build(transpose, *pf), "csr_build", "refused");
    check_order<I, O>(transpose, index.get(), number, row);
    bool sorted = true;
    const Range r = index_range(a.key, E, &sorted, *pf);
    const auto [lo, hi] = std::minmax_element(index.get(), index.get() + E);
    expect(r.min == *lo && r.max == *hi && sorted == std::is_sorted(index.get(), index.get() + E), "index_range", "wrong");
    const I keep = index[n / 2];
    for (I bad : {I(-1), I(N), std::numeric_limits<I>::max(), std::numeric_limits<I>::min()}) {
      index[n / 2] = bad;
      for (const CsrArgs* args : {&a, &coo, &transpose})
        expect(!csr_build(*args, *pf), "csr_build", "an index out of range was accepted");
    }
    index[n / 2] = keep;
  }
}

}  // namespace

void test_csr_all(Rng& rng) {
  const int64_t sizes[][2] = {{0, 1}, {1, 1}, {100, 7}, {100, 5000}, {65'536, 3}, {200'000, 1000}, {70'000, 400'000}};
  for (const auto& s : sizes) {
    test_csr<int32_t, int32_t>(s[0], s[1], rng);
    test_csr<int32_t, int64_t>(s[0], s[1], rng);
    test_csr<int64_t, int32_t>(s[0], s[1], rng);
    test_csr<int64_t, int64_t>(s[0], s[1], rng);
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
