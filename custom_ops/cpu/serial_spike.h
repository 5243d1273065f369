// SerialSpike on the CPU: one call on plain memory, cut into chunks that may run in any order and on any thread.
#pragma once

#include <cstdint>

#include "cpu/plan.h"
#include "pconv/half.h"
#include "pconv/serial_neuron.h"

namespace pconv::cpu {

/// Chunks of so many neurons are worth handing to a thread.
inline constexpr int64_t kSerialChunk = 1 << 15;

template <class T>
struct Plan<SerialCall<T>> {
  explicit Plan(const SerialCall<T>& call)
      : call(call), chunks((call.layout.elements + kSerialChunk - 1) / kSerialChunk) {}

  SerialCall<T> call;
  int64_t chunks;
};

template <class T>
void run_chunk(const Plan<SerialCall<T>>& plan, int64_t chunk);

}  // namespace pconv::cpu
