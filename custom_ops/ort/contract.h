// What a ParallelSpike node promises: its attributes and the shapes of its inputs (docs/ParallelSpike-1.md, Errors).
#pragma once

#include <cstdint>
#include <vector>

#include "pconv/layout.h"
#include "pconv/ort_abi.h"

namespace pconv::ort {

using Shape = std::vector<int64_t>;

struct Attributes {
  int64_t input_steps;
  int64_t channel_axis;
  bool spikes;
};

/// The attributes of a node. Throws std::invalid_argument where one is missing, of another type or out of range.
Attributes read_attributes(const OrtApi* api, const OrtKernelInfo* info);

/// The sizes of a call. Throws std::invalid_argument where the shapes break the contract.
Layout check_shapes(const Attributes& attributes, const Shape& current, const Shape& thresholds, const Shape& levels);

}  // namespace pconv::ort
