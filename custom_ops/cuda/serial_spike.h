// SerialSpike on a CUDA device: one call on memory of the device.
#pragma once

#include <cstdint>

#include "cuda/stream.h"
#include "cuda/thread.h"
#include "pconv/serial_neuron.h"

namespace pconv::cuda {

/// As `launch` of ParallelSpike has it: queues a call with at least one element on a stream, and waits for nothing.
///
/// Returns null, or what CUDA says is wrong.
template <class T>
const char* launch(const SerialCall<T>& call, Stream stream, int64_t few = kFewThreads);

}  // namespace pconv::cuda
