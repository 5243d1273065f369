#include "cuda/serial_spike.h"

#include "cuda/launch.h"
#include "cuda/serial_thread.h"
#include "pconv/half.h"

namespace pconv::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads) serial_spike(const __grid_constant__ SerialCall<T> call) {
  run_thread(call, int64_t{blockIdx.x} * kThreads + threadIdx.x, int64_t{gridDim.x} * kThreads);
}

}  // namespace

template <class T>
const char* launch(const SerialCall<T>& call, void* stream) {
  return launch(reinterpret_cast<const void*>(&serial_spike<T>), blocks_of(call.layout), call, stream);
}

template const char* launch(const SerialCall<float>& call, void* stream);
template const char* launch(const SerialCall<Half>& call, void* stream);
template const char* launch(const SerialCall<BFloat16>& call, void* stream);

}  // namespace pconv::cuda
