// ParallelSpike for onnxruntime's CUDA provider.
#pragma once

#include "ort/operator.h"

namespace pconv::cuda {

template <class T>
ort::ParallelSpikeOp parallel_spike_op(const OrtApi* api);

}  // namespace pconv::cuda
