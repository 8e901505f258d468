// CUDA SO(2) maps and the steps of the edge block: device code. The contracts are so2_conv.h and edge_block.h.
// One clear kernel per step, a thread per number of the result, sums in a fixed order: what runs where Triton is not
// installed, and under torch.compile. The fast path is kernels/so2/so2_conv_triton.py and edge_block*_triton.py.
#pragma once
#include "so2/wigner.cuh"

namespace structops::cuda {

struct Shape {  // So2Shape on the device
  int L, M;
  int64_t Cin, Cout, extra;
  STRUCTOPS_DEVICE int64_t rows(int m) const { return L - m + 1; }
  STRUCTOPS_DEVICE int64_t at(int m) const {
    int64_t n = 0;
    for (int i = 0; i < m; ++i) n += (i ? 2 : 1) * rows(i);
    return n;
  }
  STRUCTOPS_DEVICE int64_t K(int m) const { return rows(m) * Cin; }
  STRUCTOPS_DEVICE int64_t N(int m) const { return rows(m) * Cout + (m ? 0 : extra); }
  STRUCTOPS_DEVICE int64_t in() const { return at(M + 1) * Cin; }
  STRUCTOPS_DEVICE int64_t out() const { return extra + at(M + 1) * Cout; }
  STRUCTOPS_DEVICE int64_t weight_at(int m) const {
    int64_t n = 0;
    for (int i = 0; i < m; ++i) n += (i ? 2 : 1) * K(i) * N(i);
    return n;
  }
};

struct ConvParams {
  Shape s;
  const void *x, *g, *w, *bias;
  void* out;
  int64_t E;
};

// y = map of x; transposed: a row of x from a row of g.
template <class T, bool transpose>
__global__ void conv_rows(const ConvParams p) {
  const Shape& s = p.s;
  const int64_t in = s.in(), width = s.out(), row = transpose ? in : width, total = p.E * row;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < total; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t e = i / row;
    int64_t j = i % row;
    int m = 0;
    if (transpose) {
      for (; j >= (m ? 2 : 1) * s.K(m); ++m) j -= (m ? 2 : 1) * s.K(m);
    } else {
      for (; j >= (m ? 2 : 1) * s.N(m); ++m) j -= (m ? 2 : 1) * s.N(m);
    }
    const int64_t K = s.K(m), N = s.N(m);
    const T *const w1 = static_cast<const T*>(p.w) + s.weight_at(m), *const w2 = w1 + N * K;
    T sum = 0;
    if (transpose) {
      const T* const g = static_cast<const T*>(p.g) + e * width + (m ? s.extra + s.at(m) * s.Cout : 0);
      const bool minus = m && j >= K;
      const int64_t k = minus ? j - K : j;
      for (int64_t n = 0; n < N; ++n) sum += w1[n * K + k] * g[minus ? N + n : n];
      if (m)
        for (int64_t n = 0; n < N; ++n) sum += minus ? -w2[n * K + k] * g[n] : w2[n * K + k] * g[N + n];
    } else {
      const T* const x = static_cast<const T*>(p.x) + e * in + s.at(m) * s.Cin;
      const bool minus = m && j >= N;
      const int64_t n = minus ? j - N : j;
      for (int64_t k = 0; k < K; ++k) sum += w1[n * K + k] * x[minus ? K + k : k];
      if (m)
        for (int64_t k = 0; k < K; ++k) sum += minus ? w2[n * K + k] * x[k] : -w2[n * K + k] * x[K + k];
      if (m == 0 && p.bias) sum += static_cast<const T*>(p.bias)[n];
    }
    static_cast<T*>(p.out)[i] = sum;
  }
}

// Weight gradient; adds to out where `add`.
template <class T>
__global__ void conv_weight_grad(const ConvParams p, int64_t weights, bool add) {
  const Shape& s = p.s;
  const int64_t in = s.in(), width = s.out();
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < weights; i += int64_t(gridDim.x) * blockDim.x) {
    int m = 0;
    int64_t j = i;
    for (; j >= (m ? 2 : 1) * s.K(m) * s.N(m); ++m) j -= (m ? 2 : 1) * s.K(m) * s.N(m);
    const int64_t K = s.K(m), N = s.N(m);
    const bool second = m && j >= N * K;
    const int64_t n = (second ? j - N * K : j) / K, k = j % K;
    const T* x = static_cast<const T*>(p.x) + s.at(m) * s.Cin + k;
    const T* g = static_cast<const T*>(p.g) + (m ? s.extra + s.at(m) * s.Cout : 0) + n;
    T sum = 0;
    for (int64_t e = 0; e < p.E; ++e, x += in, g += width) {
      if (m == 0)
        sum += g[0] * x[0];
      else if (second)
        sum += g[N] * x[0] - g[0] * x[K];
      else
        sum += g[0] * x[0] + g[N] * x[K];
    }
    T* const out = static_cast<T*>(p.out) + i;
    *out = add ? *out + sum : sum;
  }
}

