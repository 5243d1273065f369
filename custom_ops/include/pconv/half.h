// The 16-bit floats of ONNX as their bits. Conversions and comparisons have no branches, so that loops over them
// vectorise. GPUs have instructions for the conversions of float16, which give the same.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "pconv/portable.h"

namespace pconv {

PCONV_HD PCONV_INLINE float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

PCONV_HD PCONV_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

/// The bits of a float with that biased exponent alone: 2^(biased - 127), or infinity for 255.
PCONV_HD PCONV_INLINE constexpr uint32_t exponent(uint32_t biased) { return biased << 23; }

PCONV_HD PCONV_INLINE constexpr uint32_t lower(uint32_t a, uint32_t b) { return a < b ? a : b; }
PCONV_HD PCONV_INLINE constexpr uint32_t higher(uint32_t a, uint32_t b) { return a < b ? b : a; }

/// An integer that ascends with the number of 16 bits, the same for both zeros.
PCONV_HD PCONV_INLINE int16_t order(uint16_t bits) {
  const int16_t magnitude = bits & 0x7fff;
  const int16_t sign = static_cast<int16_t>(bits) >> 15;
  return static_cast<int16_t>((magnitude ^ sign) - sign);
}

/// a >= b as of floats: false where either is a NaN, beyond infinity.
PCONV_HD PCONV_INLINE bool at_least(uint16_t a, uint16_t b, uint16_t infinity) {
  return (order(a) >= order(b)) & ((a & 0x7fff) <= infinity) & ((b & 0x7fff) <= infinity);
}

/// tensor(float16): 5 bits of exponent, 10 of mantissa.
struct Half {
  static constexpr uint16_t kInfinity = 0x7c00;
  uint16_t bits;

  Half() = default;

  /// To nearest, ties to even.
  PCONV_HD PCONV_INLINE explicit Half(float value) {
#ifdef __CUDA_ARCH__
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
    const uint32_t magnitude = bits_of(value) & 0x7fffffff;
    const uint32_t bounded = lower(magnitude, exponent(127 + 16));  // what overflows is infinity, by its exponent
    const uint32_t normal = higher(bounded & exponent(255), exponent(127 - 14));
    // Added to the power of two whose last place is the half's, a float is rounded to that place.
    const uint32_t places = bits_of(float_of(bounded) + float_of(normal + exponent(13))) & 0xfff;
    const uint32_t number = ((normal - exponent(127 - 14)) >> 13) + places;
    const uint32_t nan = magnitude > exponent(255);
    bits = static_cast<uint16_t>(number | 0x7e00 * nan | (bits_of(value) >> 16 & 0x8000));
#endif
  }

  PCONV_HD PCONV_INLINE operator float() const {
#ifdef __CUDA_ARCH__
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#else
    // The sign spreads over the bits that are then cleared. As a float this is 2^112 too small, subnormals included: a
    // session that sets those of float to zero does so with those of half.
    const uint32_t moved = static_cast<uint32_t>(static_cast<int16_t>(bits)) << 13 & 0x8fffe000;
    const uint32_t infinite = (moved & exponent(31)) == exponent(31);
    return float_of(bits_of(float_of(moved) * float_of(exponent(127 + 112))) | exponent(255 * infinite));
#endif
  }

  PCONV_HD PCONV_INLINE bool operator>=(Half other) const {
    return at_least(bits, other.bits, kInfinity);
  }
};

/// tensor(bfloat16): the upper half of a float.
struct BFloat16 {
  static constexpr uint16_t kInfinity = 0x7f80;
  uint16_t bits;

  BFloat16() = default;

  /// To nearest, ties to even.
  PCONV_HD PCONV_INLINE explicit BFloat16(float value) {
    const uint32_t magnitude = bits_of(value) & 0x7fffffff;
    const uint32_t bounded = lower(magnitude, exponent(255));
    const uint32_t number = (bounded + 0x7fff + (bounded >> 16 & 1)) >> 16;
    const uint32_t nan = magnitude > exponent(255);
    bits = static_cast<uint16_t>(number | 0x7fc0 * nan | (bits_of(value) >> 16 & 0x8000));
  }

  PCONV_HD PCONV_INLINE operator float() const { return float_of(static_cast<uint32_t>(bits) << 16); }

  PCONV_HD PCONV_INLINE bool operator>=(BFloat16 other) const {
    return at_least(bits, other.bits, kInfinity);
  }
};

/// A number twice in one word.
template <class T>
PCONV_HD PCONV_INLINE uint32_t pair_of(T number) {
  return uint32_t{0x10001} * number.bits;
}

/// All bits of those of two numbers that are at least those of another two; GPUs have an instruction for it.
template <class T>
PCONV_HD PCONV_INLINE uint32_t pairs_at_least(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
  uint32_t mask;
  if constexpr (std::is_same_v<T, Half>) {
    asm("set.ge.u32.f16x2 %0, %1, %2;" : "=r"(mask) : "r"(a), "r"(b));
    return mask;
  }
#if __CUDA_ARCH__ >= 900
  if constexpr (std::is_same_v<T, BFloat16>) {
    asm("set.ge.u32.bf16x2 %0, %1, %2;" : "=r"(mask) : "r"(a), "r"(b));
    return mask;
  }
#endif
#endif
  const auto reached = [a, b](int32_t shift) {
    T one;
    T other;
    one.bits = static_cast<uint16_t>(a >> shift);
    other.bits = static_cast<uint16_t>(b >> shift);
    return static_cast<float>(one) >= static_cast<float>(other) ? uint32_t{0xffff} << shift : 0;
  };
  return reached(0) | reached(16);
}

}  // namespace pconv
