// The CUDA kernels without onnxruntime, for tests and benchmarks: benchmarks/cuda_device.py calls it. What fails is
// returned in words, as cuda::launch does.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/parallel_spike.h"
#include "cuda/serial_spike.h"
#include "pconv/half.h"
#include "pconv/ort_abi.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using pconv::Call;
using pconv::Layout;

/// Where that many threads are few; as in the product where it is negative.
int64_t few_of(int64_t few) { return few < 0 ? pconv::cuda::kFewThreads : few; }

const char* told(cudaError_t error) { return error == cudaSuccess ? nullptr : cudaGetErrorString(error); }

/// Milliseconds of each of `repeats` times that `queue` puts work on the stream; once more before, unmeasured.
template <class Queue>
const char* timed(int32_t repeats, float* milliseconds, cudaStream_t stream, Queue&& queue) {
  cudaEvent_t begin;
  cudaEvent_t end;
  if (const char* error = told(cudaEventCreate(&begin))) return error;
  if (const char* error = told(cudaEventCreate(&end))) return error;
  for (int32_t i = -1; i < repeats; ++i) {
    cudaEventRecord(begin, stream);
    if (const char* error = queue()) return error;
    cudaEventRecord(end, stream);
    if (const char* error = told(cudaEventSynchronize(end))) return error;
    if (i >= 0) cudaEventElapsedTime(&milliseconds[i], begin, end);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return nullptr;
}

}  // namespace

EXPORT const char* device_count(int32_t* count) { return told(cudaGetDeviceCount(count)); }

EXPORT const char* describe(char* name, int32_t size, int32_t* driver, int32_t* runtime, int64_t* cache_bytes) {
  cudaDeviceProp properties;
  if (const char* error = told(cudaGetDeviceProperties(&properties, 0))) return error;
  for (int32_t i = 0; i < size; ++i) name[i] = properties.name[i];
  *cache_bytes = properties.l2CacheSize;
  if (const char* error = told(cudaDriverGetVersion(driver))) return error;
  return told(cudaRuntimeGetVersion(runtime));
}

EXPORT const char* allocate(int64_t bytes, void** memory) { return told(cudaMalloc(memory, bytes)); }
EXPORT const char* release(void* memory) { return told(cudaFree(memory)); }
// Streams that do not wait for the default one would not wait for what is left of these.
EXPORT const char* copy(void* to, const void* from, int64_t bytes) {
  if (const char* error = told(cudaMemcpy(to, from, bytes, cudaMemcpyDefault))) return error;
  return told(cudaStreamSynchronize(nullptr));
}
EXPORT const char* fill(void* memory, int32_t byte, int64_t bytes) {
  if (const char* error = told(cudaMemset(memory, byte, bytes))) return error;
  return told(cudaStreamSynchronize(nullptr));
}
EXPORT const char* make_stream(void** stream) {
  return told(cudaStreamCreateWithFlags(reinterpret_cast<cudaStream_t*>(stream), cudaStreamNonBlocking));
}
/// Captures what is queued on a stream that the default one waits for, until `end_capture`.
EXPORT const char* begin_capture(void** stream) {
  if (const char* error = told(cudaStreamCreate(reinterpret_cast<cudaStream_t*>(stream)))) return error;
  return told(cudaStreamBeginCapture(static_cast<cudaStream_t>(*stream), cudaStreamCaptureModeGlobal));
}
EXPORT const char* end_capture(void* stream) {
  cudaGraph_t graph = nullptr;
  const char* error = told(cudaStreamEndCapture(static_cast<cudaStream_t>(stream), &graph));
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaStreamDestroy(static_cast<cudaStream_t>(stream));
  cudaGetLastError();  // told
  return error;
}
EXPORT const char* synchronize(void* stream) { return told(cudaStreamSynchronize(static_cast<cudaStream_t>(stream))); }

EXPORT const char* launch(int32_t type, const Layout* layout, const void* current, const void* thresholds,
                          const void* levels, void* output, void* stream, int64_t few) {
  const auto with = [&](auto element) {
    using T = decltype(element);
    return pconv::cuda::launch(Call<T>{*layout, static_cast<const T*>(current), static_cast<const T*>(thresholds),
                                       static_cast<const T*>(levels), static_cast<T*>(output)},
                               pconv::cuda::Stream{stream}, few_of(few));
  };
  if (type == pconv::abi::kFloat) return with(float{});
  if (type == pconv::abi::kFloat16) return with(pconv::Half{});
  return with(pconv::BFloat16{});
}

/// `arrays` are those of a SerialCall, in its order.
EXPORT const char* launch_serial(int32_t type, const pconv::SerialLayout* layout, void* const* arrays, void* stream,
                                 int64_t few) {
  const auto with = [&](auto element) {
    using T = decltype(element);
    const auto array = [&](int i) { return static_cast<T*>(arrays[i]); };
    return pconv::cuda::launch(pconv::SerialCall<T>{*layout, array(0), array(1), array(2), array(3), array(4), array(5),
                                                    array(6), array(7)},
                               pconv::cuda::Stream{stream}, few_of(few));
  };
  if (type == pconv::abi::kFloat) return with(float{});
  if (type == pconv::abi::kFloat16) return with(pconv::Half{});
  return with(pconv::BFloat16{});
}

EXPORT const char* time_launches(int32_t type, const Layout* layout, const void* current, const void* thresholds,
                                 const void* levels, void* output, void* stream, int32_t repeats,
                                 float* milliseconds) {
  return timed(repeats, milliseconds, static_cast<cudaStream_t>(stream),
               [&] { return launch(type, layout, current, thresholds, levels, output, stream, -1); });
}

EXPORT const char* time_copies(void* to, const void* from, int64_t bytes, void* stream, int32_t repeats,
                               float* milliseconds) {
  return timed(repeats, milliseconds, static_cast<cudaStream_t>(stream), [&] {
    return told(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, static_cast<cudaStream_t>(stream)));
  });
}
