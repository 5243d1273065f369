#include "cpu/integer_neurons.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace pconv::cpu {

template <class Real>
int32_t ClosedForm<Real>::count(int64_t sum) const { return std::clamp(static_cast<int32_t>(raw(sum)), least, most); }

template <class Real>
bool ClosedForm<Real>::fits(const int32_t* thresholds, int32_t highest, const Interval& sums) const {
  const int32_t* const end = thresholds + highest;
  if (!std::is_sorted(thresholds, end)) return false;
  // Rounded values beyond int32 are none.
  constexpr Real kEnd = 2147483648;
  if (raw(sums.least) <= -kEnd || raw(sums.most) >= kEnd) return false;
  if (count(sums.least) != std::upper_bound(thresholds, end, sums.least) - thresholds) return false;
  for (int32_t k = 0; k < highest; ++k) {
    const int64_t threshold = thresholds[k];
    if (threshold <= sums.least || threshold > sums.most) continue;
    if (count(threshold) <= k || count(threshold - 1) > k) return false;
  }
  return true;
}

ClosedForm<double> closed_form(const int32_t* thresholds, int32_t highest, const Interval& sums) {
  // Those that are always reached and those that never are bound the count; the others are points of a staircase.
  const int32_t* const begin = std::upper_bound(thresholds, thresholds + highest, static_cast<int32_t>(sums.least));
  const int32_t* const end = std::upper_bound(thresholds, thresholds + highest, static_cast<int32_t>(sums.most));
  const double first = static_cast<double>(begin - thresholds);
  ClosedForm<double> form;
  form.least = static_cast<int32_t>(begin - thresholds);
  form.most = static_cast<int32_t>(end - thresholds);
  const std::ptrdiff_t steps = end - begin;
  if (steps <= 0) return form;

  // The line spacing·k + start that is least far above one threshold and below another: how far is convex in the
  // spacing, and no line fits if that is 1 or more.
  const double rise = static_cast<double>(begin[steps - 1]) - begin[0];
  double low = steps == 1 ? 1 : (rise - 1) / static_cast<double>(steps - 1);
  double high = steps == 1 ? 1 : (rise + 1) / static_cast<double>(steps - 1);
  double spacing = 0;
  double start = 0;
  constexpr int kHalvings = 24;
  for (int i = 0; i < kHalvings; ++i) {
    spacing = (low + high) / 2;
    const auto start_of = [&](std::ptrdiff_t k) { return begin[k] - spacing * static_cast<double>(k); };
    std::ptrdiff_t first_k = 0;
    std::ptrdiff_t last_k = 0;
    for (std::ptrdiff_t k = 1; k < steps; ++k) {
      if (start_of(k) < start_of(first_k)) first_k = k;
      if (start_of(k) > start_of(last_k)) last_k = k;
    }
    start = (start_of(first_k) + start_of(last_k) - 1) / 2;
    (first_k > last_k ? high : low) = spacing;
  }
  if (spacing <= 0) return form;
  form.scale = 1 / spacing;
  form.offset = 1 + first - start / spacing;
  return form;
}

Neurons::Neurons(const Thresholds& table, const std::vector<int64_t>& outputs, const std::vector<int64_t>& stored,
                 int64_t lanes, const std::vector<Interval>& sums)
    : highest(table.highest),
      scale(outputs.size()),
      offset(outputs.size()),
      fine_scale(outputs.size()),
      fine_offset(outputs.size()),
      least(outputs.size(), 0),
      most(outputs.size(), UINT8_MAX) {
  const size_t width = static_cast<size_t>(lanes);
  for (size_t block = 0; block < outputs.size(); block += width) {
    Kind kind = Kind::kFloat;
    for (size_t at = block; at < block + width && kind != Kind::kCompared; ++at) {
      if (outputs[at] < 0) continue;
      const int32_t* const own = table.of(outputs[at]);
      const Interval& reach = sums[static_cast<size_t>(outputs[at])];
      const ClosedForm<double> fine = closed_form(own, highest, reach);
      const ClosedForm<float> form{static_cast<float>(fine.scale), static_cast<float>(fine.offset), fine.least,
                                   fine.most};
      if (!form.fits(own, highest, reach)) kind = fine.fits(own, highest, reach) ? Kind::kDouble : Kind::kCompared;
      scale[at] = form.scale;
      offset[at] = form.offset;
      fine_scale[at] = fine.scale;
      fine_offset[at] = fine.offset;
      least[static_cast<size_t>(stored[at])] = static_cast<uint8_t>(fine.least);
      most[static_cast<size_t>(stored[at])] = static_cast<uint8_t>(fine.most);
    }
    kinds.push_back(kind);
    first_threshold.push_back(static_cast<int64_t>(thresholds.size()));
    if (kind != Kind::kCompared) continue;
    for (size_t at = block; at < block + width; ++at) {
      least[static_cast<size_t>(stored[at])] = 0;
      most[static_cast<size_t>(stored[at])] = UINT8_MAX;
    }
    for (int32_t k = 0; k < highest; ++k) {
      for (size_t at = block; at < block + width; ++at) {
        thresholds.push_back(outputs[at] < 0 ? 0 : table.of(outputs[at])[k]);
      }
    }
  }
}

int32_t Neurons::count(int64_t position, int64_t place, int64_t lanes, int32_t sum) const {
  const size_t at = static_cast<size_t>(position);
  const size_t block = static_cast<size_t>(position / lanes);
  if (kinds[block] != Kind::kCompared) {
    const size_t own = static_cast<size_t>(place);
    if (kinds[block] == Kind::kFloat) return ClosedForm<float>{scale[at], offset[at], least[own], most[own]}.count(sum);
    return ClosedForm<double>{fine_scale[at], fine_offset[at], least[own], most[own]}.count(sum);
  }
  const int64_t start = first_threshold[block];
  int32_t reached = 0;
  for (int64_t k = 0; k < highest; ++k) {
    reached += thresholds[static_cast<size_t>(start + k * lanes + position % lanes)] <= sum;
  }
  return reached;
}

}  // namespace pconv::cpu
