// The only list of operator schemas. Codes of message, reduce, arg, op and target and of kind are the enums of the headers, mirrored
// in kernels/codes.py. Operands of the sparse family are [rows], [rows, F] or [B, rows, F]; see the header of each operator.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(structops, m) {
  // sparse
  // colptr, row_t, eid_t: the transposed structure (rowptr, col, eid of the reversed edges), read by the backward only.
  m.def("spmm(Tensor? x, Tensor? e, Tensor rowptr, Tensor? col, Tensor? eid, Tensor? colptr, Tensor? row_t, Tensor? eid_t, "
        "Tensor? bcast, int message, int reduce, int arg, float fill, bool skip_nan, bool unbiased) -> (Tensor, Tensor)");
  // The frequent case of spmm, in few arguments, which small graphs pay for: copies of x[index[k]], or of x[k], and the usual fill.
  m.def("copy_reduce(Tensor x, Tensor rowptr, Tensor? index, int reduce) -> Tensor");
  m.def("sddmm(Tensor lhs, Tensor? rhs, Tensor rowptr, Tensor? col, Tensor? eid, Tensor? colptr, Tensor? row_t, Tensor? eid_t, "
        "Tensor? bcast, int op, int lhs_target, int rhs_target, int num_edges, int out_features, int reduce_features) -> Tensor");
  m.def("segment_softmax(Tensor src, Tensor rowptr, Tensor? eid, bool log) -> Tensor");
  m.def("segment_softmax_bwd(Tensor out, Tensor grad, Tensor rowptr, Tensor? eid, bool log) -> Tensor");
  m.def("scatter(Tensor src, Tensor index, int dim_size, int reduce, bool return_arg, float fill, bool skip_nan) -> (Tensor, Tensor)");
  m.def("select(Tensor src, Tensor idx) -> Tensor");
  m.def("select_bwd(Tensor grad, Tensor idx, int rows) -> Tensor");
  m.def("segment_order(Tensor src, Tensor rowptr, Tensor? rank, int k, bool largest) -> Tensor");
  m.def("csr_build(Tensor index, int num_groups) -> (Tensor, Tensor)");
  // (rowptr, col, eid) of edges col -> row in any order, int64 if wide; and that of the reversed edges, (colptr, row_t, eid_t).
  m.def("csr_from_coo(Tensor row, Tensor col, int num_rows, bool wide) -> (Tensor, Tensor, Tensor)");
  m.def("csr_transpose(Tensor rowptr, Tensor col, Tensor? eid, int num_cols) -> (Tensor, Tensor, Tensor)");
  m.def("index_range(Tensor index) -> (int, int, bool)");
  // x and value [M, F], y [N, F], edge [E, F], scalar [E], direction [F]. The gradients of absent operands are empty, that of direction
  // [N, F], of every row by itself; both that and scalar's in the accumulator's dtype. keep: the slopes [N, F] for y are wanted.
  m.def("edge_act(Tensor x, Tensor? y, Tensor? edge, Tensor? value, Tensor? scalar, Tensor? direction, Tensor rowptr, Tensor? col, Tensor? eid, Tensor? colptr, "
        "Tensor? row_t, Tensor? eid_t, int act, float slope, bool keep) -> (Tensor, Tensor)");
  m.def("edge_act_bwd(Tensor x, Tensor? y, Tensor? edge, Tensor? value, Tensor? scalar, Tensor? direction, Tensor grad, Tensor rowptr, "
        "Tensor? col, Tensor? eid, Tensor colptr, Tensor row_t, Tensor? eid_t, int act, float slope, bool wants_y) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  // x [M, F], edge [E, F], y [N, F], scale [S, N]; see multi_reduce.h. keep: stat and arg for the backward are wanted.
  m.def("multi_reduce(Tensor? x, Tensor? edge, Tensor? y, Tensor rowptr, Tensor? col, Tensor? eid, Tensor? colptr, Tensor? row_t, "
        "Tensor? eid_t, Tensor? scale, int[] reduces, float eps, bool keep) -> (Tensor, Tensor, Tensor)");
  // wanted: bit 0 the gradient of x, 1 of y, 2 of edge; empty where not wanted.
  m.def("multi_reduce_bwd(Tensor? x, Tensor? edge, Tensor grad, Tensor stat, Tensor arg, Tensor rowptr, Tensor? col, Tensor? eid, "
        "Tensor? colptr, Tensor? row_t, Tensor? eid_t, Tensor? scale, int[] reduces, int wanted) -> (Tensor, Tensor, Tensor)");
  // key and value of the sources, query of the rows, [rows, H, width]; edge [E, H] or [E, H, K]; att [H, K]. Returns out and its log-sum-exp.
  // *_blocks: pairs of HeadBlocks, for rows whose features of a head are not side by side.
  m.def("attention(Tensor key, Tensor query, Tensor value, Tensor? edge, Tensor? att, Tensor rowptr, Tensor? col, Tensor? eid, "
        "Tensor? colptr, Tensor? row_t, Tensor? eid_t, int score, float slope, float scale, int[] key_blocks=[], "
        "int[] value_blocks=[]) -> (Tensor, Tensor)");
  m.def("attention_bwd(Tensor key, Tensor query, Tensor value, Tensor? edge, Tensor? att, Tensor out, Tensor lse, Tensor grad, "
        "Tensor rowptr, Tensor? col, Tensor? eid, Tensor colptr, Tensor row_t, Tensor? eid_t, int score, float slope, float scale, "
        "int[] key_blocks=[], int[] value_blocks=[]) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  // query [Nq, H, K], key [Nk, H, K], value [Nk, H, D], bias [pairs, H]; offset [S + 1], the first pair of every segment, goes with bias.
  m.def("segment_attention(Tensor query, Tensor key, Tensor value, Tensor? bias, Tensor qptr, Tensor kptr, Tensor? offset, float scale) "
        "-> (Tensor, Tensor)");
  m.def("segment_attention_bwd(Tensor query, Tensor key, Tensor value, Tensor? bias, Tensor out, Tensor lse, Tensor grad, Tensor qptr, "
        "Tensor kptr, Tensor? offset, float scale) -> (Tensor, Tensor, Tensor, Tensor)");

  // Blocks [E, p, q] at the edges, x [rows, q, f], or [f, rows, q] with the batch first; see block_spmm.h. pair: an involution of [0, E).
  m.def("block_spmm(Tensor x, Tensor blocks, Tensor? diag, Tensor rowptr, Tensor? col, Tensor? eid, Tensor? colptr, Tensor? row_t, "
        "Tensor? eid_t, float alpha, bool transpose, bool batch_first) -> Tensor");
  m.def("block_sddmm(Tensor lhs, Tensor rhs, Tensor rowptr, Tensor? col, Tensor? eid, Tensor? colptr, Tensor? row_t, Tensor? eid_t, "
        "int num_edges, float alpha, bool transpose, bool batch_first) -> Tensor");
  m.def("block_matmul(Tensor a, Tensor b, Tensor? pair, bool pair_a, bool pair_b, bool transpose_a, bool transpose_b) -> Tensor");
  // x [num_src, F], y [num_dst, F]; see difference.h.
  m.def("difference_rows(Tensor x, Tensor y, Tensor? weight, Tensor? h, Tensor rowptr, Tensor? col, Tensor? eid, Tensor? colptr, "
        "Tensor? row_t, Tensor? eid_t, float power, bool odd) -> Tensor");
  m.def("difference_edges(Tensor x, Tensor y, Tensor? hv, Tensor? hu, Tensor rowptr, Tensor? col, Tensor? eid, Tensor? colptr, "
        "Tensor? row_t, Tensor? eid_t, int num_edges, float power, bool odd) -> Tensor");
  m.def("poly_filter(Tensor x, Tensor? weight, Tensor rowptr, Tensor col, Tensor? eid, Tensor? colptr, Tensor? row_t, Tensor? eid_t, "
        "Tensor alpha, Tensor recur, Tensor? dot, Tensor? gate) -> (Tensor, Tensor)");
  m.def("poly_filter_bwd(Tensor grad, Tensor x, Tensor? weight, Tensor rowptr, Tensor col, Tensor? eid, Tensor colptr, Tensor row_t, "
        "Tensor? eid_t, Tensor alpha, Tensor recur, Tensor? gate, bool wants_weight) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  // type: relation of every edge in CSR order; colptr ... type_t: the reversed edges, read by the backward only.
  m.def("relational_spmm(Tensor x, Tensor? rel, Tensor? weight, Tensor? mask, Tensor rowptr, Tensor col, Tensor? eid, Tensor type, "
        "Tensor? colptr, Tensor? row_t, Tensor? eid_t, Tensor? type_t, int mul, int reduce, float fill) -> "
        "(Tensor, Tensor, Tensor)");
  // wanted: bit 0 the gradient of x, 1 of rel, 2 of weight; empty where not wanted.
  m.def("relational_spmm_bwd(Tensor grad, Tensor x, Tensor? rel, Tensor? weight, Tensor? mask, Tensor? out, Tensor? arg, Tensor? rest, "
        "Tensor rowptr, Tensor col, Tensor? eid, Tensor type, Tensor colptr, Tensor row_t, Tensor eid_t, Tensor type_t, int mul, int reduce, int wanted) "
        "-> (Tensor, Tensor, Tensor)");

  // *_t: the lists of the derivative by x (ptr_t null: the same with gather and scatter exchanged), read by the backward only.
  m.def("typed_matmul(Tensor x, Tensor weight, Tensor? bias, Tensor? scale, Tensor? scale_t, "
        "Tensor ptr, Tensor? types, Tensor? blocks, Tensor? block_rows, Tensor? gptr, Tensor? gather, Tensor? scatter, "
        "Tensor? ptr_t, Tensor? types_t, Tensor? blocks_t, Tensor? block_rows_t, Tensor? gptr_t, Tensor? gather_t, Tensor? scatter_t, int rows) -> Tensor");
  m.def("typed_matmul_wgrad(Tensor x, Tensor grad, Tensor? scale, Tensor? scale_t, "
        "Tensor ptr, Tensor? types, Tensor? blocks, Tensor? block_rows, Tensor? gptr, Tensor? gather, Tensor? scatter, "
        "Tensor? ptr_t, Tensor? types_t, Tensor? blocks_t, Tensor? block_rows_t, Tensor? gptr_t, Tensor? gather_t, Tensor? scatter_t, int num_types) -> Tensor");
  m.def("edge_matmul(Tensor x, Tensor h, Tensor weight, Tensor rowptr, Tensor col, Tensor? eid, Tensor? colptr, Tensor? row_t, "
        "Tensor? eid_t) -> Tensor");
  m.def("edge_matmul_hgrad(Tensor x, Tensor y, Tensor weight, Tensor rowptr, Tensor col, Tensor? eid, Tensor? colptr, Tensor? row_t, "
        "Tensor? eid_t) -> Tensor");
  m.def("edge_matmul_wgrad(Tensor x, Tensor h, Tensor y, Tensor rowptr, Tensor col, Tensor? eid, Tensor? colptr, Tensor? row_t, "
        "Tensor? eid_t) -> Tensor");

  // tree
  m.def("chart_logz(Tensor score, Tensor? sib, Tensor lengths, int kind) -> Tensor");
  m.def("chart_marginals(Tensor score, Tensor? sib, Tensor lengths, Tensor? weight, int kind) -> (Tensor, Tensor, Tensor)");
  m.def("chart_hvp(Tensor score, Tensor? sib, Tensor lengths, Tensor? weight, Tensor v, Tensor? v_sib, int kind) -> (Tensor, Tensor, Tensor)");
  m.def("chart_best(Tensor score, Tensor? sib, Tensor lengths, int kind, int k) -> (Tensor, Tensor)");
  m.def("chart_sample(Tensor score, Tensor? sib, Tensor lengths, Tensor uniform, int kind) -> Tensor");
  m.def("chart_max_marginals(Tensor score, Tensor? sib, Tensor lengths, int kind) -> Tensor");
  // Posteriors in the order of the scores; that of sib is empty where sib is absent.
  m.def("grand_logz(Tensor arc, Tensor grand, Tensor? sib, Tensor lengths, bool multiroot) -> Tensor");
  m.def("grand_marginals(Tensor arc, Tensor grand, Tensor? sib, Tensor lengths, Tensor? weight, bool multiroot) "
        "-> (Tensor, Tensor, Tensor, Tensor)");
  m.def("grand_hvp(Tensor arc, Tensor grand, Tensor? sib, Tensor lengths, Tensor? weight, Tensor v, Tensor v_grand, Tensor? v_sib, "
        "bool multiroot) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("grand_best(Tensor arc, Tensor grand, Tensor? sib, Tensor lengths, bool multiroot, int k) -> (Tensor, Tensor)");
  m.def("grand_sample(Tensor arc, Tensor grand, Tensor? sib, Tensor lengths, Tensor uniform, bool multiroot) -> Tensor");
  m.def("grand_max_marginals(Tensor arc, Tensor grand, Tensor? sib, Tensor lengths, bool multiroot) -> Tensor");
  // Expected counts of term, rule (of every sentence by itself) and root, and the posteriors of spans.
  m.def("pcfg_logz(Tensor term, Tensor rule, Tensor root, Tensor? span, Tensor lengths) -> Tensor");
  m.def("pcfg_marginals(Tensor term, Tensor rule, Tensor root, Tensor? span, Tensor lengths, Tensor? weight) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("pcfg_hvp(Tensor term, Tensor rule, Tensor root, Tensor? span, Tensor lengths, Tensor? weight, Tensor v_term, Tensor v_rule, "
        "Tensor v_root, Tensor? v_span) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("pcfg_max_marginals(Tensor term, Tensor rule, Tensor root, Tensor? span, Tensor lengths) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("pcfg_best(Tensor term, Tensor rule, Tensor root, Tensor? span, Tensor lengths, int k) -> (Tensor, Tensor)");
  m.def("pcfg_sample(Tensor term, Tensor rule, Tensor root, Tensor? span, Tensor lengths, Tensor uniform) -> Tensor");
  m.def("factored_logz(Tensor score, Tensor x, Tensor y, Tensor z, Tensor lengths, int kind) -> Tensor");
  m.def("factored_marginals(Tensor score, Tensor x, Tensor y, Tensor z, Tensor lengths, Tensor? weight, int kind) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("factored_hvp(Tensor score, Tensor x, Tensor y, Tensor z, Tensor lengths, Tensor? weight, Tensor v, Tensor v_x, Tensor v_y, "
        "Tensor v_z, int kind) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  // The kind of trans follows from its rank. The posteriors come in the order of the scores, empty where a score is absent.
  m.def("chain_logz(Tensor emit, Tensor? segment, Tensor? duration, Tensor? trans, Tensor? start, Tensor? end, Tensor lengths) -> Tensor");
  m.def("chain_marginals(Tensor emit, Tensor? segment, Tensor? duration, Tensor? trans, Tensor? start, Tensor? end, Tensor lengths, "
        "Tensor? weight) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("chain_hvp(Tensor emit, Tensor? segment, Tensor? duration, Tensor? trans, Tensor? start, Tensor? end, Tensor lengths, "
        "Tensor? weight, Tensor? v_emit, Tensor? v_segment, Tensor? v_duration, Tensor? v_trans, Tensor? v_start, Tensor? v_end) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("chain_best(Tensor emit, Tensor? segment, Tensor? duration, Tensor? trans, Tensor? start, Tensor? end, Tensor lengths, int k) "
        "-> (Tensor, Tensor)");
  m.def("chain_sample(Tensor emit, Tensor? segment, Tensor? duration, Tensor? trans, Tensor? start, Tensor? end, Tensor lengths, "
        "Tensor uniform) -> Tensor");
  m.def("chain_max_marginals(Tensor emit, Tensor? segment, Tensor? duration, Tensor? trans, Tensor? start, Tensor? end, "
        "Tensor lengths) -> Tensor");
  m.def("matrix_tree_logz(Tensor score, Tensor lengths, bool multiroot) -> Tensor");
  m.def("matrix_tree_marginals(Tensor score, Tensor lengths, Tensor? weight, bool multiroot) -> (Tensor, Tensor)");
  m.def("matrix_tree_hvp(Tensor score, Tensor lengths, Tensor? weight, Tensor v, bool multiroot) -> (Tensor, Tensor)");
  m.def("matrix_tree_sample(Tensor score, Tensor lengths, Tensor seed, bool multiroot) -> Tensor");
  m.def("arborescence(Tensor score, Tensor lengths, bool multiroot) -> (Tensor, Tensor)");
  m.def("arborescence_max_marginals(Tensor score, Tensor lengths, bool multiroot) -> Tensor");
  m.def("arborescence_kbest(Tensor score, Tensor lengths, bool multiroot, int k) -> (Tensor, Tensor)");
  m.def("tree_check(Tensor heads, Tensor lengths) -> Tensor");

  // rotations
  // tensor products, spherical harmonics
  m.def("spherical_harmonics(Tensor x, int lmax, int norm, bool normalize) -> Tensor");
  m.def("spherical_harmonics_bwd(Tensor x, Tensor g, int lmax, int norm, bool normalize) -> Tensor");
  m.def("spherical_harmonics_jet(Tensor x, int lmax, int norm, bool normalize, int order) -> (Tensor, Tensor, Tensor)");
  // colptr, row_t, eid_t: the reversed edges, read by the backward only. plan, cg, sizes: pyops/so2/_plan.py.
  m.def("tp_conv(Tensor x, Tensor y, Tensor? w, Tensor? rowptr, Tensor? col, Tensor? eid, Tensor? colptr, Tensor? row_t, Tensor? eid_t, "
        "Tensor plan, Tensor cg, int[] sizes, bool transpose) -> Tensor");
  m.def("tp_conv_edge(Tensor x, Tensor g, Tensor y, Tensor? w, Tensor? rowptr, Tensor? col, Tensor? eid, Tensor? colptr, Tensor? row_t, "
        "Tensor? eid_t, Tensor plan, Tensor cg, int[] sizes, bool want_y, bool want_w) -> (Tensor, Tensor)");
  // Operands [N or 1, D, C], or [N or 1, C, D]; lists, coef, sizes: pyops/so2/_bilinear.py.
  m.def("sparse_bilinear(Tensor a, Tensor b, Tensor lists, Tensor coef, int[] sizes, int role, bool components_last, bool total) -> Tensor");
  // The gradients in x, w and g of the contraction differentiated along `order` directions; empty where not wanted.
  m.def("symmetric_contraction(Tensor x, Tensor w, Tensor? g, Tensor? x1, Tensor? w1, Tensor? g1, Tensor? x2, Tensor? w2, Tensor? g2, "
        "Tensor ptr, Tensor nodes, Tensor lists, Tensor coef, int[] sizes, int order, bool components_last, "
        "bool want_x, bool want_w, bool want_g) -> (Tensor, Tensor, Tensor)");

  // frames, Wigner matrices, SO(2) convolutions
  // so3_turn and so3_torque act on features [E, S, C] where mmax < 0, on packed Wigner matrices [E, R] else.
  m.def("so2_wigner(Tensor vec, Tensor? gamma, int lmax, int mmax) -> Tensor");
  m.def("so2_rotate(Tensor x, Tensor wigner, int lmax, int mmax) -> Tensor");
  m.def("so2_rotate_back(Tensor z, Tensor wigner, int lmax, int mmax) -> Tensor");
  m.def("so2_rotate_outer(Tensor z, Tensor x, int lmax, int mmax) -> Tensor");
  m.def("so3_turn(Tensor x, Tensor v, int lmax, int mmax) -> Tensor");
  m.def("so3_torque(Tensor grad, Tensor x, int lmax, int mmax) -> Tensor");
  m.def("so2_conv(Tensor x, Tensor weight, Tensor? bias, int lmax, int mmax, int in_channels, int out_channels, int extra, "
        "bool transpose, bool three) -> Tensor");
  m.def("so2_conv_wgrad(Tensor x, Tensor grad, int lmax, int mmax, int in_channels, int out_channels, int extra) -> Tensor");
  // keep: also return the pre-activations and the second convolution's result of every edge, else empty tensors.
  m.def("edge_block(Tensor x, Tensor vec, Tensor? radial, Tensor? radial_weight, Tensor? radial_bias, Tensor? envelope, Tensor weight1, "
        "Tensor bias1, Tensor weight2, Tensor bias2, Tensor rowptr, Tensor col, Tensor? eid, int lmax, int mmax, int hidden, bool three, "
        "bool keep) -> (Tensor, Tensor, Tensor)");
  // wanted: bit 0 the gradients of x and vec, 1 radial, 2 envelope, 3 weights and biases. Gradients in the order of the arguments,
  // empty where not wanted.
  m.def("edge_block_bwd(Tensor grad, Tensor x, Tensor vec, Tensor? radial, Tensor? radial_weight, Tensor? radial_bias, Tensor? envelope, "
        "Tensor weight1, Tensor bias1, Tensor weight2, Tensor bias2, Tensor rowptr, Tensor col, Tensor? eid, Tensor? pre, Tensor? mid, "
        "int lmax, int mmax, int hidden, bool three, int wanted) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");

  // eigen-decompositions: eigenvalues [B, n], eigenvectors [B, n, n]
  m.def("eigh_small(Tensor a) -> (Tensor, Tensor)");
  m.def("eigh_small_bwd(Tensor w, Tensor v, Tensor? gw, Tensor? gv) -> Tensor");

  // bits
  // Codes are the enums of csrc/binary/*.h. What follows the integers of bits_gemm and bits_conv (epilogue): scale, bias, shift [N]
  // and prelu [3, N] (gamma, slope, zeta) float32, residual like the result, threshold [2, N] int32 (threshold, flip), out a BitsOut.
  // window: kh, kw, sh, sw, top, left, dh, dw, OH, OW.
  m.def("bits_pack(Tensor x, Tensor? shift, int test, float limit, bool invert) -> Tensor");
  m.def("bits_unpack(Tensor words, int K, int dtype, float zero, float one) -> Tensor");
  m.def("bits_count(Tensor a, Tensor? b, int op) -> Tensor");
  m.def("bits_panels(Tensor words) -> Tensor");
  m.def("bits_gemm(Tensor a, Tensor b, Tensor? panels, int K, int[] coef, int[] col, int row, int base, bool halve, Tensor? scale, "
        "Tensor? bias, Tensor? residual, Tensor? prelu, Tensor? shift, Tensor? threshold, int out) -> Tensor");
  m.def("bits_conv(Tensor x, Tensor w, Tensor? panels, Tensor? taps, int channels, int groups, int[] window, int pad, bool negate, "
        "Tensor? scale, Tensor? bias, Tensor? residual, Tensor? prelu, Tensor? shift, Tensor? threshold, int out) -> Tensor");
  m.def("bits_w1a8(Tensor x, Tensor w, Tensor? panels, int[] coef, int base) -> Tensor");
  m.def("bits_w1a16(Tensor x, Tensor w, Tensor? panels, float[] coef, float base) -> Tensor");
  // Bags of rows of a packed table; offsets [B + 1], reduce a BagReduce.
  m.def("bits_bag(Tensor table, Tensor index, Tensor offsets, int K, int zero, int one, int reduce) -> Tensor");
  // quantizers: forward and slope are the enums of binary/quantize.h. scaled and learned_step are read by the backward only.
  m.def("quantize(Tensor x, Tensor? shift, Tensor? gain, Tensor? scale, Tensor? extra, int channels, int inner, int forward, int slope, "
        "float zero, float t, float p, float q, int terms, int code_bits, bool save_sign, bool scaled, bool learned_step) -> (Tensor, Tensor)");
  m.def("quantize_bwd(Tensor grad, Tensor? x, Tensor? codes, Tensor? shift, Tensor? gain, Tensor? scale, Tensor? extra, int channels, int inner, "
        "int forward, int slope, float zero, float t, float p, float q, int terms, int code_bits, bool save_sign, bool scaled, "
        "bool learned_step, bool want_shift, bool want_scale, bool want_extra) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("channel_stats(Tensor x, Tensor? y, Tensor? shift, int channels, int inner) -> Tensor");
  // masks in bits, and fast feed-forward networks
  m.def("topk_mask(Tensor score, int keep, bool magnitude) -> Tensor");
  m.def("mask_apply(Tensor x, Tensor bits) -> Tensor");
  m.def("fff_descend(Tensor x, Tensor node_weight, Tensor? node_bias, int depth, bool strict) -> (Tensor, Tensor)");
  m.def("fff_leaf(Tensor x, Tensor rowptr, Tensor perm, Tensor w1, Tensor? b1, Tensor w2, Tensor? b2, int activation) -> Tensor");
  m.def("fff_leaf_bwd(Tensor grad, Tensor x, Tensor rowptr, Tensor perm, Tensor w1, Tensor? b1, Tensor w2, Tensor? b2, int activation) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}