// out[j] (+)= sum over E rows of rows[e * ld + j], j < n
template <class T>
__global__ void column_sums(const T* rows, int64_t E, int64_t ld, int64_t n, T* out, bool add) {
  for (int64_t j = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; j < n; j += int64_t(gridDim.x) * blockDim.x) {
    T sum = 0;
    for (int64_t e = 0; e < E; ++e) sum += rows[e * ld + j];
    out[j] = add ? out[j] + sum : sum;
  }
}

// A dense product for the last radial layer. a(i, k) = a[i a_row + k a_col], likewise b(k, j); out [rows, cols] (+)= a b +
// bias.
template <class T>
struct DenseParams {
  const T *a, *b, *bias;
  T* out;
  IndexRef a_index;  // row i of a is a_index[first + i]; null: i
  int64_t rows, cols, depth, a_row, a_col, b_row, b_col, first, out_row;
  IndexRef out_index;  // likewise for the result
  int add;
};
template <class T>
__global__ void dense(const DenseParams<T> p) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < p.rows * p.cols; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t r = i / p.cols, j = i % p.cols;
    const T* const a = p.a + (p.a_index.data ? p.a_index.at(p.first + r) : r) * p.a_row;
    T sum = p.bias ? p.bias[j] : T(0);
    for (int64_t k = 0; k < p.depth; ++k) sum += a[k * p.a_col] * p.b[k * p.b_row + j * p.b_col];
    T* const to = p.out + (p.out_index.data ? p.out_index.at(p.first + r) : r) * p.out_row + j;
    *to = p.add ? *to + sum : sum;
  }
}

// out = the indexed rows of a, and the other way round.
template <class T>
__global__ void copy_rows(const DenseParams<T> p) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < p.rows * p.cols; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t r = i / p.cols;
    p.out[i] = p.a[(p.a_index.data ? p.a_index.at(p.first + r) : r) * p.a_row + i % p.cols];
  }
}
template <class T>
__global__ void scatter_rows(const DenseParams<T> p) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < p.rows * p.cols; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t r = i / p.cols;
    p.out[(p.out_index.data ? p.out_index.at(p.first + r) : r) * p.out_row + i % p.cols] = p.a[r * p.a_row + i % p.cols];
  }
}
// out [rows, cols] += a^T b, the rows of b being edges: row k of b is eid[first + k].
template <class T>
__global__ void radial_weight_grad(const DenseParams<T> p, IndexRef eid) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < p.rows * p.cols; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t r = i / p.cols, j = i % p.cols;
    T sum = 0;
    for (int64_t k = 0; k < p.depth; ++k)
      sum += p.a[k * p.a_col + r] * p.b[(eid.data ? eid.at(p.first + k) : p.first + k) * p.cols + j];
    p.out[i] += sum;
  }
}

// ---- steps of the block on edges first..first + T, in order of k ------------------------------------------------------
template <class T>
struct BlockParams {
  int64_t N, T_, first, C, H;  // T_: edges of the chunk
  int L, M, n, S, R;
  IndexRef rowptr, col, eid;
  const int64_t* row;  // [E] the destination of edge k
  const T *x, *env, *grad, *D, *dir, *vec, *s;
  T *z, *zs, *pre, *h, *mid;
};

STRUCTOPS_DEVICE int64_t edge_of(const IndexRef& eid, int64_t k) { return eid.data ? eid.at(k) : k; }

template <class T>
__global__ void edge_rows(IndexRef rowptr, int64_t N, int64_t* row) {
  for (int64_t v = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; v < N; v += int64_t(gridDim.x) * blockDim.x)
    for (int64_t k = rowptr.at(v); k < rowptr.at(v + 1); ++k) row[k] = v;
}

// z [T, n, 2C] rotated, zs scaled.
template <class T>
__global__ void rotate_in(const BlockParams<T> p) {
  const int64_t total = p.T_ * p.n * 2 * p.C;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < total; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t c = i % (2 * p.C), t = i / (2 * p.C) / p.n, k = p.first + t;
    int l, m;
    const int row = int(i / (2 * p.C) % p.n);
    degree_of(p.L, row, &l, &m);
    const int64_t node = c < p.C ? p.col.at(k) : p.row[k];
    const T* const d = p.D + t * p.R + packed_at(l, p.M) + (m + (l < p.M ? l : p.M)) * (2 * l + 1);
    const T* const x = p.x + (node * p.S + l * l) * p.C + c % p.C;
    T sum = 0;
    for (int s = 0; s < 2 * l + 1; ++s) sum += d[s] * x[s * p.C];
    p.z[i] = sum;
    if (p.zs) {
      const int a = m < 0 ? -m : m;
      int64_t at = l - a;
      for (int q = 0; q < a; ++q) at += p.L + 1 - q;
      int64_t scales = 0;
      for (int q = 0; q <= p.M; ++q) scales += p.L + 1 - q;
      p.zs[i] = sum * p.s[(t * scales + at) * 2 * p.C + c];
    }
  }
}

