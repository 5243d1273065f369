// Kernels of integer layers in plain C++, for processors of any kind.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "cpu/integer_blocking.h"

namespace pconv::cpu {
namespace {

struct Portable {
  static constexpr int64_t kLanes = 4;
  static constexpr int64_t kRun = 0;
  static constexpr int kSummed = 1;
  static constexpr int64_t kFilterBytes = kLanes * kQuad;
  static constexpr int kMostBlocks = 2;
  static constexpr int pixels(int) { return 4; }

  struct Ints {
    int32_t at[kLanes];
  };
  struct Floats {
    float at[kLanes];
  };
  struct Bytes {
    uint8_t at[kLanes * kQuad];
  };
  using Partial = Ints;
  using Counts = Bytes;
  struct Filter {
    int8_t at[kLanes * kQuad];
  };

  template <class Vector, class T>
  static PCONV_INLINE Vector loaded(const T* from) {
    Vector vector;
    std::memcpy(&vector, from, sizeof(vector));
    return vector;
  }
  template <class Result, class Body>
  static PCONV_INLINE Result each(Body body) {
    Result result;
    for (int64_t i = 0; i < kLanes; ++i) result.at[i] = body(i);
    return result;
  }

  static PCONV_INLINE Ints zeros() { return {}; }
  static PCONV_INLINE Ints load(const int32_t* from) { return loaded<Ints>(from); }
  static PCONV_INLINE Floats load(const float* from) { return loaded<Floats>(from); }
  static PCONV_INLINE Bytes load_bytes(const uint8_t* from) { return loaded<Bytes>(from); }
  static PCONV_INLINE Filter load_filter(const int8_t* from) { return loaded<Filter>(from); }
  static PCONV_INLINE Bytes broadcast(const uint8_t* from) {
    Bytes bytes;
    for (int64_t i = 0; i < kLanes; ++i) std::memcpy(bytes.at + i * kQuad, from, kQuad);
    return bytes;
  }
  static PCONV_INLINE void store(int32_t* to, const Ints& from) { std::memcpy(to, &from, sizeof(from)); }

  template <class T>
  static PCONV_INLINE Ints load_some(const T* from, int64_t lanes) {
    Ints ints{};
    for (int64_t i = 0; i < lanes; ++i) ints.at[i] = from[i];
    return ints;
  }
  static PCONV_INLINE void store_some(int32_t* to, const Ints& from, int64_t lanes) {
    for (int64_t i = 0; i < lanes; ++i) to[i] = from.at[i];
  }

  static PCONV_INLINE Ints add(const Ints& a, const Ints& b) {
    return each<Ints>([&](int64_t i) { return wrapped(int64_t{a.at[i]} + b.at[i]); });
  }
  static PCONV_INLINE Ints multiply(const Ints& a, const Ints& b) {
    return each<Ints>([&](int64_t i) { return wrapped(int64_t{a.at[i]} * b.at[i]); });
  }
  static PCONV_INLINE Floats add(const Floats& a, const Floats& b) {
    return each<Floats>([&](int64_t i) { return a.at[i] + b.at[i]; });
  }
  static PCONV_INLINE Floats multiply(const Floats& a, const Floats& b) {
    return each<Floats>([&](int64_t i) { return a.at[i] * b.at[i]; });
  }
  static PCONV_INLINE Floats to_floats(const Ints& ints) {
    return each<Floats>([&](int64_t i) { return static_cast<float>(ints.at[i]); });
  }
  static PCONV_INLINE Ints to_ints(const Floats& floats) {
    return each<Ints>([&](int64_t i) { return static_cast<int32_t>(floats.at[i]); });
  }
  static PCONV_INLINE Ints line(const Ints& sum, const double* scale, const double* offset) {
    return each<Ints>([&](int64_t i) { return static_cast<int32_t>(sum.at[i] * scale[i] + offset[i]); });
  }
  static PCONV_INLINE Ints count_reached(const Ints& reached, const Ints& sum, const Ints& threshold) {
    return each<Ints>([&](int64_t i) { return reached.at[i] + (sum.at[i] >= threshold.at[i]); });
  }
  static PCONV_INLINE Floats limit(const Floats& value, const Floats& least, const Floats& most) {
    return each<Floats>([&](int64_t i) { return std::min(std::max(value.at[i], least.at[i]), most.at[i]); });
  }
  static PCONV_INLINE Ints look_up(const int32_t* thresholds, const Ints& place) {
    return each<Ints>([&](int64_t i) { return thresholds[place.at[i] * kLanes + i]; });
  }
  static PCONV_INLINE Partial begin(const Ints& bias) { return bias; }
  static PCONV_INLINE Ints end(const Ints& partial, const Ints&) { return partial; }
  static PCONV_INLINE Ints dot(const Ints& sum, const Bytes& bytes, const Filter& filter) {
    return each<Ints>([&](int64_t i) {
      int32_t products = 0;
      for (int64_t t = 0; t < kQuad; ++t) products += bytes.at[i * kQuad + t] * filter.at[i * kQuad + t];
      return wrapped(int64_t{sum.at[i]} + products);
    });
  }

