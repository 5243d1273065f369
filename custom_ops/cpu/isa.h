// Run-time choice of the instruction set: the loader binds a function marked PCONV_MULTIVERSION to the copy for this
// processor.
#pragma once

#include <cstddef>  // defines __GLIBC__, whose loader resolves the copies

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(PCONV_ONE_ISA)
#define PCONV_MULTIVERSION __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define PCONV_MULTIVERSION
#endif
