// Spike trains: the digits of a spike count, and what they emit, the same for every provider (docs/ParallelSpike-2.md,
// Trains).
#pragma once

#include <cstdint>

#include "pconv/half.h"
#include "pconv/layout.h"
#include "pconv/portable.h"

namespace pconv {

/// How many time-steps trains of a coding may have.
struct StepRange {
  int32_t fewest;
  int32_t most;
};

/// For spike counts up to `reach` from that of silence.
constexpr StepRange steps_of(Coding coding, int32_t reach) {
  if (coding == Coding::kRate) return {reach, reach};
  int32_t bits = 0;
  while (reach >> bits != 0) ++bits;
  return {bits, 256};
}

constexpr uint32_t kNegative = 0x80000000;

/// How far a spike count is from that of silence, `kNegative` added where it is below.
PCONV_HD PCONV_INLINE uint32_t offset_of(int32_t count, int32_t zero) {
  const int32_t offset = count - zero;
  const int32_t sign = offset >> 31;
  return static_cast<uint32_t>((offset ^ sign) - sign) | (static_cast<uint32_t>(offset) & kNegative);
}

/// The digit of one time-step. A coding is a function that makes it.
struct Digit {
  int32_t bits;      ///< of a distance from the count of silence that the digit depends on
  int32_t beyond;    ///< it is one where they are greater than this
  int32_t distance;  ///< by whose level a spike is told
  float factor;      ///< how many times what lies between that level and the silent one a spike is worth
  int32_t row;       ///< the same at steps next to each other whose spikes are worth the same; below kDigitRows

  PCONV_HD PCONV_INLINE bool is_set(uint32_t offset) const { return (static_cast<int32_t>(offset) & bits) > beyond; }
};

// Counts have 16 bits. Whatever is farther up is never set.
constexpr int32_t kDigitRows = 17;

PCONV_HD PCONV_INLINE Digit rate_digit(int32_t steps, int32_t t) { return {0x7fffffff, t, steps, 1.0F, 0}; }

PCONV_HD PCONV_INLINE Digit radix_digit(int32_t steps, int32_t t) {
  const int32_t left = steps - 1 - t;
  const int32_t place = left < kDigitRows ? left : kDigitRows - 1;
  return {1 << place, 0, 1 << place, static_cast<float>(steps), place};
}

PCONV_HD PCONV_INLINE Digit digit_of(const Layout& layout, int32_t t) {
  return layout.coding == Coding::kRate ? rate_digit(layout.steps, t) : radix_digit(layout.steps, t);
}

PCONV_HD PCONV_INLINE float negative_if(uint32_t sign, float value) { return float_of(bits_of(value) ^ sign); }
template <class T>
PCONV_HD PCONV_INLINE T negative_if(uint32_t sign, T value) {
  value.bits = static_cast<uint16_t>(value.bits ^ sign >> 16);
  return value;
}

/// What a neuron with these levels emits where the digit is one and the count above that of silence.
template <class T>
PCONV_HD PCONV_INLINE T spike_of(const Layout& layout, const Digit& digit, const T* levels) {
  const int32_t above = layout.highest - layout.zero;
  const T silent = levels[layout.zero];
  const bool mirrored = digit.distance > above;
  if (mirrored && digit.distance > layout.zero) return silent;  // never set
  const T level = levels[mirrored ? layout.zero - digit.distance : layout.zero + digit.distance];
  const T reached = negative_if(mirrored ? kNegative : 0, level);
  if (digit.factor == 1.0F) return reached;
  const float more = static_cast<float>(reached) - static_cast<float>(silent);
  return static_cast<T>(static_cast<float>(silent) + digit.factor * more);
}

/// What it emits where the digit is one.
template <class T>
PCONV_HD PCONV_INLINE T signed_spike(uint32_t offset, T spike) {
  return negative_if(offset & kNegative, spike);
}

}  // namespace pconv
