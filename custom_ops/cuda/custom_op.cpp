#include "cuda/custom_op.h"

#include <stdexcept>
#include <string>

#include "cuda/parallel_spike.h"
#include "ort/parallel_spike.h"
#include "pconv/half.h"

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

template <class T>
ort::Operator parallel_spike_op(const OrtApi* api) {
  return ort::operator_of<T, ort::parallel_spike::Node<T, run<T>>>(api, "CUDAExecutionProvider");
}

}  // namespace

std::vector<ort::Operator> operators(const OrtApi* api) {
  return {parallel_spike_op<float>(api), parallel_spike_op<Half>(api), parallel_spike_op<BFloat16>(api)};
}

}  // namespace pconv::cuda
