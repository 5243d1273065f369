#include "cuda/custom_op.h"

#include <stdexcept>
#include <string>

#include "cuda/parallel_spike.h"

namespace pconv::cuda {
namespace {

/// On the stream of the session.
template <class T>
void run(const OrtApi* api, OrtKernelContext* context, const Call<T>& call) {
  void* stream = nullptr;
  ort::check(abi::KernelContext_GetGPUComputeStream(api, context, &stream));
  if (const char* error = launch(call, stream)) {
    throw std::runtime_error("ParallelSpike: CUDA does not run the kernel: " + std::string(error));
  }
}

}  // namespace

template <class T>
ort::ParallelSpikeOp parallel_spike_op(const OrtApi* api) {
  return ort::parallel_spike_op<T, run<T>>(api, "CUDAExecutionProvider");
}

template ort::ParallelSpikeOp parallel_spike_op<float>(const OrtApi* api);
template ort::ParallelSpikeOp parallel_spike_op<Half>(const OrtApi* api);
template ort::ParallelSpikeOp parallel_spike_op<BFloat16>(const OrtApi* api);

}  // namespace pconv::cuda
