// Tests of the torch-free core: every launcher against naive loops in double, serial and on threads, on random data with hub
// rows.
//
//   core_tests [baseline | avx2 | avx512]     exit status 1 on failure, 0 where the instruction set is not available
#include "tests.h"

#include <cstdio>

#include "core/isa.h"
#include "support.h"

using namespace structops;
using namespace structops::tests;

int main(int argc, char** argv) {
  const char* const name = argc > 1 ? argv[1] : "auto";
  if (!set_isa(name)) {
    std::printf("skipped: instruction set '%s' is not available here\n", name);
    return 0;
  }
  Rng rng{20240607};
  test_spmm_all(rng);
  test_wrapping();
  test_sddmm_all(rng);
  test_softmax_all(rng);
  test_scatter_all(rng);
  test_select_all(rng);
  test_multi_reduce_all(rng);
  test_attention_all(rng);
  test_edge_act_all(rng);
  test_segment_order_all(rng);
  test_products_all(rng);
  test_segment_attention_all(rng);
  test_csr_all(rng);
  test_rspmm_all(rng);
  test_poly_all(rng);
  test_chart_all(rng);
  test_pcfg_all(rng);
  test_chain_all(rng);
  test_grand_all(rng);
  test_factored_all(rng);
  test_spanning_all(rng);
  test_bits_all(rng);
  test_bits_layers_all(rng);
  test_quantize_all(rng);
  test_fff_all(rng);
  test_so2_products_all(rng);
  test_so2_frames_all(rng);
  std::printf("%s: %ld checks, %d failures\n", isa_name(active_isa()), checks, failures);
  return failures ? 1 : 0;
}
