// The CUDA launchers of the so2 family: same arguments and semantics as the CPU launchers, every pointer in device memory.
// They enqueue on ctx.stream, never synchronise, and throw std::runtime_error on a CUDA error.
#pragma once
#include "core/cuda/context.h"

namespace structops::cuda {

// tensor products, spherical harmonics

// frames, Wigner matrices, SO(2) convolutions

}  // namespace structops::cuda
