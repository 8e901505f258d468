// The CPU launchers: each picks the instruction set's own copy of the kernel.
#include "core/isa.h"

namespace structops {

// tensor products, spherical harmonics

// frames, Wigner matrices, SO(2) convolutions

}  // namespace structops
