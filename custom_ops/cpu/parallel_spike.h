// ParallelSpike on the CPU: one call on plain memory, cut into chunks that may run in any order and on any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/plan.h"
#include "pconv/layout.h"
#include "pconv/neuron.h"

namespace pconv::cpu {

/// How a call is cut up.
///
/// The pattern of channels repeats every `period` neurons. A chunk takes a block of `width` neurons at one place of
/// that pattern, and the same place in several periods, so that what depends on the channel is prepared once per chunk.
template <class T>
struct Plan<Call<T>> {
  explicit Plan(const Call<T>& call);

  Call<T> call;
  int64_t width;
  int64_t period;
  int64_t blocks;   ///< per period
  int64_t periods;  ///< the last one may be cut short
  int64_t periods_per_chunk;
  int64_t chunks;
  bool expanded;  ///< channels are too short for loops of their own: thresholds are laid out per neuron
  bool streamed;  ///< the output is written past the cache
  /// One for each channel, or empty: thresholds are then searched, or passed one by one.
  std::vector<EvenThresholds> even;
};

template <class T>
void run_chunk(const Plan<Call<T>>& plan, int64_t chunk);

}  // namespace pconv::cpu
