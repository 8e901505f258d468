// CPU kernels of gemm.h.
//
// A task is up to 32 rows by some panels. Its rows are words already (a matrix) or gathered once (a convolution: a copy of bits
// costs a 1/32 of the floats'). One panel and 2048 bits of it stay in L1 while the rows pass: tile.h. The integers of 32 rows by 64
// columns stay there too until the epilogue has read them.
#include "binary/epilogue.h"
#include "binary/gemm.h"
#include "binary/tile.h"
#include "binary/window.h"
#include "core/memory.h"

namespace structops::STRUCTOPS_ISA {

void bits_panels(const BitsPanelsArgs& a, const ParallelFor& pf);  // bits_cpu.cpp

namespace {

constexpr int64_t kRows = 32, kSteps = 64;  // rows of a task; 32-bit words of a panel that stay in L1
constexpr int64_t kStackWords = 8192;
constexpr double kTaskWork = 1.5e7;          // products that are worth another thread
constexpr int64_t kReadRows = 8;             // as many rows can be counted while a panel comes from memory

int64_t div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Buffer {  // freed on the way out, also when a later allocation throws
  void* p = nullptr;
  ~Buffer() { std::free(p); }
};
template <class T> T* hold(Buffer& b, int64_t n) {
  b.p = allocate<T>(size_t(n));
  return static_cast<T*>(b.p);
}

// ---- constants of the columns ------------------------------------------------------------------------------------------
int64_t popcount_bits(const uint64_t* row, int64_t at, int64_t n) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; i += 64) count += popcount64(bits_at(row, at + i, int(n - i < 64 ? n - i : 64)));
  return count;
}

void tap_counts(const BitsGemmArgs& a, int32_t* taps /* [kh kw, G N] */) {
  const int64_t T = a.win.kh * a.win.kw, C = a.K / T, all = a.G * a.N, Wd = words_of(a.K);
  for (int64_t n = 0; n < all; ++n)
    for (int64_t t = 0; t < T; ++t) taps[t * all + n] = int32_t(popcount_bits(a.b + n * Wd, t * C, C));
}

void column_sums(const BitsGemmArgs& a, int32_t* sums /* [G N] */) {
  const int64_t all = a.G * a.N, Wd = words_of(a.K);
  for (int64_t n = 0; n < all; ++n) sums[n] = 0;
  for (int64_t p = 0; p < a.P; ++p)
    if (a.col[p])
      for (int64_t n = 0; n < all; ++n) sums[n] += a.col[p] * int32_t(popcount_bits(a.b + (p * all + n) * Wd, 0, a.K));
}

// Taps that do not count were counted as bit 0 of a, base / K each product: take them out again.
void undo_padding(const BitsGemmArgs& a, const int32_t* taps, Pixel p, int64_t n0, int cols, int32_t* dot) {
  const BitsWindow& w = a.win;
  const int64_t T = w.kh * w.kw, C = a.K / T, all = a.G * a.N;
  const int32_t each = int32_t(a.base / a.K * C);
  for (int64_t i = 0; i < w.kh; ++i)
    for (int64_t j = 0; j < w.kw; ++j) {
      if (inside(p.ih + i * w.dh, w.H) && inside(p.iw + j * w.dw, w.W)) continue;
      const int32_t* const s = taps + (i * w.kw + j) * all + n0;
      for (int c = 0; c < cols; ++c) dot[c] -= each + a.coef[0] * s[c];
    }
}

// ---- rows by panels ------------------------------------------------------------------------------------------------
struct Plan {
  const BitsGemmArgs& a;
  const uint32_t* panels;   // null: few columns a group, counted one by one
  const int32_t* taps;      // [kh kw, G N], where padding is undone
  const int32_t* columns;   // [G N] or null
  int64_t rows, NB, chunk, chunks, blocks;
};

void count_rows(const uint64_t* x, int64_t Wd, const uint32_t* panel, int rows, int32_t coef, const int32_t* start, PanelRow* dot) {
  const uint32_t* const words = reinterpret_cast<const uint32_t*>(x);
  for (int64_t s = 0; s < 2 * Wd; s += kSteps) {
    const int64_t steps = 2 * Wd - s < kSteps ? 2 * Wd - s : kSteps;
    const uint32_t* const b = panel + s * kPanelRows;
    const int32_t* const first = s == 0 ? start : nullptr;
    int r = 0;
    for (; r + 4 <= rows; r += 4) count_tile<4>(words + r * 2 * Wd + s, 2 * Wd, b, steps, coef, first ? first + r : nullptr, dot + r);
    switch (rows - r) {
      case 3: count_tile<3>(words + r * 2 * Wd + s, 2 * Wd, b, steps, coef, first ? first + r : nullptr, dot + r); break;
      case 2: count_tile<2>(words + r * 2 * Wd + s, 2 * Wd, b, steps, coef, first ? first + r : nullptr, dot + r); break;
      case 1: count_tile<1>(words + r * 2 * Wd + s, 2 * Wd, b, steps, coef, first ? first + r : nullptr, dot + r); break;
    }
  }
}

