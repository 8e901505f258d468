// Grandparent charts: where items lie, what they are made of. The contract is grand.h. For one instruction set, and for nvcc.
//
// A cell is an item over a span; its lanes are the grandparents g = 0..n, padded to whole vectors. Lanes that mean nothing (g within
// the span; for i = 0 all but g = 0) hold zeros.
#pragma once
#include "tree/grand.h"
#include "tree/lanes.h"

namespace structops::STRUCTOPS_ISA {

enum class GrandItem : int { CR, CL, IR, IL, S };
constexpr int kGrandItems = 5;

struct GrandShape {
  int n, lanes;  // lanes: of a cell
  bool second, single;

  STRUCTOPS_MEMBER int64_t cell(int i, int j) const { return (int64_t(i) * (2 * n + 3 - i) / 2 + (j - i)) * lanes; }
  STRUCTOPS_MEMBER int64_t numbers() const { return int64_t(n + 1) * (n + 2) / 2 * lanes; }
};

template <class A> struct GrandCells {  // scaled numbers; tangents of their logarithms; posteriors and their derivatives
  A* m;
  Int<A>* e;
  A *t, *a, *d;
};

template <class A> struct GrandParents {  // one item's lanes in the outside pass; of one warp
  A *q, *dq, *t;
  Int<A>* e;
};

template <class A> struct GrandCharts {
  GrandCells<A> of[kGrandItems];
  GrandParents<A> parents;
  STRUCTOPS_MEMBER const GrandCells<A>& operator[](GrandItem item) const { return of[int(item)]; }
};

// Numbers of A, and of Int<A>, that the charts of `warps` warps need.
struct GrandRoom {
  int64_t numbers, lanes;
  bool posts, dual;
  int warps;
  template <class A> size_t bytes() const {  // host code
    const int64_t arrays = 1 + (posts ? 1 : 0) + (dual ? 2 : 0);
    return size_t(kGrandItems * numbers * arrays + warps * lanes * 3) * sizeof(A) + size_t(kGrandItems * numbers + warps * lanes) * sizeof(Int<A>);
  }
};

template <class A> STRUCTOPS_INLINE GrandCharts<A> grand_charts(char* memory, const GrandRoom& room, int warp) {
  A* number = reinterpret_cast<A*>(memory);
  auto take = [&](bool wanted, int64_t n) { A* const p = wanted ? number : nullptr; number += wanted ? n : 0; return p; };
  GrandCharts<A> c{};
  for (int k = 0; k < kGrandItems; ++k) {
    c.of[k].m = take(true, room.numbers);
    c.of[k].t = take(room.dual, room.numbers);
    c.of[k].a = take(room.posts, room.numbers);
    c.of[k].d = take(room.dual, room.numbers);
  }
  A* const own = number + warp * room.lanes * 3;
  c.parents = {own, own + room.lanes, own + 2 * room.lanes, nullptr};
  Int<A>* exponent = reinterpret_cast<Int<A>*>(number + room.warps * room.lanes * 3);
  for (int k = 0; k < kGrandItems; ++k, exponent += room.numbers) c.of[k].e = exponent;
  c.parents.e = exponent + warp * room.lanes;
  return c;
}

template <class T> struct GrandInput {  // of one sentence
  const T *arc, *grand, *sib, *v, *v_grand, *v_sib;
  int64_t N;
};

template <class T> STRUCTOPS_INLINE GrandInput<T> grand_input(const GrandArgs& a, int64_t b) {
  auto at = [&](const void* p, int64_t size) { return p ? static_cast<const T*>(p) + b * size : nullptr; };
  const int64_t plane = a.N * a.N, cube = plane * a.N;
  return {at(a.arc, plane), at(a.grand, cube), at(a.sib, cube), at(a.v, plane), at(a.v_grand, cube), at(a.v_sib, cube), a.N};
}

// Terms of an item over [i, j]: left[i, r] right[r + gap, j] for r in [first, last), times sib[dep, head, r] if siblings.
struct GrandRange {
  GrandItem left, right;
  int first, last, gap;
  bool siblings;
};

constexpr int kGrandRanges = 2;

template <GrandItem item> STRUCTOPS_INLINE GrandRange grand_range(const GrandShape& s, int i, int j, int which) {
  using I = GrandItem;
  if (item == I::CR) return {I::IR, I::CR, i + 1, which ? 0 : j + 1, 0, false};
  if (item == I::CL) return {I::CL, I::IL, i, which ? 0 : j, 0, false};
  if (item == I::S || !s.second) return {I::CR, I::CL, i, which ? 0 : j, 1, false};
  const bool right = item == I::IR;
  if (which == 0) return {I::CR, I::CL, right ? i : j - 1, right ? i + 1 : j, 1, false};
  return {right ? I::IR : I::S, right ? I::S : I::IL, i + 1, right && i == 0 && s.single ? 0 : j, 0, true};
}

// The lane of the left and of the right operand, -1 for that of the item itself.
template <GrandItem item> STRUCTOPS_INLINE int left_lane(int, int j) { return item == GrandItem::CL || item == GrandItem::IL ? j : -1; }
template <GrandItem item> STRUCTOPS_INLINE int right_lane(int i, int) { return item == GrandItem::CR || item == GrandItem::IR ? i : -1; }

// Which of the lanes g0.. of an item hold something.
template <class A> STRUCTOPS_INLINE Vec<Int<A>> grand_valid(const GrandShape& s, GrandItem item, int i, int j, int g0) {
  const Vec<Int<A>> g = lane_numbers<A>() + Int<A>(g0);
  const bool right = item == GrandItem::CR || item == GrandItem::IR;
  if (i > 0) return ((g < Int<A>(i)) | (g > Int<A>(j))) & (g <= Int<A>(s.n));
  return right && !(item == GrandItem::CR && s.single && j > 0 && j < s.n) ? g == Int<A>(0) : g < Int<A>(0);
}

// Position 0 heads, but is nobody's dependent or sibling.
STRUCTOPS_INLINE bool grand_exists(GrandItem item, int i) { return i > 0 || item == GrandItem::CR || item == GrandItem::IR; }

STRUCTOPS_CONSTANT bool is_arc(GrandItem item) { return item == GrandItem::IR || item == GrandItem::IL; }

// Where the scores of the arc over [i, j] lie: at(..) N + lane in grand and sib.
template <GrandItem item> STRUCTOPS_INLINE int64_t arc_at(int64_t N, int i, int j) {
  return item == GrandItem::IR ? int64_t(j) * N + i : int64_t(i) * N + j;
}

// arc + grand of the lanes g0..; arc alone if the head is the root.
template <GrandItem item, class A, class T>
STRUCTOPS_INLINE Vec<A> grand_score(const T* arc, const T* grand, int64_t N, int i, int j, int g0) {
  const int64_t at = arc_at<item>(N, i, j);
  const Vec<A> own = splat(A(widen(arc[at])));
  if (item == GrandItem::IR && i == 0) return own;
  const int64_t left = N - g0 < W<A> ? N - g0 : W<A>;
  return own + load_as<A>(grand + at * N + g0, int(left));
}

template <int n> struct GrandCount { static constexpr int count = n; };
template <GrandItem item> struct GrandConstant { static constexpr GrandItem value = item; };

// Calls f(item as a constant, i) for the spans of width w that this warp takes, of the two or three items given.
template <GrandItem... items, class F> STRUCTOPS_INLINE void each_span(const Team& team, const GrandShape& s, int w, F f) {
  constexpr int kinds = sizeof...(items);
  for (int t = team.warp; t < kinds * (s.n - w + 1); t += team.warps) {
    const int i = t / kinds, which = t % kinds;
    int k = 0;
    ((which == k++ && grand_exists(items, i) ? f(GrandConstant<items>{}, i) : void()), ...);
  }
}

}  // namespace structops::STRUCTOPS_ISA
