// ParallelSpike on the CPU provider, as onnxruntime sees it.
#pragma once

#include "pconv/ort_abi.h"

namespace pconv::cpu {

/// The operator for one element type. `api` is the table of the runtime that the operator is registered with.
struct ParallelSpikeOp : OrtCustomOp {
  const OrtApi* api;
};

template <class T>
ParallelSpikeOp parallel_spike_op(const OrtApi* api);

}  // namespace pconv::cpu
