// The CPU launchers of the binary family: each picks the copy of the instruction set that bits_isa() names.
#include "binary/bag.h"
#include "binary/mixed.h"
#include "core/isa.h"

namespace structops {

STRUCTOPS_DISPATCH_ON(bits_isa(), void, bits_pack, (const BitsPackArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH_ON(bits_isa(), void, bits_unpack, (const BitsUnpackArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH_ON(bits_isa(), void, bits_count, (const BitsCountArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH_ON(bits_isa(), void, bits_panels, (const BitsPanelsArgs& a, const ParallelFor& pf), (a, pf))

STRUCTOPS_DISPATCH_ON(bits_isa(), void, bits_gemm, (const BitsGemmArgs& a, const ParallelFor& pf), (a, pf))

STRUCTOPS_DISPATCH_ON(bits_isa(), void, bits_w1a8, (const BitsMixedArgs& a, const ParallelFor& pf), (a, pf))
STRUCTOPS_DISPATCH_ON(bits_isa(), void, bits_w1a16, (const BitsMixedArgs& a, const ParallelFor& pf), (a, pf))

STRUCTOPS_DISPATCH_ON(bits_isa(), void, bits_bag, (const BitsBagArgs& a, const ParallelFor& pf), (a, pf))

}  // namespace structops
