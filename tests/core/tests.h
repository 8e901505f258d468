// The tests of every operator, one file each.
#pragma once

namespace structops::tests {

struct Rng;

void test_spmm_all(Rng& rng);
void test_wrapping();
void test_sddmm_all(Rng& rng);
void test_softmax_all(Rng& rng);
void test_scatter_all(Rng& rng);
void test_select_all(Rng& rng);
void test_multi_reduce_all(Rng& rng);
void test_attention_all(Rng& rng);
void test_edge_act_all(Rng& rng);
void test_segment_order_all(Rng& rng);
void test_products_all(Rng& rng);
void test_segment_attention_all(Rng& rng);
void test_csr_all(Rng& rng);
void test_rspmm_all(Rng& rng);
void test_poly_all(Rng& rng);
void test_chart_all(Rng& rng);
void test_pcfg_all(Rng& rng);
void test_chain_all(Rng& rng);
void test_grand_all(Rng& rng);
void test_factored_all(Rng& rng);
void test_spanning_all(Rng& rng);
void test_bits_all(Rng& rng);
void test_bits_layers_all(Rng& rng);
void test_quantize_all(Rng& rng);
void test_fff_all(Rng& rng);
void test_so2_products_all(Rng& rng);
void test_so2_frames_all(Rng& rng);

}  // namespace structops::tests
