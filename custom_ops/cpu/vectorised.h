// Loops that are compiled for several instruction sets. Which one runs is asked of the processor, on every system: what
// compilers and loaders offer for it needs glibc, or a runtime that knows processors.
#pragma once

#include "cpu/instructions.h"

namespace pconv::cpu {

#ifdef PCONV_X86

// Loops by value: references within them stay in registers then.
template <class Loops>
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))) void with_avx512(Loops loops) {
  loops();
}

template <class Loops>
__attribute__((target("avx2"))) void with_avx2(Loops loops) {
  loops();
}

#endif

/// Runs a lambda, marked PCONV_INLINE_LAMBDA, in the copy for the instructions of loops.
template <class Loops>
void vectorised(Loops loops) {
#ifdef PCONV_X86
  switch (instructions_of_loops()) {
    case Instructions::kAvx512Vnni:
    case Instructions::kAvx512:
      return with_avx512(loops);
    case Instructions::kAvxVnni:
    case Instructions::kAvx2:
      return with_avx2(loops);
    default:
      break;
  }
#endif
  loops();
}

}  // namespace pconv::cpu
