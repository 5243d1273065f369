// SerialSpike as onnxruntime sees it (docs/SerialSpike-1.md).
#include <cstdint>
#include <vector>

#include "cpu/serial_spike.h"
#include "cuda/serial_spike.h"
#include "ort/contract.h"
#include "ort/operators.h"
#include "ort/providers.h"
#include "ort/shape_inference.h"
#include "pconv/serial_neuron.h"

namespace pconv::ort::serial_spike {
namespace {

struct Shapes {
  const Shape& current;
  const Shape& potential;
  const Shape& bias;
  const Shape& threshold;
  const Shape& reset;
  const Shape& levels;
};

/// The sizes of a call. Refuses shapes that break the contract.
SerialLayout layout_of(int64_t channel_axis, const Shapes& shapes) {
  const Input current{"current", shapes.current};
  const Input threshold{"threshold", shapes.threshold};
  require_axis(current);
  require_shape({"potential", shapes.potential}, current.shape, current);
  if (threshold.shape.size() != 1 || threshold.shape[0] < 1) {
    refuse("input 'threshold' has shape " + text(threshold.shape) + "; expected [R] with R at least 1");
  }
  const int64_t rows = threshold.shape[0];
  require_shape({"bias", shapes.bias}, threshold.shape, threshold);
  require_shape({"reset", shapes.reset}, threshold.shape, threshold);
  require_shape({"levels", shapes.levels}, {rows, 2}, threshold);

  const int64_t elements = product(current.shape);
  return {elements, rows, neurons_per_row(current.shape, elements, channel_axis, threshold.name, rows)};
}

void infer(const OrtApi* api, OrtShapeInferContext* context) {
  const Declared current = declared_input(api, context, 0);
  if (!current.known()) return;
  for (const size_t output : {0, 1}) declare_output(api, context, output, current);
}

}  // namespace

template <class T, class Provider>
struct Node {
  static constexpr const char* kName = "SerialSpike";
  using Inputs = Types<T, T, T, T, T, T>;
  using Outputs = Types<T, T>;
  // Spikes may take the place of the current, and the new potential that of the old one.
  static constexpr size_t kInPlace = 2;
  static constexpr auto infer_shapes = infer;

  const OrtApi* api;
  int64_t channel_axis;

  Node(const OrtApi* api, const OrtKernelInfo* info) : api(api), channel_axis(read_int(api, info, "channel_axis")) {}

  void compute(OrtKernelContext* context) const {
    const auto current = input<Inputs, 0>(api, context);
    const auto potential = input<Inputs, 1>(api, context);
    const auto bias = input<Inputs, 2>(api, context);
    const auto threshold = input<Inputs, 3>(api, context);
    const auto reset = input<Inputs, 4>(api, context);
    const auto levels = input<Inputs, 5>(api, context);
    const SerialLayout layout = layout_of(
        channel_axis, {current.shape, potential.shape, bias.shape, threshold.shape, reset.shape, levels.shape});

    T* const spikes = output<Outputs, 0>(api, context, current.shape);
    T* const new_potential = output<Outputs, 1>(api, context, current.shape);
    if (layout.elements == 0) return;
    Provider::run(api, context,
                  SerialCall<T>{layout, current.data, potential.data, bias.data, threshold.data, reset.data,
                                levels.data, spikes, new_potential});
  }
};

std::vector<Operator> operators(const OrtApi* api) { return operators_of<Node>(api, Floats{}); }

}  // namespace pconv::ort::serial_spike
