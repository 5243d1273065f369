#include "ort/tensor.h"

#include <memory>

namespace pconv::ort {

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

}  // namespace pconv::ort
