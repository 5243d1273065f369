#include "cpu/custom_op.h"

#include "cpu/parallel_spike.h"

namespace pconv::cpu {
namespace {

/// On the threads of the session.
template <class T>
void run(const OrtApi* api, OrtKernelContext* context, const Call<T>& call) {
  const Plan<T> plan(call);
  const auto task = [](void* data, size_t chunk) {
    run_chunk(*static_cast<const Plan<T>*>(data), static_cast<int64_t>(chunk));
  };
  ort::check(abi::KernelContext_ParallelFor(api, context, task, static_cast<size_t>(plan.chunks), 0,
                                            const_cast<Plan<T>*>(&plan)));
}

}  // namespace

template <class T>
ort::ParallelSpikeOp parallel_spike_op(const OrtApi* api) {
  return ort::parallel_spike_op<T, run<T>>(api, "CPUExecutionProvider");
}

template ort::ParallelSpikeOp parallel_spike_op<float>(const OrtApi* api);
template ort::ParallelSpikeOp parallel_spike_op<Half>(const OrtApi* api);
template ort::ParallelSpikeOp parallel_spike_op<BFloat16>(const OrtApi* api);

}  // namespace pconv::cpu