// h [T, n, H] from pre [T, L H + n H]; with dh also d pre.
template <class T>
__global__ void gate(const BlockParams<T> p) {
  const int64_t total = p.T_ * p.n * p.H;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < total; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t c = i % p.H, t = i / p.H / p.n;
    const int row = int(i / p.H % p.n);
    int l, m;
    degree_of(p.L, row, &l, &m);
    const T* const in = p.pre + t * (p.L + p.n) * p.H;
    const T v = in[(p.L + row) * p.H + c], q = l ? in[(l - 1) * p.H + c] : v;
    p.h[i] = v / (T(1) + exp(-q));
  }
}
template <class T>
__global__ void gate_bwd(const BlockParams<T> p, const T* dh, T* dp) {  // a thread per (edge, l, channel)
  const int64_t total = p.T_ * (p.L + 1) * p.H;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < total; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t c = i % p.H, t = i / p.H / (p.L + 1);
    const int l = int(i / p.H % (p.L + 1)), k = l < p.M ? l : p.M;
    const T* const in = p.pre + t * (p.L + p.n) * p.H + c;
    const T* const g = dh + t * p.n * p.H + c;
    T* const out = dp + t * (p.L + p.n) * p.H + c;
    const T q = in[(l ? l - 1 : p.L) * p.H], y = T(1) / (T(1) + exp(-q));
    if (l == 0) {
      out[p.L * p.H] = g[0] * (y + q * y * (T(1) - y));
      continue;
    }
    T sum = 0;
    for (int m = -k; m <= k; ++m) {
      const int64_t row = row_of(p.L, l, m);
      sum += g[row * p.H] * in[(p.L + row) * p.H];
      out[(p.L + row) * p.H] = g[row * p.H] * y;
    }
    out[(l - 1) * p.H] = sum * y * (T(1) - y);
  }
}

// out[v] += sum over the row's edges of the chunk of env D^T mid, in order of k.
template <class T>
__global__ void sum_messages(const BlockParams<T> p, T* out) {
  const int64_t total = p.N * p.S * p.C;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < total; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t c = i % p.C, v = i / p.C / p.S;
    const int s = int(i / p.C % p.S), l = square_root(s), q = l < p.M ? l : p.M;
    const int64_t begin = max((long long)(p.rowptr.at(v)), (long long)(p.first));
    const int64_t end = min((long long)(p.rowptr.at(v + 1)), (long long)(p.first + p.T_));
    T sum = out[i];
    for (int64_t k = begin; k < end; ++k) {
      const int64_t t = k - p.first;
      const T* const d = p.D + t * p.R + packed_at(l, p.M) + s - l * l;
      const T* const z = p.mid + t * p.n * p.C + c;
      T part = 0;
      for (int m = -q; m <= q; ++m) part += d[(m + q) * (2 * l + 1)] * z[row_of(p.L, l, m) * p.C];
      sum += part * (p.env ? p.env[edge_of(p.eid, k)] : T(1));
    }
    out[i] = sum;
  }
}

// u [T, n, C] = D grad[dst], without the envelope.
template <class T>
__global__ void rotate_grad(const BlockParams<T> p, T* u) {
  const int64_t total = p.T_ * p.n * p.C;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < total; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t c = i % p.C, t = i / p.C / p.n;
    int l, m;
    degree_of(p.L, int(i / p.C % p.n), &l, &m);
    const T* const d = p.D + t * p.R + packed_at(l, p.M) + (m + (l < p.M ? l : p.M)) * (2 * l + 1);
    const T* const g = p.grad + (p.row[p.first + t] * p.S + l * l) * p.C + c;
    T sum = 0;
    for (int s = 0; s < 2 * l + 1; ++s) sum += d[s] * g[s * p.C];
    u[i] = sum;
  }
}

// A warp per edge: the envelope's gradient <u, mid>, then u *= env.
template <class T>
__global__ void envelope_grad(const BlockParams<T> p, T* u, T* d_env) {
  const int lane = threadIdx.x & 31;
  for (int64_t t = (blockIdx.x * int64_t(blockDim.x) + threadIdx.x) / 32; t < p.T_; t += int64_t(gridDim.x) * blockDim.x / 32) {
    const int64_t e = edge_of(p.eid, p.first + t), width = p.n * p.C;
    const T scale = p.env ? p.env[e] : T(1);
    T sum = 0;
    for (int64_t i = lane; i < width; i += 32) {
      sum += u[t * width + i] * p.mid[t * width + i];
      u[t * width + i] *= scale;
    }
    sum = warp_sum(sum);
    if (d_env && lane == 0) d_env[e] = sum;
  }
}

