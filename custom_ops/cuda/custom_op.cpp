#include "cuda/custom_op.h"

#include <stdexcept>
#include <string>

#include "cuda/parallel_spike.h"
#include "cuda/serial_spike.h"
#include "ort/guard.h"
#include "ort/operators.h"

namespace pconv::cuda {
namespace {

struct Provider {
  static constexpr const char* kName = "CUDAExecutionProvider";

  template <class T>
  static void run(const OrtApi* api, OrtKernelContext* context, const Call<T>& call) {
    queue(ort::parallel_spike::kName, api, context, call);
  }
  template <class T>
  static void run(const OrtApi* api, OrtKernelContext* context, const SerialCall<T>& call) {
    queue(ort::serial_spike::kName, api, context, call);
  }

 private:
  /// On the stream of the session.
  template <class AnyCall>
  static void queue(const char* op, const OrtApi* api, OrtKernelContext* context, const AnyCall& call) {
    void* stream = nullptr;
    ort::check(abi::KernelContext_GetGPUComputeStream(api, context, &stream));
    if (const char* error = launch(call, stream)) {
      throw std::runtime_error(std::string(op) + ": CUDA does not run the kernel: " + error);
    }
  }
};

}  // namespace

std::vector<ort::Operator> operators(const OrtApi* api) { return ort::operators<Provider>(api); }

}  // namespace pconv::cuda
