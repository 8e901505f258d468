// CUDA multi_reduce. The contract is multi_reduce.h. A thread takes one feature of one row, or of one source by the reversed edges;
// the threads of a warp read neighbouring features.
#include "core/cuda/device.cuh"
#include "sparse/cuda.h"

namespace structops::cuda {
namespace {

struct Structure { IndexRef ptr, other, eid; };

template <class A> STRUCTOPS_DEVICE A finite_or_0(A v) { return v - v == 0 ? v : A(0); }

template <class T> STRUCTOPS_DEVICE Acc<T> read(const void* p, int64_t at) { return widen(static_cast<const T*>(p)[at]); }
template <class T> STRUCTOPS_DEVICE void write(void* p, int64_t at, Acc<T> v) { static_cast<T*>(p)[at] = Narrow<T>::to(v); }

template <class T> STRUCTOPS_DEVICE Acc<T> centre(const void* p, int64_t rows, int64_t f) {
  return p && rows > 0 ? finite_or_0(read<T>(p, f)) : Acc<T>(0);
}

// A value and its edge; the first wins a tie, NaN stays.
template <class A> struct Extreme {
  A value;
  int64_t k;
  STRUCTOPS_DEVICE void step(A m, int64_t at, bool better) {
    if (k < 0 || (better && value == value)) { value = m; k = at; }
  }
};

template <class T> __global__ void __launch_bounds__(128) multi_reduce_rows(const MultiReduceArgs a, const Structure s) {
  using A = Acc<T>;
  const A* const scale = static_cast<const A*>(a.scale);
  A* const stat = static_cast<A*>(a.stat);
  const bool shifted = moments(a.list);
  const int64_t step = int64_t(gridDim.x) * blockDim.x, plane = a.N * a.F;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < plane; i += step) {
    const int64_t r = i / a.F, f = i % a.F, begin = s.ptr.at(r), end = s.ptr.at(r + 1);
    A shift = 0, sum = 0, square = 0, run_sum = 0, run_square = 0;
    Extreme<A> low{0, -1}, high{0, -1};
    for (int64_t k = begin; k < end; ++k) {
      A m = a.x ? read<T>(a.x, s.other.at(k) * a.F + f) : A(0);
      if (a.edge) m += read<T>(a.edge, (s.eid.data ? s.eid.at(k) : k) * a.F + f);
      if (shifted && k == begin) {
        shift = finite_or_0(m);
      } else if ((k - begin) % kMultiRun == 0) {
        sum += run_sum;
        square += run_square;
        run_sum = run_square = 0;
        if (shifted) {  // to the mean so far
          const A n = A(k - begin), d = finite_or_0(shift + sum / n) - shift, moved = sum - n * d;
          square -= d * (sum + moved);
          shift += d;
          sum = moved;
        }
      }
      const A d = m - shift;
      run_sum += d;
      run_square += d * d;
      low.step(m, k, !(m >= low.value));
      high.step(m, k, !(m <= high.value));
    }
    A mean = 0, var = 0, y = 0;
    const A n = A(end - begin);
    sum += run_sum;
    square += run_square;
    if (begin < end) {
      const A rest = sum / n;
      mean = shift + rest;
      var = (square - sum * rest) / n;
      var = var < 0 ? A(0) : var;
      sum += n * shift;
      if (a.y) y = read<T>(a.y, i);
      if (stat) stat[i] = shift - (centre<T>(a.x, a.M, f) + centre<T>(a.edge, a.E, f)) + rest;
    } else if (stat) {
      stat[i] = 0;
    }
    const A std = has(a.list, Reduce::std) ? sqrt(var + A(a.eps)) : A(0);
    if (stat && has(a.list, Reduce::std)) stat[plane + i] = std;
    for (int j = 0; j < a.list.size; ++j) {
      A value = 0;
      switch (reduction(a.list, j)) {
        case Reduce::sum: value = sum + n * y; break;
        case Reduce::mean: value = mean + y; break;
        case Reduce::var: value = var; break;
        case Reduce::std: value = std; break;
        case Reduce::min: value = low.value + y; break;
        default: value = high.value + y;
      }
      for (int64_t t = 0; t < a.S; ++t)
        write<T>(a.out, ((r * a.S + t) * a.list.size + j) * a.F + f, scale ? scale[t * a.N + r] * value : value);
    }
    if (!a.arg) continue;
    int64_t at = i;
    for (int e = 0; e < 2; ++e) {
      if (!has(a.list, e ? Reduce::max : Reduce::min)) continue;
      const int64_t k = e ? high.k : low.k, winner = k < 0 || a.edge ? k : s.other.at(k);
      if (a.rowptr.wide) static_cast<int64_t*>(a.arg)[at] = winner; else static_cast<int32_t*>(a.arg)[at] = int32_t(winner);
      at += plane;
    }
  }
}

template <class A> struct Backward {
  A* table;      // [N, terms, F]
  A* extreme;    // [extremes, N, F]
  void* source;  // [extremes, N, F]: the sources of winners that arg gives by edge; or null
  const A* won;  // [M, F] or null
};

template <class T>
__global__ void __launch_bounds__(128) multi_reduce_gradient(const MultiReduceArgs a, const Backward<Acc<T>> b, const Structure s) {
  using A = Acc<T>;
  const A *const scale = static_cast<const A*>(a.scale), *const stat = static_cast<const A*>(a.stat);
  const IndexRef arg{a.arg, a.rowptr.wide};
  const int64_t step = int64_t(gridDim.x) * blockDim.x, plane = a.N * a.F;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < plane; i += step) {
    const int64_t r = i / a.F, f = i % a.F, begin = s.ptr.at(r), end = s.ptr.at(r + 1);
    A sum = 0, mean = 0, var = 0, std = 0, low = 0, high = 0;
    const A n = A(end - begin);
    if (begin < end)
      for (int64_t t = 0; t < a.S; ++t)
        for (int j = 0; j < a.list.size; ++j) {
          A g = read<T>(a.grad, ((r * a.S + t) * a.list.size + j) * a.F + f);
          if (scale) g *= scale[t * a.N + r];
          switch (reduction(a.list, j)) {
            case Reduce::sum: sum += g; break;
            case Reduce::mean: mean += g; break;
            case Reduce::var: var += g; break;
            case Reduce::std: std += g; break;
            case Reduce::min: low += g; break;
            default: high += g;
          }
        }
    if (a.d_y) write<T>(a.d_y, i, n * sum + mean + low + high);
    A first = sum + mean / n, second = 0;
    if (moments(a.list)) {
      if (has(a.list, Reduce::std)) var += A(0.5) * std / stat[plane + i];
      second = 2 * var / n;
      first -= second * stat[i];
    }
    int64_t at = i, low_k = -1, high_k = -1;
    for (int e = 0; e < 2; ++e) {
      if (!has(a.list, e ? Reduce::max : Reduce::min)) continue;
      const int64_t k = arg.at(at);
      (e ? high_k : low_k) = k;
      if (b.extreme) b.extreme[at] = e ? high : low;
      if (b.source) {
        const int64_t u = k < 0 ? k : s.other.at(k);
        if (a.rowptr.wide) static_cast<int64_t*>(b.source)[at] = u; else static_cast<int32_t*>(b.source)[at] = int32_t(u);
      }
      at += plane;
    }
    if (b.table) {
      A* const to = b.table + r * terms(a.list) * a.F + f;
      to[0] = first;
      if (moments(a.list)) to[a.F] = second;
    }
    if (!a.d_edge) continue;
    const A c = centre<T>(a.edge, a.E, f), c_x = centre<T>(a.x, a.M, f);
    for (int64_t k = begin; k < end; ++k) {
      const int64_t e = (s.eid.data ? s.eid.at(k) : k) * a.F + f;
      A m = read<T>(a.edge, e) - c;
      if (a.x) m += read<T>(a.x, s.other.at(k) * a.F + f) - c_x;
      A d = moments(a.list) ? first + second * m : first;
      if (k == low_k) d += low;
      if (k == high_k) d += high;
      write<T>(a.d_edge, e, d);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(128) multi_reduce_sources(const MultiReduceArgs a, const Backward<Acc<T>> b, const Structure s) {
  using A = Acc<T>;
  const int n_terms = terms(a.list);
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < a.M * a.F; i += step) {
    const int64_t u = i / a.F, f = i % a.F, end = n_terms ? s.ptr.at(u + 1) : 0;
    const A c = centre<T>(a.edge, a.E, f);
    A sum = 0, slope = 0;
    for (int64_t j = n_terms ? s.ptr.at(u) : 0; j < end; ++j) {
      const A* const from = b.table + s.other.at(j) * n_terms * a.F + f;
      sum += from[0];
      if (n_terms < 2) continue;
      slope += from[a.F];
      if (a.edge) sum += from[a.F] * (read<T>(a.edge, (s.eid.data ? s.eid.at(j) : j) * a.F + f) - c);
    }
    if (n_terms == 2) sum += slope * (read<T>(a.x, i) - centre<T>(a.x, a.M, f));
    write<T>(a.d_x, i, b.won ? sum + b.won[i] : sum);
  }
}

}  // namespace

void multi_reduce_fwd(const MultiReduceArgs& a, const CudaContext& ctx) {
  with_float("multi_reduce", a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    const Structure s{ref(a.rowptr), ref(a.col), ref(a.eid)};
    launch("multi_reduce", ctx, multi_reduce_rows<T>, dim3(blocks_for(a.N * a.F, 128)), 128, a, s);
  });
}

