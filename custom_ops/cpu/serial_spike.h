// SerialSpike on the CPU: one call on plain memory, cut into chunks that may run in any order and on any thread.
#pragma once

#include <cstdint>

#include "pconv/half.h"
#include "pconv/serial_neuron.h"

namespace pconv::cpu {

int64_t chunks_of(const SerialLayout& layout);

/// Runs one chunk of a call with at least one element.
void run_chunk(const SerialCall<float>& call, int64_t chunk);
void run_chunk(const SerialCall<Half>& call, int64_t chunk);
void run_chunk(const SerialCall<BFloat16>& call, int64_t chunk);

}  // namespace pconv::cpu
