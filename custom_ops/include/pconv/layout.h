// The sizes of one call of ParallelSpike, after its inputs were checked.
#pragma once

#include <cstdint>

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

  int64_t output_rows() const { return spikes ? steps : 1; }
};

}  // namespace pconv