void count_few(const uint64_t* x, int64_t Wd, const uint64_t* b, int rows, int cols, int32_t coef, PanelRow* dot) {
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < cols; ++c) {
      int32_t n = 0;
      for (int64_t w = 0; w < Wd; ++w) n += popcount64(x[r * Wd + w] ^ b[c * Wd + w]);
      dot[r][c] += coef * n;
    }
}

// Rows of consecutive pixels. Of its own, so that its many numbers stay in registers.
[[gnu::noinline]] void gather_rows(const BitsWindow win, const uint64_t* image, int64_t image_words, int64_t c0, int64_t C, Pixel p, int rows,
                                   int64_t Wd, Pixel* pixel, bool* border, uint64_t* out) {
  for (int r = 0; r < rows; ++r, p = next_pixel(win, p)) {
    pixel[r] = p;
    border[r] = touches_padding(win, p);
    gather_taps(win, image, image_words, c0, C, p, border[r], out + r * Wd);
  }
}

template <bool full> void run_task(const Plan& plan, int64_t task, uint64_t* gathered) {
  const BitsGemmArgs& a = plan.a;
  const BitsWindow& win = a.win;
  const int64_t Wd = words_of(a.K), all = a.G * a.N;
  const int64_t chunk = task % plan.chunks, block = task / plan.chunks % plan.blocks, g = task / plan.chunks / plan.blocks;
  const int64_t m0 = block * plan.rows;
  const int rows = int(a.M - m0 < plan.rows ? a.M - m0 : plan.rows);
  const int64_t lead = a.batched ? g : 0, row0 = lead * a.M + m0, total = a.batched ? a.N : all;
  const uint64_t* x = a.a + row0 * Wd;
  Pixel pixel[kRows];
  bool border[kRows];
  if (a.conv) {
    const int64_t C = a.K / (win.kh * win.kw);
    gather_rows(win, a.a, words_of(a.G * C), g * C, C, pixel_of(win, m0), rows, Wd, pixel, border, gathered);
    x = gathered;
  }
  int32_t start[kRows];
  for (int r = 0; r < rows; ++r) start[r] = a.base + (a.row ? a.row * int32_t(popcount_bits(x + r * Wd, 0, a.K)) : 0);
  alignas(64) PanelRow dot[kRows];
  const int64_t first = chunk * plan.chunk, last = first + plan.chunk < plan.NB ? first + plan.chunk : plan.NB;
  for (int64_t q = first; q < last; ++q) {
    const int64_t n0 = g * a.N + q * kPanelRows;
    const int cols = int(a.N - q * kPanelRows < kPanelRows ? a.N - q * kPanelRows : kPanelRows);
    if (!plan.panels || Wd == 0)
      for (int r = 0; r < rows; ++r)
        for (int c = 0; c < kPanelRows; ++c) dot[r][c] = start[r];
    for (int64_t p = 0; p < a.P; ++p) {
      const uint32_t* const panel = plan.panels ? plan.panels + ((p * a.G + g) * plan.NB + q) * 2 * Wd * kPanelRows : nullptr;
      if (panel) count_rows(x, Wd, panel, rows, a.coef[p], p == 0 ? start : nullptr, dot);
      else count_few(x, Wd, a.b + (p * all + n0) * Wd, rows, cols, a.coef[p], dot);
    }
    if (plan.columns)
      for (int r = 0; r < rows; ++r)
        for (int c = 0; c < cols; ++c) dot[r][c] += plan.columns[n0 + c];
    for (int r = 0; r < rows; ++r) {
      if (plan.taps && border[r]) undo_padding(a, plan.taps, pixel[r], n0, cols, dot[r]);
      if (a.halve)
        for (int c = 0; c < kPanelRows; ++c) dot[r][c] >>= 1;
      finish_row<full>(a.e, dot[r], row0 + r, n0 - lead * a.N, cols, total);
    }
  }
}

