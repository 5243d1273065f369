// How calls of any operator run on the CPU.
#pragma once

namespace pconv::cpu {

/// A call with at least one element, cut into `chunks` that may run in any order and on any thread:
/// `run_chunk(plan, chunk)` runs one. Each operator specialises it for its calls.
template <class AnyCall>
struct Plan;

}  // namespace pconv::cpu
