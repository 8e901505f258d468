// Registration of attention over edges: check, allocate, launch. One body serves both devices.
#include "sparse/cuda.h"
#include "torch/common.h"

namespace structops::torch_layer {
namespace {

struct Heads { int64_t rows, H, width; };

Heads heads(const char* name, const Tensor& t, const Tensor& like) {
  STRUCTOPS_CHECK(t.dim() == 3 && t.is_contiguous() && t.scalar_type() == like.scalar_type(), "attention: ", name,
                  " must be contiguous, [rows, H, width] and of the dtype of key");
  return {t.size(0), t.size(1), t.size(2)};
}

using Blocks = std::vector<int64_t>;

// Pairs of width and repeat; empty: one block.
HeadBlocks head_blocks(const char* name, const Blocks& pairs, int64_t H, int64_t width) {
  const int64_t count = int64_t(pairs.size()) / 2;
  STRUCTOPS_CHECK(pairs.size() % 2 == 0 && count <= kHeadBlocks && H * width < (int64_t(1) << 31), "attention: at most ", kHeadBlocks,
                  " runs of blocks of ", name);
  if (count == 0) return one_block(width);
  HeadBlocks b{};
  int64_t total = 0;
  for (; b.count < count; ++b.count) {
    const int64_t w = pairs[2 * b.count], r = pairs[2 * b.count + 1];
    STRUCTOPS_CHECK(w >= 0 && r >= 0 && w <= width && r <= width, "attention: blocks of ", name);
    b.width[b.count] = int32_t(w);
    b.repeat[b.count] = int32_t(r);
    total += w * r;
  }
  STRUCTOPS_CHECK(total == width, "attention: blocks of ", name, " must have ", width, " features a head");
  return b;
}

AttentionArgs arguments(const Tensor& key, const Tensor& query, const Tensor& value, const OptTensor& edge, const OptTensor& att,
                        const Tensor& rowptr, const OptTensor& col, const OptTensor& eid, int64_t score, double slope, double scale,
                        const Blocks& key_blocks, const Blocks& value_blocks) {
  AttentionArgs a{};
  STRUCTOPS_CHECK(score >= 0 && score <= 2, "attention: unknown score");
  a.score = Score(score);
  a.dtype = dtype_of(key);
  STRUCTOPS_CHECK(is_floating(a.dtype), "attention: floating dtypes only");
  const Heads k = heads("key", key, key), q = heads("query", query, key), v = heads("value", value, key);
  STRUCTOPS_CHECK(rowptr.dim() == 1 && rowptr.size(0) >= 1 && col, "attention: rowptr must be [N + 1], col [E]");
  a.N = rowptr.size(0) - 1; a.M = k.rows; a.E = col->size(0);
  a.H = k.H; a.K = k.width; a.D = v.width;
  STRUCTOPS_CHECK(q.rows == a.N && q.H == a.H && q.width == a.K && v.rows == a.M && v.H == a.H, "attention: shapes do not match");
  STRUCTOPS_CHECK(a.score != Score::additive || a.K == 1, "attention: additive scores have one number a head");
  STRUCTOPS_CHECK(a.score == Score::dot || key_blocks.empty(), "attention: blocks of keys go with dot scores");
  STRUCTOPS_CHECK(a.score != Score::gatv2 || value_blocks.empty(), "attention: gatv2 scores take values of one block");
  a.key_blocks = head_blocks("key", key_blocks, a.H, a.K);
  a.value_blocks = head_blocks("value", value_blocks, a.H, a.D);
  STRUCTOPS_CHECK((a.score == Score::gatv2) == att.has_value(), "attention: att goes with gatv2 scores");
  if (att) {
    STRUCTOPS_CHECK(att->dim() == 2 && att->size(0) == a.H && att->size(1) == a.K && att->is_contiguous() &&
                        att->scalar_type() == key.scalar_type(), "attention: att must be [H, K]");
    a.att = att->const_data_ptr();
  }
  if (edge) {
    STRUCTOPS_CHECK(edge->numel() == a.E * a.H * (a.score == Score::gatv2 ? a.K : 1) && edge->is_contiguous() &&
                        edge->scalar_type() == key.scalar_type(), "attention: edge must be [E, H], or [E, H, K] for gatv2");
    a.edge = edge->const_data_ptr();
  }
  a.rowptr = index_of(rowptr); a.col = index_of(col); a.eid = index_of(eid);
  STRUCTOPS_CHECK(a.col.wide == a.rowptr.wide && (!a.eid || a.eid.wide == a.rowptr.wide), "attention: mixed index dtypes");
  STRUCTOPS_CHECK(!eid || eid->size(0) == a.E, "attention: eid must be [E]");
  if (rowptr.is_cpu())
    STRUCTOPS_CHECK(a.rowptr[0] == 0 && a.rowptr[a.N] == a.E, "attention: rowptr must run from 0 to ", a.E);
  a.slope = slope;
  a.scale = scale;
  a.key = key.const_data_ptr(); a.query = query.const_data_ptr(); a.value = value.const_data_ptr();
  return a;
}


template <bool cuda>
std::tuple<Tensor, Tensor> attention(Tensor key, Tensor query, Tensor value, OptTensor edge, OptTensor att, Tensor rowptr,
                                     OptTensor col, OptTensor eid, OptTensor, OptTensor, OptTensor, int64_t score, double slope,
                                     double scale, Blocks key_blocks, Blocks value_blocks) {
  AttentionArgs a = arguments(key, query, value, edge, att, rowptr, col, eid, score, slope, scale, key_blocks, value_blocks);
  Tensor out = new_empty(key, {a.N, a.H, a.D}, key.scalar_type());
  Tensor lse = new_empty(key, {a.N, a.H}, accumulator(key));
  a.out = out.mutable_data_ptr();
  a.lse = lse.mutable_data_ptr();
  launch<cuda>(key, a, [](auto& s, auto pf) { attention_fwd(s, pf); }, [](auto& s, auto ctx) { cuda::attention_fwd(s, ctx); });
  return {out, lse};
}

template <bool cuda>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> attention_bwd(
    Tensor key, Tensor query, Tensor value, OptTensor edge, OptTensor att, Tensor out, Tensor lse, Tensor grad, Tensor rowptr,
    OptTensor col, OptTensor eid, Tensor colptr, Tensor row_t, OptTensor eid_t, int64_t score, double slope, double scale, Blocks key_blocks,
    Blocks value_blocks) {
  AttentionArgs a = arguments(key, query, value, edge, att, rowptr, col, eid, score, slope, scale, key_blocks, value_blocks);
  const Heads o = heads("out", out, key), g = heads("grad", grad, key);
  STRUCTOPS_CHECK(o.rows == a.N && o.H == a.H && o.width == a.D && g.rows == a.N && g.H == a.H && g.width == a.D,
                  "attention_bwd: out and grad must be [N, H, D]");
  STRUCTOPS_CHECK(lse.numel() == a.N * a.H && lse.scalar_type() == accumulator(key) && lse.is_contiguous(),
                  "attention_bwd: lse must be [N, H] in the accumulator's dtype");
  a.colptr = index_of(colptr); a.row_t = index_of(row_t); a.eid_t = index_of(eid_t);
  STRUCTOPS_CHECK(colptr.size(0) == a.M + 1 && row_t.size(0) == a.E && (!eid_t || eid_t->size(0) == a.E), "attention_bwd: reversed edges");
  STRUCTOPS_CHECK(a.colptr.wide == a.rowptr.wide && a.row_t.wide == a.rowptr.wide && (!a.eid_t || a.eid_t.wide == a.rowptr.wide),
                  "attention_bwd: mixed index dtypes");
  if (colptr.is_cpu())
    STRUCTOPS_CHECK(a.colptr[0] == 0 && a.colptr[a.M] == a.E, "attention_bwd: colptr must run from 0 to ", a.E);
  a.lse = const_cast<void*>(lse.const_data_ptr());
  a.forward_out = out.const_data_ptr();
  a.grad = grad.const_data_ptr();
  const ScalarType type = key.scalar_type();
  Tensor delta = new_empty(key, {a.N, a.H}, accumulator(key));
  Tensor d_key = new_empty(key, {a.M, a.H, a.K}, type), d_query = new_empty(key, {a.N, a.H, a.K}, type);
  Tensor d_value = new_empty(key, {a.M, a.H, a.D}, type);
  const std::vector<int64_t> none{0};
  Tensor d_edge = new_empty(key, !edge ? none : a.score == Score::gatv2 ? std::vector<int64_t>{a.E, a.H, a.K} : std::vector<int64_t>{a.E, a.H}, type);
  Tensor d_att = new_empty(key, att ? std::vector<int64_t>{a.H, a.K} : none, type);
  a.delta = delta.mutable_data_ptr();
  a.d_key = d_key.mutable_data_ptr(); a.d_query = d_query.mutable_data_ptr(); a.d_value = d_value.mutable_data_ptr();
  a.d_edge = edge ? d_edge.mutable_data_ptr() : nullptr;
  a.d_att = att ? d_att.mutable_data_ptr() : nullptr;
  launch<cuda>(key, a, [](auto& s, auto pf) { attention_bwd(s, pf); }, [](auto& s, auto ctx) { cuda::attention_bwd(s, ctx); });
  return {d_key, d_query, d_value, d_edge, d_att};
}

template <bool cuda> void implement(torch::stable::detail::StableLibrary& m) {
  m.impl("attention", TORCH_BOX(&attention<cuda>));
  m.impl("attention_bwd", TORCH_BOX(&attention_bwd<cuda>));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { implement<false>(m); }
STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { implement<true>(m); }

}  // namespace structops::torch_layer
