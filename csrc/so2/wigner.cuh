// CUDA frames, Wigner matrices, generators: device code. The contract is wigner.h.
#pragma once
#include "core/cuda/device.cuh"

namespace structops::cuda {

constexpr int kWignerThreads = 128, kWignerMaxL = 8;

STRUCTOPS_DEVICE int kept(int l, int M) { return 2 * (l < M ? l : M) + 1; }
STRUCTOPS_DEVICE int packed_at(int l, int M) {  // first number of D^l in a packed matrix
  int n = 0;
  for (int i = 0; i < l; ++i) n += kept(i, M) * (2 * i + 1);
  return n;
}
STRUCTOPS_DEVICE int row_of(int L, int l, int m) {  // m-primary row
  const int k = m < 0 ? -m : m;
  if (k == 0) return l;
  int row = L + 1;
  for (int i = 1; i < k; ++i) row += 2 * (L + 1 - i);
  return row + (m < 0 ? L + 1 - k : 0) + l - k;
}
STRUCTOPS_DEVICE void degree_of(int L, int row, int* l, int* m) {
  if (row <= L) {
    *l = row;
    *m = 0;
    return;
  }
  row -= L + 1;
  int k = 1;
  for (; row >= 2 * (L + 1 - k); ++k) row -= 2 * (L + 1 - k);
  const bool minus = row >= L + 1 - k;
  *l = k + (minus ? row - (L + 1 - k) : row);
  *m = minus ? -k : k;
}
STRUCTOPS_DEVICE int square_root(int s) {
  int l = 0;
  while ((l + 1) * (l + 1) <= s) ++l;
  return l;
}

// f(row, col, coefficient) for the non-zeros of G_axis on degree l; rows and columns are orders m.
template <class F>
STRUCTOPS_DEVICE void generator(int l, int axis, F f) {
  if (axis == 1) {
    for (int m = -l; m <= l; ++m)
      if (m) f(m, -m, double(-m));
    return;
  }
  for (int m = 0; m < l; ++m) {
    const double a = m ? 0.5 * sqrt(double(l - m) * (l + m + 1)) : sqrt(0.5 * l * (l + 1));
    if (axis == 0) {
      f(m + 1, m, a);
      f(m, m + 1, -a);
      if (m) {
        f(-m - 1, -m, a);
        f(-m, -m - 1, -a);
      }
    } else {
      f(-m - 1, m, -a);
      f(m, -m - 1, a);
      if (m) {
        f(-m, m + 1, -a);
        f(m + 1, -m, a);
      }
    }
  }
}

// The frame of a direction, row-major; dir receives the unit vector.
STRUCTOPS_DEVICE void frame(const double (&v)[3], double gamma, double (&r)[9], double (&dir)[3]) {
  double big = 0;
  for (int j = 0; j < 3; ++j) big = fmax(big, fabs(v[j]));
  double e[3], square = 0;
  for (int j = 0; j < 3; ++j) {
    e[j] = v[j] / big;
    square += e[j] * e[j];
  }
  const double norm = sqrt(square);
  for (int j = 0; j < 3; ++j) dir[j] = e[j] = e[j] / norm;
  const double s = e[1] < -0.85 ? -1.0 : 1.0, x = e[0], y = s * e[1], z = s * e[2], t = 1.0 / (1.0 + y);
  const double q[9] = {1 - x * x * t, -x * s, -x * z * t * s, x, y * s, z * s, -x * z * t, -z * s, (1 - z * z * t) * s};
  const double c = cos(gamma), g = sin(gamma);
  for (int j = 0; j < 3; ++j) {
    r[j] = c * q[j] + g * q[6 + j];
    r[3 + j] = q[3 + j];
    r[6 + j] = c * q[6 + j] - g * q[j];
  }
}

// One entry of D^l by the recursion: r is D^1, last is D^(l-1).
STRUCTOPS_DEVICE double wigner_entry(int l, int m, int k, const double* r, const double* last) {
  const int a = m < 0 ? -m : m, width = 2 * l - 1;
  const auto P = [&](int i, int mu) {
    const double *const q = r + (i + 1) * 3, *const row = last + (mu + l - 1) * width;
    if (k == l) return q[2] * row[2 * l - 2] - q[0] * row[0];
    if (k == -l) return q[2] * row[0] + q[0] * row[2 * l - 2];
    return q[1] * row[k + l - 1];
  };
  const double den = k == l || k == -l ? 2.0 * l * (2 * l - 1) : double(l + k) * (l - k);
  const double v = 0.5 * sqrt((m ? 1.0 : 2.0) * (l + a - 1) * (l + a) / den) * (m ? 1 : -1);
  double sum = 0;
  if (a < l) sum += sqrt(double(l + m) * (l - m) / den) * P(0, m);
  if (m == 0)
    sum += v * (P(1, 1) + P(-1, -1));
  else if (m > 0) {
    sum += v * (m == 1 ? 1.4142135623730951 : 1.0) * P(1, m - 1);
    if (m > 1) sum -= v * P(-1, 1 - m);
  } else {
    sum += v * (m == -1 ? 1.4142135623730951 : 1.0) * P(-1, -m - 1);
    if (m < -1) sum += v * P(1, m + 1);
  }
  if (m && a < l - 1) {
    const double w = -0.5 * sqrt(double(l - a - 1) * (l - a) / den);
    sum += m > 0 ? w * (P(1, m + 1) + P(-1, -m - 1)) : w * (P(1, m - 1) - P(-1, 1 - m));
  }
  return sum;
}

struct WignerParams {
  const void *vec, *gamma;  // [*, 3]; [*] or null
  void *out, *dir;          // [E, R]; [E, 3] or null
  IndexRef eid;             // edge k reads vec at eid[first + k]; null: first + k
  int64_t E, first;
  int L, M, R;
};

// A block per edge; its threads share the entries of a degree.
template <class T>
__global__ void __launch_bounds__(kWignerThreads) wigner_edges(const WignerParams p) {
  constexpr int kFullSize = (2 * kWignerMaxL + 1) * (2 * kWignerMaxL + 1);
  __shared__ double r[9], level[2][kFullSize];
  for (int64_t e = blockIdx.x; e < p.E; e += gridDim.x) {
    const int64_t j = p.eid.data ? p.eid.at(p.first + e) : p.first + e;
    __syncthreads();
    if (threadIdx.x == 0) {
      const T* const from = static_cast<const T*>(p.vec) + 3 * j;
      const double v[3] = {double(from[0]), double(from[1]), double(from[2])};
      double q[9], dir[3];
      frame(v, p.gamma ? double(static_cast<const T*>(p.gamma)[j]) : 0.0, q, dir);
      for (int i = 0; i < 9; ++i) r[i] = q[i];
      if (p.dir)
        for (int i = 0; i < 3; ++i) static_cast<T*>(p.dir)[3 * e + i] = T(dir[i]);
    }
    __syncthreads();
    int at = 0;
    for (int l = 0; l <= p.L; ++l) {
      const int size = 2 * l + 1, keep = kept(l, p.M), first = (size - keep) / 2 * size;
      double* const now = level[l & 1];
      for (int i = threadIdx.x; i < size * size; i += kWignerThreads)
        now[i] = l == 0 ? 1.0 + 0.0 * r[0] : l == 1 ? r[i] : wigner_entry(l, i / size - l, i % size - l, r, level[~l & 1]);
      __syncthreads();
      for (int i = threadIdx.x; i < keep * size; i += kWignerThreads)
        static_cast<T*>(p.out)[e * p.R + at + i] = T(now[first + i]);
      at += keep * size;
    }
    __syncthreads();
  }
}

// The five maps below have one thread per number of the result.
struct RotateParams {
  const void *d, *x, *z, *v;
  void* out;
  int64_t E, C;
  int L, M, n, S, R;
};

template <class T>
__global__ void rotate_edges(const RotateParams p) {  // out [E, n, C]
  const int64_t total = p.E * p.n * p.C;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < total; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t c = i % p.C, e = i / p.C / p.n;
    int l, m;
    degree_of(p.L, int(i / p.C % p.n), &l, &m);
    const T* const d = static_cast<const T*>(p.d) + e * p.R + packed_at(l, p.M) + (m + (l < p.M ? l : p.M)) * (2 * l + 1);
    const T* const x = static_cast<const T*>(p.x) + (e * p.S + l * l) * p.C + c;
    T sum = 0;
    for (int s = 0; s < 2 * l + 1; ++s) sum += d[s] * x[s * p.C];
    static_cast<T*>(p.out)[i] = sum;
  }
}

