// Which instruction set the kernels of integer layers use: the best that the processor has, or the one that the
// environment variable PCONV_INSTRUCTIONS names.
#pragma once

namespace pconv::cpu {

enum class Instructions { kPortable, kAvx2, kAvxVnni, kAvx512Vnni };

/// Refuses a name that there is not, and instructions that the processor lacks.
Instructions instructions();

}  // namespace pconv::cpu
