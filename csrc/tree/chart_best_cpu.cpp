// CPU best trees: max-plus charts with the winning splits, and K-best lists. The contract is chart.h.
#include "tree/chart_best.h"
#include "tree/chart_kbest.h"
#include "tree/chart_scratch.h"
#include "tree/chart_tree.h"
#include "tree/schedule.h"

namespace structops::STRUCTOPS_ISA {
namespace {

template <bool many, class A> void run(const ChartTreeArgs& t, const Input<A>& in, int count, char* memory, const Layout<A>& layout) {
  const Scratch<A> scratch = lay_out<many>(memory, layout, in.most);
  const Charts<A>& c = scratch.charts;
  Found<A> found = best_inside<many>(c, in);
  if constexpr (!many) found.invalid = splat(Int<A>(any<A>(found.invalid) ? -1 : 0));
  Visit* const stack = reinterpret_cast<Visit*>(memory + layout.bytes());
  const int64_t size = tree_size(t.in);
  for (int l = 0; l < count; ++l) {
    const int n = int(in.n[l]);
    int64_t* const tree = t.tree + in.b[l] * size;
    for (int64_t i = 0; i < size; ++i) tree[i] = -1;
    A value = n == 0 ? A(0) : (in.kind == Chart::span ? c.IL : c.CR).m[c.row[n] + (many ? l : 0)];
    if (found.invalid[l]) value = A(__builtin_nan(""));
    static_cast<A*>(t.value)[in.b[l]] = value;
    if (!(value > A(-INFINITY))) continue;
    write_tree(in.kind, bool(in.sib), n, 0, stack, tree, [&](const Visit& v) {
      const Cells<A>* const from[] = {&c.CR, &c.CL, &c.IR, &c.IL, &c.T, &c.IL};
      return Pick{int(from[int(v.item)]->e[c.row[v.w] + v.i * kCell<A, many> + (many ? l : 0)]), 0, 0};
    });
  }
}

}  // namespace

void chart_best(const ChartTreeArgs& t, const ParallelFor& pf) {
  const ChartArgs& a = t.in;
  const int most = int(longest(a.lengths, a.B));
  with_accumulator(a.dtype, [&](auto* p) {
    using A = Pointee<decltype(p)>;
    if (t.K > 1) {
      each_sentence(a.lengths, a.B, KBest<A>::bytes(a, most, t.K), pf,
                    [&](char* memory, int64_t b) { KBest<A>(t, b, memory, most).run(); });
      return;
    }
    const Layout<A> layout(most, false, false, a.B > 1);
    auto group = [&](const int64_t* b, int64_t left) { return together<A>(a, b, left); };
    each_task(a.lengths, a.B, layout.bytes() + visits(most) * sizeof(Visit), pf, group, [&](char* memory, const int64_t* b, int count) {
      if (count > 1) run<true>(t, input<A>(a, b, count), count, memory, layout);
      else run<false>(t, input<A>(a, b, 1), 1, memory, layout);
    });
  });
}

}  // namespace structops::STRUCTOPS_ISA
