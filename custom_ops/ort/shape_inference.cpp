#include "ort/shape_inference.h"

#include <algorithm>
#include <cctype>
#include <limits>
#include <memory>
#include <stdexcept>

#include "ort/guard.h"

namespace pconv::ort {

bool Declared::known() const {
  return !shape.empty() && std::all_of(shape.begin(), shape.end(), [](const Dimension& dim) { return dim.known(); });
}

Declared declared_input(const OrtApi* api, OrtShapeInferContext* context, size_t index) {
  OrtTensorTypeAndShapeInfo* borrowed = nullptr;
  check(abi::ShapeInferContext_GetInputTypeShape(api, context, index, &borrowed));
  Declared input{};
  check(abi::GetTensorElementType(api, borrowed, &input.type));
  size_t rank = 0;
  check(abi::GetDimensionsCount(api, borrowed, &rank));
  std::vector<int64_t> values(rank);
  std::vector<const char*> names(rank, "");
  check(abi::GetDimensions(api, borrowed, values.data(), rank));
  check(abi::GetSymbolicDimensions(api, borrowed, names.data(), rank));
  for (size_t axis = 0; axis < rank; ++axis) input.shape.push_back({values[axis], names[axis]});
  return input;
}

std::optional<Dimension> scaled(const Dimension& dim, int64_t rows, int64_t input_steps) {
  if (rows == input_steps) return dim;
  if (dim.value >= 0) {
    if (dim.value % input_steps != 0 || dim.value / input_steps > std::numeric_limits<int64_t>::max() / rows) {
      return std::nullopt;
    }
    return Dimension{dim.value / input_steps * rows, ""};
  }
  constexpr size_t kMaxDigits = 9;  // products then fit
  size_t digits = 0;
  while (digits < dim.name.size() && std::isdigit(static_cast<unsigned char>(dim.name[digits]))) ++digits;
  const bool has_factor = digits > 0 && digits <= kMaxDigits && digits < dim.name.size() && dim.name[digits] == '*';
  const std::string base = has_factor ? dim.name.substr(digits + 1) : dim.name;
  if (base.empty() || base.find_first_of("+-*/() ") != std::string::npos) return std::nullopt;
  const int64_t factor = (has_factor ? std::stoll(dim.name.substr(0, digits)) : 1) * rows;
  if (factor == 0 || factor % input_steps != 0) return std::nullopt;
  const int64_t quotient = factor / input_steps;
  return Dimension{-1, quotient == 1 ? base : std::to_string(quotient) + "*" + base};
}

namespace {

int64_t int_of(const OrtApi* api, const OrtOpAttr* found) {
  int64_t value = 0;
  size_t size = 0;
  check(abi::ReadOpAttr(api, found, abi::kInt, &value, sizeof(value), &size));
  return value;
}

}  // namespace

int64_t declared_int(const OrtApi* api, OrtShapeInferContext* context, const char* name) {
  const OrtOpAttr* found = nullptr;
  check(abi::ShapeInferContext_GetAttribute(api, context, name, &found));
  return int_of(api, found);
}

int64_t declared_optional_int(const OrtApi* api, OrtShapeInferContext* context, const char* name) {
  const OrtOpAttr* found = nullptr;
  if (OrtStatus* missing = abi::ShapeInferContext_GetAttribute(api, context, name, &found)) {
    abi::ReleaseStatus(api, missing);
    return 0;
  }
  return int_of(api, found);
}

std::vector<int64_t> declared_ints(const OrtApi* api, OrtShapeInferContext* context, const char* name, size_t size) {
  const OrtOpAttr* found = nullptr;
  check(abi::ShapeInferContext_GetAttribute(api, context, name, &found));
  std::vector<int64_t> values(size);
  size_t bytes = 0;
  check(abi::ReadOpAttr(api, found, abi::kInts, values.data(), size * sizeof(int64_t), &bytes));
  if (bytes != size * sizeof(int64_t)) throw std::invalid_argument(name);
  return values;
}

void declare_output(const OrtApi* api, OrtShapeInferContext* context, size_t index, const Declared& output) {
  std::vector<int64_t> values;
  std::vector<const char*> names;
  for (const Dimension& dim : output.shape) {
    values.push_back(dim.value);
    names.push_back(dim.name.c_str());
  }
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(abi::CreateTensorTypeAndShapeInfo(api, &info));
  const auto release = [api](OrtTensorTypeAndShapeInfo* owned) { abi::ReleaseTensorTypeAndShapeInfo(api, owned); };
  const std::unique_ptr<OrtTensorTypeAndShapeInfo, decltype(release)> owner(info, release);
  check(abi::SetTensorElementType(api, info, output.type));
  check(abi::SetDimensions(api, info, values.data(), values.size()));
  check(abi::SetSymbolicDimensions(api, info, names.data(), names.size()));
  check(abi::ShapeInferContext_SetOutputTypeShape(api, context, index, info));
}

void infer_where_known(const OrtApi* api, OrtShapeInferContext* context,
                       void (*infer)(const OrtApi*, OrtShapeInferContext*)) noexcept {
  OrtStatus* status = guard(api, [&] { infer(api, context); });
  if (status != nullptr) abi::ReleaseStatus(api, status);
}

}  // namespace pconv::ort
