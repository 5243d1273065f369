// What kernels of integer layers work on, and those that there are for each instruction set.
//
// Outputs lie in blocks of as many as a vector has lanes. Weights of four channels that follow one another in memory
// make a quad, which is multiplied and summed at once.
#pragma once

#include <cstdint>

#include "cpu/instructions.h"
#include "cpu/integer_neurons.h"

namespace pconv::cpu {

inline constexpr int64_t kQuad = 4;
/// Bytes behind an input that a kernel may read, and multiplies by zero.
inline constexpr int64_t kSlack = kQuad - 1;
/// Rows of a window that a convolution of each channel by itself may have.
inline constexpr int64_t kMostKernelRows = 16;

/// The channel, counted from the first of four vectors, that is at a place of them after `interleave`: within 16
/// channels, that is within 128 bits of each vector, the first vector has channels 0 to 3, the next one 4 to 7.
constexpr int64_t unpacked(int64_t place, int64_t lanes) {
  const int64_t lane = place % lanes;
  return lane / 4 * 16 + place / lanes * 4 + lane % 4;
}

/// What becomes of sums. Tables are in the order of positions, tensors in that of outputs. These begin at the first
/// output pixel of a region.
struct Epilogue {
  const int32_t* bias;
  const int32_t* factor;  ///< null where all are 1
  const int32_t* multiplier;
  const uint8_t* residual_counts;  ///< either one or none
  const int32_t* residual_sums;
  const Neurons* neurons;  ///< null where the sums are the output
  uint8_t* counts;         ///< either one
  int32_t* sums;
  int64_t outputs;  ///< between pixels of these tensors
};

/// Where counts are multiplied again, by what weights lack.
struct Rest {
  int64_t segment;
  int64_t offset;  ///< of a quad in that
};

/// The weights of a convolution of channels in groups. A window is `segments` stretches of memory.
struct Dense {
  const int8_t* weights;  ///< [group, blocks, segments, quads, filter_bytes]
  int64_t segments;
  int64_t quads;  ///< of a segment
  int64_t groups;
  int64_t group_channels;
  int64_t group_outputs;
  int64_t blocks;  ///< of a group
  int64_t run;     ///< quads of which 16 bits hold the sums of pairs
  // What `weights` lack, since 16 bits would not hold the sums; null where that is nothing.
  const int64_t* first_rests;  ///< of each block, and how many there are
  const Rest* rests;
  const int8_t* rest_weights;  ///< [rests, lanes, kQuad]
};

/// Where a convolution is computed: a rectangle of output pixels, and blocks of a group.
struct DenseRegion {
  const uint8_t* input;     ///< where the window of the first pixel begins
  const int64_t* segments;  ///< where those begin, from there
  int64_t row_stride;       ///< bytes between windows
  int64_t pixel_stride;
  int64_t rows;
  int64_t pixels;
  int64_t output_row;  ///< pixels between output rows
  int64_t first_block;
  int64_t last_block;
};

/// The weights of a convolution of each channel by itself, in blocks of four vectors.
///
/// A quad is of four rows of a column where windows roll (`rolls`), or else of four columns of a row.
struct Depthwise {
  const int8_t* weights;  ///< [blocks, quads_of(shape), 4, filter_bytes]
  const LayerShape* shape;
};

/// Whether a column of pixels is read once for all windows in a row that it belongs to.
inline bool rolls(const LayerShape& shape) {
  const bool common = shape.kernel.columns == 3 || shape.kernel.columns == 5;
  return common && shape.kernel.rows == shape.kernel.columns && shape.dilations.columns == 1 &&
         shape.strides.columns <= 2;
}

/// The quads of a window.
inline Extent quads_of(const LayerShape& shape) {
  const Extent kernel = shape.kernel;
  return rolls(shape) ? Extent{(kernel.rows + kQuad - 1) / kQuad, kernel.columns}
                      : Extent{kernel.rows, (kernel.columns + kQuad - 1) / kQuad};
}

/// The first channel of a block of so many: the last block overlaps the one before rather than to end in the middle.
constexpr int64_t first_channel(int64_t block, int64_t size, int64_t channels) {
  const int64_t first = block * size;
  return channels < size || first + size <= channels ? first : channels - size;
}

struct DepthwiseRegion {
  const uint8_t* image;  ///< from its row `top` on
  int64_t top;
  Extent size;           ///< of the image
  int64_t columns;       ///< of the output
  int64_t first_row;     ///< of the output, within the image
  int64_t last_row;
  uint8_t* scratch;        ///< of `depthwise_scratch`, where windows do not roll
  const uint8_t* nothing;  ///< a pixel of `zero`
};

struct Kernels {
  int64_t lanes;
  void (*dense)(const Dense&, const DenseRegion&, const Epilogue&);
  void (*depthwise)(const Depthwise&, const DepthwiseRegion&, const Epilogue&);
  /// Of sums in memory.
  void (*spike)(const int32_t* sums, int64_t pixels, const Epilogue&);
  /// Quads of which 16 bits have to hold the sums of pairs; weights for which they do not take the others. 0: none.
  int64_t run;
  /// The share of quads that may leave rests to that end; 0 where none may.
  double most_rests;
  int64_t filter_bytes;  ///< of `lanes` quads of weights; where these have 16 bits (`widened`), twice as many
  const Kernels* otherwise;
  /// With half as many lanes, for convolutions of so few channels by themselves that they fill no more; or null.
  const Kernels* narrow;
};

const Kernels& portable_kernels();
#ifdef PCONV_X86
const Kernels& avx2_kernels();
const Kernels& avxvnni_kernels();
const Kernels& avx512vnni_kernels();
#endif

/// Those of the chosen instruction set.
const Kernels& kernels();

/// How an input row is prepared for a convolution of each channel by itself: quads of columns, one for each `step`.
struct QuadRow {
  int64_t step;     ///< columns between quads
  int64_t quads;    ///< of a row
  int64_t windows;  ///< between the windows of two output pixels, in quads
  int64_t next;     ///< between the quads of a window, in quads
  int64_t taps;     ///< quads of a window

  QuadRow(const LayerShape& shape, int64_t columns);
};

/// Bytes for a block of `lanes` times four channels.
int64_t depthwise_scratch(const LayerShape& shape, int64_t columns, int64_t lanes);

}  // namespace pconv::cpu
