#include "cpu/custom_op.h"

#include "cpu/parallel_spike.h"
#include "ort/parallel_spike.h"
#include "pconv/half.h"

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

template <class T>
ort::Operator parallel_spike_op(const OrtApi* api) {
  return ort::operator_of<T, ort::parallel_spike::Node<T, run<T>>>(api, "CPUExecutionProvider");
}

}  // namespace

std::vector<ort::Operator> operators(const OrtApi* api) {
  return {parallel_spike_op<float>(api), parallel_spike_op<Half>(api), parallel_spike_op<BFloat16>(api)};
}

}  // namespace pconv::cpu
