// The operators for onnxruntime's CUDA provider.
#pragma once

#include <vector>

#include "ort/operator.h"

namespace pconv::cuda {

/// Every operator for every element type.
std::vector<ort::Operator> operators(const OrtApi* api);

}  // namespace pconv::cuda