template <class T>
__global__ void rotate_back_edges(const RotateParams p) {  // out [E, S, C]
  const int64_t total = p.E * p.S * p.C;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < total; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t c = i % p.C, e = i / p.C / p.S;
    const int s = int(i / p.C % p.S), l = square_root(s), k = l < p.M ? l : p.M;
    const T* const d = static_cast<const T*>(p.d) + e * p.R + packed_at(l, p.M) + s - l * l;
    const T* const z = static_cast<const T*>(p.z) + e * p.n * p.C + c;
    T sum = 0;
    for (int m = -k; m <= k; ++m) sum += d[(m + k) * (2 * l + 1)] * z[row_of(p.L, l, m) * p.C];
    static_cast<T*>(p.out)[i] = sum;
  }
}

template <class T>
__global__ void rotate_outer_edges(const RotateParams p) {  // out [E, R]
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < p.E * p.R; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t e = i / p.R;
    int at = int(i % p.R), l = 0;
    while (at >= kept(l, p.M) * (2 * l + 1)) {
      at -= kept(l, p.M) * (2 * l + 1);
      ++l;
    }
    const int k = l < p.M ? l : p.M, m = at / (2 * l + 1) - k, s = at % (2 * l + 1);
    const T* const z = static_cast<const T*>(p.z) + (e * p.n + row_of(p.L, l, m)) * p.C;
    const T* const x = static_cast<const T*>(p.x) + (e * p.S + l * l + s) * p.C;
    T sum = 0;
    for (int64_t c = 0; c < p.C; ++c) sum += z[c] * x[c];
    static_cast<T*>(p.out)[i] = sum;
  }
}

