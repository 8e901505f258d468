// What a CUDA launcher needs from its caller. Host-only header, compiles without the CUDA toolkit.
#pragma once
#include <cstddef>

namespace structops {

struct CudaContext {
  void* stream;                             // cudaStream_t
  void* (*scratch)(void* owner, size_t n);  // n bytes of device memory that live until the launcher's caller returns
  void* owner;
};

}  // namespace structops
