#include "ort/contract.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>

namespace pconv::ort {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument("ParallelSpike: " + what); }

std::string text(const Shape& shape) {
  std::string joined;
  for (const int64_t dim : shape) joined += (joined.empty() ? "" : ", ") + std::to_string(dim);
  return "[" + joined + "]";
}

/// Of dimensions that a tensor has: without a zero among them they multiply to its size, with one anything might.
int64_t product(Shape::const_iterator begin, Shape::const_iterator end) {
  if (std::find(begin, end, 0) != end) return 0;
  return std::accumulate(begin, end, int64_t{1}, std::multiplies<>());
}

int64_t read_int(const OrtApi* api, const OrtKernelInfo* info, const char* name) {
  int64_t value = 0;
  if (OrtStatus* status = abi::KernelInfoGetAttribute_int64(api, info, name, &value)) {
    const std::string reason = abi::GetErrorMessage(api, status);
    abi::ReleaseStatus(api, status);
    refuse("attribute '" + std::string(name) + "' is missing or is not an int (" + reason + "); expected an int");
  }
  return value;
}

/// The axis as an index. Axis 0 holds time and batch, never channels.
size_t channel_axis(const Attributes& attributes, size_t rank) {
  const int64_t size = static_cast<int64_t>(rank);
  const int64_t axis = attributes.channel_axis < 0 ? attributes.channel_axis + size : attributes.channel_axis;
  if (axis < 1 || axis >= size) {
    refuse("attribute 'channel_axis' is " + std::to_string(attributes.channel_axis) + " where 'current' has rank " +
           std::to_string(rank) + "; expected an axis of 'current' other than 0");
  }
  return static_cast<size_t>(axis);
}

}  // namespace

Attributes read_attributes(const OrtApi* api, const OrtKernelInfo* info) {
  const int64_t input_steps = read_int(api, info, "input_steps");
  const int64_t axis = read_int(api, info, "channel_axis");
  const int64_t spikes = read_int(api, info, "spikes");
  if (input_steps < 1) refuse("attribute 'input_steps' is " + std::to_string(input_steps) + "; expected at least 1");
  if (spikes != 0 && spikes != 1) refuse("attribute 'spikes' is " + std::to_string(spikes) + "; expected 0 or 1");
  return {input_steps, axis, spikes == 1};
}

Layout check_shapes(const Attributes& attributes, const Shape& current, const Shape& thresholds, const Shape& levels) {
  if (current.empty()) refuse("input 'current' is a scalar; expected rank 1 or more");
  if (current[0] % attributes.input_steps != 0) {
    refuse(
        "input 'current' has shape " + text(current) +
        "; expected a first dimension that is a multiple of input_steps = " + std::to_string(attributes.input_steps));
  }
  if (thresholds.size() != 2 || thresholds[0] < 1 || thresholds[1] < 1 || thresholds[1] > kMaxSteps) {
    refuse("input 'thresholds' has shape " + text(thresholds) + "; expected [R, S] with R at least 1 and S from 1 to " +
           std::to_string(kMaxSteps));
  }
  const int64_t rows = thresholds[0];
  const int64_t steps = thresholds[1];
  if (levels != Shape{rows, steps + 1}) {
    refuse("input 'levels' has shape " + text(levels) + "; expected " + text({rows, steps + 1}) +
           " for 'thresholds' of shape " + text(thresholds));
  }

  const int64_t batch = current[0] / attributes.input_steps;
  if (batch > std::numeric_limits<int64_t>::max() / kMaxSteps) {
    refuse("input 'current' has shape " + text(current) + "; its output would have too many rows");
  }
  const int64_t sample = product(current.begin() + 1, current.end());
  const int64_t elements = sample == 0 ? 0 : batch * sample;
  int64_t inner = elements;
  if (rows != 1) {
    const size_t axis = channel_axis(attributes, current.size());
    if (current[axis] != rows) {
      refuse("input 'thresholds' has " + std::to_string(rows) + " rows; expected 1 or the " +
             std::to_string(current[axis]) + " channels on axis " + std::to_string(axis) + " of 'current' " +
             text(current));
    }
    inner = product(current.begin() + static_cast<std::ptrdiff_t>(axis) + 1, current.end());
  }
  return {attributes.input_steps, elements, rows, inner, static_cast<int32_t>(steps), attributes.spikes};
}

}  // namespace pconv::ort
