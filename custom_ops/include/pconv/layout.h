// One call of ParallelSpike, after its inputs were checked.
#pragma once

#include <cstdint>

#include "pconv/portable.h"

namespace pconv {

inline constexpr int64_t kMaxSteps = 65535;

/// One time-step is a dense array of `elements` neurons; neuron `m` belongs to channel `(m / inner) % channels`.
struct Layout {
  int64_t input_steps;  ///< I: time-steps held by the current
  int64_t elements;     ///< neurons of one time-step, batch included
  int64_t channels;     ///< R: rows of thresholds and levels
  int64_t inner;        ///< consecutive neurons that share a channel
  int32_t steps;        ///< S: thresholds of one neuron, and time-steps of its spike train
  bool spikes;          ///< the output is the spike trains; otherwise their temporal mean

  PCONV_HD int64_t output_rows() const { return spikes ? steps : 1; }
};

/// A call on dense arrays in the memory of the provider.
template <class T>
struct Call {
  Layout layout;
  const T* current;     ///< [input_steps, elements]
  const T* thresholds;  ///< [channels, steps]
  const T* levels;      ///< [channels, steps + 1]
  T* output;            ///< [output_rows, elements]
};

}  // namespace pconv
