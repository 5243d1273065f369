// Which instruction set the kernels of the CPU use: the best that the processor has, or the one that the environment
// variable PCONV_INSTRUCTIONS names.
#pragma once

// gcc for Windows puts vectors of 32 bytes where only 16 are aligned (gcc's bug 54412).
#if defined(__x86_64__) && defined(__GNUC__) && !defined(PCONV_ONE_ISA) && (defined(__clang__) || !defined(_WIN32))
#define PCONV_X86 1
#endif

namespace pconv::cpu {

/// From plain C++ to what is best. Layers of integers have nothing of their own for AVX-512 without VNNI, and loops
/// nothing for VNNI: each takes what is next.
enum class Instructions { kPortable, kAvx2, kAvx512, kAvxVnni, kAvx512Vnni };

/// Refuses a name that there is not, and instructions that the processor lacks.
Instructions instructions();

/// The same for loops, which ask for each chunk: as they were when the first of them ran.
Instructions instructions_of_loops();

}  // namespace pconv::cpu
