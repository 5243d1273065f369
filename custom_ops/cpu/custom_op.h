// ParallelSpike for onnxruntime's CPU provider.
#pragma once

#include "ort/operator.h"

namespace pconv::cpu {

template <class T>
ort::ParallelSpikeOp parallel_spike_op(const OrtApi* api);

}  // namespace pconv::cpu
