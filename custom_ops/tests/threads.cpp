// The CUDA kernels on the CPU: the threads of a call, one after another. Called from tests/custom_ops/test_cuda_threads.py.
#include <cstdint>

#include "cuda/serial_thread.h"
#include "cuda/thread.h"
#include "pconv/half.h"
#include "pconv/ort_abi.h"

namespace {

using pconv::Call;
using pconv::Layout;
using pconv::SerialCall;
using pconv::SerialLayout;
using pconv::cuda::Grid;

template <class T>
Call<T> call_of(const Layout& layout, const void* current, const void* thresholds, const void* levels, void* output) {
  return {layout, static_cast<const T*>(current), static_cast<const T*>(thresholds), static_cast<const T*>(levels),
          static_cast<T*>(output)};
}

template <class T>
SerialCall<T> call_of(const SerialLayout& layout, void* const* arrays) {
  const auto array = [&](int i) { return static_cast<T*>(arrays[i]); };
  return {layout, array(0), array(1), array(2), array(3), array(4), array(5), array(6), array(7)};
}

/// Calls `use` for threads [first, last) of `blocks` blocks, the other way round where `backwards`: with the thread, how
/// many there are, and the constants of the grid.
template <class T, class Use>
void in_threads(const Grid& grid, int64_t blocks, int64_t first, int64_t last, bool backwards, Use&& use) {
  pconv::cuda::with_constants<T>(grid, [&](auto... constants) {
    for (int64_t i = first; i < last; ++i) {
      use(backwards ? last - 1 - (i - first) : i, blocks * pconv::cuda::kThreads, constants...);
    }
  });
}

template <class Use>
void with_type(int32_t type, Use&& use) {
  if (type == pconv::abi::kFloat) use(float{});
  if (type == pconv::abi::kFloat16) use(pconv::Half{});
  if (type == pconv::abi::kBFloat16) use(pconv::BFloat16{});
}

}  // namespace

extern "C" {

/// The grid that a call is launched with, where that many threads are few.
__attribute__((visibility("default"))) void grid_of(int32_t type, const Layout* layout, const void* current,
                                                    void* output, int64_t few, Grid* grid) {
  with_type(type, [&](auto element) {
    *grid = pconv::cuda::grid_of(call_of<decltype(element)>(*layout, current, nullptr, nullptr, output), few);
  });
}

__attribute__((visibility("default"))) void run_threads(int32_t type, const Layout* layout, const void* current,
                                                        const void* thresholds, const void* levels, void* output,
                                                        const Grid* grid, int64_t blocks, int64_t first, int64_t last,
                                                        bool backwards) {
  with_type(type, [&](auto element) {
    using T = decltype(element);
    const Call<T> call = call_of<T>(*layout, current, thresholds, levels, output);
    const auto run = [&](int64_t thread, int64_t threads, auto width, auto one_channel, auto averages) {
      pconv::cuda::run_thread<decltype(width)::value, decltype(one_channel)::value, decltype(averages)::value>(
          call, thread, threads);
    };
    in_threads<T>(*grid, blocks, first, last, backwards, run);
  });
}

/// Likewise; `arrays` are those of a SerialCall, in its order.
__attribute__((visibility("default"))) void serial_grid_of(int32_t type, const SerialLayout* layout,
                                                           void* const* arrays, int64_t few, Grid* grid) {
  with_type(type, [&](auto element) {
    *grid = pconv::cuda::grid_of(call_of<decltype(element)>(*layout, arrays), few);
  });
}

__attribute__((visibility("default"))) void run_serial_threads(int32_t type, const SerialLayout* layout,
                                                               void* const* arrays, const Grid* grid, int64_t blocks,
                                                               bool backwards) {
  with_type(type, [&](auto element) {
    using T = decltype(element);
    const SerialCall<T> call = call_of<T>(*layout, arrays);
    const auto run = [&](int64_t thread, int64_t threads, auto width, auto one_channel, auto) {
      pconv::cuda::run_thread<decltype(width)::value, decltype(one_channel)::value>(call, thread, threads);
    };
    in_threads<T>(*grid, blocks, 0, blocks * pconv::cuda::kThreads, backwards, run);
  });
}

}  // extern "C"
