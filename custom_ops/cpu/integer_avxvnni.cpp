#include "cpu/integer_kernels.h"

#ifdef PCONV_X86_KERNELS

namespace pconv::cpu {

const Kernels& avxvnni_kernels() { return portable_kernels(); }

}  // namespace pconv::cpu

#endif
