// CPU instruction sets. Every *_cpu.cpp is compiled once per set, inside namespace structops::STRUCTOPS_ISA;
// launchers pick the table entry once, at load.
#pragma once

namespace structops {

enum class Isa : int { baseline, avx2, avx512 };

Isa detected_isa();            // best set that this CPU and this build both have
Isa active_isa();              // detected_isa() unless overridden
bool set_isa(const char* name);  // "baseline" | "avx2" | "avx512" | "auto"; false if unknown or unavailable here
const char* isa_name(Isa isa);

}  // namespace structops

// Declares fn in every ISA namespace and defines structops::fn as the dispatching launcher.
#ifdef STRUCTOPS_X86
#define STRUCTOPS_DISPATCH(ret, fn, params, args)                 \
  namespace baseline { ret fn params; }                           \
  namespace avx2 { ret fn params; }                               \
  namespace avx512 { ret fn params; }                             \
  ret fn params {                                                 \
    switch (active_isa()) {                                       \
      case Isa::avx512: return avx512::fn args;                   \
      case Isa::avx2: return avx2::fn args;                       \
      default: return baseline::fn args;                          \
    }                                                             \
  }
#else
#define STRUCTOPS_DISPATCH(ret, fn, params, args)                 \
  namespace baseline { ret fn params; }                           \
  ret fn params { return baseline::fn args; }
#endif
