// An operator as onnxruntime sees it, whichever it is.
#pragma once

#include <iterator>
#include <limits>

#include "ort/guard.h"
#include "ort/shape_inference.h"
#include "ort/tensor.h"
#include "pconv/ort_abi.h"

namespace pconv::ort {

/// An operator for one provider and one choice of element types. `api` is the table of the runtime that it is
/// registered with.
struct Operator : OrtCustomOp {
  const OrtApi* api;
  const char* provider;
};

/// The operator whose nodes are `Node`s. A Node is made from what onnxruntime knows of a node and has
///
///   api              the table that it was made with
///   compute(context) one call; throws what `guard` makes a status of
///   kName            of the operator
///   Inputs, Outputs  their `Types`
///   kInPlace         that many outputs, from the first on, may lie in the memory of the inputs of the same number
///   infer_shapes     of its outputs, as far as they follow from what is known
template <class Node>
Operator operator_of(const OrtApi* api, const char* provider) {
  Operator op{};
  op.api = api;
  op.provider = provider;
  op.version = abi::kVersion;
  op.GetName = [](const OrtCustomOp*) { return Node::kName; };
  op.GetExecutionProviderType = [](const OrtCustomOp* self) { return static_cast<const Operator*>(self)->provider; };
  op.GetInputTypeCount = [](const OrtCustomOp*) { return std::size(Node::Inputs::kElements); };
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return std::size(Node::Outputs::kElements); };
  op.GetInputType = [](const OrtCustomOp*, size_t index) -> int { return Node::Inputs::kElements[index]; };
  op.GetOutputType = [](const OrtCustomOp*, size_t index) -> int { return Node::Outputs::kElements[index]; };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t) -> int { return abi::kRequired; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) -> int { return abi::kRequired; };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) -> int { return abi::kOfProvider; };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return std::numeric_limits<int>::max(); };
  op.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi* runtime, const OrtKernelInfo* info, void** kernel) {
    return guard(runtime, [&] { named(Node::kName, [&] { *kernel = new Node(runtime, info); }); });
  };
  op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    const Node& node = *static_cast<const Node*>(kernel);
    return guard(node.api, [&] { named(Node::kName, [&] { node.compute(context); }); });
  };
  op.KernelDestroy = [](void* kernel) { delete static_cast<Node*>(kernel); };
  op.GetMayInplace = [](int** input, int** output) -> size_t {
    static int indices[] = {0, 1};
    static_assert(Node::kInPlace <= 2);
    *input = *output = indices;
    return Node::kInPlace;
  };
  op.ReleaseMayInplace = [](int*, int*) {};
  op.InferOutputShapeFn = [](const OrtCustomOp* self, OrtShapeInferContext* context) -> OrtStatus* {
    infer_where_known(static_cast<const Operator*>(self)->api, context, Node::infer_shapes);
    return nullptr;
  };
  return op;
}

}  // namespace pconv::ort
