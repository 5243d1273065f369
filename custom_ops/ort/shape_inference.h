// The output shapes of operators while a model loads, for onnxruntime's memory planner.
#pragma once

#include "pconv/ort_abi.h"

namespace pconv::ort {

/// Sets output shapes where they follow from what is known, and leaves them unset otherwise.
void infer_parallel_spike(const OrtApi* api, OrtShapeInferContext* context);
void infer_serial_spike(const OrtApi* api, OrtShapeInferContext* context);

/// Runs one of these. Never fails: the kernel reports errors.
void infer_where_known(const OrtApi* api, OrtShapeInferContext* context,
                       void (*infer)(const OrtApi*, OrtShapeInferContext*)) noexcept;

}  // namespace pconv::ort
