// The tensors of a call, as the context of onnxruntime holds them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "ort/guard.h"
#include "pconv/half.h"
#include "pconv/ort_abi.h"

namespace pconv::ort {

using Shape = std::vector<int64_t>;

/// The number that ONNX has for a type; none for other types.
template <class T>
constexpr abi::ElementType kElementType{};
template <>
inline constexpr abi::ElementType kElementType<float> = abi::kFloat;
template <>
inline constexpr abi::ElementType kElementType<Half> = abi::kFloat16;
template <>
inline constexpr abi::ElementType kElementType<BFloat16> = abi::kBFloat16;
template <>
inline constexpr abi::ElementType kElementType<int32_t> = abi::kInt32;
template <>
inline constexpr abi::ElementType kElementType<int8_t> = abi::kInt8;
template <>
inline constexpr abi::ElementType kElementType<uint8_t> = abi::kUint8;

/// Element types in order: of an operator's inputs, or of its outputs.
template <class... T>
struct Types {
  static_assert(((kElementType<T> != abi::ElementType{}) && ...), "kElementType lacks a type");
  static constexpr abi::ElementType kElements[] = {kElementType<T>...};
  template <size_t kIndex>
  using At = std::tuple_element_t<kIndex, std::tuple<T...>>;
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

/// An input, of the type that the operator declares for it.
template <class Inputs, size_t kIndex>
auto input(const OrtApi* api, const OrtKernelContext* context) {
  using T = typename Inputs::template At<kIndex>;
  const OrtValue* value = nullptr;
  check(abi::KernelContext_GetInput(api, context, kIndex, &value));
  return Tensor<T>{shape_of(api, value), mutable_data<T>(api, const_cast<OrtValue*>(value))};
}

/// An input that is the same in every call, for as long as the session; none where it is not.
template <class Inputs, size_t kIndex>
auto constant(const OrtApi* api, const OrtKernelInfo* info) {
  using T = typename Inputs::template At<kIndex>;
  int is_constant = 0;
  const OrtValue* value = nullptr;
  check(abi::KernelInfoGetConstantInput_tensor(api, info, kIndex, &is_constant, &value));
  std::optional<Tensor<T>> tensor;
  if (is_constant != 0) tensor = {shape_of(api, value), mutable_data<T>(api, const_cast<OrtValue*>(value))};
  return tensor;
}

/// Memory for an output of that shape, of the type that the operator declares for it.
template <class Outputs, size_t kIndex>
auto* output(const OrtApi* api, OrtKernelContext* context, const Shape& shape) {
  OrtValue* value = nullptr;
  check(abi::KernelContext_GetOutput(api, context, kIndex, shape.data(), shape.size(), &value));
  return mutable_data<typename Outputs::template At<kIndex>>(api, value);
}

}  // namespace pconv::ort
