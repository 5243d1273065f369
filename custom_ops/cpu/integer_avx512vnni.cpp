// Kernels of integer layers for AVX-512 with VNNI.
#include "cpu/integer_kernels.h"

#ifdef PCONV_X86

// The intrinsics of gcc 12 pass registers whose values do not matter, and it warns of them.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "pconv/portable.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vnni")
#endif

#include "cpu/integer_blocking.h"
#include "cpu/integer_ymm.h"

namespace pconv::cpu {
namespace {

struct Avx512Vnni {
  static constexpr int64_t kLanes = 16;
  static constexpr int64_t kRun = 0;
  static constexpr int kSummed = 1;
  static constexpr int64_t kFilterBytes = kLanes * kQuad;
  static constexpr int kMostBlocks = 4;
  // 32 registers: sums, a filter a block, counts.
  static constexpr int pixels(int blocks) { return blocks == 1 ? 16 : blocks == 2 ? 12 : blocks == 3 ? 8 : 6; }

  using Ints = __m512i;
  using Floats = __m512;
  using Bytes = __m512i;
  using Filter = __m512i;
  using Partial = Ints;
  using Counts = __m512i;

  static PCONV_INLINE __mmask16 first(int64_t lanes) { return static_cast<__mmask16>((1U << lanes) - 1); }

  static PCONV_INLINE Ints zeros() { return _mm512_setzero_si512(); }
  static PCONV_INLINE Ints load(const int32_t* from) { return _mm512_loadu_si512(from); }
  static PCONV_INLINE Floats load(const float* from) { return _mm512_loadu_ps(from); }
  static PCONV_INLINE Bytes load_bytes(const uint8_t* from) { return _mm512_loadu_si512(from); }
  static PCONV_INLINE Filter load_filter(const int8_t* from) { return _mm512_loadu_si512(from); }
  static PCONV_INLINE Bytes broadcast(const uint8_t* from) {
    int32_t quad;
    __builtin_memcpy(&quad, from, sizeof(quad));
    return _mm512_set1_epi32(quad);
  }
  static PCONV_INLINE void store(int32_t* to, Ints from) { _mm512_storeu_si512(to, from); }

  static PCONV_INLINE Ints load_some(const uint8_t* from, int64_t lanes) {
    return _mm512_cvtepu8_epi32(lanes == kLanes ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(from))
                                                : _mm_maskz_loadu_epi8(first(lanes), from));
  }
  static PCONV_INLINE Ints load_some(const int32_t* from, int64_t lanes) {
    return _mm512_maskz_loadu_epi32(first(lanes), from);
  }
  static PCONV_INLINE void store_some(int32_t* to, Ints from, int64_t lanes) {
    _mm512_mask_storeu_epi32(to, first(lanes), from);
  }

  static PCONV_INLINE Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static PCONV_INLINE Ints multiply(Ints a, Ints b) { return _mm512_mullo_epi32(a, b); }
  static PCONV_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static PCONV_INLINE Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static PCONV_INLINE Floats to_floats(Ints ints) { return _mm512_cvtepi32_ps(ints); }
  static PCONV_INLINE Ints to_ints(Floats floats) { return _mm512_cvttps_epi32(floats); }
  static PCONV_INLINE __m256i half_line(__m256i sum, const double* scale, const double* offset) {
    const __m512d product = _mm512_mul_pd(_mm512_cvtepi32_pd(sum), _mm512_loadu_pd(scale));
    return _mm512_cvttpd_epi32(_mm512_add_pd(product, _mm512_loadu_pd(offset)));
  }
  static PCONV_INLINE Ints line(Ints sum, const double* scale, const double* offset) {
    const __m512i low = _mm512_castsi256_si512(half_line(_mm512_castsi512_si256(sum), scale, offset));
    return _mm512_inserti64x4(low, half_line(_mm512_extracti64x4_epi64(sum, 1), scale + 8, offset + 8), 1);
  }
  static PCONV_INLINE Ints count_reached(Ints reached, Ints sum, Ints threshold) {
    const __mmask16 more = _mm512_cmpge_epi32_mask(sum, threshold);
    return _mm512_mask_sub_epi32(reached, more, reached, _mm512_set1_epi32(-1));
  }
  static PCONV_INLINE Floats limit(Floats value, Floats least, Floats most) {
    return _mm512_min_ps(_mm512_max_ps(value, least), most);
  }
  static PCONV_INLINE Ints look_up(const int32_t* thresholds, Ints place) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_i32gather_epi32(_mm512_add_epi32(_mm512_slli_epi32(place, 4), lane), thresholds, 4);
  }
  static PCONV_INLINE Partial begin(Ints bias) { return bias; }
  static PCONV_INLINE Ints end(Ints partial, Ints) { return partial; }
  static PCONV_INLINE Ints dot(Ints sum, Bytes bytes, Filter filter) { return _mm512_dpbusd_epi32(sum, bytes, filter); }

