#include "cpu/instructions.h"

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

#ifdef PCONV_X86
#include <cpuid.h>
#endif

namespace pconv::cpu {
namespace {

#ifdef PCONV_X86

/// What the processor has, and the system saves when it switches between threads. Asked here: zig's
/// runtime answers `__builtin_cpu_supports` with no whatever is there. Bits as in Intel's Software Developer's Manual,
/// volume 2A, CPUID, and volume 1, 13.3.
struct Processor {
  bool avx2 = false, avx512 = false, avx_vnni = false, avx512_vnni = false;

  Processor() {
    const auto has = [](uint32_t word, int bit) { return (word >> bit & 1) != 0; };
    if (!has(leaf(1, 0).c, 27)) return;  // OSXSAVE: `states` may be asked
    const uint64_t saved = states();
    const Registers features = leaf(7, 0);
    const bool ymm = (saved & 0x06) == 0x06, zmm = (saved & 0xe6) == 0xe6;
    avx2 = ymm && has(features.b, 5);
    avx_vnni = avx2 && has(leaf(7, 1).a, 4);
    // F, DQ, BW and VL.
    avx512 = avx2 && zmm && has(features.b, 16) && has(features.b, 17) && has(features.b, 30) && has(features.b, 31);
    avx512_vnni = avx512 && has(features.c, 11);
  }

 private:
  struct Registers {
    uint32_t a = 0, b = 0, c = 0, d = 0;
  };

  /// All zero where there is no such leaf.
  static Registers leaf(uint32_t number, uint32_t part) {
    Registers found;
    return __get_cpuid_count(number, part, &found.a, &found.b, &found.c, &found.d) != 0 ? found : Registers{};
  }

  static uint64_t states() {
    uint32_t low = 0, high = 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t{high} << 32 | low;
  }
};

#endif

bool supported(Instructions set) {
#ifdef PCONV_X86
  static const Processor processor;
  switch (set) {
    case Instructions::kAvx512Vnni:
      return processor.avx512_vnni;
    case Instructions::kAvxVnni:
      return processor.avx_vnni;
    case Instructions::kAvx512:
      return processor.avx512;
    case Instructions::kAvx2:
      return processor.avx2;
    default:
      break;
  }
#endif
  return set == Instructions::kPortable;
}

struct Name {
  Instructions set;
  const char* text;
};

// From the best on.
constexpr Name kNames[] = {
    {Instructions::kAvx512Vnni, "avx512vnni"},
    {Instructions::kAvxVnni, "avxvnni"},
    {Instructions::kAvx512, "avx512"},
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
                              "'; expected avx512vnni, avxvnni, avx512, avx2 or portable");
}

Instructions instructions_of_loops() {
  static const Instructions chosen = instructions();
  return chosen;
}

}  // namespace pconv::cpu
