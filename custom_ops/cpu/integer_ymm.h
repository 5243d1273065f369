// What kernels of integer layers on vectors of 256 bits have in common. Included where AVX2 is switched on, after
// <immintrin.h>.
#pragma once

#include "cpu/integer_kernels.h"
#include "pconv/portable.h"

namespace pconv::cpu {
namespace {

struct Ymm {
  static constexpr int64_t kLanes = 8;
  static constexpr int kMostBlocks = 4;
  static constexpr int kSummed = 1;
  static constexpr int64_t kFilterBytes = kLanes * kQuad;
  // 16 registers: sums, a filter a block or counts a pixel, the other.
  static constexpr int pixels(int blocks) { return 12 / blocks; }

  using Ints = __m256i;
  using Floats = __m256;
  using Bytes = __m256i;
  using Filter = __m256i;
  using Counts = __m256i;

  template <class T>
  static PCONV_INLINE __m256i loaded(const T* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  template <class T>
  static PCONV_INLINE void stored(T* to, __m256i from) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), from);
  }
  static PCONV_INLINE __m256i first(int64_t lanes) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(lanes)), lane);
  }

  static PCONV_INLINE Ints zeros() { return _mm256_setzero_si256(); }
  static PCONV_INLINE Ints load(const int32_t* from) { return loaded(from); }
  static PCONV_INLINE Floats load(const float* from) { return _mm256_loadu_ps(from); }
  static PCONV_INLINE Bytes load_bytes(const uint8_t* from) { return loaded(from); }
  static PCONV_INLINE Filter load_filter(const int8_t* from) { return loaded(from); }
  static PCONV_INLINE Bytes broadcast(const uint8_t* from) {
    int32_t quad;
    __builtin_memcpy(&quad, from, sizeof(quad));
    return _mm256_set1_epi32(quad);
  }
  static PCONV_INLINE void store(int32_t* to, Ints from) { stored(to, from); }

  static PCONV_INLINE Ints load_some(const uint8_t* from, int64_t lanes) {
    uint64_t counts = 0;
    if (lanes == kLanes) {
      __builtin_memcpy(&counts, from, sizeof(counts));
    } else {
      for (int64_t i = 0; i < lanes; ++i) counts |= uint64_t{from[i]} << (8 * i);
    }
    return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(counts)));
  }
  static PCONV_INLINE Ints load_some(const int32_t* from, int64_t lanes) {
    return _mm256_maskload_epi32(from, first(lanes));
  }
  static PCONV_INLINE void store_some(int32_t* to, Ints from, int64_t lanes) {
    _mm256_maskstore_epi32(to, first(lanes), from);
  }

  static PCONV_INLINE Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
  static PCONV_INLINE Ints multiply(Ints a, Ints b) { return _mm256_mullo_epi32(a, b); }
  static PCONV_INLINE Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static PCONV_INLINE Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static PCONV_INLINE Floats to_floats(Ints ints) { return _mm256_cvtepi32_ps(ints); }
  static PCONV_INLINE Ints to_ints(Floats floats) { return _mm256_cvttps_epi32(floats); }
  static PCONV_INLINE __m128i half_line(__m128i sum, const double* scale, const double* offset) {
    const __m256d product = _mm256_mul_pd(_mm256_cvtepi32_pd(sum), _mm256_loadu_pd(scale));
    return _mm256_cvttpd_epi32(_mm256_add_pd(product, _mm256_loadu_pd(offset)));
  }
  static PCONV_INLINE Ints line(Ints sum, const double* scale, const double* offset) {
    const __m128i low = half_line(_mm256_castsi256_si128(sum), scale, offset);
    return _mm256_set_m128i(half_line(_mm256_extracti128_si256(sum, 1), scale + 4, offset + 4), low);
  }
  static PCONV_INLINE Ints count_reached(Ints reached, Ints sum, Ints threshold) {
    // All ones where the sum is below.
    return _mm256_add_epi32(reached, _mm256_add_epi32(_mm256_set1_epi32(1), _mm256_cmpgt_epi32(threshold, sum)));
  }
  static PCONV_INLINE Floats limit(Floats value, Floats least, Floats most) {
    return _mm256_min_ps(_mm256_max_ps(value, least), most);
  }
  static PCONV_INLINE Ints look_up(const int32_t* thresholds, Ints place) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_i32gather_epi32(thresholds, _mm256_add_epi32(_mm256_slli_epi32(place, 3), lane), 4);
  }

  static PCONV_INLINE Bytes no_bytes() { return _mm256_setzero_si256(); }
  static PCONV_INLINE Bytes load_channels(const uint8_t* from, int64_t channels) {
    if (channels == 4 * kLanes) return loaded(from);
    alignas(32) uint8_t some[4 * kLanes] = {};
    for (int64_t i = 0; i < channels; ++i) some[i] = from[i];
    return loaded(some);
  }
  static PCONV_INLINE void store_bytes(uint8_t* to, Bytes from) { stored(to, from); }
  static PCONV_INLINE void interleave(const Bytes (&pixels)[kQuad], Bytes (&to)[4]) {
    const __m256i even_low = _mm256_unpacklo_epi8(pixels[0], pixels[1]);
    const __m256i even_high = _mm256_unpackhi_epi8(pixels[0], pixels[1]);
    const __m256i odd_low = _mm256_unpacklo_epi8(pixels[2], pixels[3]);
    const __m256i odd_high = _mm256_unpackhi_epi8(pixels[2], pixels[3]);
    to[0] = _mm256_unpacklo_epi16(even_low, odd_low);
    to[1] = _mm256_unpackhi_epi16(even_low, odd_low);
    to[2] = _mm256_unpacklo_epi16(even_high, odd_high);
    to[3] = _mm256_unpackhi_epi16(even_high, odd_high);
  }
  static PCONV_INLINE void load_unpacked(const uint8_t* from, int64_t channels, Ints (&to)[4]) {
    const __m256i zero = _mm256_setzero_si256();
    const __m256i counts = load_channels(from, channels);
    const __m256i low = _mm256_unpacklo_epi8(counts, zero);
    const __m256i high = _mm256_unpackhi_epi8(counts, zero);
    to[0] = _mm256_unpacklo_epi16(low, zero);
    to[1] = _mm256_unpackhi_epi16(low, zero);
    to[2] = _mm256_unpacklo_epi16(high, zero);
    to[3] = _mm256_unpackhi_epi16(high, zero);
  }

  /// Within 128 bits, which is the order of `interleave`.
  static PCONV_INLINE Counts pack_interleaved(const Ints (&from)[4]) {
    return _mm256_packus_epi16(_mm256_packs_epi32(from[0], from[1]), _mm256_packs_epi32(from[2], from[3]));
  }
  static PCONV_INLINE Counts pack_pixels(const Ints (&from)[4]) {
    return _mm256_permutevar8x32_epi32(pack_interleaved(from), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  }
  static PCONV_INLINE Counts load_bounds(const uint8_t* from) {
    int64_t bounds;
    __builtin_memcpy(&bounds, from, sizeof(bounds));
    return _mm256_set1_epi64x(bounds);
  }
  static PCONV_INLINE Counts load_four_bounds(const uint8_t* from) { return loaded(from); }
  static PCONV_INLINE Counts clamp(Counts value, Counts least, Counts most) {
    return _mm256_min_epu8(_mm256_max_epu8(value, least), most);
  }
  static PCONV_INLINE void store_pixels(uint8_t* to, int64_t stride, int64_t pixels, int64_t lanes, Counts counts) {
    if (pixels == 4 && lanes == kLanes) {
      const __m128i low = _mm256_castsi256_si128(counts);
      const __m128i high = _mm256_extracti128_si256(counts, 1);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(to), low);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(to + stride), _mm_unpackhi_epi64(low, low));
      _mm_storel_epi64(reinterpret_cast<__m128i*>(to + 2 * stride), high);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(to + 3 * stride), _mm_unpackhi_epi64(high, high));
      return;
    }
    alignas(32) uint8_t all[4 * kLanes];
    stored(all, counts);
    for (int64_t p = 0; p < pixels; ++p) {
      for (int64_t i = 0; i < lanes; ++i) to[p * stride + i] = all[p * kLanes + i];
    }
  }
  static PCONV_INLINE void store_channels(uint8_t* to, int64_t channels, Counts counts) {
    if (channels == 4 * kLanes) return stored(to, counts);
    alignas(32) uint8_t all[4 * kLanes];
    stored(all, counts);
    for (int64_t i = 0; i < channels; ++i) to[i] = all[i];
  }
};

}  // namespace
}  // namespace pconv::cpu
