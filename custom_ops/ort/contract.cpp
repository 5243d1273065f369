#include "ort/contract.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <stdexcept>

namespace pconv::ort {

void refuse(const char* op, const std::string& what) { throw std::invalid_argument(std::string(op) + ": " + what); }

std::string text(const Shape& shape) {
  std::string joined;
  for (const int64_t dim : shape) joined += (joined.empty() ? "" : ", ") + std::to_string(dim);
  return "[" + joined + "]";
}

int64_t read_int(const OrtApi* api, const OrtKernelInfo* info, const char* op, const char* name) {
  int64_t value = 0;
  if (OrtStatus* status = abi::KernelInfoGetAttribute_int64(api, info, name, &value)) {
    const std::string reason = abi::GetErrorMessage(api, status);
    abi::ReleaseStatus(api, status);
    refuse(op, "attribute '" + std::string(name) + "' is missing or is not an int (" + reason + "); expected an int");
  }
  return value;
}

int64_t product(Shape::const_iterator begin, Shape::const_iterator end) {
  if (std::find(begin, end, 0) != end) return 0;
  return std::accumulate(begin, end, int64_t{1}, std::multiplies<>());
}

size_t channel_axis(const char* op, int64_t attribute, const Shape& current, const char* table, int64_t rows) {
  const int64_t rank = static_cast<int64_t>(current.size());
  const int64_t axis = attribute < 0 ? attribute + rank : attribute;
  if (axis < 1 || axis >= rank) {
    refuse(op, "attribute 'channel_axis' is " + std::to_string(attribute) + " where 'current' has rank " +
                   std::to_string(rank) + "; expected an axis of 'current' other than 0");
  }
  const size_t index = static_cast<size_t>(axis);
  if (current[index] != rows) {
    refuse(op, "input '" + std::string(table) + "' has " + std::to_string(rows) + " rows; expected 1 or the " +
                   std::to_string(current[index]) + " channels on axis " + std::to_string(axis) + " of 'current' " +
                   text(current));
  }
  return index;
}

}  // namespace pconv::ort
