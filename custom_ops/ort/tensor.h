// The tensors of a call, as the context of onnxruntime holds them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ort/guard.h"
#include "pconv/half.h"
#include "pconv/ort_abi.h"

namespace pconv::ort {

using Shape = std::vector<int64_t>;

template <class T>
constexpr abi::ElementType kElementType{};
template <>
inline constexpr abi::ElementType kElementType<float> = abi::kFloat;
template <>
inline constexpr abi::ElementType kElementType<Half> = abi::kFloat16;
template <>
inline constexpr abi::ElementType kElementType<BFloat16> = abi::kBFloat16;

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

/// Memory for an output of that shape.
template <class T>
T* output(const OrtApi* api, OrtKernelContext* context, size_t index, const Shape& shape) {
  OrtValue* value = nullptr;
  check(abi::KernelContext_GetOutput(api, context, index, shape.data(), shape.size(), &value));
  return mutable_data<T>(api, value);
}

}  // namespace pconv::ort
