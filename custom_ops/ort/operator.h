// ParallelSpike as onnxruntime sees it. What providers differ in, the arithmetic over memory of their own, they bring.
#pragma once

#include <limits>

#include "ort/contract.h"
#include "ort/guard.h"
#include "ort/shape_inference.h"
#include "pconv/half.h"
#include "pconv/layout.h"
#include "pconv/ort_abi.h"

namespace pconv::ort {

/// The operator for one provider and element type. `api` is the table of the runtime that it is registered with.
struct ParallelSpikeOp : OrtCustomOp {
  const OrtApi* api;
  const char* provider;
};

/// A provider's arithmetic, for a call with at least one element. It throws what `guard` makes a status of.
template <class T>
using Run = void (*)(const OrtApi* api, OrtKernelContext* context, const Call<T>& call);

template <class T>
constexpr abi::ElementType kElementType{};
template <>
inline constexpr abi::ElementType kElementType<float> = abi::kFloat;
template <>
inline constexpr abi::ElementType kElementType<Half> = abi::kFloat16;
template <>
inline constexpr abi::ElementType kElementType<BFloat16> = abi::kBFloat16;

struct Kernel {
  const OrtApi* api;
  Attributes attributes;
};

template <class T>
struct Tensor {
  Shape shape;
  const T* data;
};

Shape shape_of(const OrtApi* api, const OrtValue* value);

template <class T>
T* mutable_data(const OrtApi* api, OrtValue* value) {
  void* data = nullptr;
  check(abi::GetTensorMutableData(api, value, &data));
  return static_cast<T*>(data);
}

template <class T>
Tensor<T> input(const OrtApi* api, const OrtKernelContext* context, size_t index) {
  const OrtValue* value = nullptr;
  check(abi::KernelContext_GetInput(api, context, index, &value));
  return {shape_of(api, value), mutable_data<T>(api, const_cast<OrtValue*>(value))};
}

template <class T, Run<T> run>
void compute(const Kernel& kernel, OrtKernelContext* context) {
  const OrtApi* api = kernel.api;
  const Tensor<T> current = input<T>(api, context, 0);
  const Tensor<T> thresholds = input<T>(api, context, 1);
  const Tensor<T> levels = input<T>(api, context, 2);
  const Layout layout = check_shapes(kernel.attributes, current.shape, thresholds.shape, levels.shape);

  Shape shape = current.shape;
  shape[0] = shape[0] / layout.input_steps * layout.output_rows();
  OrtValue* output = nullptr;
  check(abi::KernelContext_GetOutput(api, context, 0, shape.data(), shape.size(), &output));
  if (layout.elements == 0) return;
  run(api, context, {layout, current.data, thresholds.data, levels.data, mutable_data<T>(api, output)});
}

template <class T, Run<T> run>
ParallelSpikeOp parallel_spike_op(const OrtApi* api, const char* provider) {
  ParallelSpikeOp op{};
  op.api = api;
  op.provider = provider;
  op.version = abi::kVersion;
  op.GetName = [](const OrtCustomOp*) { return "ParallelSpike"; };
  op.GetExecutionProviderType = [](const OrtCustomOp* self) {
    return static_cast<const ParallelSpikeOp*>(self)->provider;
  };
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
    return guard(runtime, [&] { *kernel = new Kernel{runtime, read_attributes(runtime, info)}; });
  };
  op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    const Kernel& self = *static_cast<const Kernel*>(kernel);
    return guard(self.api, [&] { compute<T, run>(self, context); });
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
    infer_output_shape(static_cast<const ParallelSpikeOp*>(self)->api, context);
    return nullptr;
  };
  return op;
}

}  // namespace pconv::ort
