// Operators on onnxruntime's CUDA provider.
#pragma once

#include <stdexcept>
#include <string>

#include "cuda/stream.h"
#include "ort/guard.h"
#include "pconv/ort_abi.h"

namespace pconv::cuda {

struct Provider {
  static constexpr const char* kName = "CUDAExecutionProvider";

  /// On the stream of the session.
  template <class AnyCall>
  static void run(const OrtApi* api, OrtKernelContext* context, const AnyCall& call) {
    Stream stream{};
    ort::check(abi::KernelContext_GetGPUComputeStream(api, context, &stream.handle));
    if (const char* error = launch(call, stream)) {
      throw std::runtime_error("CUDA does not run the kernel: " + std::string(error));
    }
  }
};

}  // namespace pconv::cuda
