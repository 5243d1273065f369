// Run-time choice of the instruction set: the loader binds a function marked PCONV_MULTIVERSION to the copy for this
// processor.
#pragma once

#include <cstddef>  // defines __GLIBC__, whose loader resolves the copies

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(PCONV_ONE_ISA)
#if __GNUC__ >= 12
#define PCONV_AVX512 "arch=x86-64-v4"  // with instructions on 16-bit values
#else
#define PCONV_AVX512 "avx512f"  // older compilers and clang, which passes for one, know no more of it here
#endif
#define PCONV_MULTIVERSION __attribute__((target_clones(PCONV_AVX512, "avx2", "default")))
#else
#define PCONV_MULTIVERSION
#endif
