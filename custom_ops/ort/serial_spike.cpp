#include "ort/serial_spike.h"

#include <string>

#include "ort/contract.h"

namespace pconv::ort::serial_spike {
namespace {

void require(const char* name, const Shape& shape, const Shape& expected, const char* other, const Shape& of) {
  if (shape == expected) return;
  refuse(kName, "input '" + std::string(name) + "' has shape " + text(shape) + "; expected " + text(expected) +
                    " for '" + other + "' of shape " + text(of));
}

}  // namespace

int64_t read_channel_axis(const OrtApi* api, const OrtKernelInfo* info) {
  return read_int(api, info, kName, "channel_axis");
}

SerialLayout check_shapes(int64_t axis, const Shapes& shapes) {
  const Shape& current = shapes.current;
  const Shape& threshold = shapes.threshold;
  if (current.empty()) refuse(kName, "input 'current' is a scalar; expected rank 1 or more");
  require("potential", shapes.potential, current, "current", current);
  if (threshold.size() != 1 || threshold[0] < 1) {
    refuse(kName, "input 'threshold' has shape " + text(threshold) + "; expected [R] with R at least 1");
  }
  const int64_t rows = threshold[0];
  require("bias", shapes.bias, threshold, "threshold", threshold);
  require("reset", shapes.reset, threshold, "threshold", threshold);
  require("levels", shapes.levels, {rows, 2}, "threshold", threshold);

  const int64_t elements = product(current.begin(), current.end());
  int64_t inner = elements;
  if (rows != 1) {
    const size_t channels = channel_axis(kName, axis, current, "threshold", rows);
    // The other sizes of an empty tensor may have no product.
    if (elements != 0) inner = product(current.begin() + static_cast<std::ptrdiff_t>(channels) + 1, current.end());
  }
  return {elements, rows, inner};
}

}  // namespace pconv::ort::serial_spike
