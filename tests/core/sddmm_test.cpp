#include "tests.h"

#include "sparse/sddmm.h"
#include "support.h"

namespace structops::tests {

namespace {

void test_sddmm(const Structure& s, Dtype t, EdgeOp op, Target lt, Target rt, int64_t B, int64_t Fo, int64_t R, int mode, bool wide, Rng& rng) {
  char what[160];
  std::snprintf(what, sizeof what, "sddmm %s op %d targets %d %d B %ld Fo %ld R %ld mode %d", kNames[int(t)], int(op), int(lt), int(rt), long(B),
                long(Fo), long(R), mode);
  const int64_t F = Fo * R, rows[] = {s.M, s.N, s.E};
  const int64_t Fl = mode == 1 ? 1 : F, Fr = mode == 2 ? 1 : mode == 3 ? F + 1 : F, lr = rows[int(lt)], rr = rows[int(rt)];
  const Array lhs = random_array(t, B * lr * Fl, rng, Values::quarters), rhs = random_array(t, rr * Fr, rng, Values::powers);
  std::unique_ptr<int32_t[]> lo(new int32_t[size_t(F)]), ro(new int32_t[size_t(F)]);
  for (int64_t f = 0; f < F; ++f) { lo[size_t(f)] = int32_t(rng.below(Fl)); ro[size_t(f)] = int32_t(rng.below(Fr)); }
  SddmmArgs a{};
  a.dtype = t; a.op = op; a.lhs_target = lt; a.rhs_target = rt;
  a.B = B; a.N = s.N; a.E = s.E; a.Fo = Fo; a.R = R;
  a.lhs = lhs.data(); a.Fl = Fl; a.lhs_batch = B > 1 ? lr * Fl : 0;
  if (op != EdgeOp::copy) { a.rhs = rhs.data(); a.Fr = Fr; }
  a.rowptr = s.rowptr.index(wide); a.col = s.col.index(wide); a.eid = s.eid.index(wide);
  if (mode == 3) { a.l_off = lo.get(); a.r_off = ro.get(); }
  std::vector<double> want(size_t(B * s.E * Fo), 0);
  for (int64_t b = 0; b < B; ++b)
    for (int64_t v = 0; v < s.N; ++v)
      for (int64_t k = s.rowptr[v]; k < s.rowptr[v + 1]; ++k)
        for (int64_t f = 0; f < F; ++f) {
          const int64_t at[] = {s.col[k], v, s.eid[k]};
          const double l = lhs.get((b * lr + at[int(lt)]) * Fl + (mode == 3 ? lo[size_t(f)] : Fl == 1 ? 0 : f));
          const double r = op == EdgeOp::copy ? 0 : rhs.get(at[int(rt)] * Fr + (mode == 3 ? ro[size_t(f)] : Fr == 1 ? 0 : f));
          const double value = op == EdgeOp::copy ? l : op == EdgeOp::add ? l + r : op == EdgeOp::sub ? l - r : op == EdgeOp::mul ? l * r : l / r;
          want[size_t((b * s.E + s.eid[k]) * Fo + f / R)] += value;
        }
  Array out(t, B * s.E * Fo), again(t, B * s.E * Fo);
  a.out = out.data();
  sddmm_fwd(a, serial_for);
  a.out = again.data();
  sddmm_fwd(a, threaded);
  expect_result(out, again, want, double(R), 4, what);
}

}  // namespace

void test_sddmm_all(Rng& rng) {
  const Structure small = random_structure(23, 17, 150, 30, rng), hub = random_structure(11, 9, 100, 2000, rng);
  const int64_t features[] = {1, 3, 8, 16, 17, 33, 65, 130};
  int turn = 0;
  for (Dtype t : kFloats)
    for (int op = 0; op < 5; ++op)
      for (int pair = 0; pair < 9; ++pair)
        for (int mode = 0; mode < 4; ++mode, ++turn) {
          const int64_t F = features[turn % 8];
          test_sddmm(small, t, EdgeOp(op), Target(pair / 3), Target(pair % 3), 1 + turn % 2, F, 1, mode, turn % 2 == 0, rng);
          if (op == int(EdgeOp::mul)) test_sddmm(small, t, EdgeOp(op), Target(pair / 3), Target(pair % 3), 1, 1 + turn % 3, F, mode, turn % 2 == 0, rng);
        }
  for (Dtype t : kFloats) test_sddmm(hub, t, EdgeOp::mul, Target::u, Target::v, 1, 1, 9, 0, false, rng);
  for (Dtype t : kInts)
    for (int pair = 0; pair < 3; ++pair) test_sddmm(small, t, EdgeOp::copy, Target(pair), Target(pair), 1, 5, 1, 0, true, rng);
}

}  // namespace structops::tests
