// The neurons behind integer sums, laid out for kernels that handle several outputs at once.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/aligned.h"
#include "pconv/integer_layer.h"

namespace pconv::cpu {

/// Between which a sum lies, both included.
struct Interval {
  int64_t least;
  int64_t most;
};

inline constexpr Interval kAnySum{INT32_MIN, INT32_MAX};

/// The spike count in closed form: `sum * scale + offset` in float32, rounded towards zero and limited.
///
/// No step of it falls as the sum rises. So it is right for every sum if it is at each threshold and one below: `fits` is
/// a proof, not a sample.
struct ClosedForm {
  float scale = 0;
  float offset = 0;
  int32_t least = 0;
  int32_t most = 0;

  float raw(int64_t sum) const { return static_cast<float>(static_cast<int32_t>(sum)) * scale + offset; }
  int32_t count(int64_t sum) const;
  bool fits(const int32_t* thresholds, int32_t highest, const Interval& sums) const;

  /// The one that is likeliest to fit.
  static ClosedForm of(const int32_t* thresholds, int32_t highest, const Interval& sums);
};

/// The neurons of blocks of `lanes` positions.
struct Neurons {
  /// A position belongs to an output, or to none (-1); the counts of positions are stored in the order `stored`.
  Neurons(const Thresholds& thresholds, const std::vector<int64_t>& outputs, const std::vector<int64_t>& stored,
          int64_t lanes, const std::vector<Interval>& sums);

  /// Of one sum, at a position and a place in the order in which counts are stored.
  int32_t count(int64_t position, int64_t place, int64_t lanes, int32_t sum) const;

  int32_t highest;
  // Of each position.
  Aligned<float> scale, offset;
  /// Of each block: where its thresholds [highest, lanes] begin in `thresholds`, or -1 where the closed form holds.
  std::vector<int64_t> uneven;
  Aligned<int32_t> thresholds;
  // Of each position, in the order in which counts are stored.
  Aligned<uint8_t> least, most;
};

}  // namespace pconv::cpu