void multi_reduce_bwd(const MultiReduceArgs& a, const CudaContext& ctx) {
  constexpr const char* op = "multi_reduce_bwd";
  with_float(op, a.dtype, [&](auto* t) {
    using T = Pointee<decltype(t)>;
    using A = Acc<T>;
    const int64_t cells = extremes(a.list) * a.N * a.F;
    const bool scatter = a.d_x && cells;
    Backward<A> b{};
    if (a.d_x) b.table = scratch<A>(ctx, terms(a.list) * a.N * a.F);
    if (scatter) b.extreme = scratch<A>(ctx, cells);
    if (scatter && a.edge) b.source = scratch<char>(ctx, cells * (a.rowptr.wide ? 8 : 4));
    launch(op, ctx, multi_reduce_gradient<T>, dim3(blocks_for(a.N * a.F, 128)), 128, a, b, Structure{ref(a.rowptr), ref(a.col), ref(a.eid)});
    if (!a.d_x) return;
    if (scatter) {
      SelectArgs w{};
      w.dtype = sizeof(A) == 8 ? Dtype::f64 : Dtype::f32;
      w.B = 1; w.N = extremes(a.list) * a.N; w.M = a.M; w.F = a.F;
      w.src = b.extreme;
      w.idx = {b.source ? b.source : a.arg, a.rowptr.wide};
      A* const won = scratch<A>(ctx, a.M * a.F);
      w.out = won;
      select_bwd(w, ctx);
      b.won = won;
    }
    launch(op, ctx, multi_reduce_sources<T>, dim3(blocks_for(a.M * a.F, 128)), 128, a, b, Structure{ref(a.colptr), ref(a.row_t), ref(a.eid_t)});
  });
}

}  // namespace structops::cuda
