// The arithmetic of one parallel spiking neuron, the same for every provider (docs/ParallelSpike-2.md, Semantics).
#pragma once

#include <cstdint>

#include "pconv/half.h"
#include "pconv/portable.h"

namespace pconv {

/// The type in which currents are summed over time: wide enough that `I` equal currents have exactly that current as
/// their mean, unless their sum overflows.
template <class T>
struct TimeSum {
  using type = float;
};
template <>
struct TimeSum<float> {
  using type = double;
};
template <class T>
using TimeSumOf = typename TimeSum<T>::type;

/// The temporal mean from the sum over all steps, rounded once.
template <class T>
PCONV_HD PCONV_INLINE T temporal_mean(TimeSumOf<T> sum, TimeSumOf<T> steps) {
  return static_cast<T>(sum / steps);
}

/// Whether the neuron fires at the step with this threshold. False where either is NaN.
template <class T>
PCONV_HD PCONV_INLINE bool fires(T mean, T threshold) {
  return mean >= threshold;
}

/// One halving of the binary search for the spike count, over the `2 * half` or `2 * half + 1` thresholds after the
/// `reached` first ones. The search begins at reached = 0 over all thresholds and ends at one, which is compared.
template <class T, class Thresholds>
PCONV_HD PCONV_INLINE int32_t search_half(T mean, Thresholds thresholds, int32_t reached, int32_t half) {
  return reached + (fires<T>(mean, thresholds[reached + half - 1]) ? half : 0);
}

/// Evenly spaced thresholds, in which the nearest one is found in closed form.
///
/// The spike count is then `index + fires(mean, thresholds[index])`. `index` never falls as the mean rises, so it is
/// right for every mean if it is `k` at threshold `k` for each `k`: `holds_for` is a proof, not a sample.
struct EvenThresholds {
  float first;
  float per_unit;  ///< thresholds per unit of current
  int32_t last;

  template <class T>
  PCONV_HD static EvenThresholds fit(const T* thresholds, int32_t steps) {
    int32_t last = steps - 1;
    while (last > 0 && thresholds[last] != thresholds[last]) --last;  // NaN, never reached
    const float span = thresholds[last] - thresholds[0];
    return {thresholds[0], last > 0 ? static_cast<float>(last) / span : 0.0F, last};
  }

  PCONV_HD PCONV_INLINE int32_t nearest(float mean) const {
    const float index = (mean - first) * per_unit + 0.5F;
    const float floored = index > 0.0F ? index : 0.0F;  // NaN becomes 0
    const float top = static_cast<float>(last);
    return static_cast<int32_t>(floored < top ? floored : top);
  }

  template <class T>
  PCONV_HD bool holds_for(const T* thresholds) const {
    bool holds = true;
    for (int32_t k = 0; k <= last; ++k) holds &= nearest(thresholds[k]) == k;
    return holds;
  }
};

}  // namespace pconv
