#include "ort/shape_inference.h"

#include <algorithm>
#include <cctype>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ort/guard.h"
#include "pconv/layout.h"

namespace pconv::ort {
namespace {

/// A dimension as the graph declares it: a number, or the name of one.
struct Dimension {
  int64_t value;
  std::string name;

  bool known() const { return value >= 0 || !name.empty(); }
};
using Dimensions = std::vector<Dimension>;

OrtTensorTypeAndShapeInfo* borrow_input(const OrtApi* api, OrtShapeInferContext* context, size_t index) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(abi::ShapeInferContext_GetInputTypeShape(api, context, index, &info));
  return info;
}

/// Empty where the rank is unknown, which onnxruntime does not tell from rank 0.
Dimensions shape_of(const OrtApi* api, const OrtTensorTypeAndShapeInfo* info) {
  size_t rank = 0;
  check(abi::GetDimensionsCount(api, info, &rank));
  std::vector<int64_t> values(rank);
  std::vector<const char*> names(rank, "");
  check(abi::GetDimensions(api, info, values.data(), rank));
  check(abi::GetSymbolicDimensions(api, info, names.data(), rank));
  Dimensions shape;
  for (size_t axis = 0; axis < rank; ++axis) shape.push_back({values[axis], names[axis]});
  return shape;
}

bool all_known(const Dimensions& shape) {
  return std::all_of(shape.begin(), shape.end(), [](const Dimension& dim) { return dim.known(); });
}

int64_t attribute(const OrtApi* api, OrtShapeInferContext* context, const char* name) {
  const OrtOpAttr* found = nullptr;
  check(abi::ShapeInferContext_GetAttribute(api, context, name, &found));
  int64_t value = 0;
  size_t size = 0;
  check(abi::ReadOpAttr(api, found, abi::kInt, &value, sizeof(value), &size));
  return value;
}

/// `rows · dim / input_steps`. Equal names mean equal sizes to the planner, so a name is made only where it says the
/// size: "8*N" of "N", and "N" again of "8*N".
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

void set_output_shape(const OrtApi* api, OrtShapeInferContext* context, const Dimensions& shape, int type) {
  std::vector<int64_t> values;
  std::vector<const char*> names;
  for (const Dimension& dim : shape) {
    values.push_back(dim.value);
    names.push_back(dim.name.c_str());
  }
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(abi::CreateTensorTypeAndShapeInfo(api, &info));
  const auto release = [api](OrtTensorTypeAndShapeInfo* owned) { abi::ReleaseTensorTypeAndShapeInfo(api, owned); };
  const std::unique_ptr<OrtTensorTypeAndShapeInfo, decltype(release)> owner(info, release);
  check(abi::SetTensorElementType(api, info, type));
  check(abi::SetDimensions(api, info, values.data(), values.size()));
  check(abi::SetSymbolicDimensions(api, info, names.data(), names.size()));
  check(abi::ShapeInferContext_SetOutputTypeShape(api, context, 0, info));
}

}  // namespace

void infer_parallel_spike(const OrtApi* api, OrtShapeInferContext* context) {
  const OrtTensorTypeAndShapeInfo* current = borrow_input(api, context, 0);
  Dimensions shape = shape_of(api, current);
  const Dimensions thresholds = shape_of(api, borrow_input(api, context, 1));
  const int64_t input_steps = attribute(api, context, "input_steps");
  const bool spikes = attribute(api, context, "spikes") == 1;
  if (shape.empty() || input_steps < 1) return;
  if (spikes && (thresholds.size() != 2 || thresholds[1].value < 1 || thresholds[1].value > kMaxSteps)) return;
  if (!all_known(shape)) return;
  const std::optional<Dimension> batch = scaled(shape[0], spikes ? thresholds[1].value : 1, input_steps);
  if (!batch) return;
  shape[0] = *batch;
  // onnxruntime asks the operator that was added first, whatever the type.
  int type = 0;
  check(abi::GetTensorElementType(api, current, &type));
  set_output_shape(api, context, shape, type);
}

void infer_serial_spike(const OrtApi* api, OrtShapeInferContext* context) {
  const OrtTensorTypeAndShapeInfo* current = borrow_input(api, context, 0);
  const Dimensions shape = shape_of(api, current);
  if (shape.empty() || !all_known(shape)) return;
  for (const size_t output : {0, 1}) check(abi::ShapeInferContext_SetOutputTypeShape(api, context, output, current));
}

void infer_where_known(const OrtApi* api, OrtShapeInferContext* context,
                       void (*infer)(const OrtApi*, OrtShapeInferContext*)) noexcept {
  OrtStatus* status = guard(api, [&] { infer(api, context); });
  if (status != nullptr) abi::ReleaseStatus(api, status);
}

}  // namespace pconv::ort
