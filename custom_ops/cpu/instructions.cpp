#include "cpu/instructions.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "cpu/integer_kernels.h"

namespace pconv::cpu {
namespace {

bool supported(Instructions set) {
  switch (set) {
#ifdef PCONV_X86_KERNELS
    case Instructions::kAvx512Vnni:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    case Instructions::kAvxVnni:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("avxvnni");
    case Instructions::kAvx2:
      return __builtin_cpu_supports("avx2");
#endif
    default:
      return set == Instructions::kPortable;
  }
}

struct Name {
  Instructions set;
  const char* text;
};

// From the best on.
constexpr Name kNames[] = {
    {Instructions::kAvx512Vnni, "avx512vnni"},
    {Instructions::kAvxVnni, "avxvnni"},
    {Instructions::kAvx2, "avx2"},
    {Instructions::kPortable, "portable"},
};

}  // namespace

Instructions instructions() {
  const char* const asked = std::getenv("PCONV_INSTRUCTIONS");
  for (const Name& name : kNames) {
    if (asked == nullptr || *asked == '\0') {
      if (supported(name.set)) return name.set;
    } else if (std::string(asked) == name.text) {
      if (supported(name.set)) return name.set;
      throw std::invalid_argument("PCONV_INSTRUCTIONS is '" + std::string(asked) +
                                  "', which this processor or build lacks; unset it");
    }
  }
  throw std::invalid_argument("PCONV_INSTRUCTIONS is '" + std::string(asked) +
                              "'; expected avx512vnni, avxvnni, avx2 or portable");
}

}  // namespace pconv::cpu
