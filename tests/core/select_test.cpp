#include "tests.h"

#include "sparse/select.h"
#include "support.h"

namespace structops::tests {

void test_select_all(Rng& rng) {
  int turn = 0;
  for (Dtype t : kAll)
    for (int64_t F : {1, 2, 5, 16, 17, 40})
      for (int64_t N : {7, 900}) {
        ++turn;
        const int64_t B = 1 + turn % 2, M = 11;
        std::vector<int64_t> index(size_t(B * N * F));
        for (int64_t& i : index) i = rng.below(M + 4) - 2;
        const IndexArray idx(index);
        const Array src = random_array(t, B * M * F, rng, Values::quarters), grad = random_array(t, B * N * F, rng, Values::quarters);
        Array out(t, B * N * F), out2(t, B * N * F), back(t, B * M * F), back2(t, B * M * F);
        SelectArgs a{t, B, N, M, F, src.data(), idx.index(turn % 2 != 0), out.data()};
        select_fwd(a, serial_for);
        a.out = out2.data();
        select_fwd(a, threaded);
        a.src = grad.data();
        a.out = back.data();
        select_bwd(a, serial_for);
        a.out = back2.data();
        select_bwd(a, threaded);
        std::vector<double> want(size_t(B * N * F), 0), dwant(size_t(B * M * F), 0);
        for (int64_t b = 0; b < B; ++b)
          for (int64_t n = 0; n < N; ++n)
            for (int64_t f = 0; f < F; ++f) {
              const int64_t at = (b * N + n) * F + f, m = index[size_t(at)];
              if (m < 0 || m >= M) continue;
              want[size_t(at)] = src.get((b * M + m) * F + f);
              dwant[size_t((b * M + m) * F + f)] += grad.get(at);
            }
        expect_result(out, out2, want, 1, 1, "select");
        expect_result(back, back2, dwant, double(N), 2, "select_bwd");
      }
}

}  // namespace structops::tests
