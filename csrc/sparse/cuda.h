// The CUDA launchers of the sparse family: same arguments and semantics as the CPU launchers of the headers named below,
// every pointer in device memory. They enqueue on ctx.stream and throw std::runtime_error on a CUDA error.
// index_range and the bounds check of csr_build and scatter synchronise the stream once.
#pragma once
#include "core/cuda/context.h"
#include "sparse/attention.h"
#include "sparse/csr.h"
#include "sparse/edge_act.h"
#include "sparse/block_spmm.h"
#include "sparse/difference.h"
#include "sparse/multi_reduce.h"
#include "sparse/rspmm.h"
#include "sparse/scatter.h"
#include "sparse/sddmm.h"
#include "sparse/segment_attention.h"
#include "sparse/segment_order.h"
#include "sparse/select.h"
#include "sparse/softmax.h"
#include "sparse/spmm.h"

namespace structops::cuda {

bool compiled();  // false in the stub that stands in where nvcc is absent; its launchers throw

void attention_fwd(const AttentionArgs& a, const CudaContext& ctx);
void attention_bwd(const AttentionArgs& a, const CudaContext& ctx);
void edge_act_fwd(const EdgeActArgs& a, const CudaContext& ctx);
void edge_act_bwd(const EdgeActArgs& a, const CudaContext& ctx);
void multi_reduce_fwd(const MultiReduceArgs& a, const CudaContext& ctx);
void multi_reduce_bwd(const MultiReduceArgs& a, const CudaContext& ctx);
void spmm_fwd(const SpmmArgs& a, const CudaContext& ctx);
void sddmm_fwd(const SddmmArgs& a, const CudaContext& ctx);
void softmax_fwd(const SoftmaxArgs& a, const CudaContext& ctx);
void softmax_bwd(const SoftmaxArgs& a, const CudaContext& ctx);
void rspmm_fwd(const RspmmArgs& a, const CudaContext& ctx);
void rspmm_bwd(const RspmmArgs& a, const CudaContext& ctx);
bool scatter_fwd(const ScatterArgs& a, const CudaContext& ctx);
void select_fwd(const SelectArgs& a, const CudaContext& ctx);
void select_bwd(const SelectArgs& a, const CudaContext& ctx);
void segment_attention_fwd(const SegmentAttentionArgs& a, const CudaContext& ctx);
void segment_attention_bwd(const SegmentAttentionArgs& a, const CudaContext& ctx);
void segment_order_fwd(const SegmentOrderArgs& a, const CudaContext& ctx);
bool csr_build(const CsrArgs& a, const CudaContext& ctx);
Range index_range(const Index& index, int64_t n, bool* sorted, const CudaContext& ctx);

void block_spmm_fwd(const BlockSpmmArgs& a, const CudaContext& ctx);
void block_sddmm_fwd(const BlockSddmmArgs& a, const CudaContext& ctx);
void block_matmul_fwd(const BlockMatmulArgs& a, const CudaContext& ctx);
void difference_rows_fwd(const DifferenceArgs& a, const CudaContext& ctx);
void difference_edges_fwd(const DifferenceArgs& a, const CudaContext& ctx);

}  // namespace structops::cuda
