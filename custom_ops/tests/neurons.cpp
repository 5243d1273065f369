// How neurons of integer sums are counted. Called from tests/custom_ops/test_integer_spike.py.
#include <cstdint>
#include <vector>

#include "cpu/integer_neurons.h"

/// The kind of a block of as many neurons as there are rows of thresholds.
extern "C" int32_t pconv_test_kind(const int32_t* thresholds, int64_t rows, int32_t highest) {
  using namespace pconv::cpu;
  std::vector<int64_t> outputs;
  for (int64_t row = 0; row < rows; ++row) outputs.push_back(row);
  const std::vector<Interval> sums(outputs.size(), kAnySum);
  const Neurons neurons({thresholds, rows, highest}, outputs, outputs, rows, sums);
  return static_cast<int32_t>(neurons.kinds[0]);
}
