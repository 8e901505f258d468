// CUDA structure builders. The contract is csr.h.
//
// csr_sort: cub's stable radix sort of (index, position) over the bits that N needs, then a binary search of every row's
// start. Keys and positions are 32 bits wide when N and E fit. What elements carry is gathered after. Scratch: four arrays of E, and
// cub's own.
#include "sparse/csr.cuh"

#include <cub/device/device_radix_sort.cuh>

#include "sparse/cuda.h"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256;

STRUCTOPS_DEVICE int64_t thread_id() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }
STRUCTOPS_DEVICE int64_t thread_count() { return int64_t(gridDim.x) * blockDim.x; }

template <class K> __global__ void sort_input(IndexRef index, int64_t E, K* key, K* pos) {
  for (int64_t i = thread_id(); i < E; i += thread_count()) {
    key[i] = K(index.at(i));
    pos[i] = K(i);
  }
}

template <class K, class I> __global__ void write_rowptr(const K* key, int64_t E, int64_t N, I* rowptr) {
  for (int64_t n = thread_id(); n <= N; n += thread_count()) {
    int64_t lo = 0, hi = n == N ? 0 : E;
    while (lo < hi) {
      const int64_t mid = (lo + hi) / 2;
      if (int64_t(key[mid]) < n) lo = mid + 1; else hi = mid;
    }
    rowptr[n] = I(n == N ? E : lo);
  }
}

struct Carried {
  IndexRef other, rowptr, number;
  int64_t rows;
};

template <class K, class I> __global__ void gather(const K* pos, int64_t E, Carried from, I* perm, I* carried) {
  for (int64_t i = thread_id(); i < E; i += thread_count()) {
    const int64_t k = int64_t(pos[i]);
    perm[i] = I(from.number.data ? from.number.at(k) : k);
    if (from.other.data) carried[i] = I(from.other.at(k));
    if (from.rowptr.data) {
      int64_t low = 0, high = from.rows;  // the last row that begins at or before k
      while (high - low > 1) {
        const int64_t mid = (low + high) / 2;
        if (from.rowptr.at(mid) <= k) low = mid; else high = mid;
      }
      carried[i] = I(low);
    }
  }
}

template <class K, class I> void sort(const char* op, const CsrArgs& a, const CudaContext& ctx) {
  const int64_t E = a.E, N = a.N;
  I *const rowptr = static_cast<I*>(a.ptr), *const perm = static_cast<I*>(a.perm);
  if (E == 0) {
    check(op, cudaMemsetAsync(rowptr, 0, size_t(N + 1) * sizeof(I), stream_of(ctx)));
    return;
  }
  const bool in_place = sizeof(I) == sizeof(K);  // the sort can write perm itself
  K* const key = scratch<K>(ctx, E);
  K* const key_out = scratch<K>(ctx, E);
  K* const pos = scratch<K>(ctx, E);
  K* const pos_out = in_place ? reinterpret_cast<K*>(perm) : scratch<K>(ctx, E);
  launch(op, ctx, sort_input<K>, blocks_for(E, kThreads), kThreads, ref(a.key), E, key, pos);
  int bits = 1;
  while (bits < 8 * int(sizeof(K)) && (N - 1) >> bits) ++bits;
  size_t bytes = 0;
  const auto sort_pairs = [&](void* temp) {
    check(op, cub::DeviceRadixSort::SortPairs(temp, bytes, key, key_out, pos, pos_out, E, 0, bits, stream_of(ctx)));
  };
  sort_pairs(nullptr);
  sort_pairs(scratch<char>(ctx, int64_t(bytes ? bytes : 1)));
  launch(op, ctx, write_rowptr<K, I>, blocks_for(N + 1, kThreads), kThreads, key_out, E, N, rowptr);
  if (in_place && !a.other && !a.rowptr && !a.number) return;
  const Carried from{ref(a.other), ref(a.rowptr), ref(a.number), a.rows};
  launch(op, ctx, gather<K, I>, blocks_for(E, kThreads), kThreads, pos_out, E, from, perm, static_cast<I*>(a.carried));
}

struct Span {
  int64_t min, max;
  int unsorted;
};

// One partial result per block; the host joins them.
__global__ void __launch_bounds__(kThreads) span_of(IndexRef index, int64_t n, Span* out) {
  __shared__ Span part[kThreads / 32];
  Span s{Limits<int64_t>::high(), Limits<int64_t>::low(), 0};
  for (int64_t i = thread_id(); i < n; i += thread_count()) {
    const int64_t v = index.at(i);
    s.min = v < s.min ? v : s.min;
    s.max = v > s.max ? v : s.max;
    if (i > 0 && index.at(i - 1) > v) s.unsorted = 1;
  }
  const auto join = [](Span& a, const Span& b) {
    a.min = b.min < a.min ? b.min : a.min;
    a.max = b.max > a.max ? b.max : a.max;
    a.unsorted |= b.unsorted;
  };
  __syncwarp();
  for (int d = 16; d > 0; d >>= 1) join(s, shift_down(s, d));
  if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = s;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < kThreads / 32; ++w) join(s, part[w]);
    out[blockIdx.x] = s;
  }
}

Span span(const char* op, const Index& index, int64_t n, const CudaContext& ctx) {
  constexpr int max_blocks = 1024;
  const int64_t blocks = div_up(n, 8 * kThreads) < max_blocks ? div_up(n, 8 * kThreads) : max_blocks;
  Span* const device = scratch<Span>(ctx, blocks);
  Span host[max_blocks];
  launch(op, ctx, span_of, unsigned(blocks), kThreads, ref(index), n, device);
  check(op, cudaMemcpyAsync(host, device, size_t(blocks) * sizeof(Span), cudaMemcpyDeviceToHost, stream_of(ctx)));
  check(op, cudaStreamSynchronize(stream_of(ctx)));
  Span s = host[0];
  for (int64_t b = 1; b < blocks; ++b) {
    s.min = host[b].min < s.min ? host[b].min : s.min;
    s.max = host[b].max > s.max ? host[b].max : s.max;
    s.unsorted |= host[b].unsorted;
  }
  return s;
}

}  // namespace

bool csr_in_range(const char* op, const Index& index, int64_t E, int64_t N, const CudaContext& ctx) {
  if (E == 0) return true;
  const Span s = span(op, index, E, ctx);
  return s.min >= 0 && s.max < N;
}

void csr_sort(const char* op, const CsrArgs& a, const CudaContext& ctx) {
  const bool small = !(a.E >> 31) && !(a.N >> 31);
  if (!a.wide && !small) throw std::runtime_error(std::string(op) + ": more than 2^31 - 1 elements or groups need an int64 result");
  if (!a.wide) return sort<unsigned, int32_t>(op, a, ctx);
  if (small) sort<unsigned, int64_t>(op, a, ctx);
  else sort<unsigned long long, int64_t>(op, a, ctx);
}

bool csr_build(const CsrArgs& a, const CudaContext& ctx) {
  if (!csr_in_range("csr_build", a.key, a.E, a.N, ctx)) return false;
  csr_sort("csr_build", a, ctx);
  return true;
}

Range index_range(const Index& index, int64_t n, bool* sorted, const CudaContext& ctx) {
  const Span s = span("index_range", index, n, ctx);
  if (sorted) *sorted = !s.unsorted;
  return {s.min, s.max};
}

}  // namespace structops::cuda