  // A vector has 128 bits, so `unpacked` is the order of the channels themselves.
  static PCONV_INLINE Bytes no_bytes() { return {}; }
  static PCONV_INLINE Bytes load_channels(const uint8_t* from, int64_t channels) {
    Bytes bytes{};
    std::copy_n(from, least_of(channels, 4 * kLanes), bytes.at);
    return bytes;
  }
  static PCONV_INLINE void store_bytes(uint8_t* to, const Bytes& from) { std::memcpy(to, &from, sizeof(from)); }
  static PCONV_INLINE void interleave(const Bytes (&pixels)[kQuad], Bytes (&to)[4]) {
    for (int64_t i = 0; i < 4 * kLanes; ++i) {
      for (int64_t t = 0; t < kQuad; ++t) to[i / kLanes].at[i % kLanes * kQuad + t] = pixels[t].at[i];
    }
  }
  static PCONV_INLINE void load_unpacked(const uint8_t* from, int64_t channels, Ints (&to)[4]) {
    for (int64_t i = 0; i < 4 * kLanes; ++i) to[i / kLanes].at[i % kLanes] = i < channels ? from[i] : 0;
  }
  static PCONV_INLINE Counts pack_pixels(const Ints (&from)[4]) {
    Counts counts;
    for (int64_t i = 0; i < 4 * kLanes; ++i) {
      counts.at[i] = static_cast<uint8_t>(std::clamp(from[i / kLanes].at[i % kLanes], 0, UINT8_MAX));
    }
    return counts;
  }
  static PCONV_INLINE Counts pack_interleaved(const Ints (&from)[4]) { return pack_pixels(from); }
  static PCONV_INLINE Counts load_bounds(const uint8_t* from) { return broadcast(from); }
  static PCONV_INLINE Counts load_four_bounds(const uint8_t* from) { return load_bytes(from); }
  static PCONV_INLINE Counts clamp(const Counts& value, const Counts& least, const Counts& most) {
    Counts counts;
    for (int64_t i = 0; i < 4 * kLanes; ++i) counts.at[i] = std::min(std::max(value.at[i], least.at[i]), most.at[i]);
    return counts;
  }
  static PCONV_INLINE void store_pixels(uint8_t* to, int64_t stride, int64_t pixels, int64_t lanes,
                                        const Counts& counts) {
    for (int64_t p = 0; p < pixels; ++p) std::copy_n(counts.at + p * kLanes, lanes, to + p * stride);
  }
  static PCONV_INLINE void store_channels(uint8_t* to, int64_t channels, const Counts& counts) {
    std::copy_n(counts.at, least_of(channels, 4 * kLanes), to);
  }
};

}  // namespace

const Kernels& portable_kernels() {
  static constexpr Kernels kKernels = kernels_of<Portable>();
  return kKernels;
}

}  // namespace pconv::cpu
