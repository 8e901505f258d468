// What every family's registration file needs: stable-ABI tensors to the plain arguments of csrc/core, and back.
// Checks here are the backstop for direct torch.ops callers; users get Python errors first (pyops/_check.py).
#pragma once
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <new>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "core/cuda/context.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "core/types.h"

namespace structops::torch_layer {

using torch::stable::Tensor;
using OptTensor = std::optional<Tensor>;
using ScalarType = torch::headeronly::ScalarType;

#define STRUCTOPS_CHECK(cond, ...) STD_TORCH_CHECK(cond, "structops: ", __VA_ARGS__)

inline Dtype dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return Dtype::f32;
    case ScalarType::Double: return Dtype::f64;
    case ScalarType::BFloat16: return Dtype::bf16;
    case ScalarType::Half: return Dtype::f16;
    case ScalarType::Int: return Dtype::i32;
    case ScalarType::Long: return Dtype::i64;
    default: STRUCTOPS_CHECK(false, "unsupported dtype"); return Dtype::f32;
  }
}

// What sums over values of this dtype are kept in.
inline ScalarType accumulator(const Tensor& t) { return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float; }

inline Index index_of(const Tensor& t) {
  const ScalarType s = t.scalar_type();
  STRUCTOPS_CHECK(s == ScalarType::Int || s == ScalarType::Long, "indices must be int32 or int64");
  STRUCTOPS_CHECK(t.is_contiguous(), "indices must be contiguous");
  return {t.const_data_ptr(), s == ScalarType::Long};
}
inline Index index_of(const OptTensor& t) { return t ? index_of(*t) : Index{}; }

inline Tensor new_empty(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType dtype) {
  std::vector<int64_t> strides(sizes.size());
  int64_t step = 1;
  for (size_t i = sizes.size(); i-- > 0; step *= sizes[i] > 0 ? sizes[i] : 1) strides[i] = step;
  int32_t device_type;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  const int32_t code = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  AtenTensorHandle handle;
  const AOTITorchError failed = aoti_torch_empty_strided(int64_t(sizes.size()), sizes.data(), strides.data(), code, device_type,
                                                         like.get_device_index(), &handle);
  if (failed) {
    std::string text;
    for (const int64_t n : sizes) text += (text.empty() ? "[" : ", ") + std::to_string(n);
    STRUCTOPS_CHECK(false, "cannot allocate a result of shape ", text, "]");
  }
  Tensor t(handle);
  if (t.is_cpu()) advise_huge(t.data_ptr(), size_t(t.numel()) * t.element_size());
  return t;
}

// A dense operand seen as [B, rows, F]; rank 1 is [rows] with F = 1, rank 2 has B = 1.
struct Operand {
  const void* data = nullptr;
  int64_t rank = 0, B = 1, rows = 0, F = 1;
  int64_t batch_stride() const { return B == 1 ? 0 : rows * F; }
};

inline Operand operand(const Tensor& t) {
  Operand o;
  o.rank = t.dim();
  STRUCTOPS_CHECK(o.rank >= 1 && o.rank <= 3, "operands have 1 to 3 dimensions, got ", o.rank);
  STRUCTOPS_CHECK(t.is_contiguous(), "operands must be contiguous");
  o.data = t.const_data_ptr();
  if (o.rank == 3) o.B = t.size(0);
  o.rows = t.size(o.rank == 3 ? 1 : 0);
  if (o.rank > 1) o.F = t.size(o.rank - 1);
  return o;
}
inline Operand operand(const OptTensor& t) { return t ? operand(*t) : Operand{}; }

inline std::vector<int64_t> shape(int64_t rank, int64_t B, int64_t rows, int64_t F) {
  if (rank == 3) return {B, rows, F};
  if (rank == 2) return {rows, F};
  STRUCTOPS_CHECK(F == 1, "a vector has one feature, got ", F);
  return {rows};
}

inline ParallelFor torch_for() {
  uint32_t threads = 1;
  torch_get_num_threads(&threads);
  return {[](int64_t begin, int64_t end, int64_t grain, ParallelFor::Body body, void* ctx) {
            torch_parallel_for(begin, end, grain, body, ctx);
          },
          int(threads)};
}

// Makes a tensor's device current, and holds its current stream and scratch memory from torch's caching allocator.
class CudaCall {
 public:
  explicit CudaCall(const Tensor& like);
  CudaContext context() { return {stream_, &CudaCall::scratch, this}; }

 private:
  static void* scratch(void* owner, size_t n);
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
  const Tensor& like_;
  std::vector<Tensor> held_;
  void* stream_ = nullptr;
};

#ifdef STRUCTOPS_CUDA_ON_HOST
constexpr bool kCudaOnHost = true;  // the CUDA launchers get the CPU's tensors: tests/host_cuda
#else
constexpr bool kCudaOnHost = false;
#endif

template <class Args, class CpuFn> void launch_cpu(const Args& args, CpuFn cpu_fn) {
  try {
    cpu_fn(args, torch_for());
  } catch (const std::bad_alloc&) {
    STRUCTOPS_CHECK(false, "not enough memory for scratch");
  }
}

// Runs the CPU or the CUDA launcher of an operator.
template <bool cuda, class CpuFn, class CudaFn, class Args>
void launch(const Tensor& like, const Args& args, CpuFn cpu_fn, CudaFn cuda_fn) {
  if constexpr (cuda || kCudaOnHost) {
    CudaCall call(like);
    cuda_fn(args, call.context());
  } else {
    launch_cpu(args, cpu_fn);
  }
}

}  // namespace structops::torch_layer
