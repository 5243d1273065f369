#include "cpu/integer_rests.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "cpu/integer_kernels.h"

namespace pconv::cpu {
namespace {

constexpr int64_t kPair = 2;

/// How much of a sign a pair of weights has.
int64_t part(const int8_t* pair, int64_t sign) {
  return std::max<int64_t>(sign * pair[0], 0) + std::max<int64_t>(sign * pair[1], 0);
}

/// Calls `take` with where the first of the pairs that are summed over quads is, and with a sign and its limit.
template <class Take>
void each_sum(const QuadBlocks& blocks, const Limits& limits, Take take) {
  const int64_t quad = blocks.lanes * kQuad;
  for (int64_t block = 0; block < blocks.number; ++block) {
    for (int64_t pair = 0; pair < quad; pair += kPair) {
      const int64_t first = block * blocks.quads * quad + pair;
      take(first, int64_t{1}, limits.above);
      take(first, int64_t{-1}, limits.below);
    }
  }
}

}  // namespace

int64_t longest_run(const Aligned<int8_t>& weights, const QuadBlocks& blocks, const Limits& limits) {
  const int64_t quad = blocks.lanes * kQuad;
  int64_t longest = std::max(blocks.quads, int64_t{1});
  each_sum(blocks, limits, [&](int64_t pair, int64_t sign, int64_t most) {
    const auto part_of = [&](int64_t of) { return part(weights.data() + pair + of * quad, sign); };
    int64_t sum = 0;
    for (int64_t begin = 0, end = 0; end < blocks.quads; ++end) {
      sum += part_of(end);
      for (; sum > most; sum -= part_of(begin++)) longest = std::min(longest, end - begin);
    }
  });
  return longest;
}

Split::Split(const Aligned<int8_t>& from, const QuadBlocks& blocks, int64_t run, const Limits& limits)
    : weights(from), is_enough(true) {
  const int64_t quad = blocks.lanes * kQuad;
  Aligned<int8_t> rest(from.size(), 0);
  each_sum(blocks, limits, [&](int64_t pair, int64_t sign, int64_t most) {
    for (int64_t begin = 0; begin < blocks.quads; begin += run) {
      const int64_t end = std::min(begin + run, blocks.quads);
      int64_t excess = -most;
      for (int64_t of = begin; of < end; ++of) excess += part(weights.data() + pair + of * quad, sign);
      // The first quads are taken from, so that pairs of several outputs leave rests of the same.
      for (int64_t of = begin; of < end && excess > 0; ++of) {
        int64_t room = most;
        for (int64_t i = pair + of * quad; i < pair + of * quad + kPair; ++i) {
          const size_t at = static_cast<size_t>(i);
          const int64_t most_taken = std::max(std::min(room, excess), int64_t{0});
          const int64_t taken = std::clamp<int64_t>(sign * weights[at], 0, most_taken);
          weights[at] = static_cast<int8_t>(weights[at] - sign * taken);
          rest[at] = static_cast<int8_t>(rest[at] + sign * taken);
          room -= taken;
          excess -= taken;
        }
      }
      is_enough = is_enough && excess <= 0;
    }
  });
  for (int64_t block = 0; block < blocks.number; ++block) {
    first.push_back(static_cast<int64_t>(quads.size()));
    for (int64_t of = 0; of < blocks.quads; ++of) {
      const auto begin = rest.begin() + (block * blocks.quads + of) * quad;
      if (std::all_of(begin, begin + quad, [](int8_t weight) { return weight == 0; })) continue;
      quads.push_back(of);
      rests.insert(rests.end(), begin, begin + quad);
    }
  }
  first.push_back(static_cast<int64_t>(quads.size()));
}

Aligned<int8_t> widened(const Aligned<int8_t>& weights, int64_t filter) {
  Aligned<int8_t> wide(2 * weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    const size_t place = i % static_cast<size_t>(filter);
    const size_t to = i - place + place % kPair * static_cast<size_t>(filter / kPair) + place / kPair;
    const int16_t weight = weights[i];
    std::memcpy(wide.data() + to * sizeof(weight), &weight, sizeof(weight));
  }
  return wide;
}

}  // namespace pconv::cpu
