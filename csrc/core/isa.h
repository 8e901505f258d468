// CPU instruction sets. Every *_cpu.cpp is compiled once per set, inside namespace structops::STRUCTOPS_ISA;
// launchers pick the table entry once, at load.
#pragma once

namespace structops {

enum class Isa : int { baseline, avx2, avx512 };

Isa detected_isa();            // best set that this CPU and this build both have
Isa active_isa();              // detected_isa() unless overridden
bool set_isa(const char* name);  // "baseline" | "avx2" | "avx512" | "auto"; false if unknown or unavailable here
const char* isa_name(Isa isa);

// The copy that kernels on bits run: csrc/binary's avx512 copy also uses VPOPCNTDQ and VNNI, and a CPU without them takes avx2.
Isa bits_isa();

}  // namespace structops

// Declares fn in every compiled ISA namespace and defines structops::fn as the dispatching launcher.
#ifdef STRUCTOPS_HAS_AVX2
#define STRUCTOPS_AVX2(decl) namespace avx2 { decl; }
#define STRUCTOPS_CASE_AVX2(call) case Isa::avx2: return avx2::call;
#else
#define STRUCTOPS_AVX2(decl)
#define STRUCTOPS_CASE_AVX2(call)
#endif
#ifdef STRUCTOPS_HAS_AVX512
#define STRUCTOPS_AVX512(decl) namespace avx512 { decl; }
#define STRUCTOPS_CASE_AVX512(call) case Isa::avx512: return avx512::call;
#else
#define STRUCTOPS_AVX512(decl)
#define STRUCTOPS_CASE_AVX512(call)
#endif
#define STRUCTOPS_DISPATCH(ret, fn, params, args) STRUCTOPS_DISPATCH_ON(active_isa(), ret, fn, params, args)
#define STRUCTOPS_DISPATCH_ON(isa, ret, fn, params, args) \
  namespace baseline { ret fn params; }           \
  STRUCTOPS_AVX2(ret fn params)                   \
  STRUCTOPS_AVX512(ret fn params)                 \
  ret fn params {                                 \
    switch (isa) {                                \
      STRUCTOPS_CASE_AVX512(fn args)              \
      STRUCTOPS_CASE_AVX2(fn args)                \
      default: return baseline::fn args;          \
    }                                             \
  }
