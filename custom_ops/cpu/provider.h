// Operators on onnxruntime's CPU provider.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/plan.h"
#include "ort/guard.h"
#include "pconv/ort_abi.h"

namespace pconv::cpu {

struct Provider {
  static constexpr const char* kName = "CPUExecutionProvider";

  /// On the threads of the session; a single chunk on the one that calls.
  template <class AnyCall>
  static void run(const OrtApi* api, OrtKernelContext* context, const AnyCall& call) {
    Plan<AnyCall> plan(call);
    const auto task = [](void* data, size_t chunk) {
      run_chunk(*static_cast<const Plan<AnyCall>*>(data), static_cast<int64_t>(chunk));
    };
    ort::check(abi::KernelContext_ParallelFor(api, context, task, static_cast<size_t>(plan.chunks), 0, &plan));
  }
};

}  // namespace pconv::cpu
