// Kernels of integer layers for AVX2, whose products of bytes are summed in pairs of 16 bits.
#include "cpu/integer_kernels.h"

#ifdef PCONV_X86_KERNELS

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "pconv/portable.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#include "cpu/integer_blocking.h"
#include "cpu/integer_ymm.h"

namespace pconv::cpu {
namespace {

/// Sums of two pairs of 16 bits.
PCONV_INLINE __m256i widened(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

/// Adds in this order: compilers that take sums for associative keep many products and few sums in registers.
PCONV_INLINE __m256i in_order(__m256i sum) {
  asm("" : "+x"(sum));
  return sum;
}

/// For counts and weights so small that several pairs may be summed in 16 bits.
struct Avx2Runs : Ymm {
  static constexpr int64_t kRun = 4;
  using Partial = __m256i;

  static PCONV_INLINE Partial begin(Ints) { return _mm256_setzero_si256(); }
  static PCONV_INLINE Ints end(Partial partial, Ints sum) { return add(sum, widened(partial)); }
  static PCONV_INLINE Partial dot(Partial partial, Bytes bytes, Filter filter) {
    return in_order(_mm256_add_epi16(partial, _mm256_maddubs_epi16(bytes, filter)));
  }
};

/// For those so small that a pair fits.
struct Avx2Pairs : Ymm {
  static constexpr int64_t kRun = 0;
  static constexpr int pixels(int blocks) { return blocks == 1 ? 8 : blocks == 2 ? 5 : blocks == 3 ? 3 : 2; }
  using Partial = Ints;

  static PCONV_INLINE Partial begin(Ints bias) { return bias; }
  static PCONV_INLINE Ints end(Partial partial, Ints) { return partial; }
  static PCONV_INLINE Partial dot(Partial sum, Bytes bytes, Filter filter) {
    return in_order(add(sum, widened(_mm256_maddubs_epi16(bytes, filter))));
  }
};

/// For all others: counts and weights are widened to 16 bits, those at even and at odd places.
struct Avx2Wide : Ymm {
  static constexpr int64_t kRun = 0;
  static constexpr int pixels(int blocks) { return blocks == 1 ? 6 : blocks == 2 ? 4 : 2; }
  using Partial = Ints;
  struct Halves {
    __m256i even;
    __m256i odd;
  };
  using Filter = Halves;

  static PCONV_INLINE Filter load_filter(const int8_t* from) {
    const __m256i both = loaded(from);
    return {_mm256_srai_epi16(_mm256_slli_epi16(both, 8), 8), _mm256_srai_epi16(both, 8)};
  }
  static PCONV_INLINE Partial begin(Ints bias) { return bias; }
  static PCONV_INLINE Ints end(Partial partial, Ints) { return partial; }
  static PCONV_INLINE Partial dot(Partial sum, Bytes bytes, const Filter& filter) {
    const __m256i even = _mm256_and_si256(bytes, _mm256_set1_epi16(0xFF));
    const __m256i odd = _mm256_srli_epi16(bytes, 8);
    return in_order(add(sum, add(_mm256_madd_epi16(even, filter.even), _mm256_madd_epi16(odd, filter.odd))));
  }
};

constexpr Kernels kWide = kernels_of<Avx2Wide>();

constexpr Kernels after(Kernels kernels, int64_t run) {
  kernels.run = run;
  return kernels;
}

constexpr Kernels kPairs = after(kernels_of<Avx2Pairs>(&kWide), 1);
constexpr Kernels kRuns = kernels_of<Avx2Runs>(&kPairs);

}  // namespace

const Kernels& avx2_kernels() { return kRuns; }

}  // namespace pconv::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
