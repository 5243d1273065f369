#include "cuda/serial_spike.h"

#include "cuda/launch.h"
#include "cuda/serial_thread.h"
#include "pconv/half.h"

namespace pconv::cuda {
namespace {

template <class T, int32_t kWidth, bool kOneChannel>
__global__ void __launch_bounds__(kThreads) serial_spike(const __grid_constant__ SerialCall<T> call) {
  run_thread<kWidth, kOneChannel>(call, int64_t{blockIdx.x} * kThreads + threadIdx.x, int64_t{gridDim.x} * kThreads);
}

}  // namespace

template <class T>
const char* launch(const SerialCall<T>& call, Stream stream, int64_t few) {
  const Grid grid = grid_of(call, few);
  const auto kernel = with_constants<T>(grid, [](auto width, auto one_channel, auto) {
    return reinterpret_cast<const void*>(&serial_spike<T, decltype(width)::value, decltype(one_channel)::value>);
  });
  return launch(kernel, grid.blocks, call, stream);
}

template const char* launch(const SerialCall<float>& call, Stream stream, int64_t few);
template const char* launch(const SerialCall<Half>& call, Stream stream, int64_t few);
template const char* launch(const SerialCall<BFloat16>& call, Stream stream, int64_t few);

}  // namespace pconv::cuda
