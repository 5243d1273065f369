// The operators for onnxruntime's CPU provider.
#pragma once

#include <vector>

#include "ort/operator.h"

namespace pconv::cpu {

/// Every operator for every element type.
std::vector<ort::Operator> operators(const OrtApi* api);

}  // namespace pconv::cpu
