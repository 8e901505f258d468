// Stands in for cub's sort in builds with STRUCTOPS_CUDA=HOST.
#pragma once
#include <algorithm>
#include <numeric>
#include <vector>

namespace cub {

struct DeviceRadixSort {
  template <class K, class V>
  static cudaError_t SortPairs(void* temp, size_t& bytes, const K* key, K* key_out, const V* value, V* value_out, int64_t n, int begin,
                               int end, cudaStream_t) {
    if (!temp) {
      bytes = 1;
      return cudaSuccess;
    }
    const K kept = end == 8 * int(sizeof(K)) ? ~K(0) : (K(1) << end) - 1;
    std::vector<int64_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return (key[a] & kept) >> begin < (key[b] & kept) >> begin; });
    for (int64_t i = 0; i < n; ++i) {
      key_out[i] = key[order[i]];
      value_out[i] = value[order[i]];
    }
    return cudaSuccess;
  }
};

}  // namespace cub
