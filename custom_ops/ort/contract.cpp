#include "ort/contract.h"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <numeric>
#include <stdexcept>

namespace pconv::ort {

void refuse(const std::string& what) { throw std::invalid_argument(what); }

std::string text(const Shape& shape) {
  std::string joined;
  for (const int64_t dim : shape) joined += (joined.empty() ? "" : ", ") + std::to_string(dim);
  return "[" + joined + "]";
}

namespace {

/// Why onnxruntime does not give an attribute; empty where it does.
std::string reason_of(const OrtApi* api, OrtStatus* status) {
  if (status == nullptr) return "";
  std::string reason = abi::GetErrorMessage(api, status);
  abi::ReleaseStatus(api, status);
  return reason;
}

std::string read(const OrtApi* api, const OrtKernelInfo* info, const char* name, int64_t& value) {
  return reason_of(api, abi::KernelInfoGetAttribute_int64(api, info, name, &value));
}

[[noreturn]] void refuse_attribute(const char* name, const std::string& reason,
                                   const std::string& expected = "an int") {
  refuse("attribute '" + std::string(name) + "' is missing or is not " + expected + " (" + reason + "); expected " +
         expected);
}

}  // namespace

int64_t read_int(const OrtApi* api, const OrtKernelInfo* info, const char* name) {
  int64_t value = 0;
  const std::string reason = read(api, info, name, value);
  if (!reason.empty()) refuse_attribute(name, reason);
  return value;
}

std::vector<int64_t> read_ints(const OrtApi* api, const OrtKernelInfo* info, const char* name, size_t size) {
  const std::string expected = "a list of " + std::to_string(size) + " ints";
  size_t found = 0;
  const auto read_into = [&](int64_t* values) {
    const std::string reason = reason_of(api, abi::KernelInfoGetAttributeArray_int64(api, info, name, values, &found));
    if (!reason.empty()) refuse_attribute(name, reason, expected);
  };
  read_into(nullptr);
  if (found != size) {
    refuse("attribute '" + std::string(name) + "' has " + std::to_string(found) + " values; expected " + expected);
  }
  std::vector<int64_t> values(size);
  read_into(values.data());
  return values;
}

void require_range(const char* attribute, int64_t value, int64_t least, int64_t most, const std::string& why) {
  if (value >= least && value <= most) return;
  const std::string range = std::to_string(least) + (least == most ? "" : " to " + std::to_string(most));
  refuse("attribute '" + std::string(attribute) + "' is " + std::to_string(value) + "; expected " + range + why);
}

int64_t read_optional_int(const OrtApi* api, const OrtKernelInfo* info, const char* name) {
  int64_t value = 0;
  const std::string reason = read(api, info, name, value);
  // Both errors have one code: "No attribute with name ..." and "Attribute name and type don't match".
  if (reason.find("type") != std::string::npos) refuse_attribute(name, reason);
  return reason.empty() ? value : 0;
}

void require_shape(const Input& input, const Shape& expected, const Input& other) {
  if (input.shape == expected) return;
  refuse("input '" + std::string(input.name) + "' has shape " + text(input.shape) + "; expected " + text(expected) +
         " for '" + other.name + "' of shape " + text(other.shape));
}

void require_axis(const Input& input) {
  if (input.shape.empty()) refuse("input '" + std::string(input.name) + "' is a scalar; expected rank 1 or more");
}

int64_t product(const Shape& shape, size_t from) {
  const auto begin = shape.begin() + static_cast<std::ptrdiff_t>(from);
  if (std::find(begin, shape.end(), 0) != shape.end()) return 0;
  return std::accumulate(begin, shape.end(), int64_t{1}, std::multiplies<>());
}

int64_t neurons_per_row(const Shape& current, int64_t neurons, int64_t channel_axis, const char* table, int64_t rows) {
  if (rows == 1) return neurons;
  const int64_t rank = static_cast<int64_t>(current.size());
  const int64_t axis = channel_axis < 0 ? channel_axis + rank : channel_axis;
  if (axis < 1 || axis >= rank) {
    refuse("attribute 'channel_axis' is " + std::to_string(channel_axis) + " where 'current' has rank " +
           std::to_string(rank) + "; expected an axis of 'current' other than 0");
  }
  const size_t index = static_cast<size_t>(axis);
  if (current[index] != rows) {
    refuse("input '" + std::string(table) + "' has " + std::to_string(rows) + " rows; expected 1 or the " +
           std::to_string(current[index]) + " channels on axis " + std::to_string(axis) + " of 'current' " +
           text(current));
  }
  // The other sizes of an empty tensor may have no product.
  return neurons == 0 ? 0 : product(current, index + 1);
}

}  // namespace pconv::ort
