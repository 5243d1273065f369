#include "cuda/custom_op.h"

#include <stdexcept>
#include <string>

#include "cuda/parallel_spike.h"
#include "cuda/serial_spike.h"
#include "ort/parallel_spike.h"
#include "ort/serial_spike.h"
#include "pconv/half.h"

namespace pconv::cuda {
namespace {

/// On the stream of the session.
template <class Call>
void run(const char* op, const OrtApi* api, OrtKernelContext* context, const Call& call) {
  void* stream = nullptr;
  ort::check(abi::KernelContext_GetGPUComputeStream(api, context, &stream));
  if (const char* error = launch(call, stream)) {
    throw std::runtime_error(std::string(op) + ": CUDA does not run the kernel: " + error);
  }
}

template <class T>
void run_parallel(const OrtApi* api, OrtKernelContext* context, const Call<T>& call) {
  run(ort::parallel_spike::kName, api, context, call);
}

template <class T>
void run_serial(const OrtApi* api, OrtKernelContext* context, const SerialCall<T>& call) {
  run(ort::serial_spike::kName, api, context, call);
}

template <class T, class Node>
ort::Operator operator_of(const OrtApi* api) {
  return ort::operator_of<T, Node>(api, "CUDAExecutionProvider");
}

template <class T>
using ParallelSpike = ort::parallel_spike::Node<T, run_parallel<T>>;
template <class T>
using SerialSpike = ort::serial_spike::Node<T, run_serial<T>>;

}  // namespace

std::vector<ort::Operator> operators(const OrtApi* api) {
  return {
      operator_of<float, ParallelSpike<float>>(api), operator_of<Half, ParallelSpike<Half>>(api),
      operator_of<BFloat16, ParallelSpike<BFloat16>>(api), operator_of<float, SerialSpike<float>>(api),
      operator_of<Half, SerialSpike<Half>>(api), operator_of<BFloat16, SerialSpike<BFloat16>>(api),
  };
}

}  // namespace pconv::cuda
