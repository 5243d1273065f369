// The output shapes of operators while a model loads, for onnxruntime's memory planner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "pconv/ort_abi.h"

namespace pconv::ort {

/// A dimension as the graph declares it: a number, or the name of one.
struct Dimension {
  int64_t value;
  std::string name;

  bool known() const { return value >= 0 || !name.empty(); }
};

/// `rows · dim / input_steps`. Equal names mean equal sizes to the planner, so a name is made only where it says the
/// size: "8*N" of "N", and "N" again of "8*N".
std::optional<Dimension> scaled(const Dimension& dim, int64_t rows, int64_t input_steps);

/// The type and shape that the graph declares for an input.
struct Declared {
  int type;
  /// Empty where the rank is unknown, which onnxruntime does not tell from rank 0.
  std::vector<Dimension> shape;

  /// Whether there is a rank, and every dimension is known.
  bool known() const;
};

Declared declared_input(const OrtApi* api, OrtShapeInferContext* context, size_t index);

/// An attribute of the node.
int64_t declared_int(const OrtApi* api, OrtShapeInferContext* context, const char* name);

/// An attribute that is 0 where the node does not have it.
int64_t declared_optional_int(const OrtApi* api, OrtShapeInferContext* context, const char* name);

/// An attribute of the node, a list of so many.
std::vector<int64_t> declared_ints(const OrtApi* api, OrtShapeInferContext* context, const char* name, size_t size);

/// onnxruntime asks the operator of that name which was added first, whatever the types: an output of an input's type
/// takes the one that is declared.
void declare_output(const OrtApi* api, OrtShapeInferContext* context, size_t index, const Declared& output);

/// Runs an operator's inference: `infer` declares outputs where they follow from what is known, and leaves them
/// undeclared otherwise. Never fails: the kernel reports errors.
void infer_where_known(const OrtApi* api, OrtShapeInferContext* context,
                       void (*infer)(const OrtApi*, OrtShapeInferContext*)) noexcept;

}  // namespace pconv::ort
