// What one CUDA thread does of a SerialSpike, as cuda/thread.h has it of a ParallelSpike: tests run it on the CPU.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/thread.h"
#include "pconv/neuron.h"
#include "pconv/serial_neuron.h"

namespace pconv::cuda {

inline int64_t blocks_of(const SerialLayout& layout) {
  return std::min((layout.elements - 1) / kThreads + 1, kMaxBlocks);
}

/// The work of one of `threads` threads: one neuron, and then that of the same place in the next round. Nobody else has
/// that neuron, and it is read before it is written: outputs may take the place of inputs.
template <class T>
PCONV_HD PCONV_INLINE void run_thread(const SerialCall<T>& call, int64_t thread, int64_t threads) {
  const SerialLayout& layout = call.layout;
  for (int64_t i = thread; i < layout.elements; i += threads) {
    const int64_t channel = layout.channels == 1 ? 0 : i / layout.inner % layout.channels;
    const float charge = charged(call.potential[i], call.current[i], call.bias[channel]);
    const bool fired = fires<float>(charge, call.threshold[channel]);
    call.spikes[i] = call.levels[2 * channel + fired];
    call.new_potential[i] = static_cast<T>(left_of(charge, fired, call.reset[channel]));
  }
}

}  // namespace pconv::cuda
