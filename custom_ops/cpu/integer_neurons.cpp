#include "cpu/integer_neurons.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace pconv::cpu {

int32_t ClosedForm::count(int32_t sum) const {
  const float raw = static_cast<float>(sum) * scale + offset;
  return static_cast<int32_t>(std::min(std::max(raw, least), most));
}

bool ClosedForm::fits(const int32_t* thresholds, int32_t highest, const Interval& sums) const {
  if (!std::is_sorted(thresholds, thresholds + highest)) return false;
  if (count(static_cast<int32_t>(sums.least)) < std::upper_bound(thresholds, thresholds + highest, sums.least) - thresholds) {
    return false;
  }
  for (int32_t k = 0; k < highest; ++k) {
    const int32_t threshold = thresholds[k];
    if (threshold > sums.least && threshold <= sums.most) {
      if (count(threshold) <= k || count(threshold - 1) > k) return false;
    }
  }
  return true;
}

ClosedForm ClosedForm::of(const int32_t* thresholds, int32_t highest, const Interval& sums) {
  // Those that are always reached and those that never are bound the count; the others are points of a staircase.
  const int32_t* const begin = std::upper_bound(thresholds, thresholds + highest, static_cast<int32_t>(sums.least));
  const int32_t* const end = std::upper_bound(thresholds, thresholds + highest, static_cast<int32_t>(sums.most));
  const double first = static_cast<double>(begin - thresholds);
  ClosedForm form;
  form.least = static_cast<float>(first);
  form.most = static_cast<float>(end - thresholds);
  const std::ptrdiff_t steps = end - begin;
  if (steps <= 0) return form;

  // A line d·k + c with thresholds[k] - 1 < d·k + c <= thresholds[k] for all k exists just where d lies between these.
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  for (std::ptrdiff_t i = 0; i < steps; ++i) {
    for (std::ptrdiff_t j = i + 1; j < steps; ++j) {
      const double rise = static_cast<double>(begin[j]) - begin[i];
      low = std::max(low, (rise - 1) / static_cast<double>(j - i));
      high = std::min(high, (rise + 1) / static_cast<double>(j - i));
    }
  }
  const double spacing = steps == 1 ? 1.0 : (low + high) / 2;
  if (spacing <= 0) return form;
  double above = -std::numeric_limits<double>::infinity();
  double below = std::numeric_limits<double>::infinity();
  for (std::ptrdiff_t k = 0; k < steps; ++k) {
    const double start = begin[k] - spacing * static_cast<double>(k);
    above = std::max(above, start - 1);
    below = std::min(below, start);
  }
  const double start = (above + below) / 2;
  form.scale = static_cast<float>(1 / spacing);
  form.offset = static_cast<float>(1 + first - start / spacing);
  return form;
}

Neurons::Neurons(const Thresholds& table, const std::vector<int64_t>& outputs, int64_t lanes,
                 const std::vector<Interval>& sums)
    : highest(table.highest),
      scale(outputs.size()),
      offset(outputs.size()),
      least(outputs.size()),
      most(outputs.size()) {
  for (size_t block = 0; block < outputs.size(); block += static_cast<size_t>(lanes)) {
    bool even = true;
    for (size_t at = block; at < block + static_cast<size_t>(lanes); ++at) {
      if (outputs[at] < 0) continue;
      const int32_t* const own = table.of(outputs[at]);
      const Interval& reach = sums[static_cast<size_t>(outputs[at])];
      const ClosedForm form = ClosedForm::of(own, highest, reach);
      even = even && form.fits(own, highest, reach);
      scale[at] = form.scale;
      offset[at] = form.offset;
      least[at] = form.least;
      most[at] = form.most;
    }
    uneven.push_back(even ? -1 : static_cast<int64_t>(thresholds.size()));
    if (even) continue;
    for (int32_t k = 0; k < highest; ++k) {
      for (size_t at = block; at < block + static_cast<size_t>(lanes); ++at) {
        thresholds.push_back(outputs[at] < 0 ? 0 : table.of(outputs[at])[k]);
      }
    }
  }
}

int32_t Neurons::count(int64_t position, int64_t lanes, int32_t sum) const {
  const size_t at = static_cast<size_t>(position);
  const int64_t start = uneven[static_cast<size_t>(position / lanes)];
  if (start < 0) return ClosedForm{scale[at], offset[at], least[at], most[at]}.count(sum);
  int32_t reached = 0;
  for (int64_t k = 0; k < highest; ++k) {
    reached += thresholds[static_cast<size_t>(start + k * lanes + position % lanes)] <= sum;
  }
  return reached;
}

}  // namespace pconv::cpu
