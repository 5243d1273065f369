// Weights whose products are summed in 16 bits: how many of them may be, and what is left of those that are too large.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/aligned.h"

namespace pconv::cpu {

/// Weights in blocks of [quads, lanes, kQuad]. Neighbours are multiplied and summed in pairs, two pairs a quad.
struct QuadBlocks {
  int64_t number;
  int64_t quads;
  int64_t lanes;
};

/// What the weights of products that 16 bits hold the sum of may add up to.
struct Limits {
  int64_t above;  ///< those above zero
  int64_t below;  ///< those below
};

/// The most quads of which 16 bits hold the sum of either pair, wherever in a block they follow one another.
int64_t longest_run(const Aligned<int8_t>& weights, const QuadBlocks& blocks, const Limits& limits);

/// Weights of which 16 bits hold the sum over each run of quads from the beginning of a block on, and what they lack:
/// rests of some quads, of which they hold the sum over one.
///
/// Products are linear in weights, so what is summed of both is exact. Rests are few where weights are trained ones.
struct Split {
  Split(const Aligned<int8_t>& from, const QuadBlocks& blocks, int64_t run, const Limits& limits);

  Aligned<int8_t> weights;
  std::vector<int64_t> first;  ///< rest of each block, and how many there are
  std::vector<int64_t> quads;  ///< that rests are of
  Aligned<int8_t> rests;       ///< [rests, lanes, kQuad]
  bool is_enough;              ///< whether one rest a quad is
};

/// The same weights in 16 bits: of each filter of so many those at even places, then those at odd ones.
Aligned<int8_t> widened(const Aligned<int8_t>& weights, int64_t filter);

}  // namespace pconv::cpu
