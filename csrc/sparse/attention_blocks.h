// Products and weighted sums of rows whose features belong to heads by HeadBlocks, over a tile of edges. Include only from *_cpu.cpp.
#pragma once
#include "core/memory.h"
#include "sparse/attention.h"
#include "sparse/attention_rows.h"

namespace structops::STRUCTOPS_ISA {
namespace {

constexpr int kTile = 32;

// use(position, width) for the blocks of head h in a row.
template <class F> STRUCTOPS_INLINE void each_block(const HeadBlocks& b, int64_t H, int64_t h, F use) {
  int64_t at = 0;
  for (int i = 0; i < b.count; ++i)
    for (int r = 0; r < b.repeat[i]; ++r, at += H * b.width[i]) use(at + h * b.width[i], int64_t(b.width[i]));
}

template <class A> int32_t* vector_heads(const HeadBlocks& b, int64_t H, int64_t width) {
  for (int i = 0; i < b.count; ++i) if (b.width[i] % W<A>) return nullptr;
  int32_t* const heads = allocate<int32_t>(size_t(H * width / W<A>));
  for (int64_t h = 0; h < H; ++h)
    each_block(b, H, h, [&](int64_t at, int64_t n) { for (int64_t j = at; j < at + n; j += W<A>) heads[j / W<A>] = int32_t(h); });
  return heads;
}

// f(get) for every vector of head h, with get(row) the vector of a row: whole ones, then what is left of a block.
template <class A, class F> STRUCTOPS_INLINE void each_vector(const HeadBlocks& b, int64_t H, int64_t h, F f) {
  each_block(b, H, h, [&](int64_t at, int64_t n) __attribute__((always_inline)) {
    int64_t j = 0;
    for (; j + W<A> <= n; j += W<A>) f([&](auto* p) __attribute__((always_inline)) { return load(p + at + j); });
    if (j < n) f([&](auto* p) __attribute__((always_inline)) { return load_n(p + at + j, int(n - j)); });
  });
}

// to[i] = <held, row other[i] of rows> in head h; up to the next multiple of four. Four at a time, which share the walk over the blocks.
template <class T, class A>
STRUCTOPS_INLINE void head_products(A* to, const HeadBlocks& b, int64_t H, int64_t h, const A* held, const T* rows, int64_t stride,
                                    const int64_t* other, int n) {
  for (int i = 0; i < n; i += 4) {
    const T *const r0 = rows + other[i] * stride, *const r1 = rows + other[i + 1] * stride;
    const T *const r2 = rows + other[i + 2] * stride, *const r3 = rows + other[i + 3] * stride;
    Vec<A> s0{}, s1{}, s2{}, s3{};
    each_vector<A>(b, H, h, [&](auto at) __attribute__((always_inline)) {
      const Vec<A> p = at(held);
      s0 += p * at(r0);
      s1 += p * at(r1);
      s2 += p * at(r2);
      s3 += p * at(r3);
    });
    store_sums4<A>(to + i, s0, s1, s2, s3);
  }
}

// sum += sum over i of weight[h, i] * rows[other[i]], h the head of every feature
template <class T, class A>
void add_rows(A* sum, const A* weight, const T* rows, const int64_t* other, int n, const HeadBlocks& b, const int32_t* heads, int64_t H, int64_t D) {
  constexpr int L = W<A>;
  const int64_t HD = H * D;
  int64_t done = 0;
  if (heads) {
    // Four vectors at a time, of one head or several: enough independent sums to hide the latency of an addition.
    for (; done + 4 * L <= HD; done += 4 * L) {
      Vec<A> t[4];
      const A* w[4];
      for (int r = 0; r < 4; ++r) {
        t[r] = load(sum + done + r * L);
        w[r] = weight + heads[done / L + r] * kTile;
      }
      for (int i = 0; i < n; ++i) {
        const T* const p = rows + other[i] * HD + done;
        for (int r = 0; r < 4; ++r) t[r] += w[r][i] * load(p + r * L);
      }
      for (int r = 0; r < 4; ++r) store(sum + done + r * L, t[r]);
    }
    for (; done < HD; done += L) {
      Vec<A> t = load(sum + done);
      for (int i = 0; i < n; ++i) t += weight[heads[done / L] * kTile + i] * load(rows + other[i] * HD + done);
      store(sum + done, t);
    }
    return;
  }
  // C blocks of a head at a time, for the same reason.
  auto blocks = [&](auto count, const A* w, int64_t at, int64_t width) __attribute__((always_inline)) {
    constexpr int C = sizeof(count);
    for (int64_t j = 0; j < width; j += L) {
      Vec<A> t[C];
      for (int c = 0; c < C; ++c) t[c] = get(sum + at + c * H * width + j, width - j);
      for (int i = 0; i < n; ++i) {
        const T* const p = rows + other[i] * HD + at + j;
        for (int c = 0; c < C; ++c) t[c] += w[i] * get(p + c * H * width, width - j);
      }
      for (int c = 0; c < C; ++c) put(sum + at + c * H * width + j, t[c], width - j);
    }
  };
  for (int i = 0; i < b.count; ++i) {
    const int64_t width = b.width[i];
    int r = 0;
    for (; r + 4 <= b.repeat[i]; r += 4, done += 4 * H * width)
      for (int64_t h = 0; h < H; ++h) blocks(int32_t{}, weight + h * kTile, done + h * width, width);
    for (; r < b.repeat[i]; ++r, done += H * width)
      for (int64_t h = 0; h < H; ++h) blocks(int8_t{}, weight + h * kTile, done + h * width, width);
  }
}

}  // namespace
}  // namespace structops::STRUCTOPS_ISA
