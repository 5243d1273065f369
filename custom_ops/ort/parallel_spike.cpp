#include "ort/parallel_spike.h"

#include <limits>
#include <string>

#include "ort/contract.h"

namespace pconv::ort::parallel_spike {

Attributes read_attributes(const OrtApi* api, const OrtKernelInfo* info) {
  const int64_t input_steps = read_int(api, info, kName, "input_steps");
  const int64_t axis = read_int(api, info, kName, "channel_axis");
  const int64_t spikes = read_int(api, info, kName, "spikes");
  if (input_steps < 1) {
    refuse(kName, "attribute 'input_steps' is " + std::to_string(input_steps) + "; expected at least 1");
  }
  if (spikes != 0 && spikes != 1) {
    refuse(kName, "attribute 'spikes' is " + std::to_string(spikes) + "; expected 0 or 1");
  }
  return {input_steps, axis, spikes == 1};
}

Layout check_shapes(const Attributes& attributes, const Shape& current, const Shape& thresholds, const Shape& levels) {
  if (current.empty()) refuse(kName, "input 'current' is a scalar; expected rank 1 or more");
  if (current[0] % attributes.input_steps != 0) {
    refuse(kName, "input 'current' has shape " + text(current) +
                      "; expected a first dimension that is a multiple of input_steps = " +
                      std::to_string(attributes.input_steps));
  }
  if (thresholds.size() != 2 || thresholds[0] < 1 || thresholds[1] < 1 || thresholds[1] > kMaxSteps) {
    refuse(kName, "input 'thresholds' has shape " + text(thresholds) +
                      "; expected [R, S] with R at least 1 and S from 1 to " + std::to_string(kMaxSteps));
  }
  const int64_t rows = thresholds[0];
  const int64_t steps = thresholds[1];
  if (levels != Shape{rows, steps + 1}) {
    refuse(kName, "input 'levels' has shape " + text(levels) + "; expected " + text({rows, steps + 1}) +
                      " for 'thresholds' of shape " + text(thresholds));
  }

  const int64_t batch = current[0] / attributes.input_steps;
  if (batch > std::numeric_limits<int64_t>::max() / kMaxSteps) {
    refuse(kName, "input 'current' has shape " + text(current) + "; its output would have too many rows");
  }
  const int64_t elements = product(current.begin(), current.end()) / attributes.input_steps;
  int64_t inner = elements;
  if (rows != 1) {
    const size_t axis = channel_axis(kName, attributes.channel_axis, current, "thresholds", rows);
    // The other sizes of an empty tensor may have no product.
    if (elements != 0) inner = product(current.begin() + static_cast<std::ptrdiff_t>(axis) + 1, current.end());
  }
  return {attributes.input_steps, elements, rows, inner, static_cast<int32_t>(steps), attributes.spikes};
}

}  // namespace pconv::ort::parallel_spike
