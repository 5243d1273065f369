// One call of ParallelSpike, after its inputs were checked.
#pragma once

#include <cstdint>

#include "pconv/portable.h"

namespace pconv {

/// How a train carries its spike count: the numbers of the attribute `coding`.
enum class Coding : int32_t { kRate = 0, kRadix = 1 };

inline constexpr int32_t kMaxCount = 65535;

/// One time-step is a dense array of `elements` neurons; neuron `m` belongs to channel `(m / inner) % channels`.
struct Layout {
  int64_t input_steps;  ///< I: time-steps held by the current
  int64_t elements;     ///< neurons of one time-step, batch included
  int64_t channels;     ///< R: rows of thresholds and levels
  int64_t inner;        ///< consecutive neurons that share a channel
  int32_t highest;      ///< S: the greatest spike count, and so the thresholds of one neuron
  int32_t steps;        ///< T: time-steps of the output; 1 where it is the mean
  bool spikes;          ///< the output is the spike trains; otherwise their temporal mean
  Coding coding;        ///< of trains
  int32_t zero;         ///< k0: the spike count of a silent neuron in them

  /// Whether neurons fire at step t where they reach threshold t, so that nobody has to count.
  PCONV_HD bool by_threshold() const { return spikes && coding == Coding::kRate && zero == 0; }
};

/// A call on dense arrays in the memory of the provider.
template <class T>
struct Call {
  Layout layout;
  const T* current;     ///< [input_steps, elements]
  const T* thresholds;  ///< [channels, highest]
  const T* levels;      ///< [channels, highest + 1]
  T* output;            ///< [steps, elements]
};

}  // namespace pconv
