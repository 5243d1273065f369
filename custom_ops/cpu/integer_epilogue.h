// What becomes of the sums of integer layers. Part of cpu/integer_blocking.h.
#pragma once

#include "cpu/integer_kernels.h"
#include "pconv/portable.h"

namespace pconv::cpu {
namespace {

template <class Isa>
using IntsOf = typename Isa::Ints;
template <class Isa>
using PartialOf = typename Isa::Partial;

constexpr int64_t least_of(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t divide_up(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

/// Keeps an address in a register of its own. Compilers otherwise make one for each pixel, more than there are; or take
/// what is read through it for constant in a loop, and keep that in registers that sums need.
template <class T>
PCONV_INLINE const T* kept(const T* address) {
#if defined(__GNUC__)
  asm("" : "+r"(address));
#endif
  return address;
}

enum class Residual { kNone, kCounts, kSums };
enum class Then { kSums, kFloat, kDouble, kEstimated, kCompared };

/// A sum with what is added to it.
template <class Isa, Residual kResidual>
PCONV_INLINE IntsOf<Isa> completed(const Epilogue& epilogue, IntsOf<Isa> sum, int64_t position, int64_t at,
                                   int64_t lanes) {
  if (epilogue.factor != nullptr) {
    sum = Isa::add(Isa::multiply(sum, Isa::load(epilogue.factor + position)), Isa::load(epilogue.bias + position));
  }
  if constexpr (kResidual == Residual::kCounts) {
    const auto multiplier = Isa::load(epilogue.multiplier + position);
    sum = Isa::add(sum, Isa::multiply(multiplier, Isa::load_some(epilogue.residual_counts + at, lanes)));
  } else if constexpr (kResidual == Residual::kSums) {
    const auto multiplier = Isa::load(epilogue.multiplier + position);
    sum = Isa::add(sum, Isa::multiply(multiplier, Isa::load_some(epilogue.residual_sums + at, lanes)));
  }
  return sum;
}

/// The closed forms of positions from one on. Kernels hold a copy: through a reference, it would be read again after
/// every store of counts, which might be anywhere.
struct Closed {
  const float* scale;
  const float* offset;
  const double* fine_scale;
  const double* fine_offset;
  const uint8_t* least;
  const uint8_t* most;

  Closed(const Neurons& neurons, int64_t position)
      : scale(neurons.scale.data() + position),
        offset(neurons.offset.data() + position),
        fine_scale(neurons.fine_scale.data() + position),
        fine_offset(neurons.fine_offset.data() + position),
        least(neurons.least.data() + position),
        most(neurons.most.data() + position) {}
};

/// The spike counts of sums in closed form, before they are clamped; the first of these is `place` after that of the
/// table.
template <class Isa, bool kFine>
PCONV_INLINE IntsOf<Isa> count_closed(const Closed& closed, int64_t place, IntsOf<Isa> sum) {
  if constexpr (kFine) return Isa::line(sum, closed.fine_scale + place, closed.fine_offset + place);
  return Isa::to_ints(Isa::add(Isa::multiply(Isa::to_floats(sum), Isa::load(closed.scale + place)),
                               Isa::load(closed.offset + place)));
}

/// The spike counts of sums at a position, in closed form before they are clamped.
template <class Isa, Then kThen>
PCONV_INLINE IntsOf<Isa> count(const Neurons& neurons, int64_t position, IntsOf<Isa> sum) {
  if constexpr (kThen == Then::kFloat || kThen == Then::kDouble) {
    return count_closed<Isa, kThen == Then::kDouble>(Closed(neurons, position), 0, sum);
  } else {
    const size_t block = static_cast<size_t>(position / Isa::kLanes);
    const int32_t* threshold = neurons.thresholds.data() + neurons.first_threshold[block];
    if constexpr (kThen == Then::kEstimated) {
      const auto line = Isa::add(Isa::multiply(Isa::to_floats(sum), Isa::load(neurons.scale.data() + position)),
                                 Isa::load(neurons.offset.data() + position));
      const auto near = Isa::to_ints(Isa::limit(line, Isa::load(neurons.least_estimate.data() + position),
                                                Isa::load(neurons.most_estimate.data() + position)));
      return Isa::count_reached(near, sum, Isa::look_up(threshold, near));
    }
    IntsOf<Isa> reached = Isa::zeros();
    for (int32_t k = 0; k < neurons.highest; ++k, threshold += Isa::kLanes) {
      reached = Isa::count_reached(reached, sum, Isa::load(threshold));
    }
    return reached;
  }
}

/// The same of a kind that is known when it runs.
template <class Isa>
PCONV_INLINE IntsOf<Isa> count(const Neurons& neurons, Kind kind, int64_t position, IntsOf<Isa> sum) {
  switch (kind) {
    case Kind::kFloat:
      return count<Isa, Then::kFloat>(neurons, position, sum);
    case Kind::kDouble:
      return count<Isa, Then::kDouble>(neurons, position, sum);
    case Kind::kEstimated:
      return count<Isa, Then::kEstimated>(neurons, position, sum);
    default:
      return count<Isa, Then::kCompared>(neurons, position, sum);
  }
}

/// The values of a block at several pixels, whose sums lie `stride` apart; `lanes` of them belong to outputs.
template <class Isa, Residual kResidual, Then kThen>
void finish_block(const Epilogue& epilogue, const int32_t* sums, int64_t stride, int64_t pixels, int64_t pixel,
                  int64_t position, int64_t output, int64_t lanes) {
  const int64_t first = pixel * epilogue.outputs + output;
  if constexpr (kThen == Then::kSums) {
    for (int64_t p = 0; p < pixels; ++p) {
      const int64_t at = first + p * epilogue.outputs;
      const auto sum = completed<Isa, kResidual>(epilogue, Isa::load(sums + p * stride), position, at, lanes);
      Isa::store_some(epilogue.sums + at, sum, lanes);
    }
  } else {
    const Neurons& neurons = *epilogue.neurons;
    const auto least = Isa::load_bounds(neurons.least.data() + position);
    const auto most = Isa::load_bounds(neurons.most.data() + position);
    for (int64_t p = 0; p < pixels; p += 4) {
      const int64_t last = least_of(pixels - 1 - p, 3);
      IntsOf<Isa> reached[4];
      PCONV_UNROLLED for (int64_t q = 0; q < 4; ++q) {
        // Where there are no four pixels left the last one is taken again.
        const int64_t own = p + least_of(q, last);
        const auto sum = completed<Isa, kResidual>(epilogue, Isa::load(sums + own * stride), position,
                                                   first + own * epilogue.outputs, lanes);
        reached[q] = count<Isa, kThen>(neurons, position, sum);
      }
      Isa::store_pixels(epilogue.counts + first + p * epilogue.outputs, epilogue.outputs, last + 1, lanes,
                        Isa::clamp(Isa::pack_pixels(reached), least, most));
    }
  }
}

template <class Isa, Residual kResidual>
PCONV_INLINE void finish_after(const Epilogue& epilogue, const int32_t* sums, int64_t stride, int64_t pixels,
                               int64_t pixel, int64_t position, int64_t output, int64_t lanes) {
  if (epilogue.neurons == nullptr) {
    finish_block<Isa, kResidual, Then::kSums>(epilogue, sums, stride, pixels, pixel, position, output, lanes);
    return;
  }
  switch (epilogue.neurons->kinds[static_cast<size_t>(position / Isa::kLanes)]) {
    case Kind::kFloat:
      finish_block<Isa, kResidual, Then::kFloat>(epilogue, sums, stride, pixels, pixel, position, output, lanes);
      break;
    case Kind::kDouble:
      finish_block<Isa, kResidual, Then::kDouble>(epilogue, sums, stride, pixels, pixel, position, output, lanes);
      break;
    case Kind::kEstimated:
      finish_block<Isa, kResidual, Then::kEstimated>(epilogue, sums, stride, pixels, pixel, position, output, lanes);
      break;
    case Kind::kCompared:
      finish_block<Isa, kResidual, Then::kCompared>(epilogue, sums, stride, pixels, pixel, position, output, lanes);
  }
}

template <class Isa>
PCONV_INLINE void finish(const Epilogue& epilogue, const int32_t* sums, int64_t stride, int64_t pixels, int64_t pixel,
                         int64_t position, int64_t output, int64_t lanes) {
  if (epilogue.residual_counts != nullptr) {
    finish_after<Isa, Residual::kCounts>(epilogue, sums, stride, pixels, pixel, position, output, lanes);
  } else if (epilogue.residual_sums != nullptr) {
    finish_after<Isa, Residual::kSums>(epilogue, sums, stride, pixels, pixel, position, output, lanes);
  } else {
    finish_after<Isa, Residual::kNone>(epilogue, sums, stride, pixels, pixel, position, output, lanes);
  }
}

/// Clamps and stores the counts of four blocks side by side. Vectors of channels that were interleaved are in the order
/// of `unpacked`.
template <class Isa, bool kInterleaved>
PCONV_INLINE void store_four(const Closed& closed, const IntsOf<Isa> (&reached)[4], uint8_t* to, int64_t channels) {
  const auto counts = kInterleaved ? Isa::pack_interleaved(reached) : Isa::pack_pixels(reached);
  Isa::store_channels(to, channels,
                      Isa::clamp(counts, Isa::load_four_bounds(closed.least), Isa::load_four_bounds(closed.most)));
}

/// Where sums begin: at the bias, unless they are multiplied before it is added.
template <class Isa>
PCONV_INLINE IntsOf<Isa> start(const Epilogue& epilogue, int64_t position) {
  return epilogue.factor == nullptr ? Isa::load(epilogue.bias + position) : Isa::zeros();
}

/// Whether so many blocks from a position on are all counted in closed form, in float.
template <class Isa, int kBlocks>
PCONV_INLINE bool are_float(const Neurons& neurons, int64_t position) {
  const Kind* const kinds = neurons.kinds.data() + position / Isa::kLanes;
  bool all = true;
  for (int b = 0; b < kBlocks; ++b) all = all && kinds[b] == Kind::kFloat;
  return all;
}

}  // namespace
}  // namespace pconv::cpu
