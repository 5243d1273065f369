// Kernels of integer layers, written once for every instruction set. A file that defines an `Isa` includes this where
// its instructions are switched on, and what this needs of the standard library before that.
//
//   kLanes                  of a vector of int32
//   kMostBlocks, pixels(B)  outputs are computed for B blocks and pixels(B) pixels at once, all sums in registers
//   Ints, Floats            vectors of sums; Bytes of quads of counts, Filter of quads of weights
//   Partial                 sums on their way, from `begin` at a bias to `end`; `dot` adds the four products of a lane
//   kRun                    0, or so many dots of a Partial and more, as many as a filter's run, are exact
//   kFilterBytes            of a Filter in memory
//   kSummed                 quads whose products `dot_summed` adds at once; where they are several, there may be rests
//   Counts                  of four vectors of sums, limited to uint8: a block's at four pixels, or four blocks'
//   line                    of sums in double, rounded towards zero
//   look_up                 of thresholds [highest, kLanes], each lane's own at a place
//   interleave              four vectors of quads from four pixels, whose channels are in the order of `unpacked`
#pragma once

#include "cpu/integer_dense.h"
#include "cpu/integer_depthwise.h"
#include "cpu/integer_epilogue.h"

namespace pconv::cpu {
namespace {

template <class Isa>
void spike(const int32_t* sums, int64_t pixels, const Epilogue& epilogue) {
  const Neurons& neurons = *epilogue.neurons;
  for (int64_t output = 0; output < epilogue.outputs; output += Isa::kLanes) {
    const int64_t lanes = least_of(Isa::kLanes, epilogue.outputs - output);
    const int64_t position = output % static_cast<int64_t>(neurons.scale.size());
    const Kind kind = neurons.kinds[static_cast<size_t>(position / Isa::kLanes)];
    const auto least = Isa::load_bounds(neurons.least.data() + position);
    const auto most = Isa::load_bounds(neurons.most.data() + position);
    for (int64_t p = 0; p < pixels; p += 4) {
      const int64_t last = least_of(pixels - 1 - p, 3);
      IntsOf<Isa> reached[4];
      for (int64_t q = 0; q < 4; ++q) {
        const auto sum = Isa::load_some(sums + (p + least_of(q, last)) * epilogue.outputs + output, lanes);
        reached[q] = count<Isa>(neurons, kind, position, sum);
      }
      Isa::store_pixels(epilogue.counts + p * epilogue.outputs + output, epilogue.outputs, last + 1, lanes,
                        Isa::clamp(Isa::pack_pixels(reached), least, most));
    }
  }
}

template <class Isa>
constexpr Kernels kernels_of(const Kernels* narrow = nullptr) {
  return {Isa::kLanes, dense<Isa>, depthwise<Isa>, spike<Isa>, 0, 0, Isa::kFilterBytes, nullptr, narrow};
}

}  // namespace
}  // namespace pconv::cpu
