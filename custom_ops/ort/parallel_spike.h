// ParallelSpike as onnxruntime sees it (docs/ParallelSpike-1.md).
#pragma once

#include <cstdint>

#include "ort/operator.h"
#include "ort/shape_inference.h"
#include "ort/tensor.h"
#include "pconv/layout.h"
#include "pconv/ort_abi.h"

namespace pconv::ort::parallel_spike {

inline constexpr const char* kName = "ParallelSpike";

struct Attributes {
  int64_t input_steps;
  int64_t channel_axis;
  bool spikes;
};

/// The attributes of a node. Throws std::invalid_argument where one is missing, of another type or out of range.
Attributes read_attributes(const OrtApi* api, const OrtKernelInfo* info);

/// The sizes of a call. Throws std::invalid_argument where the shapes break the contract.
Layout check_shapes(const Attributes& attributes, const Shape& current, const Shape& thresholds, const Shape& levels);

template <class T, class Provider>
struct Node {
  static constexpr const char* kName = parallel_spike::kName;
  static constexpr size_t kInputs = 3;
  static constexpr size_t kOutputs = 1;
  // Trains of as many steps as the current has may take its place: a neuron reads all its steps before it writes one.
  static constexpr size_t kInPlace = 1;
  static constexpr auto infer_shapes = infer_parallel_spike;

  const OrtApi* api;
  Attributes attributes;

  Node(const OrtApi* api, const OrtKernelInfo* info) : api(api), attributes(read_attributes(api, info)) {}

  void compute(OrtKernelContext* context) const {
    const Tensor<T> current = input<T>(api, context, 0);
    const Tensor<T> thresholds = input<T>(api, context, 1);
    const Tensor<T> levels = input<T>(api, context, 2);
    const Layout layout = check_shapes(attributes, current.shape, thresholds.shape, levels.shape);

    Shape shape = current.shape;
    shape[0] = shape[0] / layout.input_steps * layout.output_rows();
    T* const values = output<T>(api, context, 0, shape);
    if (layout.elements == 0) return;
    Provider::run(api, context, Call<T>{layout, current.data, thresholds.data, levels.data, values});
  }
};

}  // namespace pconv::ort::parallel_spike
