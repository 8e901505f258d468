#include "core/isa.h"

#ifdef STRUCTOPS_HAS_AVX2
#include <cpuid.h>
#endif

#include <atomic>
#include <cstdlib>
#include <initializer_list>
#include <cstring>

namespace structops {

static Isa detect() {
#ifdef STRUCTOPS_HAS_AVX2
  __builtin_cpu_init();
  unsigned a, b, c = 0, d;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);  // a name that clang's __builtin_cpu_supports lacks
  const bool avx2 = f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#ifdef STRUCTOPS_HAS_AVX512
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512cd");
  if (avx512) return Isa::avx512;
#endif
  if (avx2) return Isa::avx2;
#endif
  return Isa::baseline;
}

Isa detected_isa() {
  static const Isa isa = detect();
  return isa;
}

static bool parse(const char* name, Isa* out) {
  if (!std::strcmp(name, "auto")) { *out = detected_isa(); return true; }
  for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512})
    if (!std::strcmp(name, isa_name(isa)) && isa <= detected_isa()) { *out = isa; return true; }
  return false;
}

static std::atomic<Isa>& active() {
  static std::atomic<Isa> isa = [] {
    Isa chosen = detected_isa();
    if (const char* env = std::getenv("STRUCTOPS_ISA")) parse(env, &chosen);
    return chosen;
  }();
  return isa;
}

Isa active_isa() { return active().load(std::memory_order_relaxed); }

Isa bits_isa() {
  const Isa isa = active_isa();
#ifdef STRUCTOPS_HAS_AVX512
  static const bool counts = __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512vnni");
  if (isa == Isa::avx512 && !counts) return Isa::avx2;
#endif
  return isa;
}

bool set_isa(const char* name) {
  Isa isa;
  if (!parse(name, &isa)) return false;
  active().store(isa, std::memory_order_relaxed);
  return true;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx512: return "avx512";
    case Isa::avx2: return "avx2";
    default: return "baseline";
  }
}

}  // namespace structops
