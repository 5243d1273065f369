// Marks for functions and loops that several compilers compile for several processors.
#pragma once

#ifdef __CUDACC__
#define PCONV_HD __host__ __device__
#else
#define PCONV_HD
#endif

// Arrays whose every index is a constant stay in registers of a GPU; elsewhere the compiler decides.
#ifdef __CUDA_ARCH__
#define PCONV_UNROLL _Pragma("unroll")
#else
#define PCONV_UNROLL
#endif

// Before a loop of few rounds, a constant number, whose arrays are to stay in registers.
#if defined(__clang__)
#define PCONV_UNROLLED _Pragma("unroll")
#elif defined(__GNUC__)
#define PCONV_UNROLLED _Pragma("GCC unroll 32")
#else
#define PCONV_UNROLLED
#endif

// Before a loop whose rounds touch no memory of one another's: an output may be an input, element for element, which a
// compiler by itself would have to rule out before it vectorises.
#if defined(__clang__)
#define PCONV_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define PCONV_INDEPENDENT _Pragma("GCC ivdep")
#elif defined(_MSC_VER)
#define PCONV_INDEPENDENT __pragma(loop(ivdep))
#else
#define PCONV_INDEPENDENT
#endif

// Loops over neurons are compiled once per instruction set; a helper that were not inlined would stay at the baseline
// set.
#if defined(__GNUC__)
#define PCONV_INLINE inline __attribute__((always_inline))
#elif defined(_MSC_VER)
#define PCONV_INLINE __forceinline
#else
#define PCONV_INLINE inline
#endif

// The same for lambdas.
#if defined(__GNUC__)
#define PCONV_INLINE_LAMBDA __attribute__((always_inline))
#else
#define PCONV_INLINE_LAMBDA
#endif