// out = (v . G) x on features, D (v . G) on packed matrices (packed).
template <class T>
__global__ void turn_edges(const RotateParams p, bool packed) {
  const int64_t row = packed ? p.R : p.S * p.C, total = p.E * row;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < total; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t e = i / row;
    const T *const v = static_cast<const T*>(p.v) + 3 * e, *const x = static_cast<const T*>(p.x) + e * row;
    T sum = 0;
    if (packed) {
      int at = int(i % row), l = 0;
      while (at >= kept(l, p.M) * (2 * l + 1)) {
        at -= kept(l, p.M) * (2 * l + 1);
        ++l;
      }
      const int col = at % (2 * l + 1) - l;
      const T* const d = x + (i % row) - (col + l);
      for (int j = 0; j < 3; ++j)
        generator(l, j, [&](int a, int b, double g) {
          if (b == col) sum += T(g) * v[j] * d[a + l];
        });
    } else {
      const int s = int(i % row / p.C), l = square_root(s), m = s - l * l - l;
      for (int j = 0; j < 3; ++j)
        generator(l, j, [&](int a, int b, double g) {
          if (a == m) sum += T(g) * v[j] * x[(l * l + l + b) * p.C + i % p.C];
        });
    }
    static_cast<T*>(p.out)[i] = sum;
  }
}

template <class T>
STRUCTOPS_DEVICE T warp_sum(T v) {
  for (int d = 16; d > 0; d >>= 1) v += __shfl_xor_sync(kFull, v, d);
  return v;
}

// <g, G_j x> over features [S, C] with the lanes on channels: every lane returns the sums.
template <class T>
STRUCTOPS_DEVICE void torque_of(int L, int64_t C, const T* g, const T* x, T (&t)[3]) {
  const int lane = threadIdx.x & 31;
  for (int j = 0; j < 3; ++j) {
    T sum = 0;
    for (int l = 1; l <= L; ++l)
      generator(l, j, [&](int a, int b, double w) {
        const T *const gr = g + (l * l + l + a) * C, *const xr = x + (l * l + l + b) * C;
        T part = 0;
        for (int64_t c = lane; c < C; c += 32) part += gr[c] * xr[c];
        sum += T(w) * part;
      });
    t[j] = warp_sum(sum);
  }
}

template <class T>
__global__ void torque_edges(const RotateParams p, bool packed) {  // a warp per edge; out [E, 3]
  const int lane = threadIdx.x & 31;
  for (int64_t e = (blockIdx.x * int64_t(blockDim.x) + threadIdx.x) / 32; e < p.E; e += int64_t(gridDim.x) * blockDim.x / 32) {
    T t[3] = {};
    if (!packed)
      torque_of(p.L, p.C, static_cast<const T*>(p.z) + e * p.S * p.C, static_cast<const T*>(p.x) + e * p.S * p.C, t);
    else {
      const T *g = static_cast<const T*>(p.z) + e * p.R, *x = static_cast<const T*>(p.x) + e * p.R;
      for (int l = 0; l <= p.L; ++l) {
        const int size = 2 * l + 1, rows = kept(l, p.M);
        for (int j = 0; j < 3; ++j)
          generator(l, j, [&](int a, int b, double w) {
            for (int r = lane; r < rows; r += 32) t[j] += T(w) * g[r * size + b + l] * x[r * size + a + l];
          });
        g += rows * size;
        x += rows * size;
      }
      for (int j = 0; j < 3; ++j) t[j] = warp_sum(t[j]);
    }
    if (lane < 3) static_cast<T*>(p.out)[3 * e + lane] = lane == 0 ? t[0] : lane == 1 ? t[1] : t[2];
  }
}

}  // namespace structops::cuda
