// The CUDA launchers of the binary family: same arguments and semantics as the CPU launchers, every pointer in device memory.
#pragma once
#include "binary/bag.h"
#include "binary/mixed.h"
#include "core/cuda/context.h"

namespace structops::cuda {

void bits_pack(const BitsPackArgs& a, const CudaContext& ctx);
void bits_unpack(const BitsUnpackArgs& a, const CudaContext& ctx);
void bits_count(const BitsCountArgs& a, const CudaContext& ctx);
void bits_panels(const BitsPanelsArgs& a, const CudaContext& ctx);
void bits_gemm(const BitsGemmArgs& a, const CudaContext& ctx);
void bits_w1a8(const BitsMixedArgs& a, const CudaContext& ctx);
void bits_w1a16(const BitsMixedArgs& a, const CudaContext& ctx);
void bits_bag(const BitsBagArgs& a, const CudaContext& ctx);

}  // namespace structops::cuda
