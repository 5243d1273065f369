// ParallelSpike as onnxruntime sees it (docs/ParallelSpike-2.md).
#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "cpu/parallel_spike.h"
#include "cuda/parallel_spike.h"
#include "ort/contract.h"
#include "ort/operators.h"
#include "ort/providers.h"
#include "ort/shape_inference.h"
#include "pconv/coding.h"
#include "pconv/layout.h"

namespace pconv::ort::parallel_spike {
namespace {

/// Those of trains.
struct Train {
  int64_t coding;
  int64_t steps;
  int64_t zero;
};

struct Attributes {
  int64_t input_steps;
  int64_t channel_axis;
  bool spikes;
  Train train;  ///< of zeros where the output is the mean
};

Attributes read_attributes(const OrtApi* api, const OrtKernelInfo* info) {
  const int64_t input_steps = read_int(api, info, "input_steps");
  const int64_t axis = read_int(api, info, "channel_axis");
  const int64_t spikes = read_int(api, info, "spikes");
  if (input_steps < 1) {
    refuse("attribute 'input_steps' is " + std::to_string(input_steps) + "; expected at least 1");
  }
  if (spikes != 0 && spikes != 1) refuse("attribute 'spikes' is " + std::to_string(spikes) + "; expected 0 or 1");
  if (spikes == 0) return {input_steps, axis, false, {}};
  const Train train{read_optional_int(api, info, "coding"), read_optional_int(api, info, "steps"),
                    read_optional_int(api, info, "zero")};
  if (train.coding != 0 && train.coding != 1) {
    refuse("attribute 'coding' is " + std::to_string(train.coding) + "; expected 0 or 1");
  }
  require_range("zero", train.zero, 0, kMaxCount);
  const Coding coding = static_cast<Coding>(train.coding);
  require_range("steps", train.steps, coding == Coding::kRate ? 0 : 1, steps_of(coding, kMaxCount).most);
  return {input_steps, axis, true, train};
}

/// How far spike counts up to `highest` are from that of silence.
int64_t reach_of(const Train& train, int64_t highest) { return std::max(train.zero, highest - train.zero); }

/// T. In `rate` it follows, and the attribute may say nothing.
int64_t steps_of(const Train& train, int64_t highest) {
  return train.coding == 0 && train.steps == 0 ? reach_of(train, highest) : train.steps;
}

/// Refuses trains that do not carry spike counts up to `highest`.
void require_train(const Train& train, int64_t highest) {
  const std::string counts = " for 'thresholds' of " + std::to_string(highest) + " columns";
  require_range("zero", train.zero, 0, highest, counts);
  const int32_t reach = static_cast<int32_t>(reach_of(train, highest));
  const StepRange range = pconv::steps_of(static_cast<Coding>(train.coding), reach);
  const std::string from = counts + " with 'coding' = " + std::to_string(train.coding) + " and 'zero' = " +
                           std::to_string(train.zero);
  require_range("steps", steps_of(train, highest), range.fewest, range.most, from);
}

/// The sizes of a call. Refuses shapes that break the contract.
Layout layout_of(const Attributes& attributes, const Shape& current, const Shape& thresholds, const Shape& levels) {
  require_axis({"current", current});
  if (current[0] % attributes.input_steps != 0) {
    refuse("input 'current' has shape " + text(current) +
           "; expected a first dimension that is a multiple of input_steps = " +
           std::to_string(attributes.input_steps));
  }
  if (thresholds.size() != 2 || thresholds[0] < 1 || thresholds[1] < 1 || thresholds[1] > kMaxCount) {
    refuse("input 'thresholds' has shape " + text(thresholds) +
           "; expected [R, S] with R at least 1 and S from 1 to " + std::to_string(kMaxCount));
  }
  const int64_t rows = thresholds[0];
  const int64_t highest = thresholds[1];
  require_shape({"levels", levels}, {rows, highest + 1}, {"thresholds", thresholds});
  const Train& train = attributes.train;
  if (attributes.spikes) require_train(train, highest);

  const int64_t batch = current[0] / attributes.input_steps;
  if (batch > std::numeric_limits<int64_t>::max() / kMaxCount) {
    refuse("input 'current' has shape " + text(current) + "; its output would have too many rows");
  }
  const int64_t elements = product(current) / attributes.input_steps;
  const int64_t inner = neurons_per_row(current, elements, attributes.channel_axis, "thresholds", rows);
  const int64_t steps = attributes.spikes ? steps_of(train, highest) : 1;
  return {attributes.input_steps,
          elements,
          rows,
          inner,
          static_cast<int32_t>(highest),
          static_cast<int32_t>(steps),
          attributes.spikes,
          static_cast<Coding>(train.coding),
          static_cast<int32_t>(train.zero)};
}

void infer(const OrtApi* api, OrtShapeInferContext* context) {
  Declared current = declared_input(api, context, 0);
  const std::vector<Dimension> thresholds = declared_input(api, context, 1).shape;
  const int64_t input_steps = declared_int(api, context, "input_steps");
  const bool spikes = declared_int(api, context, "spikes") == 1;
  if (!current.known() || input_steps < 1) return;
  int64_t steps = 1;
  if (spikes) {
    const auto attribute = [&](const char* name) { return declared_optional_int(api, context, name); };
    const Train train{attribute("coding"), attribute("steps"), attribute("zero")};
    if (thresholds.size() != 2 || thresholds[1].value < 1 || thresholds[1].value > kMaxCount) return;
    if (train.zero < 0 || train.zero > kMaxCount) return;
    steps = steps_of(train, thresholds[1].value);
    if (steps < 1 || steps > kMaxCount) return;
  }
  const std::optional<Dimension> batch = scaled(current.shape[0], steps, input_steps);
  if (!batch) return;
  current.shape[0] = *batch;
  declare_output(api, context, 0, current);
}

}  // namespace

template <class T, class Provider>
struct Node {
  static constexpr const char* kName = "ParallelSpike";
  using Inputs = Types<T, T, T>;
  using Outputs = Types<T>;
  // Trains of as many steps as the current has may take its place: a neuron reads all its steps before it writes one.
  static constexpr size_t kInPlace = 1;
  static constexpr auto infer_shapes = infer;

  const OrtApi* api;
  Attributes attributes;

  Node(const OrtApi* api, const OrtKernelInfo* info) : api(api), attributes(read_attributes(api, info)) {}

  void compute(OrtKernelContext* context) const {
    const auto current = input<Inputs, 0>(api, context);
    const auto thresholds = input<Inputs, 1>(api, context);
    const auto levels = input<Inputs, 2>(api, context);
    const Layout layout = layout_of(attributes, current.shape, thresholds.shape, levels.shape);

    Shape shape = current.shape;
    shape[0] = shape[0] / layout.input_steps * layout.steps;
    T* const values = output<Outputs, 0>(api, context, shape);
    if (layout.elements == 0) return;
    Provider::run(api, context, Call<T>{layout, current.data, thresholds.data, levels.data, values});
  }
};

std::vector<Operator> operators(const OrtApi* api) { return operators_of<Node>(api, Floats{}); }

}  // namespace pconv::ort::parallel_spike
