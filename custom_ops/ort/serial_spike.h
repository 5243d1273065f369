// SerialSpike as onnxruntime sees it (docs/SerialSpike-1.md).
#pragma once

#include <cstdint>

#include "ort/operator.h"
#include "ort/shape_inference.h"
#include "ort/tensor.h"
#include "pconv/ort_abi.h"
#include "pconv/serial_neuron.h"

namespace pconv::ort::serial_spike {

inline constexpr const char* kName = "SerialSpike";

/// The attribute of a node. Throws std::invalid_argument where it is missing or of another type.
int64_t read_channel_axis(const OrtApi* api, const OrtKernelInfo* info);

struct Shapes {
  const Shape& current;
  const Shape& potential;
  const Shape& bias;
  const Shape& threshold;
  const Shape& reset;
  const Shape& levels;
};

/// The sizes of a call. Throws std::invalid_argument where the shapes break the contract.
SerialLayout check_shapes(int64_t channel_axis, const Shapes& shapes);

template <class T, class Provider>
struct Node {
  static constexpr const char* kName = serial_spike::kName;
  static constexpr size_t kInputs = 6;
  static constexpr size_t kOutputs = 2;
  // Spikes may take the place of the current, and the new potential that of the old one.
  static constexpr size_t kInPlace = 2;
  static constexpr auto infer_shapes = infer_serial_spike;

  const OrtApi* api;
  int64_t channel_axis;

  Node(const OrtApi* api, const OrtKernelInfo* info) : api(api), channel_axis(read_channel_axis(api, info)) {}

  void compute(OrtKernelContext* context) const {
    const Tensor<T> current = input<T>(api, context, 0);
    const Tensor<T> potential = input<T>(api, context, 1);
    const Tensor<T> bias = input<T>(api, context, 2);
    const Tensor<T> threshold = input<T>(api, context, 3);
    const Tensor<T> reset = input<T>(api, context, 4);
    const Tensor<T> levels = input<T>(api, context, 5);
    const SerialLayout layout = check_shapes(
        channel_axis, {current.shape, potential.shape, bias.shape, threshold.shape, reset.shape, levels.shape});

    T* const spikes = output<T>(api, context, 0, current.shape);
    T* const new_potential = output<T>(api, context, 1, current.shape);
    if (layout.elements == 0) return;
    Provider::run(api, context,
                  SerialCall<T>{layout, current.data, potential.data, bias.data, threshold.data, reset.data,
                                levels.data, spikes, new_potential});
  }
};

}  // namespace pconv::ort::serial_spike
