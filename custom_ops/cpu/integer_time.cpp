#include "cpu/integer_time.h"

#include <algorithm>

#include "cpu/vectorised.h"
#include "pconv/coding.h"
#include "pconv/portable.h"

namespace pconv::cpu {
namespace {

// Found by measurement: bytes of values that are taken over all steps at once, in the nearest cache.
constexpr int64_t kBlockBytes = 4096;

template <class T, class Sum>
PCONV_INLINE void add_step(const T* __restrict digits, bool doubled, int64_t size, Sum* __restrict sum) {
  if (doubled) {
    for (int64_t i = 0; i < size; ++i) sum[i] = static_cast<Sum>(sum[i] + sum[i] + static_cast<Sum>(digits[i]));
  } else {
    for (int64_t i = 0; i < size; ++i) sum[i] = static_cast<Sum>(sum[i] + static_cast<Sum>(digits[i]));
  }
}

/// Calls `take` with the sums of each block and where it begins. A digit is worth twice the next one in `radix`.
template <class Sum, class T, class Take>
PCONV_INLINE void sum_blocks(const T* trains, const Steps& steps, int64_t size, Take take) {
  constexpr int64_t kBlock = kBlockBytes / sizeof(Sum);
  alignas(64) Sum sum[kBlock];
  for (int64_t begin = 0; begin < size; begin += kBlock) {
    const int64_t block = std::min(kBlock, size - begin);
    const T* digits = trains + begin;
    for (int64_t i = 0; i < block; ++i) sum[i] = static_cast<Sum>(digits[i]);
    for (int64_t t = 1; t < steps.number; ++t) {
      digits += steps.stride;
      add_step(digits, steps.coding == Coding::kRadix, block, sum);
    }
    take(sum, begin, block);
  }
}

template <class T>
PCONV_INLINE void sum_ints(const T* trains, const Steps& steps, int64_t size, int32_t* to) {
  sum_blocks<uint32_t>(trains, steps, size, [&](const uint32_t* sum, int64_t begin, int64_t block) PCONV_INLINE_LAMBDA {
    for (int64_t i = 0; i < block; ++i) to[begin + i] = static_cast<int32_t>(sum[i]);
  });
}

/// A digit of each count: `silent` is written where it is 0, and one more or less where it is 1.
PCONV_INLINE void emit_step(const uint8_t* __restrict counts, const Digit& digit, uint8_t silent, int64_t size,
                            uint8_t* __restrict to) {
  const uint8_t zero = silent > 0;
  const uint8_t bits = static_cast<uint8_t>(digit.bits);
  const uint8_t beyond = static_cast<uint8_t>(digit.beyond);
  for (int64_t i = 0; i < size; ++i) {
    const uint8_t count = counts[i];
    const uint8_t distance = count > silent ? count - silent : silent - count;
    const uint8_t spike = (distance & bits) > beyond ? 1 : 0;
    to[i] = static_cast<uint8_t>(count < silent ? zero - spike : zero + spike);
  }
}

}  // namespace

void sum_to_bytes(const uint8_t* trains, const Steps& steps, int64_t size, int64_t planes, int64_t plane, uint8_t* to) {
  vectorised([=]() PCONV_INLINE_LAMBDA {
    if (planes == 1) {
      sum_blocks<uint8_t>(trains, steps, size, [&](const uint8_t* sum, int64_t begin, int64_t block)
                                                   PCONV_INLINE_LAMBDA { std::copy_n(sum, block, to + begin); });
      return;
    }
    sum_blocks<uint32_t>(trains, steps, size, [&](const uint32_t* sum, int64_t begin, int64_t block)
                                                  PCONV_INLINE_LAMBDA {
      for (int64_t p = 0; p < planes; ++p) {
        uint8_t* const own = to + p * plane + begin;
        for (int64_t i = 0; i < block; ++i) own[i] = static_cast<uint8_t>(sum[i] >> (8 * p));
      }
    });
  });
}

void sum_to_ints(const uint8_t* trains, const Steps& steps, int64_t size, int32_t* to) {
  vectorised([=]() PCONV_INLINE_LAMBDA { sum_ints(trains, steps, size, to); });
}

void sum_to_ints(const int32_t* trains, const Steps& steps, int64_t size, int32_t* to) {
  vectorised([=]() PCONV_INLINE_LAMBDA { sum_ints(trains, steps, size, to); });
}

void emit_trains(const uint8_t* counts, const Train& train, int64_t size, uint8_t* to, int64_t stride) {
  vectorised([=]() PCONV_INLINE_LAMBDA {
    for (int32_t t = 0; t < train.steps; ++t) {
      const Digit digit = train.coding == Coding::kRate ? rate_digit(train.steps, t) : radix_digit(train.steps, t);
      emit_step(counts, digit, static_cast<uint8_t>(train.silent), size, to + t * stride);
    }
  });
}

}  // namespace pconv::cpu