// Gradient of the scales from that of zs (dz, which then becomes the gradient of z): a thread per (edge, scale).
template <class T>
__global__ void scale_grad(const BlockParams<T> p, T* dz, T* ds) {
  const int64_t C2 = 2 * p.C;
  int64_t scales = 0;
  for (int q = 0; q <= p.M; ++q) scales += p.L + 1 - q;
  const int64_t total = p.T_ * scales * C2;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < total; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t c = i % C2, t = i / C2 / scales;
    int64_t at = i / C2 % scales;
    int m = 0;
    for (; at >= p.L + 1 - m; ++m) at -= p.L + 1 - m;
    T sum = 0;
    for (int sign = 0; sign < (m ? 2 : 1); ++sign) {
      const int64_t j = (t * p.n + row_of(p.L, int(at) + m, sign ? -m : m)) * C2 + c;
      sum += dz[j] * p.z[j];
      dz[j] *= p.s[i];
    }
    ds[i] = sum;
  }
}

// back [T, 2, S, C] = D^T dz of the two gathered ends.
template <class T>
__global__ void rotate_ends_back(const BlockParams<T> p, const T* dz, T* back) {
  const int64_t total = p.T_ * 2 * p.S * p.C;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < total; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t c = i % p.C, side = i / p.C / p.S % 2, t = i / p.C / p.S / 2;
    const int s = int(i / p.C % p.S), l = square_root(s), k = l < p.M ? l : p.M;
    const T* const d = p.D + t * p.R + packed_at(l, p.M) + s - l * l;
    const T* const z = dz + t * p.n * 2 * p.C + side * p.C + c;
    T sum = 0;
    for (int m = -k; m <= k; ++m) sum += d[(m + k) * (2 * l + 1)] * z[row_of(p.L, l, m) * 2 * p.C];
    back[i] = sum;
  }
}

// A warp per edge: d_vec from the torque of the message (msg = D^T mid [T, S, C]) and of the gathered ends.
template <class T>
__global__ void direction_grad(const BlockParams<T> p, const T* msg, const T* back, T* d_vec) {
  const int lane = threadIdx.x & 31;
  const int64_t SC = p.S * p.C;
  for (int64_t t = (blockIdx.x * int64_t(blockDim.x) + threadIdx.x) / 32; t < p.T_; t += int64_t(gridDim.x) * blockDim.x / 32) {
    const int64_t k = p.first + t, e = edge_of(p.eid, k);
    const T scale = p.env ? p.env[e] : T(1);
    T q[3], src[3], dst[3];
    torque_of(p.L, p.C, p.grad + p.row[k] * SC, msg + t * SC, q);
    torque_of(p.L, p.C, back + 2 * t * SC, p.x + p.col.at(k) * SC, src);
    torque_of(p.L, p.C, back + (2 * t + 1) * SC, p.x + p.row[k] * SC, dst);
    for (int j = 0; j < 3; ++j) q[j] = scale * q[j] - src[j] - dst[j];
    if (lane) continue;
    const T *const u = p.dir + 3 * t, *const r = p.vec + 3 * e;
    const T length = u[0] * r[0] + u[1] * r[1] + u[2] * r[2];
    d_vec[3 * e] = (q[1] * u[2] - q[2] * u[1]) / length;
    d_vec[3 * e + 1] = (q[2] * u[0] - q[0] * u[2]) / length;
    d_vec[3 * e + 2] = (q[0] * u[1] - q[1] * u[0]) / length;
  }
}

// d_x[v] += back of the edges of the chunk that end in v, then of those that begin there, each in order of k.
template <class T>
__global__ void sum_ends(const BlockParams<T> p, const T* back, IndexRef colptr, IndexRef position, T* d_x) {
  const int64_t SC = p.S * p.C, total = p.N * SC, last = p.first + p.T_;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < total; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t v = i / SC, j = i % SC;
    T sum = d_x[i];
    for (int64_t k = p.rowptr.at(v); k < p.rowptr.at(v + 1); ++k)
      if (k >= p.first && k < last) sum += back[(2 * (k - p.first) + 1) * SC + j];
    for (int64_t q = colptr.at(v); q < colptr.at(v + 1); ++q) {
      const int64_t k = position.at(q);
      if (k >= p.first && k < last) sum += back[2 * (k - p.first) * SC + j];
    }
    d_x[i] = sum;
  }
}

}  // namespace structops::cuda
