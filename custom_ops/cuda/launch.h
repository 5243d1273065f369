// How kernels are launched: queued on a stream, with what CUDA says of it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/stream.h"
#include "cuda/thread.h"

namespace pconv::cuda {

/// Returns null, or what CUDA says is wrong.
template <class Call>
const char* launch(const void* kernel, int64_t blocks, const Call& call, Stream stream) {
  void* arguments[] = {const_cast<Call*>(&call)};
  // Asked of the launch itself: the last error of the thread may be one that others left there.
  const cudaError_t error = cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), arguments, 0,
                                             static_cast<cudaStream_t>(stream.handle));
  if (error == cudaSuccess) return nullptr;
  cudaGetLastError();  // told, and so not left for others
  return cudaGetErrorString(error);
}

}  // namespace pconv::cuda
