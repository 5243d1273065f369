#include "cpu/custom_op.h"

#include "cpu/parallel_spike.h"
#include "cpu/serial_spike.h"
#include "ort/guard.h"
#include "ort/operators.h"

namespace pconv::cpu {
namespace {

/// On the threads of the session; a single chunk on the one that calls.
template <class Work>
void run_chunks(const OrtApi* api, OrtKernelContext* context, const Work& work, int64_t chunks) {
  const auto task = [](void* data, size_t chunk) {
    run_chunk(*static_cast<const Work*>(data), static_cast<int64_t>(chunk));
  };
  ort::check(abi::KernelContext_ParallelFor(api, context, task, static_cast<size_t>(chunks), 0,
                                            const_cast<Work*>(&work)));
}

struct Provider {
  static constexpr const char* kName = "CPUExecutionProvider";

  template <class T>
  static void run(const OrtApi* api, OrtKernelContext* context, const Call<T>& call) {
    const Plan<T> plan(call);
    run_chunks(api, context, plan, plan.chunks);
  }
  template <class T>
  static void run(const OrtApi* api, OrtKernelContext* context, const SerialCall<T>& call) {
    run_chunks(api, context, call, chunks_of(call.layout));
  }
};

}  // namespace

std::vector<ort::Operator> operators(const OrtApi* api) { return ort::operators<Provider>(api); }

}  // namespace pconv::cpu
