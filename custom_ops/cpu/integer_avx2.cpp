// Kernels of integer layers for AVX2, whose products of bytes are summed in pairs of 16 bits.
#include "cpu/integer_kernels.h"

#ifdef PCONV_X86

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

/// For counts and weights so small that many pairs may be summed in 16 bits.
struct Avx2Runs : Ymm {
  static constexpr int64_t kRun = 8;
  // 16 registers: 12 sums, two filters, counts, a product.
  static constexpr int kMostBlocks = 2;
  using Partial = __m256i;

  static PCONV_INLINE Partial begin(Ints) { return _mm256_setzero_si256(); }
  static PCONV_INLINE Ints end(Partial partial, Ints sum) { return add(sum, widened(partial)); }
  static PCONV_INLINE Partial dot(Partial partial, Bytes bytes, Filter filter) {
    return in_order(_mm256_add_epi16(partial, _mm256_maddubs_epi16(bytes, filter)));
  }
};

/// For those of which most fit where the pairs of two quads are summed, and the others leave rests.
struct Avx2Pairs : Ymm {
  static constexpr int64_t kRun = 0;
  static constexpr int kSummed = 2;
  static constexpr int kMostBlocks = 2;
  static constexpr int pixels(int blocks) { return blocks == 1 ? 8 : 4; }
  using Partial = Ints;

  static PCONV_INLINE Partial begin(Ints bias) { return bias; }
  static PCONV_INLINE Ints end(Partial partial, Ints) { return partial; }
  static PCONV_INLINE Partial dot(Partial sum, Bytes bytes, Filter filter) {
    return in_order(add(sum, widened(_mm256_maddubs_epi16(bytes, filter))));
  }
  static PCONV_INLINE Partial dot_summed(Partial sum, const Bytes (&bytes)[kSummed], const int8_t* filters) {
    const __m256i first = _mm256_maddubs_epi16(bytes[0], loaded(filters));
    const __m256i second = _mm256_maddubs_epi16(bytes[1], loaded(filters + kFilterBytes));
    return in_order(add(sum, widened(_mm256_add_epi16(first, second))));
  }
};

/// For all others: counts and weights are widened to 16 bits, those at even and at odd places.
struct Avx2Wide : Ymm {
  static constexpr int64_t kRun = 0;
  static constexpr int64_t kFilterBytes = 2 * kLanes * kQuad;
  static constexpr int kMostBlocks = 2;
  static constexpr int pixels(int blocks) { return blocks == 1 ? 8 : 4; }
  using Partial = Ints;
  struct Halves {
    __m256i even;
    __m256i odd;
  };
  using Filter = Halves;

  static PCONV_INLINE Filter load_filter(const int8_t* from) { return {loaded(from), loaded(from + kFilterBytes / 2)}; }
  static PCONV_INLINE Partial begin(Ints bias) { return bias; }
  static PCONV_INLINE Ints end(Partial partial, Ints) { return partial; }
  static PCONV_INLINE Partial dot(Partial sum, Bytes bytes, const Filter& filter) {
    const __m256i even = _mm256_and_si256(bytes, _mm256_set1_epi16(0xFF));
    const __m256i odd = _mm256_srli_epi16(bytes, 8);
    return in_order(add(sum, add(_mm256_madd_epi16(even, filter.even), _mm256_madd_epi16(odd, filter.odd))));
  }
};

constexpr Kernels before(Kernels kernels, const Kernels& otherwise, int64_t run, double most_rests) {
  kernels.run = run;
  kernels.most_rests = most_rests;
  kernels.otherwise = &otherwise;
  return kernels;
}

// Found by measurement: beyond it, rests take longer than products of 16 bits.
constexpr double kMostRests = 0.4;

constexpr Kernels kWide = kernels_of<Avx2Wide>();
constexpr Kernels kPairs = before(kernels_of<Avx2Pairs>(), kWide, Avx2Pairs::kSummed, kMostRests);
constexpr Kernels kRuns = before(kernels_of<Avx2Runs>(), kPairs, Avx2Runs::kRun, 0);

}  // namespace

const Kernels& avx2_kernels() { return kRuns; }

}  // namespace pconv::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