  static PCONV_INLINE __m512i load_channels(const uint8_t* from, int64_t channels) {
    if (channels >= 4 * kLanes) return _mm512_loadu_si512(from);
    return _mm512_maskz_loadu_epi8((uint64_t{1} << channels) - 1, from);
  }
  static PCONV_INLINE Bytes no_bytes() { return _mm512_setzero_si512(); }
  static PCONV_INLINE void store_bytes(uint8_t* to, Bytes from) { _mm512_storeu_si512(to, from); }
  static PCONV_INLINE void interleave(const Bytes (&pixels)[kQuad], Bytes (&to)[4]) {
    const __m512i even_low = _mm512_unpacklo_epi8(pixels[0], pixels[1]);
    const __m512i even_high = _mm512_unpackhi_epi8(pixels[0], pixels[1]);
    const __m512i odd_low = _mm512_unpacklo_epi8(pixels[2], pixels[3]);
    const __m512i odd_high = _mm512_unpackhi_epi8(pixels[2], pixels[3]);
    to[0] = _mm512_unpacklo_epi16(even_low, odd_low);
    to[1] = _mm512_unpackhi_epi16(even_low, odd_low);
    to[2] = _mm512_unpacklo_epi16(even_high, odd_high);
    to[3] = _mm512_unpackhi_epi16(even_high, odd_high);
  }
  static PCONV_INLINE void load_unpacked(const uint8_t* from, int64_t channels, Ints (&to)[4]) {
    const __m512i zero = _mm512_setzero_si512();
    const __m512i counts = load_channels(from, channels);
    const __m512i low = _mm512_unpacklo_epi8(counts, zero);
    const __m512i high = _mm512_unpackhi_epi8(counts, zero);
    to[0] = _mm512_unpacklo_epi16(low, zero);
    to[1] = _mm512_unpackhi_epi16(low, zero);
    to[2] = _mm512_unpacklo_epi16(high, zero);
    to[3] = _mm512_unpackhi_epi16(high, zero);
  }

  /// Within 128 bits, which is the order of `interleave`.
  static PCONV_INLINE Counts pack_interleaved(const Ints (&from)[4]) {
    return _mm512_packus_epi16(_mm512_packs_epi32(from[0], from[1]), _mm512_packs_epi32(from[2], from[3]));
  }
  static PCONV_INLINE Counts pack_pixels(const Ints (&from)[4]) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, pack_interleaved(from));
  }
  static PCONV_INLINE Counts load_bounds(const uint8_t* from) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static PCONV_INLINE Counts load_four_bounds(const uint8_t* from) { return _mm512_loadu_si512(from); }
  static PCONV_INLINE Counts clamp(Counts value, Counts least, Counts most) {
    return _mm512_min_epu8(_mm512_max_epu8(value, least), most);
  }
  static PCONV_INLINE void store_pixels(uint8_t* to, int64_t stride, int64_t pixels, int64_t lanes, Counts counts) {
    if (pixels == 4 && lanes == kLanes) {
      if (stride == kLanes) return _mm512_storeu_si512(to, counts);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_castsi512_si128(counts));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + stride), _mm512_extracti32x4_epi32(counts, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 2 * stride), _mm512_extracti32x4_epi32(counts, 2));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 3 * stride), _mm512_extracti32x4_epi32(counts, 3));
      return;
    }
    const __mmask16 mask = first(lanes);
    _mm_mask_storeu_epi8(to, mask, _mm512_castsi512_si128(counts));
    if (pixels > 1) _mm_mask_storeu_epi8(to + stride, mask, _mm512_extracti32x4_epi32(counts, 1));
    if (pixels > 2) _mm_mask_storeu_epi8(to + 2 * stride, mask, _mm512_extracti32x4_epi32(counts, 2));
    if (pixels > 3) _mm_mask_storeu_epi8(to + 3 * stride, mask, _mm512_extracti32x4_epi32(counts, 3));
  }
  static PCONV_INLINE void store_channels(uint8_t* to, int64_t channels, Counts counts) {
    if (channels >= 4 * kLanes) {
      _mm512_storeu_si512(to, counts);
    } else {
      _mm512_mask_storeu_epi8(to, (uint64_t{1} << channels) - 1, counts);
    }
  }
};

struct Vnni256 : Ymm {
  using Partial = Ints;

  static PCONV_INLINE Partial begin(Ints bias) { return bias; }
  static PCONV_INLINE Ints end(Partial partial, Ints) { return partial; }
  static PCONV_INLINE Partial dot(Partial sum, Bytes bytes, Filter filter) {
    return _mm256_dpbusd_epi32(sum, bytes, filter);
  }
};

constexpr Kernels kNarrow{
    Vnni256::kLanes, nullptr, depthwise<Vnni256>, nullptr, 0, 0, Vnni256::kFilterBytes, nullptr, nullptr};
constexpr Kernels kKernels = kernels_of<Avx512Vnni>(&kNarrow);

}  // namespace

const Kernels& avx512vnni_kernels() { return kKernels; }

}  // namespace pconv::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
