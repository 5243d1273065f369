// Layers of integer weights on spike counts as onnxruntime sees them (docs/IntegerSpike-3.md).
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "cpu/integer_layer.h"
#include "cpu/provider.h"
#include "ort/contract.h"
#include "ort/operators.h"
#include "ort/shape_inference.h"
#include "ort/tensor.h"
#include "pconv/coding.h"
#include "pconv/integer_layer.h"

namespace pconv::ort::integer_spike {
namespace {

constexpr int64_t kMostCounts = 255;
constexpr int64_t kMostExtent = std::numeric_limits<int32_t>::max();
constexpr int64_t kMostRadixSteps = 16;

int64_t read_within(const OrtApi* api, const OrtKernelInfo* info, const char* name, int64_t least, int64_t most) {
  const int64_t value = read_int(api, info, name);
  require_range(name, value, least, most);
  return value;
}

Coding read_coding(const OrtApi* api, const OrtKernelInfo* info, const char* name) {
  return static_cast<Coding>(read_within(api, info, name, 0, 1));
}

/// The attributes of operators with neurons.
Train read_train(const OrtApi* api, const OrtKernelInfo* info) {
  Train train;
  train.coding = read_coding(api, info, "coding");
  const int64_t most = steps_of(train.coding, kMostCounts).most;
  train.steps = static_cast<int32_t>(read_within(api, info, "steps", 0, most));
  train.silent = static_cast<int32_t>(read_within(api, info, "silent", 0, kMostCounts));
  return train;
}

/// The attributes, in a shape whose sizes are not known yet.
LayerShape read_attributes(const OrtApi* api, const OrtKernelInfo* info, bool image, bool spikes) {
  const auto read = [&](const char* name, int64_t least, int64_t most) {
    return read_within(api, info, name, least, most);
  };
  LayerShape shape{};
  shape.zero = static_cast<int32_t>(read("zero", 0, kMostCounts));
  shape.highest = static_cast<int32_t>(read("highest", 1, kMostCounts));
  shape.residual_zero = static_cast<int32_t>(read("residual_zero", 0, kMostCounts));
  shape.input_coding = read_coding(api, info, "input_coding");
  shape.input_steps = read("input_steps", 1, shape.input_coding == Coding::kRate ? kMostExtent : kMostRadixSteps);
  shape.residual_steps = read("residual_steps", 1, shape.input_steps);
  if (shape.residual_steps != 1 && shape.residual_steps != shape.input_steps) {
    refuse("attribute 'residual_steps' is " + std::to_string(shape.residual_steps) + "; expected 1 or " +
           std::to_string(shape.input_steps) + ", that of 'input_steps'");
  }
  if (spikes) shape.train = read_train(api, info);
  shape.group = 1;
  shape.kernel = shape.strides = shape.dilations = {1, 1};
  if (!image) return shape;
  const auto read_all = [&](const char* name, size_t size, int64_t least) {
    const std::vector<int64_t> values = read_ints(api, info, name, size);
    for (const int64_t value : values) require_range(name, value, least, kMostExtent);
    return values;
  };
  shape.group = read("group", 1, kMostExtent);
  const std::vector<int64_t> strides = read_all("strides", 2, 1);
  const std::vector<int64_t> dilations = read_all("dilations", 2, 1);
  const std::vector<int64_t> pads = read_all("pads", 4, 0);
  shape.strides = {strides[0], strides[1]};
  shape.dilations = {dilations[0], dilations[1]};
  shape.before = {pads[0], pads[1]};
  shape.after = {pads[2], pads[3]};
  return shape;
}

[[noreturn]] void refuse_shape(const Input& input, const std::string& expected) {
  refuse("input '" + std::string(input.name) + "' has shape " + text(input.shape) + "; expected " + expected);
}

/// Takes the sizes of a layer from its weights.
void take_weights(LayerShape& shape, const Shape& weights, bool image) {
  const Input input{"weights", weights};
  if (!image) {
    if (weights.size() != 2) refuse_shape(input, "[M, C]");
    shape.outputs = weights[0];
    shape.channels = weights[1];
    return;
  }
  if (weights.size() != 4 || weights[2] < 1 || weights[3] < 1) {
    refuse_shape(input, "[M, C/group, kH, kW] with kH and kW at least 1");
  }
  if (weights[0] % shape.group != 0) {
    refuse_shape(input, "a first dimension that is a multiple of 'group' = " + std::to_string(shape.group));
  }
  shape.outputs = weights[0];
  shape.channels = weights[1] * shape.group;
  shape.kernel = {weights[2], weights[3]};
}

/// Refuses thresholds that do not fit so many outputs, or whose counts trains do not carry.
Thresholds take_thresholds(const Tensor<int32_t>& thresholds, int64_t outputs, const Train& train) {
  const Shape& shape = thresholds.shape;
  const bool rows_fit = shape.size() == 2 && (shape[0] == 1 || shape[0] == outputs);
  if (!rows_fit || shape[1] < 1 || shape[1] > kMostCounts) {
    const std::string rows = std::to_string(outputs);
    refuse_shape({"thresholds", shape}, "[1, S] or [" + rows + ", S] with S from 1 to " + std::to_string(kMostCounts));
  }
  const int32_t highest = static_cast<int32_t>(shape[1]);
  if (train.steps > 0) {
    const std::string counts = " for 'thresholds' of " + std::to_string(highest) + " columns";
    require_range("silent", train.silent, 0, highest, counts);
    const StepRange range = steps_of(train.coding, std::max(train.silent, highest - train.silent));
    require_range("steps", train.steps, range.fewest, range.most,
                  counts + " with 'coding' = " + std::to_string(static_cast<int32_t>(train.coding)) +
                      " and 'silent' = " + std::to_string(train.silent));
  }
  return {thresholds.data, shape[0], highest};
}

/// The shape of a value in time: the first axis, which must be another one than that of channels, has steps as well.
Shape in_time(const Input& input, Shape sample, int64_t steps) {
  if (steps == 1) return sample;
  if (sample.size() < 2) refuse_shape(input, "an axis of samples and steps before that of channels");
  if (sample[0] > std::numeric_limits<int64_t>::max() / steps) {
    refuse("input '" + std::string(input.name) + "' has shape " + text(input.shape) +
           "; its output would have too many rows");
  }
  sample[0] *= steps;
  return sample;
}

/// The shape of the output at one time-step.
Shape output_of(const LayerShape& layer, const Shape& counts, bool image) {
  const Input input{"counts", counts};
  if (image && counts.size() != 4) refuse_shape(input, "[N, H, W, C]");
  if (!image) require_axis(input);
  if (counts.back() != layer.channels) {
    refuse_shape(input, std::to_string(layer.channels) + " channels on the last axis, those of 'weights'");
  }
  Shape output = counts;
  output.back() = layer.outputs;
  if (layer.input_steps > 1) {
    if (counts.size() < 2 || counts[0] % layer.input_steps != 0) {
      refuse_shape(input, "a first dimension that is a multiple of 'input_steps' = " +
                              std::to_string(layer.input_steps) + ", before that of channels");
    }
    output[0] /= layer.input_steps;
  }
  if (!image) return output;
  const Extent span = layer.span();
  if (counts[1] + layer.before.rows + layer.after.rows < span.rows ||
      counts[2] + layer.before.columns + layer.after.columns < span.columns) {
    refuse_shape(input, "with its padding at least the " + std::to_string(span.rows) + " rows and " +
                            std::to_string(span.columns) + " columns of the window");
  }
  const Extent size = layer.output({counts[1], counts[2]});
  output[1] = size.rows;
  output[2] = size.columns;
  return output;
}

/// The size of an axis of the output, where it follows.
std::optional<Dimension> convolved(const Dimension& size, int64_t kernel, int64_t stride, int64_t dilation,
                                   int64_t before, int64_t after) {
  const int64_t grown = before + after - (kernel - 1) * dilation;
  if (size.value >= 0) {
    const int64_t rest = size.value + grown - 1;
    return rest < 0 ? std::nullopt : std::optional(Dimension{rest / stride + 1, ""});
  }
  if (stride == 1 && grown == 0) return size;
  return std::nullopt;
}

/// Replaces steps of the input by those of the output. Whether the first axis, which is not that of channels, has them.
bool scale(Declared& value, int64_t steps, int64_t input_steps) {
  if (steps == input_steps) return true;
  if (steps < 1 || input_steps < 1 || value.shape.size() < 2) return false;
  const std::optional<Dimension> rows = scaled(value.shape[0], steps, input_steps);
  if (rows) value.shape[0] = *rows;
  return rows.has_value();
}

int64_t declared_steps(const OrtApi* api, OrtShapeInferContext* context) {
  return std::max(int64_t{1}, declared_int(api, context, "steps"));
}

template <bool kImage, bool kSpikes>
void infer(const OrtApi* api, OrtShapeInferContext* context) {
  Declared counts = declared_input(api, context, 0);
  const std::vector<Dimension> weights = declared_input(api, context, 1).shape;
  if (!counts.known() || weights.size() != (kImage ? 4 : 2) || !weights[0].known()) return;
  const int64_t steps = kSpikes ? declared_steps(api, context) : 1;
  if (!scale(counts, steps, declared_int(api, context, "input_steps"))) return;
  counts.shape.back() = weights[0];
  if (kImage) {
    if (counts.shape.size() != 4 || weights[2].value < 1 || weights[3].value < 1) return;
    const std::vector<int64_t> strides = declared_ints(api, context, "strides", 2);
    const std::vector<int64_t> dilations = declared_ints(api, context, "dilations", 2);
    const std::vector<int64_t> pads = declared_ints(api, context, "pads", 4);
    for (size_t axis = 0; axis < 2; ++axis) {
      if (strides[axis] < 1) return;
      const std::optional<Dimension> size = convolved(counts.shape[axis + 1], weights[axis + 2].value, strides[axis],
                                                      dilations[axis], pads[axis], pads[axis + 2]);
      if (!size) return;
      counts.shape[axis + 1] = *size;
    }
  }
  counts.type = kSpikes ? abi::kUint8 : abi::kInt32;
  declare_output(api, context, 0, counts);
}

template <class T, bool kSpikes>
struct Tensors {
  using Inputs = Types<uint8_t, int8_t, int32_t, int32_t, T, int32_t, int32_t, float>;
  using Outputs = Types<uint8_t>;
};
template <class T>
struct Tensors<T, false> {
  using Inputs = Types<uint8_t, int8_t, int32_t, int32_t, T, int32_t>;
  using Outputs = Types<int32_t>;
};

enum Index : size_t { kCounts, kWeights, kBias, kFactor, kResidual, kMultiplier, kThresholds };

}  // namespace

/// The four layers; T is the type of the residual.
template <bool kImage, bool kSpikes, class T>
struct LayerNode {
  static constexpr const char* kName = kImage ? (kSpikes ? "IntegerSpikeConv" : "IntegerConv")
                                              : (kSpikes ? "IntegerSpikeGemm" : "IntegerGemm");
  using Inputs = typename Tensors<T, kSpikes>::Inputs;
  using Outputs = typename Tensors<T, kSpikes>::Outputs;
  static constexpr size_t kInPlace = 0;
  static constexpr auto infer_shapes = infer<kImage, kSpikes>;

