// Stands in for the CUDA launchers in builds without nvcc.
#include <stdexcept>

#include "so2/cuda.h"

namespace structops::cuda {
namespace {

[[noreturn, maybe_unused]] void missing() {
  throw std::runtime_error("structops was built without CUDA: rebuild with nvcc on the PATH (STRUCTOPS_CUDA=ON)");
}

}  // namespace

// tensor products, spherical harmonics

// frames, Wigner matrices, SO(2) convolutions

}  // namespace structops::cuda
