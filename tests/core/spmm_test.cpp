#include "tests.h"

#include "sparse/scatter.h"
#include "sparse/spmm.h"
#include "support.h"

namespace structops::tests {

namespace {

double apply(Message m, double x, double e) {
  switch (m) {
    case Message::copy_u: return x;
    case Message::copy_e: return e;
    case Message::add: return x + e;
    case Message::sub: return x - e;
    case Message::mul: return x * e;
    default: return x / e;
  }
}

struct SpmmCase {
  Dtype dtype;
  Message message;
  Reduce reduce;
  int mode;  // 0 both, 1 e scalar, 2 x scalar, 3 offset tables
  int64_t B, F;
  ArgKind arg;
  bool wide, permuted, skip_nan;
};

void test_spmm(const Structure& s, const SpmmCase& c, Rng& rng) {
  char what[200];
  std::snprintf(what, sizeof what, "spmm %s message %d reduce %d mode %d B %ld F %ld arg %d E %ld skip %d", kNames[int(c.dtype)], int(c.message),
                int(c.reduce), c.mode, long(c.B), long(c.F), int(c.arg), long(s.E), int(c.skip_nan));
  const bool extreme = c.reduce == Reduce::min || c.reduce == Reduce::max;
  const bool copy = c.message <= Message::copy_e;
  const int mode = copy ? 0 : c.mode;
  const int64_t Fx = mode == 2 ? 1 : mode == 3 ? c.F + 3 : c.F, Fe = mode == 1 ? 1 : mode == 3 ? (c.F + 1) / 2 : c.F;
  const bool hub = s.E > 1000;  // a few sources many times over: powers of 2 would run away
  const Values kind = c.reduce == Reduce::prod ? (hub ? Values::signs : Values::powers) : c.skip_nan ? Values::spiked : Values::quarters;
  const Array x = random_array(c.dtype, c.B * s.M * Fx, rng, kind);
  const Array e = random_array(c.dtype, s.E * Fe, rng, c.message == Message::div && !hub ? Values::powers : c.message == Message::div ? Values::signs : kind);
  std::unique_ptr<int32_t[]> xo(new int32_t[size_t(c.F)]), eo(new int32_t[size_t(c.F)]);
  for (int64_t f = 0; f < c.F; ++f) { xo[size_t(f)] = int32_t(rng.below(Fx)); eo[size_t(f)] = int32_t(rng.below(Fe)); }

  SpmmArgs a{};
  a.dtype = c.dtype; a.message = c.message; a.reduce = c.reduce; a.arg_kind = c.arg;
  a.skip_nan = c.skip_nan; a.unbiased = rng.below(2) != 0;
  a.fill = -3;
  a.B = c.B; a.N = s.N; a.E = s.E; a.F = c.F;
  if (c.message != Message::copy_e) { a.x = x.data(); a.Fx = Fx; a.x_batch = c.B > 1 ? s.M * Fx : 0; }
  if (c.message != Message::copy_u) { a.e = e.data(); a.Fe = Fe; }
  a.rowptr = s.rowptr.index(c.wide);
  a.col = s.col.index(c.wide);
  if (c.permuted) a.eid = s.eid.index(c.wide);
  if (mode == 3) { a.x_off = xo.get(); a.e_off = eo.get(); }

  const int64_t cells = c.B * s.N * c.F;
  std::vector<double> want(static_cast<size_t>(cells));
  std::vector<int64_t> winner(static_cast<size_t>(cells));
  std::vector<double> m;
  int64_t longest = 1;
  for (int64_t b = 0; b < c.B; ++b)
    for (int64_t v = 0; v < s.N; ++v)
      for (int64_t f = 0; f < c.F; ++f) {
        m.clear();
        for (int64_t k = s.rowptr[v]; k < s.rowptr[v + 1]; ++k) {
          const int64_t u = s.col[k], j = c.permuted ? s.eid[k] : k;
          const int64_t fx = mode == 3 ? xo[size_t(f)] : mode == 2 ? 0 : f, fe = mode == 3 ? eo[size_t(f)] : mode == 1 ? 0 : f;
          m.push_back(apply(c.message, a.x ? x.get((b * s.M + u) * Fx + fx) : 0, a.e ? e.get(j * Fe + fe) : 0));
        }
        longest = std::max(longest, int64_t(m.size()));
        const Reduced r = reduce_row(m, c.reduce, a.fill, c.skip_nan, a.unbiased);
        const int64_t k = s.rowptr[v] + r.winner, at = (b * s.N + v) * c.F + f;
        want[size_t(at)] = r.value;
        const int64_t none = c.arg == ArgKind::source ? -1 : s.E;
        winner[size_t(at)] = r.winner < 0 ? none : c.arg == ArgKind::edge && c.permuted ? s.eid[k] : c.arg == ArgKind::source ? s.col[k] : k;
      }

  Array out(c.dtype, cells), again(c.dtype, cells);
  Array arg(c.wide ? Dtype::i64 : Dtype::i32, cells), arg2(arg.dtype, cells);
  a.out = out.data();
  a.arg = c.arg != ArgKind::none ? arg.data() : nullptr;
  spmm_fwd(a, serial_for);
  a.out = again.data();
  a.arg = c.arg != ArgKind::none ? arg2.data() : nullptr;
  spmm_fwd(a, threaded);
  expect_result(out, again, want, double(longest), 4, what);
  if (c.arg == ArgKind::none || !extreme) return;
  bool same = true;
  for (int64_t i = 0; i < cells; ++i) same &= int64_t(arg.get(i)) == winner[size_t(i)];
  expect(same, what, "winners differ");
  expect_same(arg, arg2, what);
}

}  // namespace

void test_spmm_all(Rng& rng) {
  const Structure small = random_structure(33, 21, 260, 40, rng), hub = random_structure(17, 9, 200, 3000, rng);
  const Structure none = random_structure(5, 3, 0, 0, rng), single = random_structure(1, 1, 1, 0, rng);
  const int64_t features[] = {1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 65, 127, 130};
  int turn = 0;
  for (Dtype t : kAll)
    for (int r = 0; r < 8; ++r)
      for (int m = 0; m < 6; ++m) {
        const Reduce reduce = Reduce(r);
        const bool extreme = reduce == Reduce::min || reduce == Reduce::max;
        if (!is_floating(t) && (m > 1 || reduce == Reduce::mean || r > int(Reduce::prod))) continue;
        for (int mode = 0; mode < (m < 2 ? 1 : 4); ++mode)
          for (int k = 0; k < 2; ++k, ++turn) {
            const int64_t F = features[size_t(turn * 5 % 14)];
            const ArgKind arg = extreme ? ArgKind(turn % 4) : ArgKind::none;
            test_spmm(small, {t, Message(m), reduce, mode, 1 + turn % 2, F, arg, turn % 3 == 0, turn % 4 != 0, false}, rng);
            if (k == 0) test_spmm(hub, {t, Message(m), reduce, mode, 1, F % 20 + 1, arg, turn % 2 == 0, turn % 3 != 0, false}, rng);
          }
      }
  for (Dtype t : kFloats)
    for (Reduce r : {Reduce::min, Reduce::max})
      for (int64_t F : {1, 7, 40})
        for (const Structure* s : {&small, &hub}) test_spmm(*s, {t, Message::copy_e, r, 0, 1, F, ArgKind::position, F == 7, true, true}, rng);
  for (int r = 0; r < 8; ++r)
    for (const Structure* s : {&none, &single}) test_spmm(*s, {Dtype::f32, Message::mul, Reduce(r), 0, 2, 5, ArgKind::none, true, true, false}, rng);
}

// Documented wrap-around of integers.
void test_wrapping() {
  for (Dtype t : kInts) {
    const int64_t top = t == Dtype::i32 ? INT32_MAX : INT64_MAX;
    for (int64_t F : {1, 5, 16}) {
      Array src(t, 4 * F), out(t, F), scattered(t, F);
      for (int64_t i = 0; i < 4 * F; ++i) {
        if (t == Dtype::i32) src.put(i, int32_t(top)); else src.put(i, top);
      }
      const IndexArray ptr({0, 4}), zero({0, 0, 0, 0});
      for (Reduce r : {Reduce::sum, Reduce::prod}) {
        SpmmArgs a{};
        a.dtype = t; a.message = Message::copy_e; a.reduce = r;
        a.B = 1; a.N = 1; a.E = 4; a.F = a.Fe = F; a.e = src.data();
        a.rowptr = ptr.index(true);
        a.out = out.data();
        spmm_fwd(a, serial_for);
        ScatterArgs b{t, r, false, r == Reduce::prod ? 1. : 0., 1, 1, 4, F, src.data(), zero.index(false), scattered.data(), nullptr};
        scatter_fwd(b, serial_for);
        const int64_t want = r == Reduce::sum ? -4 : 1;  // 4 (2^n - 1) and (2^n - 1)^4 modulo 2^(n+1)
        for (int64_t f = 0; f < F; ++f) {
          const int64_t got = t == Dtype::i32 ? out.raw<int32_t>(f) : out.raw<int64_t>(f);
          const int64_t got2 = t == Dtype::i32 ? scattered.raw<int32_t>(f) : scattered.raw<int64_t>(f);
          expect(got == want && got2 == want, "wrapping", "wrong value");
        }
      }
    }
  }
}

}  // namespace structops::tests