  const OrtApi* api;
  LayerShape attributes;
  std::shared_ptr<const cpu::Layer> prepared;  ///< where all that it is made of is constant

  LayerNode(const OrtApi* api, const OrtKernelInfo* info)
      : api(api), attributes(read_attributes(api, info, kImage, kSpikes)) {
    cpu::kernels();  // a name of instructions that there are not is refused here
    if (sizeof(T) > 1) require_range("residual_zero", attributes.residual_zero, 0, 0, " for a residual of int32");
    const auto weights = constant<Inputs, kWeights>(api, info);
    const auto bias = constant<Inputs, kBias>(api, info);
    const auto factor = constant<Inputs, kFactor>(api, info);
    const auto multiplier = constant<Inputs, kMultiplier>(api, info);
    if (!weights || !bias || !factor || !multiplier) return;
    std::optional<Tensor<int32_t>> thresholds = Tensor<int32_t>{};
    if constexpr (kSpikes) thresholds = constant<Inputs, kThresholds>(api, info);
    if (!thresholds) return;
    cpu::Interval residual{std::numeric_limits<T>::min(), std::numeric_limits<T>::max()};
    const auto same = constant<Inputs, kResidual>(api, info);
    if (same && product(same->shape) == 1 && attributes.residual_steps == 1) residual = {same->data[0], same->data[0]};
    prepared = layer_of(*weights, *bias, *factor, *multiplier, *thresholds, residual);
  }

