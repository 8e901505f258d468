// CPU samples of trees from the inside charts. The contract is chart.h.
#include "tree/chart_scratch.h"
#include "tree/chart_tree.h"
#include "tree/schedule.h"

namespace structops::STRUCTOPS_ISA {
namespace {

struct Weight {  // m 2^e
  double m;
  int64_t e;
};

template <class A> class Sampler {
 public:
  Sampler(const Charts<A>& c, const Input<A>& in, Weight* weights) : c_(c), in_(in), weights_(weights) {}

  // The alternative of an item that the uniform number u picks.
  int choose(const Visit& v, double u) {
    const int w = v.w, i = v.i;
    int first = 0, count = 0;
    auto add = [&](Weight x) { weights_[count++] = x; };
    auto splits = [&](const Cells<A>& L, const Cells<A>& R, int k0, int k1, int gap) {
      first = k0;
      for (int k = k0; k < k1; ++k) add(times(cell(L, k, i), cell(R, w - k - gap, i + k + gap)));
    };
    const bool left = v.item == Item::IL;
    switch (v.item) {
      case Item::V: splits(c_.IL, c_.IL, 1, w, 0); break;
      case Item::CR: splits(c_.IR, c_.CR, 1, w + 1, 0); break;
      case Item::CL: splits(c_.CL, c_.IL, 0, w, 0); break;
      default:
        if (v.item == Item::T || !in_.sib) {
          splits(c_.CR, c_.CL, 0, w, 1);
          break;
        }
        add(left ? cell(c_.CR, w - 1, i) : cell(c_.CL, w - 1, i + 1));
        if (!left && i == 0 && in_.kind == Chart::dep_single) break;
        for (int k = 1; k < w; ++k)
          add(times(sibling(left ? i : i + w, left ? i + w : i, i + k),
                    times(cell(left ? c_.T : c_.IR, k, i), cell(left ? c_.IL : c_.T, w - k, i + k))));
    }
    return first + pick(count, u);
  }

 private:
  Weight cell(const Cells<A>& c, int w, int i) const { return {double(c.m[c_.row[w] + i]), int64_t(c.e[c_.row[w] + i])}; }
  static Weight times(Weight x, Weight y) { return {x.m * y.m, x.e + y.e}; }

  Weight sibling(int dep, int head, int s) const {
    const double x = double(read_one<A>(in_.sib, ((in_.b[0] * in_.N + dep) * in_.N + head) * in_.N + s));
    if (!(x > -1e300)) return {0, 0};
    const double most = double(ScaledConst<A>::max_score), clamped = x < -most ? -most : x > most ? most : x;
    const double n = __builtin_rint(clamped * 1.44269504088896340736);
    return {__builtin_exp((clamped - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6), int64_t(n)};
  }

  int pick(int count, double u) {
    int64_t top = 0;
    bool seen = false;
    for (int a = 0; a < count; ++a)
      if (weights_[a].m > 0 && (!seen || weights_[a].e > top)) { top = weights_[a].e; seen = true; }
    double total = 0, sum = 0;
    for (int a = 0; a < count; ++a) {
      const int64_t d = weights_[a].e - top;
      weights_[a].m = d < -1000 ? 0 : weights_[a].m * bitcast<double>((d + 1023) << 52);
      total += weights_[a].m;
    }
    int last = 0;
    for (int a = 0; a < count; ++a) {
      if (!(weights_[a].m > 0)) continue;
      last = a;
      sum += weights_[a].m;
      if (sum >= u * total) break;
    }
    return last;
  }

  const Charts<A>& c_;
  const Input<A>& in_;
  Weight* weights_;
};

// False if the scores of the sentence leave the charts of A.
template <class A> bool run(const ChartTreeArgs& t, int64_t b, char* memory, const Layout<A>& layout) {
  const Input<A> in = input<A>(t.in, &b, 1);
  const int n = in.most;
  const Scratch<A> scratch = lay_out<false>(memory, layout, n);
  const Found<A> found = inside<false, false>(scratch.charts, in);
  if (sizeof(A) == sizeof(float) && any<A>(found.wide)) return false;
  Visit* const stack = reinterpret_cast<Visit*>(memory + layout.bytes());
  Sampler<A> sampler(scratch.charts, in, reinterpret_cast<Weight*>(stack + visits(layout.most)));
  const bool none = any<A>(found.invalid) || total<false>(scratch.charts, in, 0, nullptr) == -__builtin_inf();
  const int64_t size = tree_size(t.in);
  for (int64_t s = 0; s < t.K; ++s) {
    int64_t* const tree = t.tree + (s * t.in.B + b) * size;
    for (int64_t i = 0; i < size; ++i) tree[i] = -1;
    if (none) continue;
    const double* u = t.uniform + (s * t.in.B + b) * 3 * t.in.N;
    write_tree(in.kind, bool(in.sib), n, 0, stack, tree, [&](const Visit& v) { return Pick{sampler.choose(v, *u++), 0, 0}; });
  }
  return true;
}

}  // namespace

void chart_sample(const ChartTreeArgs& t, const ParallelFor& pf) {
  const ChartArgs& a = t.in;
  const int most = int(longest(a.lengths, a.B));
  with_accumulator(a.dtype, [&](auto* p) {
    using A = Pointee<decltype(p)>;
    constexpr bool narrow = __is_same(A, float);
    const size_t more = (visits(most) * sizeof(Visit) + size_t(most + 2) * sizeof(Weight) + 63) / 64 * 64;
    const Layout<A> layout(most, false, false, false);
    const Layout<double> wide_layout(most, false, false, false);
    const size_t first = layout.bytes() + more;
    each_sentence(a.lengths, a.B, first + (narrow ? wide_layout.bytes() + more : 0), pf, [&](char* memory, int64_t b) {
      if (!run(t, b, memory, layout))
        if constexpr (narrow) run(t, b, memory + first, wide_layout);
    });
  });
}

}  // namespace structops::STRUCTOPS_ISA
