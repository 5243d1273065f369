// Where calls are queued on a CUDA device.
#pragma once

namespace pconv::cuda {

/// A cudaStream_t of the current device. A type of this namespace, so that a call of `launch` finds those of every
/// operator.
struct Stream {
  void* handle;
};

}  // namespace pconv::cuda
