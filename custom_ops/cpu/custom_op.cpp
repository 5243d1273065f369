#include "cpu/custom_op.h"

#include <limits>
#include <memory>

#include "cpu/parallel_spike.h"
#include "ort/contract.h"
#include "ort/guard.h"
#include "ort/shape_inference.h"

namespace pconv::cpu {
namespace {

using ort::check;
using ort::Shape;

template <class T>
constexpr abi::ElementType kElementType{};
template <>
constexpr abi::ElementType kElementType<float> = abi::kFloat;
template <>
constexpr abi::ElementType kElementType<Half> = abi::kFloat16;
template <>
constexpr abi::ElementType kElementType<BFloat16> = abi::kBFloat16;

struct Kernel {
  const OrtApi* api;
  ort::Attributes attributes;
};

template <class T>
struct Tensor {
  Shape shape;
  const T* data;
};

template <class T>
T* mutable_data(const OrtApi* api, OrtValue* value) {
  void* data = nullptr;
  check(abi::GetTensorMutableData(api, value, &data));
  return static_cast<T*>(data);
}

Shape shape_of(const OrtApi* api, const OrtValue* value) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(abi::GetTensorTypeAndShape(api, value, &info));
  const auto release = [api](OrtTensorTypeAndShapeInfo* owned) { abi::ReleaseTensorTypeAndShapeInfo(api, owned); };
  const std::unique_ptr<OrtTensorTypeAndShapeInfo, decltype(release)> owner(info, release);
  size_t rank = 0;
  check(abi::GetDimensionsCount(api, info, &rank));
  Shape shape(rank);
  check(abi::GetDimensions(api, info, shape.data(), rank));
  return shape;
}

template <class T>
Tensor<T> input(const OrtApi* api, const OrtKernelContext* context, size_t index) {
  const OrtValue* value = nullptr;
  check(abi::KernelContext_GetInput(api, context, index, &value));
  return {shape_of(api, value), mutable_data<T>(api, const_cast<OrtValue*>(value))};
}

template <class T>
void compute(const Kernel& kernel, OrtKernelContext* context) {
  const OrtApi* api = kernel.api;
  const Tensor<T> current = input<T>(api, context, 0);
  const Tensor<T> thresholds = input<T>(api, context, 1);
  const Tensor<T> levels = input<T>(api, context, 2);
  const Layout layout = ort::check_shapes(kernel.attributes, current.shape, thresholds.shape, levels.shape);

  Shape shape = current.shape;
  shape[0] = shape[0] / layout.input_steps * layout.output_rows();
  OrtValue* output = nullptr;
  check(abi::KernelContext_GetOutput(api, context, 0, shape.data(), shape.size(), &output));
  if (layout.elements == 0) return;

  const Plan<T> plan({layout, current.data, thresholds.data, levels.data, mutable_data<T>(api, output)});
  const auto task = [](void* data, size_t chunk) {
    run_chunk(*static_cast<const Plan<T>*>(data), static_cast<int64_t>(chunk));
  };
  check(abi::KernelContext_ParallelFor(api, context, task, static_cast<size_t>(plan.chunks), 0,
                                       const_cast<Plan<T>*>(&plan)));
}

}  // namespace

template <class T>
ParallelSpikeOp parallel_spike_op(const OrtApi* api) {
  ParallelSpikeOp op{};
  op.api = api;
  op.version = abi::kVersion;
  op.GetName = [](const OrtCustomOp*) { return "ParallelSpike"; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) { return "CPUExecutionProvider"; };
  op.GetInputTypeCount = [](const OrtCustomOp*) -> size_t { return 3; };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op.GetInputType = [](const OrtCustomOp*, size_t) -> int { return kElementType<T>; };
  op.GetOutputType = [](const OrtCustomOp*, size_t) -> int { return kElementType<T>; };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t) -> int { return abi::kRequired; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) -> int { return abi::kRequired; };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) -> int { return abi::kOfProvider; };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return std::numeric_limits<int>::max(); };
  op.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi* runtime, const OrtKernelInfo* info, void** kernel) {
    return ort::guard(runtime, [&] { *kernel = new Kernel{runtime, ort::read_attributes(runtime, info)}; });
  };
  op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    const Kernel& self = *static_cast<const Kernel*>(kernel);
    return ort::guard(self.api, [&] { compute<T>(self, context); });
  };
  op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  // Trains of as many steps as the current has may take its place: a neuron reads all its steps before it writes one.
  op.GetMayInplace = [](int** input, int** output) -> size_t {
    static int first = 0;
    *input = *output = &first;
    return 1;
  };
  op.ReleaseMayInplace = [](int*, int*) {};
  op.InferOutputShapeFn = [](const OrtCustomOp* self, OrtShapeInferContext* context) -> OrtStatus* {
    ort::infer_output_shape(static_cast<const ParallelSpikeOp*>(self)->api, context);
    return nullptr;
  };
  return op;
}

template ParallelSpikeOp parallel_spike_op<float>(const OrtApi* api);
template ParallelSpikeOp parallel_spike_op<Half>(const OrtApi* api);
template ParallelSpikeOp parallel_spike_op<BFloat16>(const OrtApi* api);

}  // namespace pconv::cpu
