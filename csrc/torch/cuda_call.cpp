#include <cstring>

#include "torch/common.h"

// Lives in libtorch_cuda. Weak, so that one library loads on CPU-only torch too.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** ret_stream);

namespace structops::torch_layer {

CudaCall::CudaCall(const Tensor& like) : like_(like) {
  if (kCudaOnHost) return;
  guard_.emplace(like.get_device_index());
  STRUCTOPS_CHECK(&aoti_torch_get_current_cuda_stream, "this torch has no CUDA");
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(like.get_device_index(), &stream_));
}

void* CudaCall::scratch(void* owner, size_t n) {
  CudaCall* const self = static_cast<CudaCall*>(owner);
  self->held_.push_back(new_empty(self->like_, {int64_t(n)}, ScalarType::Byte));
  void* const p = self->held_.back().mutable_data_ptr();
  if (kCudaOnHost) std::memset(p, 0xff, n);  // NaN to kernels that read what nothing wrote
  return p;
}

}  // namespace structops::torch_layer
