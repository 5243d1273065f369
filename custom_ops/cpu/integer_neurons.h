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

/// The spike count in closed form: `sum * scale + offset` in float or double, rounded towards zero and limited.
///
/// No step of it falls as the sum rises. So it is right for every sum if it is at each threshold and one below: `fits`
/// is a proof, not a sample.
template <class Real>
struct ClosedForm {
  Real scale = 0;
  Real offset = 0;
  int32_t least = 0;
  int32_t most = 0;

  Real raw(int64_t sum) const { return static_cast<Real>(static_cast<int32_t>(sum)) * scale + offset; }
  int32_t count(int64_t sum) const;
  bool fits(const int32_t* thresholds, int32_t highest, const Interval& sums) const;
};

/// The closed form that is likeliest to fit.
ClosedForm<double> closed_form(const int32_t* thresholds, int32_t highest, const Interval& sums);

/// How the neurons of a block are counted: in closed form, or by comparing with every threshold.
enum class Kind : uint8_t { kFloat, kDouble, kCompared };

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
  Aligned<double> fine_scale, fine_offset;
  // Of each block: its kind, and where its thresholds [highest, lanes] begin in `thresholds` if they are compared.
  std::vector<Kind> kinds;
  std::vector<int64_t> first_threshold;
  Aligned<int32_t> thresholds;
  // Of each position, in the order in which counts are stored.
  Aligned<uint8_t> least, most;
};

}  // namespace pconv::cpu
