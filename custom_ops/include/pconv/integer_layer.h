// Layers of integer weights on spike counts, after their inputs were checked (docs/IntegerSpike-3.md, Semantics).
#pragma once

#include <cstdint>

#include "pconv/layout.h"

namespace pconv {

/// How spike counts are written.
struct Train {
  int32_t steps = 0;  ///< 0: as they are
  Coding coding = Coding::kRate;
  int32_t silent = 0;  ///< the spike count of a silent neuron
};

/// Rows and columns.
struct Extent {
  int64_t rows;
  int64_t columns;
};

/// What a layer is, whatever the images. A matrix product is a convolution with a window of one pixel.
struct LayerShape {
  int64_t channels;
  int64_t outputs;
  int64_t group = 1;
  Extent kernel = {1, 1};
  Extent strides = {1, 1};
  Extent dilations = {1, 1};
  Extent before = {0, 0};  ///< rows of padding above, columns to the left
  Extent after = {0, 0};   ///< and below, to the right
  int32_t zero;            ///< the count that is worth nothing
  int32_t highest;         ///< the largest count
  int32_t residual_zero;
  int64_t input_steps = 1;  ///< whose digits make a count
  int64_t residual_steps = 1;
  Coding input_coding = Coding::kRate;
  Train train;  ///< of the output

  int64_t group_channels() const { return channels / group; }
  int64_t group_outputs() const { return outputs / group; }
  int64_t depth() const { return kernel.rows * kernel.columns * group_channels(); }
  /// What a one at each of so many steps is worth.
  int64_t worth(int64_t steps) const {
    return input_coding == Coding::kRate ? steps : (int64_t{1} << steps) - 1;
  }
  /// Pixels that a window spans.
  Extent span() const { return {(kernel.rows - 1) * dilations.rows + 1, (kernel.columns - 1) * dilations.columns + 1}; }
  /// Of the output, for an image no smaller than the window.
  Extent output(const Extent& image) const {
    return {(image.rows + before.rows + after.rows - span().rows) / strides.rows + 1,
            (image.columns + before.columns + after.columns - span().columns) / strides.columns + 1};
  }
};

/// The thresholds of neurons, or none where there is no neuron.
struct Thresholds {
  const int32_t* values = nullptr;  ///< [rows, highest]
  int64_t rows = 0;                 ///< one for all outputs, or one for each
  int32_t highest = 0;              ///< the greatest spike count

  const int32_t* of(int64_t output) const { return values + (rows == 1 ? 0 : output * highest); }
};

/// The tensors that a layer is made of.
struct LayerTables {
  const int8_t* weights;  ///< [outputs, group_channels, kernel.rows, kernel.columns]
  const int32_t* bias;
  const int32_t* factor;
  const int32_t* multiplier;
  Thresholds thresholds;
};

/// Arithmetic that wraps where the contract leaves a sum unspecified.
inline int32_t wrapped(int64_t value) { return static_cast<int32_t>(static_cast<uint32_t>(value)); }

}  // namespace pconv
