#include "cuda/parallel_spike.h"

#include "cuda/launch.h"
#include "cuda/thread.h"

namespace pconv::cuda {
namespace {

// Blocks that a multiprocessor is to have room for: few, so that a thread has registers for all that it asks for at once.
// By itself the compiler prefers threads to registers. Turing has room for 8 at most; wide vectors of half types would
// spill with more.
constexpr int32_t resident_blocks(int32_t width, bool one_channel, bool averages) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  constexpr int32_t kMost = 8;
#else
  constexpr int32_t kMost = 12;
#endif
  if (!one_channel) return 4;
  return averages || width > 4 ? 8 : kMost;
}

template <class T, int32_t kWidth, bool kOneChannel, bool kAverages>
__global__ void __launch_bounds__(kThreads, resident_blocks(kWidth, kOneChannel, kAverages))
    parallel_spike(const __grid_constant__ Call<T> call) {
  run_thread<kWidth, kOneChannel, kAverages>(call, int64_t{blockIdx.x} * kThreads + threadIdx.x,
                                             int64_t{gridDim.x} * kThreads);
}

}  // namespace

template <class T>
const char* launch(const Call<T>& call, Stream stream, int64_t few) {
  const Grid grid = grid_of(call, few);
  const auto kernel = with_constants<T>(grid, [](auto width, auto one_channel, auto averages) {
    return reinterpret_cast<const void*>(
        &parallel_spike<T, decltype(width)::value, decltype(one_channel)::value, decltype(averages)::value>);
  });
  return launch(kernel, grid.blocks, call, stream);
}

template const char* launch(const Call<float>& call, Stream stream, int64_t few);
template const char* launch(const Call<Half>& call, Stream stream, int64_t few);
template const char* launch(const Call<BFloat16>& call, Stream stream, int64_t few);

}  // namespace pconv::cuda
