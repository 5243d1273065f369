// Operators on onnxruntime's CPU provider.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>

#include "cpu/plan.h"
#include "ort/guard.h"
#include "pconv/ort_abi.h"

namespace pconv::cpu {

struct Provider {
  static constexpr const char* kName = "CPUExecutionProvider";

  /// On the threads of the session; a single chunk on the one that calls.
  template <class AnyCall>
  static void run(const OrtApi* api, OrtKernelContext* context, const AnyCall& call) {
    Job<AnyCall> job{Plan<AnyCall>(call), {}, nullptr};
    const auto task = [](void* data, size_t chunk) { static_cast<Job<AnyCall>*>(data)->run(chunk); };
    ort::check(abi::KernelContext_ParallelFor(api, context, task, static_cast<size_t>(job.plan.chunks), 0, &job));
    if (job.thrown) std::rethrow_exception(job.thrown);
  }

 private:
  /// No exception crosses onnxruntime's threads: memory for a chunk may be refused.
  template <class AnyCall>
  struct Job {
    const Plan<AnyCall> plan;
    std::mutex mutex;
    std::exception_ptr thrown;

    void run(size_t chunk) noexcept {
      try {
        run_chunk(plan, static_cast<int64_t>(chunk));
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        thrown = std::current_exception();
      }
    }
  };
};

}  // namespace pconv::cpu
