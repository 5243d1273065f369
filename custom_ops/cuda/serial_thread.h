// What one CUDA thread does of a SerialSpike, as cuda/thread.h has it of a ParallelSpike: tests run it on the CPU.
#pragma once

#include <cstdint>

#include "cuda/thread.h"
#include "pconv/neuron.h"
#include "pconv/serial_neuron.h"

namespace pconv::cuda {

template <class T>
Grid grid_of(const SerialCall<T>& call, int64_t few = kFewThreads) {
  return grid_of<T>(call.layout, {call.current, call.potential, call.spikes, call.new_potential}, false, few);
}

/// The work of one of `threads` threads: consecutive neurons, and then those of the same place in the next round.
/// Nobody else has them, and they are read before they are written: outputs may take the place of inputs.
template <int32_t kWidth, bool kOneChannel, class T>
PCONV_HD PCONV_INLINE void run_thread(const SerialCall<T>& call, int64_t thread, int64_t threads) {
  constexpr int32_t kRows = kOneChannel ? 1 : kWidth;
  const SerialLayout& layout = call.layout;
  for (int64_t first = thread * kWidth; first < layout.elements; first += threads * kWidth) {
    const Vector<T, kWidth> current = load<kWidth>(call.current + first);
    Vector<T, kWidth> potential = load<kWidth>(call.potential + first);
    const Channels<kRows> channels(layout, first);
    float bias[kRows];
    float threshold[kRows];
    float reset[kRows];
    T silent[kRows];
    T firing[kRows];
    PCONV_UNROLL
    for (int32_t i = 0; i < kRows; ++i) {
      const int64_t channel = channels.at[i];
      bias[i] = call.bias[channel];
      threshold[i] = call.threshold[channel];
      reset[i] = call.reset[channel];
      silent[i] = call.levels[2 * channel];
      firing[i] = call.levels[2 * channel + 1];
    }
    Vector<T, kWidth> spikes;
    PCONV_UNROLL
    for (int32_t i = 0; i < kWidth; ++i) {
      const int32_t row = i % kRows;
      const float charge = charged(potential.at[i], current.at[i], bias[row]);
      const bool fired = fires(charge, threshold[row]);
      spikes.at[i] = fired ? firing[row] : silent[row];
      potential.at[i] = static_cast<T>(left_of(charge, fired, reset[row]));
    }
    store(spikes, call.spikes + first);
    store(potential, call.new_potential + first);
  }
}

}  // namespace pconv::cuda
