// The arithmetic of one parallel spiking neuron, the same for every provider (docs/ParallelSpike-1.md, Semantics).
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define PCONV_HD __host__ __device__
#else
#define PCONV_HD
#endif

// Loops over neurons are compiled once per instruction set; a helper that were not inlined would stay at the baseline
// set.
#if defined(__GNUC__)
#define PCONV_INLINE inline __attribute__((always_inline))
#elif defined(_MSC_VER)
#define PCONV_INLINE __forceinline
#else
#define PCONV_INLINE inline
#endif

namespace pconv {

/// The type in which currents are summed over time: wide enough that `I` equal currents have exactly that current as
/// their mean.
template <class T>
struct TimeSum;
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
template <class T>
PCONV_HD PCONV_INLINE int32_t search_half(T mean, const T* thresholds, int32_t reached, int32_t half) {
  return reached + (fires(mean, thresholds[reached + half - 1]) ? half : 0);
}

/// Evenly spaced thresholds, in which the nearest one is found in closed form.
///
/// The spike count is then `index + fires(mean, thresholds[index])`. `index` never falls as the mean rises, so it is
/// right for every mean if it is `k` at threshold `k` for each `k`: `holds_for` is a proof, not a sample.
template <class T>
struct EvenThresholds {
  T first;
  T per_unit;  ///< thresholds per unit of current
  int32_t last;

  PCONV_HD static EvenThresholds fit(const T* thresholds, int32_t steps) {
    int32_t last = steps - 1;
    while (last > 0 && thresholds[last] != thresholds[last]) --last;  // NaN, never reached
    const T span = thresholds[last] - thresholds[0];
    return {thresholds[0], last > 0 ? static_cast<T>(last) / span : T(0), last};
  }

  PCONV_HD PCONV_INLINE int32_t nearest(T mean) const {
    const T index = (mean - first) * per_unit + T(0.5);
    const T floored = index > T(0) ? index : T(0);  // NaN becomes 0
    const T top = static_cast<T>(last);
    return static_cast<int32_t>(floored < top ? floored : top);
  }

  PCONV_HD bool holds_for(const T* thresholds) const {
    bool holds = true;
    for (int32_t k = 0; k <= last; ++k) holds &= nearest(thresholds[k]) == k;
    return holds;
  }
};

}  // namespace pconv