void run_panels(const BitsGemmArgs& a, const int32_t* taps, const ParallelFor& pf) {
  const int64_t Wd = words_of(a.K), all = a.G * a.N;
  Buffer panel_buffer, column_buffer;
  Plan plan{a, a.panels, taps, nullptr, kRows, panels_of(a.N), 0, 0, 0};
  if (a.N < 8) plan.panels = nullptr;
  else if (!plan.panels) {
    uint32_t* const made = hold<uint32_t>(panel_buffer, a.P * a.G * plan.NB * 2 * Wd * kPanelRows);
    STRUCTOPS_ISA::bits_panels({a.P * a.G, a.N, Wd, a.b, made}, pf);
    plan.panels = made;
  }
  bool any = false;
  for (int64_t p = 0; p < a.P; ++p) any |= a.col[p] != 0;
  if (any) {
    int32_t* const sums = hold<int32_t>(column_buffer, all);
    column_sums(a, sums);
    plan.columns = sums;
  }
  if (a.conv && Wd > kStackWords / kRows) plan.rows = Wd > kStackWords ? 1 : kStackWords / Wd;
  plan.blocks = div_up(a.M, plan.rows);
  // All panels of a block in one task, unless there are too few blocks to go round.
  const int64_t wanted = pf.threads == 1 ? 1 : 4 * pf.threads;
  plan.chunks = plan.blocks * a.G >= wanted ? 1 : div_up(wanted, plan.blocks * a.G);
  if (plan.chunks > plan.NB) plan.chunks = plan.NB;
  plan.chunk = div_up(plan.NB, plan.chunks);
  plan.chunks = div_up(plan.NB, plan.chunk);
  const int64_t tasks = a.G * plan.blocks * plan.chunks;
  const double work = double(a.M > kReadRows ? a.M : kReadRows) * double(all) * double(a.K) * double(a.P) / double(tasks);
  const int64_t grain = work >= kTaskWork ? 1 : int64_t(kTaskWork / (work + 1)) + 1;
  const bool full = is_full(a.e);
  if (Wd > kStackWords) {  // a window of half a million bits: the gathered row lives on the heap, and tasks run in turn
    Buffer row;
    uint64_t* const gathered = a.conv ? hold<uint64_t>(row, Wd) : nullptr;
    for (int64_t t = 0; t < tasks; ++t) full ? run_task<true>(plan, t, gathered) : run_task<false>(plan, t, gathered);
    return;
  }
  auto body = [&](int64_t begin, int64_t end) {
    alignas(64) uint64_t gathered[kStackWords];
    for (int64_t t = begin; t < end; ++t) full ? run_task<true>(plan, t, gathered) : run_task<false>(plan, t, gathered);
  };
  parallel_for(pf, tasks, grain, body);
}

// ---- depthwise: one channel a group ---------------------------------------------------------------------------------
// 64 channels are one word: the taps' disagreements are added in bit-sliced counters, plane j holding bit j of 64 counts.
constexpr int kSlices = 12;  // windows of up to 4095 taps

bool is_depthwise(const BitsGemmArgs& a) {
  const int64_t T = a.win.kh * a.win.kw;
  return a.conv && a.G > 1 && a.K == T && a.N <= 16 && T < (1 << kSlices);
}

// out[c * stride] = start + coef * (count of channel c), c < 64, from the planes of one word.
STRUCTOPS_INLINE void spread_counts(const uint64_t* slice, int planes, int32_t start, int32_t coef, int32_t* out, int64_t stride) {
  constexpr int L = W<int32_t>;
  const Vec<int32_t> lane = lane_number<int32_t>();
  for (int c = 0; c < kPanelRows; c += L) {
    Vec<int32_t> n = {};
    for (int s = 0; s < planes; ++s) n += ((splat(int32_t(slice[s] >> c)) >> lane) & 1) << s;
    n = n * coef + start;
    if (stride == 1) store(out + c, n);
    else for (int i = 0; i < L; ++i) out[(c + i) * stride] = n[i];
  }
}