  std::shared_ptr<const cpu::Layer> layer_of(const Tensor<int8_t>& weights, const Tensor<int32_t>& bias,
                                             const Tensor<int32_t>& factor, const Tensor<int32_t>& multiplier,
                                             const Tensor<int32_t>& thresholds, const cpu::Interval& residual) const {
    LayerShape shape = attributes;
    take_weights(shape, weights.shape, kImage);
    const Input from{"weights", weights.shape};
    require_shape({"bias", bias.shape}, {shape.outputs}, from);
    require_shape({"factor", factor.shape}, {shape.outputs}, from);
    require_shape({"multiplier", multiplier.shape}, {shape.outputs}, from);
    LayerTables tables{weights.data, bias.data, factor.data, multiplier.data, {}};
    if (kSpikes) tables.thresholds = take_thresholds(thresholds, shape.outputs, shape.train);
    return std::make_shared<const cpu::Layer>(shape, tables, residual);
  }

  std::shared_ptr<const cpu::Layer> layer_of(OrtKernelContext* context) const {
    if (prepared) return prepared;
    Tensor<int32_t> thresholds{};
    if constexpr (kSpikes) thresholds = input<Inputs, kThresholds>(api, context);
    return layer_of(input<Inputs, kWeights>(api, context), input<Inputs, kBias>(api, context),
                    input<Inputs, kFactor>(api, context), input<Inputs, kMultiplier>(api, context), thresholds,
                    {std::numeric_limits<T>::min(), std::numeric_limits<T>::max()});
  }

