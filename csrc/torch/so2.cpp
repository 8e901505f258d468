// Registration of spherical harmonics and tensor products: check, allocate, launch. One body serves both devices.
#include "so2/cuda.h"
#include "torch/common.h"