template <bool full> void depthwise_row(const BitsGemmArgs& a, const uint64_t* filters /* [N, taps, Wd] */, int64_t m) {
  constexpr int L = W<int64_t>;  // words at a time
  const BitsWindow& w = a.win;
  const int64_t Wd = words_of(a.G), T = w.kh * w.kw, all = a.G * a.N;
  const Pixel p = pixel_of(w, m);
  const Vec<int64_t> ones = splat(int64_t(w.pad == BitsPad::bit1 ? -1 : 0));
  const int32_t unit = int32_t(a.base / a.K);
  const auto words = [](const uint64_t* q, int n) { return load_n(reinterpret_cast<const int64_t*>(q), n); };
  for (int64_t q = 0; q < Wd; q += L) {
    const int count = int(Wd - q < L ? Wd - q : L);
    alignas(64) int32_t dot[L][16 * kPanelRows];  // [words, 64, N]
    for (int64_t n = 0; n < a.N; ++n) {
      Vec<int64_t> slice[kSlices] = {};
      int64_t counted = 0, t = 0;
      for (int64_t i = 0; i < w.kh; ++i)
        for (int64_t j = 0; j < w.kw; ++j, ++t) {
          const int64_t ih = p.ih + i * w.dh, iw = p.iw + j * w.dw;
          const bool in = inside(ih, w.H) && inside(iw, w.W);
          if (!in && w.pad == BitsPad::zero) continue;
          Vec<int64_t> carry = (in ? words(a.a + ((p.b * w.H + ih) * w.W + iw) * Wd + q, count) : ones) ^ words(filters + (n * T + t) * Wd + q, count);
          ++counted;
          for (int s = 0; counted >> s; ++s) {
            const Vec<int64_t> next = slice[s] & carry;
            slice[s] ^= carry;
            carry = next;
          }
        }
      int planes = 0;
      alignas(64) uint64_t planes_of[kSlices][L];
      for (; counted >> planes; ++planes) store(reinterpret_cast<int64_t*>(planes_of[planes]), slice[planes]);
      for (int v = 0; v < count; ++v) {
        uint64_t word[kSlices];
        for (int s = 0; s < planes; ++s) word[s] = planes_of[s][v];
        spread_counts(word, planes, unit * int32_t(counted), a.coef[0], dot[v] + n, a.N);
      }
    }
    for (int v = 0; v < count; ++v) {
      const int64_t c0 = (q + v) * 64, columns = (a.G - c0 < 64 ? a.G - c0 : 64) * a.N;
      for (int64_t c = 0; c < columns; c += kPanelRows)
        finish_row<full>(a.e, dot[v] + c, m, c0 * a.N + c, int(columns - c < kPanelRows ? columns - c : kPanelRows), all);
    }
  }
}

void run_depthwise(const BitsGemmArgs& a, const ParallelFor& pf) {
  const int64_t T = a.win.kh * a.win.kw, Wd = words_of(a.G), Wk = words_of(T);
  Buffer buffer;
  uint64_t* const filters = hold<uint64_t>(buffer, a.N * T * Wd);
  for (int64_t i = 0; i < a.N * T * Wd; ++i) filters[i] = 0;
  for (int64_t c = 0; c < a.G; ++c)
    for (int64_t n = 0; n < a.N; ++n)
      for (int64_t t = 0; t < T; ++t) filters[(n * T + t) * Wd + c / 64] |= bits_at(a.b + (c * a.N + n) * Wk, t, 1) << (c % 64);
  const bool full = is_full(a.e);
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) full ? depthwise_row<true>(a, filters, m) : depthwise_row<false>(a, filters, m);
  };
  parallel_for(pf, a.M, 1 + int64_t(2e5 / double(T * a.G * a.N + 1)), body);
}

}  // namespace

void bits_gemm(const BitsGemmArgs& a, const ParallelFor& pf) {
  if (a.M == 0 || a.N == 0 || a.G == 0) return;
  const int64_t all = a.G * a.N;
  Buffer wide, counts;
  if (a.e.out == BitsOut::bits && a.G > 1 && !a.batched && a.N % 64 && !is_depthwise(a)) {
    // Groups share words of the result: integers first.
    BitsGemmArgs inner = a;
    int32_t* const dots = hold<int32_t>(wide, a.M * all + kPanelRows);
    inner.e = BitsEpilogue{};
    inner.e.data = dots;
    STRUCTOPS_ISA::bits_gemm(inner, pf);
    auto body = [&](int64_t begin, int64_t end) {
      for (int64_t m = begin; m < end; ++m)
        for (int64_t n = 0; n < all; n += kPanelRows)
          finish_row<true>(a.e, dots + m * all + n, m, n, int(all - n < kPanelRows ? all - n : kPanelRows), all);
    };
    return parallel_for(pf, a.M, 1 + 32768 / all, body);
  }
  const BitsWindow& w = a.win;
  const bool pads = a.conv && w.pad == BitsPad::zero && w.reaches_out();
  if (is_depthwise(a)) return run_depthwise(a, pf);
  const int32_t* taps = nullptr;
  if (pads) {
    taps = a.taps;
    if (!taps) {
      int32_t* const made = hold<int32_t>(counts, w.kh * w.kw * all);
      tap_counts(a, made);
      taps = made;
    }
  }
  run_panels(a, taps, pf);
}

}  // namespace structops::STRUCTOPS_ISA
