// Best trees, samples and max-marginals of grandparent charts.
#include "tree/grand_launch.cuh"

namespace structops::cuda {
namespace {

template <class T> __global__ void __launch_bounds__(kGrandThreads, 1) grand_max(const GrandMaxArgs x, const GrandLaunch q) {
  const Team team;
  for (int64_t b = blockIdx.x; b < x.in.B; b += gridDim.x) {
    const GrandShape s = grand_shape(x.in, x.in.lengths[b], 32);
    max_sentence<T>(team, x, b, block_charts<Acc<T>>(q.memory + blockIdx.x * q.stride, s, true, false));
    team.sync();
  }
}

STRUCTOPS_DEVICE GrandVisit* stack_of(const GrandArgs& a, const GrandLaunch& q) {
  return reinterpret_cast<GrandVisit*>(q.stacks) + (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * grand_visits(a.N);
}

template <class T, bool lists> __global__ void __launch_bounds__(kGrandThreads, 1) grand_best(const GrandTreeArgs t, const GrandLaunch q) {
  using A = Acc<T>;
  const GrandArgs& a = t.in;
  const Team team;
  char* const memory = q.memory + blockIdx.x * q.stride;
  GrandVisit* const stack = stack_of(a, q);
  const auto at = [&](int k) -> GrandVisit& { return stack[k]; };
  for (int64_t b = blockIdx.x; b < a.B; b += gridDim.x) {
    const GrandShape s = grand_shape(a, a.lengths[b], 32);
    const GrandInput<T> in = grand_input<T>(a, b);
    GrandCharts<A> c{};
    GrandLists<A> list{reinterpret_cast<Derivation<A>*>(memory), s.numbers(), int(t.K)};
    Found<A> found;
    if constexpr (lists) {
      found = kbest_inside(team, list, s, in);
    } else {
      c = block_charts<A>(memory, s, false, false);
      found = best_inside(team, c, s, in);
    }
    const bool invalid = team.any(any<A>(found.invalid));
    for (int64_t rank = team.thread; rank < t.K; rank += team.threads) {
      int64_t* const heads = t.tree + (b * t.K + rank) * a.N;
      for (int64_t i = 0; i < a.N; ++i) heads[i] = -1;
      A value = invalid ? A(__longlong_as_double(0x7ff8000000000000ll)) : A(0);
      if (!invalid) value = lists ? list.at(GrandItem::CR, s.cell(0, s.n))[rank].value : c[GrandItem::CR].m[s.cell(0, s.n)];
      static_cast<A*>(t.value)[b * t.K + rank] = value;
      if (!(value > Limits<A>::low())) continue;
      grand_write(s, int(rank), at, heads, [&](const GrandVisit& v) {
        const int64_t cell = s.cell(v.i, v.j) + v.g;
        if constexpr (lists) {
          const Derivation<A>& d = list.at(v.item, cell)[v.rank];
          return GrandPick{d.k, d.left, d.right};
        } else {
          return GrandPick{int(c[v.item].e[cell]), 0, 0};
        }
      });
    }
    team.sync();
  }
}

// False if the scores leave the charts of A.
template <class T, class A> STRUCTOPS_DEVICE bool samples(const Team& team, const GrandTreeArgs& t, int64_t b, const GrandCharts<A>& c, GrandVisit* stack) {
  const GrandArgs& a = t.in;
  const GrandShape s = grand_shape(a, a.lengths[b], 32);
  const GrandInput<T> in = grand_input<T>(a, b);
  const Found<A> found = grand_inside<false>(team, c, s, in);
  const bool invalid = team.any(any<A>(found.invalid)), wide = team.any(any<A>(found.wide));
  if (sizeof(A) == 4 && wide && !invalid) return false;
  const bool none = invalid || !(c[GrandItem::CR].m[s.cell(0, s.n)] > 0);
  for (int64_t k = team.thread; k < t.K; k += team.threads) {
    int64_t* const heads = t.tree + (k * a.B + b) * a.N;
    for (int64_t i = 0; i < a.N; ++i) heads[i] = -1;
    const double* u = t.uniform + (k * a.B + b) * 3 * a.N;
    if (!none)
      grand_write(s, 0, [&](int i) -> GrandVisit& { return stack[i]; }, heads,
                  [&](const GrandVisit& v) { return GrandPick{grand_choose<T>(c, s, in, v, *u++), 0, 0}; });
  }
  return true;
}

template <class T> __global__ void __launch_bounds__(kGrandThreads, 1) grand_sample(const GrandTreeArgs t, const GrandLaunch q) {
  using A = Acc<T>;
  const Team team;
  char* const memory = q.memory + blockIdx.x * q.stride;
  for (int64_t b = blockIdx.x; b < t.in.B; b += gridDim.x) {
    const GrandShape s = grand_shape(t.in, t.in.lengths[b], 32);
    const bool done = samples<T>(team, t, b, block_charts<A>(memory, s, false, false), stack_of(t.in, q));
    if constexpr (sizeof(A) == 4) {
      team.sync();
      if (!done) samples<T>(team, t, b, block_charts<double>(memory + q.first, s, false, false), stack_of(t.in, q));
    }
    team.sync();
  }
}

}  // namespace

void grand_best(const GrandTreeArgs& args, const CudaContext& ctx) {
  GrandTreeArgs t = args;
  if (t.in.B == 0) return;
  widened("grand_best", ctx, t.in);
  with_wide(t.in.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    size_t first, second;
    chart_bytes<T>(t.in, false, false, &first, &second);
    if (t.K == 1) {
      launch_grand("grand_best", ctx, t.in, grand_best<T, false>, t, first, 0, true);
      return;
    }
    const int64_t n = t.in.N - 1, cells = (n + 1) * (n + 2) / 2 * ((n + 32) / 32 * 32);
    launch_grand("grand_best", ctx, t.in, grand_best<T, true>, t, size_t(kGrandItems * cells * t.K) * sizeof(Derivation<T>), 0, true);
  });
}

void grand_sample(const GrandTreeArgs& args, const CudaContext& ctx) {
  GrandTreeArgs t = args;
  if (t.in.B == 0 || t.K == 0) return;
  widened("grand_sample", ctx, t.in);
  with_wide(t.in.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    size_t first, second;
    chart_bytes<T>(t.in, false, false, &first, &second);
    launch_grand("grand_sample", ctx, t.in, grand_sample<T>, t, first, second, true);
  });
}

void grand_max_marginals(const GrandMaxArgs& args, const CudaContext& ctx) {
  GrandMaxArgs x = args;
  if (x.in.B == 0) return;
  widened("grand_max_marginals", ctx, x.in);
  with_wide(x.in.dtype, [&](auto* p) {
    using T = Pointee<decltype(p)>;
    size_t first, second;
    chart_bytes<T>(x.in, true, false, &first, &second);
    launch_grand("grand_max_marginals", ctx, x.in, grand_max<T>, x, first, 0, false);
  });
}

}  // namespace structops::cuda
