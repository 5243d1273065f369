// ParallelSpike on a CUDA device: one call on memory of the device.
#pragma once

#include <cstdint>

#include "cuda/stream.h"
#include "cuda/thread.h"
#include "pconv/layout.h"

namespace pconv::cuda {

/// Queues a call with at least one element on a stream, and waits for nothing. Nothing is allocated or copied either,
/// so that CUDA graphs can capture it. Fewer than `few` threads of wide vectors give way to more of narrow ones.
///
/// Returns null, or what CUDA says is wrong.
template <class T>
const char* launch(const Call<T>& call, Stream stream, int64_t few = kFewThreads);

}  // namespace pconv::cuda
