// An operator whose tensors have several integer types: how many thresholds each current reaches. Nothing but this file
// knows of it. Called from tests/custom_ops/test_native_types.py.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "cpu/plan.h"
#include "ort/contract.h"
#include "ort/domain.h"
#include "ort/providers.h"
#include "ort/shape_inference.h"

namespace {

constexpr int64_t kMostThresholds = 255;

template <class T>
struct CountCall {
  int64_t elements;
  int64_t steps;
  const T* current;
  const int32_t* thresholds;
  uint8_t* counts;
};

}  // namespace

namespace pconv::cpu {

template <class T>
struct Plan<CountCall<T>> {
  static constexpr int64_t kChunk = 1 << 10;

  explicit Plan(const CountCall<T>& call) : call(call), chunks((call.elements + kChunk - 1) / kChunk) {}

  CountCall<T> call;
  int64_t chunks;
};

template <class T>
void run_chunk(const Plan<CountCall<T>>& plan, int64_t chunk) {
  const CountCall<T>& call = plan.call;
  const int64_t first = chunk * plan.kChunk;
  const int64_t last = std::min(first + plan.kChunk, call.elements);
  for (int64_t i = first; i < last; ++i) {
    const auto reached = [&](int32_t threshold) { return call.current[i] >= threshold; };
    call.counts[i] = static_cast<uint8_t>(std::count_if(call.thresholds, call.thresholds + call.steps, reached));
  }
}

}  // namespace pconv::cpu

namespace pconv::ort::threshold_count {

void infer(const OrtApi* api, OrtShapeInferContext* context) {
  const Declared current = declared_input(api, context, 0);
  if (current.known()) declare_output(api, context, 0, {abi::kUint8, current.shape});
}

template <class T, class Provider>
struct Node {
  static constexpr const char* kName = "ThresholdCount";
  using Inputs = Types<T, int32_t>;
  using Outputs = Types<uint8_t>;
  static constexpr size_t kInPlace = 0;
  static constexpr auto infer_shapes = infer;

  const OrtApi* api;

  Node(const OrtApi* api, const OrtKernelInfo*) : api(api) {}

  void compute(OrtKernelContext* context) const {
    const auto current = input<Inputs, 0>(api, context);
    const auto thresholds = input<Inputs, 1>(api, context);
    if (thresholds.shape.size() != 1 || thresholds.shape[0] > kMostThresholds) {
      refuse("input 'thresholds' has shape " + text(thresholds.shape) + "; expected [S] with S at most " +
             std::to_string(kMostThresholds));
    }
    uint8_t* const counts = output<Outputs, 0>(api, context, current.shape);
    const int64_t elements = product(current.shape);
    if (elements == 0) return;
    Provider::run(api, context, CountCall<T>{elements, thresholds.shape[0], current.data, thresholds.data, counts});
  }
};

std::vector<Operator> operators(const OrtApi* api) { return operators_of<Node>(api, Types<int32_t, int8_t>{}); }

}  // namespace pconv::ort::threshold_count

extern "C" PCONV_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  return pconv::ort::add_domain(options, base, "pconv.test", pconv::ort::threshold_count::operators);
}
