// Kernels of integer layers for AVX2 with VNNI.
#include "cpu/integer_kernels.h"

#ifdef PCONV_X86

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "pconv/portable.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,avxvnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,avxvnni")
#endif

#include "cpu/integer_blocking.h"
#include "cpu/integer_ymm.h"

namespace pconv::cpu {
namespace {

struct AvxVnni : Ymm {
  static constexpr int64_t kRun = 0;
  using Partial = Ints;

  static PCONV_INLINE Partial begin(Ints bias) { return bias; }
  static PCONV_INLINE Ints end(Partial partial, Ints) { return partial; }
  static PCONV_INLINE Partial dot(Partial sum, Bytes bytes, Filter filter) {
    return _mm256_dpbusd_avx_epi32(sum, bytes, filter);
  }
};

}  // namespace

const Kernels& avxvnni_kernels() {
  static constexpr Kernels kKernels = kernels_of<AvxVnni>();
  return kKernels;
}

}  // namespace pconv::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
