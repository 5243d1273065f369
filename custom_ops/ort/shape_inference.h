// The output shape of ParallelSpike while a model loads, for onnxruntime's memory planner.
#pragma once

#include "pconv/ort_abi.h"

namespace pconv::ort {

/// Sets the output shape where it follows from what is known, and leaves it unset otherwise. Never fails: the kernel
/// reports errors.
void infer_output_shape(const OrtApi* api, OrtShapeInferContext* context) noexcept;

}  // namespace pconv::ort
