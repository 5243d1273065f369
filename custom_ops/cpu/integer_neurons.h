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

/// The closed form that is likeliest to fit thresholds of which the first and the last lie `off` a line together.
ClosedForm<double> closed_form(const int32_t* thresholds, int32_t highest, const Interval& sums, double off = 1);

/// A closed form that may be one too few: whether it is, the threshold at that place says.
///
/// Thresholds that lie half a step or so off a line have no closed form of their own.
struct Estimate {
  float scale = 0;
  float offset = 0;
  float least = 0;  ///< limits of the estimate, which is always a place of a threshold
  float most = 0;

  int32_t of(int64_t sum) const;
  /// Whether it is the count or one less for every sum, proved as in `ClosedForm`.
  bool fits(const int32_t* thresholds, int32_t highest, const Interval& sums) const;
};

/// The estimate that is likeliest to fit.
Estimate estimate(const int32_t* thresholds, int32_t highest, const Interval& sums);

/// How the neurons of a block are counted: in closed form, from an estimate, or by comparing with every threshold.
enum class Kind : uint8_t { kFloat, kDouble, kEstimated, kCompared };

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
  Aligned<float> least_estimate, most_estimate;
  // Of each block: its kind, and where its thresholds [highest, lanes] begin in `thresholds` if they are looked at.
  std::vector<Kind> kinds;
  std::vector<int64_t> first_threshold;
  Aligned<int32_t> thresholds;
  // Of each position, in the order in which counts are stored.
  Aligned<uint8_t> least, most;
};

}  // namespace pconv::cpu
