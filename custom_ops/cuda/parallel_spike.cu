#include "cuda/parallel_spike.h"

#include "cuda/launch.h"
#include "cuda/thread.h"

namespace pconv::cuda {
namespace {

template <class T, int32_t kWidth, bool kOneChannel>
__global__ void __launch_bounds__(kThreads) parallel_spike(const __grid_constant__ Call<T> call) {
  run_thread<kWidth, kOneChannel>(call, int64_t{blockIdx.x} * kThreads + threadIdx.x, int64_t{gridDim.x} * kThreads);
}

}  // namespace

template <class T>
const char* launch(const Call<T>& call, void* stream, int64_t few) {
  const Grid grid = grid_of(call, few);
  const auto kernel = with_constants<T>(grid, [](auto width, auto one_channel) {
    return reinterpret_cast<const void*>(&parallel_spike<T, decltype(width)::value, decltype(one_channel)::value>);
  });
  return launch(kernel, grid.blocks, call, stream);
}

template const char* launch(const Call<float>& call, void* stream, int64_t few);
template const char* launch(const Call<Half>& call, void* stream, int64_t few);
template const char* launch(const Call<BFloat16>& call, void* stream, int64_t few);

}  // namespace pconv::cuda
