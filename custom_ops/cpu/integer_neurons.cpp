#include "cpu/integer_neurons.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace pconv::cpu {
namespace {

// Found by measurement: with fewer thresholds, comparing with all is faster than to look one up.
constexpr int32_t kFewestEstimated = 24;

}  // namespace

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

ClosedForm<double> closed_form(const int32_t* thresholds, int32_t highest, const Interval& sums, double off) {
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
  double low = steps == 1 ? 1 : (rise - off) / static_cast<double>(steps - 1);
  double high = steps == 1 ? 1 : (rise + off) / static_cast<double>(steps - 1);
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

int32_t Estimate::of(int64_t sum) const {
  return static_cast<int32_t>(std::min(std::max(static_cast<float>(sum) * scale + offset, least), most));
}

bool Estimate::fits(const int32_t* thresholds, int32_t highest, const Interval& sums) const {
  if (!std::is_sorted(thresholds, thresholds + highest)) return false;
  if (!std::isfinite(scale) || !std::isfinite(offset)) return false;
  for (int32_t k = 0; k < highest; ++k) {
    const int64_t threshold = thresholds[k];
    if (threshold <= sums.least || threshold > sums.most) continue;
    if (of(threshold) < k || of(threshold - 1) > k) return false;
  }
  return true;
}

Estimate estimate(const int32_t* thresholds, int32_t highest, const Interval& sums) {
  const double rise = static_cast<double>(thresholds[highest - 1]) - thresholds[0];
  const ClosedForm<double> form = closed_form(thresholds, highest, sums, rise / highest);
  // Half a step below the line, an error is allowed of half a step either way.
  const int32_t last = highest - 1;
  return {static_cast<float>(form.scale), static_cast<float>(form.offset - 0.5),
          static_cast<float>(std::min(form.least, last)), static_cast<float>(std::min(form.most, last))};
}

Neurons::Neurons(const Thresholds& table, const std::vector<int64_t>& outputs, const std::vector<int64_t>& stored,
                 int64_t lanes, const std::vector<Interval>& sums)
    : highest(table.highest),
      scale(outputs.size()),
      offset(outputs.size()),
      fine_scale(outputs.size()),
      fine_offset(outputs.size()),
      least_estimate(outputs.size()),
      most_estimate(outputs.size()),
      least(outputs.size(), 0),
      most(outputs.size(), UINT8_MAX) {
  const size_t width = static_cast<size_t>(lanes);
  for (size_t block = 0; block < outputs.size(); block += width) {
    const auto all_of_block = [&](auto&& take) {
      for (size_t at = block; at < block + width; ++at) {
        if (outputs[at] < 0) continue;
        if (!take(at, table.of(outputs[at]), sums[static_cast<size_t>(outputs[at])])) return false;
      }
      return true;
    };
    Kind kind = Kind::kFloat;
    const bool closed = all_of_block([&](size_t at, const int32_t* own, const Interval& reach) {
      const ClosedForm<double> fine = closed_form(own, highest, reach);
      const ClosedForm<float> form{static_cast<float>(fine.scale), static_cast<float>(fine.offset), fine.least,
                                   fine.most};
      scale[at] = form.scale;
      offset[at] = form.offset;
      fine_scale[at] = fine.scale;
      fine_offset[at] = fine.offset;
      least[static_cast<size_t>(stored[at])] = static_cast<uint8_t>(fine.least);
      most[static_cast<size_t>(stored[at])] = static_cast<uint8_t>(fine.most);
      if (form.fits(own, highest, reach)) return true;
      kind = Kind::kDouble;
      return fine.fits(own, highest, reach);
    });
    const auto estimated = [&] {
      return highest >= kFewestEstimated && all_of_block([&](size_t at, const int32_t* own, const Interval& reach) {
        const Estimate near = estimate(own, highest, reach);
        scale[at] = near.scale;
        offset[at] = near.offset;
        least_estimate[at] = near.least;
        most_estimate[at] = near.most;
        return near.fits(own, highest, reach);
      });
    };
    if (!closed) kind = estimated() ? Kind::kEstimated : Kind::kCompared;
    kinds.push_back(kind);
    first_threshold.push_back(static_cast<int64_t>(thresholds.size()));
    if (closed) continue;
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
  const size_t own = static_cast<size_t>(place);
  const size_t block = static_cast<size_t>(position / lanes);
  const int32_t* const table = thresholds.data() + first_threshold[block] + position % lanes;
  const auto reached = [&](int64_t k) -> int32_t { return sum >= table[k * lanes]; };
  switch (kinds[block]) {
    case Kind::kFloat:
      return ClosedForm<float>{scale[at], offset[at], least[own], most[own]}.count(sum);
    case Kind::kDouble:
      return ClosedForm<double>{fine_scale[at], fine_offset[at], least[own], most[own]}.count(sum);
    case Kind::kEstimated: {
      const int32_t near = Estimate{scale[at], offset[at], least_estimate[at], most_estimate[at]}.of(sum);
      return near + reached(near);
    }
    default:
      int32_t count = 0;
      for (int64_t k = 0; k < highest; ++k) count += reached(k);
      return count;
  }
}

}  // namespace pconv::cpu
