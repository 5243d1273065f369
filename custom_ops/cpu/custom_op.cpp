#include "cpu/custom_op.h"

#include "cpu/parallel_spike.h"
#include "cpu/serial_spike.h"
#include "ort/parallel_spike.h"
#include "ort/serial_spike.h"
#include "pconv/half.h"

namespace pconv::cpu {
namespace {

/// On the threads of the session; a single chunk on the one that calls.
template <class Plan>
void run_chunks(const OrtApi* api, OrtKernelContext* context, const Plan& plan, int64_t chunks) {
  const auto task = [](void* data, size_t chunk) {
    run_chunk(*static_cast<const Plan*>(data), static_cast<int64_t>(chunk));
  };
  ort::check(abi::KernelContext_ParallelFor(api, context, task, static_cast<size_t>(chunks), 0,
                                            const_cast<Plan*>(&plan)));
}

template <class T>
void run_parallel(const OrtApi* api, OrtKernelContext* context, const Call<T>& call) {
  const Plan<T> plan(call);
  run_chunks(api, context, plan, plan.chunks);
}

template <class T>
void run_serial(const OrtApi* api, OrtKernelContext* context, const SerialCall<T>& call) {
  run_chunks(api, context, call, chunks_of(call.layout));
}

template <class T, class Node>
ort::Operator operator_of(const OrtApi* api) {
  return ort::operator_of<T, Node>(api, "CPUExecutionProvider");
}

template <class T>
using ParallelSpike = ort::parallel_spike::Node<T, run_parallel<T>>;
template <class T>
using SerialSpike = ort::serial_spike::Node<T, run_serial<T>>;

}  // namespace

std::vector<ort::Operator> operators(const OrtApi* api) {
  return {
      operator_of<float, ParallelSpike<float>>(api), operator_of<Half, ParallelSpike<Half>>(api),
      operator_of<BFloat16, ParallelSpike<BFloat16>>(api), operator_of<float, SerialSpike<float>>(api),
      operator_of<Half, SerialSpike<Half>>(api), operator_of<BFloat16, SerialSpike<BFloat16>>(api),
  };
}

}  // namespace pconv::cpu