  void compute(OrtKernelContext* context) const {
    const std::shared_ptr<const cpu::Layer> layer = layer_of(context);
    const auto counts = input<Inputs, kCounts>(api, context);
    const auto residual = input<Inputs, kResidual>(api, context);
    const Input from{"counts", counts.shape};
    const Shape shape = output_of(layer->shape, counts.shape, kImage);
    const bool one = product(residual.shape) == 1 && attributes.residual_steps == 1;
    const Shape added = in_time(from, shape, attributes.residual_steps);
    if (!one && residual.shape != added) {
      const std::string otherwise = attributes.residual_steps == 1 ? " or one element" : "";
      refuse_shape({"residual", residual.shape}, text(added) + otherwise);
    }

    const int64_t steps = std::max(1, attributes.train.steps);
    auto* const values = output<Outputs, 0>(api, context, in_time(from, shape, steps));
    const int64_t size = product(shape);
    if (size == 0) return;
    cpu::LayerCall call{};
    call.layer = layer.get();
    call.images = kImage ? shape[0] : 1;
    call.size = kImage ? Extent{counts.shape[1], counts.shape[2]} : Extent{1, size / layer->shape.outputs};
    call.counts = counts.data;
    if (one) {
      call.shared = wrapped(int64_t{residual.data[0]} - attributes.residual_zero);
    } else if constexpr (std::is_same_v<T, uint8_t>) {
      call.residual_counts = residual.data;
    } else {
      call.residual_sums = residual.data;
    }
    if constexpr (kSpikes) {
      call.spikes = values;
    } else {
      call.sums = values;
    }
    cpu::Provider::run(api, context, call);
  }
};

/// Neurons alone.
struct SpikeNode {
  static constexpr const char* kName = "IntegerSpike";
  using Inputs = Types<int32_t, int32_t, float>;
  using Outputs = Types<uint8_t>;
  static constexpr size_t kInPlace = 0;
  static void infer_shapes(const OrtApi* api, OrtShapeInferContext* context) {
    Declared sums = declared_input(api, context, 0);
    if (!sums.known() || !scale(sums, declared_steps(api, context), 1)) return;
    sums.type = abi::kUint8;
    declare_output(api, context, 0, sums);
  }

  const OrtApi* api;
  const Train train;
  const cpu::Kernels* kernels;
  std::shared_ptr<const cpu::Neurons> prepared;

  SpikeNode(const OrtApi* api, const OrtKernelInfo* info)
      : api(api), train(read_train(api, info)), kernels(&cpu::kernels()) {
    const auto thresholds = constant<Inputs, 1>(api, info);
    if (thresholds && thresholds->shape.size() == 2) prepared = neurons_of(*thresholds, thresholds->shape[0]);
  }

  std::shared_ptr<const cpu::Neurons> neurons_of(const Tensor<int32_t>& thresholds, int64_t outputs) const {
    return std::make_shared<const cpu::Neurons>(
        cpu::spike_neurons(*kernels, take_thresholds(thresholds, outputs, train)));
  }

  void compute(OrtKernelContext* context) const {
    const auto sums = input<Inputs, 0>(api, context);
    const auto thresholds = input<Inputs, 1>(api, context);
    require_axis({"sums", sums.shape});
    const int64_t outputs = sums.shape.back();
    take_thresholds(thresholds, outputs, train);
    const Shape shape = in_time({"sums", sums.shape}, sums.shape, std::max(1, train.steps));
    uint8_t* const spikes = output<Outputs, 0>(api, context, shape);
    const int64_t size = product(sums.shape);
    if (size == 0) return;
    const std::shared_ptr<const cpu::Neurons> neurons = prepared ? prepared : neurons_of(thresholds, outputs);
    cpu::Provider::run(api, context,
                       cpu::SpikeCall{kernels, neurons.get(), size / outputs, outputs, sums.data, spikes, train});
  }
};

namespace {

template <bool kImage, bool kSpikes>
void add_layers(const OrtApi* api, std::vector<Operator>& all) {
  all.push_back(operator_of<LayerNode<kImage, kSpikes, uint8_t>>(api, cpu::Provider::kName));
  all.push_back(operator_of<LayerNode<kImage, kSpikes, int32_t>>(api, cpu::Provider::kName));
}

}  // namespace

std::vector<Operator> operators(const OrtApi* api) {
  std::vector<Operator> all;
  add_layers<true, true>(api, all);
  add_layers<true, false>(api, all);
  add_layers<false, true>(api, all);
  add_layers<false, false>(api, all);
  all.push_back(operator_of<SpikeNode>(api, cpu::Provider::kName));
  return all;
}

}  // namespace pconv::ort::integer_spike
