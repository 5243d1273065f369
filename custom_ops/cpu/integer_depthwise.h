// Convolutions of integer layers of each channel by itself. Part of cpu/integer_blocking.h.
#pragma once

#include "cpu/integer_epilogue.h"

namespace pconv::cpu {
namespace {

/// The values of four vectors of interleaved channels at several pixels, one after the other.
inline void finish_singly(const Epilogue& epilogue, const int32_t* sums, int64_t lanes, int64_t pixels, int64_t pixel,
                          int64_t position, int64_t output, int64_t channels) {
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t i = 0; i < 4 * lanes; ++i) {
      const int64_t channel = unpacked(i, lanes);
      if (channel >= channels) continue;
      const int64_t own = position + i;
      const int64_t at = (pixel + p) * epilogue.outputs + output + channel;
      int64_t sum = sums[p * 4 * lanes + i];
      if (epilogue.factor != nullptr) sum = int64_t{wrapped(sum * epilogue.factor[own])} + epilogue.bias[own];
      const int64_t multiplier = epilogue.multiplier[own];
      if (epilogue.residual_counts != nullptr) sum += multiplier * epilogue.residual_counts[at];
      if (epilogue.residual_sums != nullptr) sum += wrapped(multiplier * epilogue.residual_sums[at]);
      const int32_t value = wrapped(sum);
      if (epilogue.neurons == nullptr) {
        epilogue.sums[at] = value;
      } else {
        epilogue.counts[at] = static_cast<uint8_t>(epilogue.neurons->count(own, position + channel, lanes, value));
      }
    }
  }
}

/// The spike counts of four vectors of interleaved channels, of sums to which nothing is to be added.
template <class Isa>
PCONV_INLINE void finish_plain(const Closed& closed, const IntsOf<Isa> (&sums)[4], uint8_t* to, int64_t channels) {
  IntsOf<Isa> reached[4];
  PCONV_UNROLLED for (int v = 0; v < 4; ++v) reached[v] = count_closed<Isa, false>(closed, v * Isa::kLanes, sums[v]);
  store_four<Isa, true>(closed, reached, to, channels);
}

/// The same of any sums, at several pixels; `kFloat`: all are counted in closed form, in float.
template <class Isa, Residual kResidual, bool kFloat>
void finish_four(const Epilogue& all, const int32_t* sums, int64_t pixels, int64_t pixel, int64_t position,
                 int64_t output, int64_t channels) {
  const Epilogue epilogue = all;
  const Neurons& neurons = *epilogue.neurons;
  const Closed closed(neurons, position);
  const Kind* const kinds = neurons.kinds.data() + position / Isa::kLanes;
  for (int64_t p = 0; p < pixels; ++p, sums += 4 * Isa::kLanes) {
    const int64_t at = (pixel + p) * epilogue.outputs + output;
    IntsOf<Isa> residual[4];
    if constexpr (kResidual == Residual::kCounts) {
      Isa::load_unpacked(epilogue.residual_counts + at, channels, residual);
    }
    IntsOf<Isa> reached[4];
    PCONV_UNROLLED for (int v = 0; v < 4; ++v) {
      const int64_t own = position + v * Isa::kLanes;
      auto sum = completed<Isa, Residual::kNone>(epilogue, Isa::load(sums + v * Isa::kLanes), own, 0, 0);
      if constexpr (kResidual == Residual::kCounts) {
        sum = Isa::add(sum, Isa::multiply(Isa::load(epilogue.multiplier + own), residual[v]));
      }
      if constexpr (kFloat) {
        reached[v] = count_closed<Isa, false>(closed, v * Isa::kLanes, sum);
      } else {
        reached[v] = count<Isa>(neurons, kinds[v], own, sum);
      }
    }
    store_four<Isa, true>(closed, reached, epilogue.counts + at, channels);
  }
}

/// Whether nothing is multiplied or added after the sum of products.
PCONV_INLINE bool is_plain(const Epilogue& epilogue) {
  return epilogue.neurons != nullptr && epilogue.factor == nullptr && epilogue.residual_counts == nullptr &&
         epilogue.residual_sums == nullptr;
}

/// Four vectors of interleaved channels of a layer, in every row and column.
struct Channels {
  int64_t position;
  int64_t first;
  int64_t number;
  bool are_float;  ///< spike counts in closed form, in float
  const int8_t* weights;
};

template <class Isa>
void finish_channels(const Epilogue& epilogue, const Channels& channels, const int32_t* sums, int64_t pixels,
                     int64_t pixel) {
  if (epilogue.neurons == nullptr || epilogue.residual_sums != nullptr) {
    finish_singly(epilogue, sums, Isa::kLanes, pixels, pixel, channels.position, channels.first, channels.number);
    return;
  }
  const bool plain = channels.are_float;
  const auto finish =
      epilogue.residual_counts == nullptr
          ? (plain ? finish_four<Isa, Residual::kNone, true> : finish_four<Isa, Residual::kNone, false>)
          : (plain ? finish_four<Isa, Residual::kCounts, true> : finish_four<Isa, Residual::kCounts, false>);
  finish(epilogue, sums, pixels, pixel, channels.position, channels.first, channels.number);
}

/// Quads of columns of an input row, or of padding where there is none.
template <class Isa>
void interleave_row(const DepthwiseRegion& region, const LayerShape& shape, const QuadRow& row, int64_t y,
                    const Channels& channels, uint8_t* quads) {
  const uint8_t* const nothing = region.nothing + channels.first;
  const bool outside = y < 0 || y >= region.size.rows;
  for (int64_t i = 0; i < row.quads; ++i, quads += 4 * Isa::kLanes * kQuad) {
    typename Isa::Bytes pixels[kQuad];
    PCONV_UNROLLED for (int64_t t = 0; t < kQuad; ++t) {
      const int64_t x = i * row.step + t * shape.dilations.columns - shape.before.columns;
      const bool padding = outside || x < 0 || x >= region.size.columns;
      const int64_t at = ((y - region.top) * region.size.columns + x) * shape.channels + channels.first;
      pixels[t] = Isa::load_channels(padding ? nothing : region.image + at, channels.number);
    }
    typename Isa::Bytes four[4];
    Isa::interleave(pixels, four);
    PCONV_UNROLLED for (int v = 0; v < 4; ++v) Isa::store_bytes(quads + v * Isa::kLanes * kQuad, four[v]);
  }
}

/// The sums of windows over rows of quads, at `lines`.
template <class Isa>
void sum_window(const LayerShape& shape, const QuadRow& row, const Epilogue& epilogue, const Channels& channels,
                const uint8_t* const* lines, int64_t window, int32_t* sums) {
  constexpr int64_t kVector = Isa::kLanes * kQuad;
  IntsOf<Isa> bias[4];
  PartialOf<Isa> sum[4];
  PCONV_UNROLLED for (int v = 0; v < 4; ++v) {
    bias[v] = start<Isa>(epilogue, channels.position + v * Isa::kLanes);
    sum[v] = Isa::begin(bias[v]);
  }
  const int8_t* weights = channels.weights;
  for (int64_t ky = 0; ky < shape.kernel.rows; ++ky) {
    const uint8_t* from = lines[ky] + window * row.windows * 4 * kVector;
    for (int64_t tap = 0; tap < row.taps; ++tap, from += row.next * 4 * kVector, weights += 4 * Isa::kFilterBytes) {
      PCONV_UNROLLED for (int v = 0; v < 4; ++v) {
        const auto filter = Isa::load_filter(weights + v * Isa::kFilterBytes);
        sum[v] = Isa::dot(sum[v], Isa::load_bytes(from + v * kVector), filter);
      }
    }
  }
  PCONV_UNROLLED for (int v = 0; v < 4; ++v) Isa::store(sums + v * Isa::kLanes, Isa::end(sum[v], bias[v]));
}

/// Windows of any kind: rows of the padded image are interleaved into a ring, each once.
template <class Isa>
void any_windows(const LayerShape& shape, const DepthwiseRegion& region, const Epilogue& epilogue,
                 const Channels& channels) {
  const QuadRow row(shape, region.columns);
  const int64_t span = shape.span().rows;
  const int64_t line = row.quads * 4 * Isa::kLanes * kQuad;
  int64_t prepared = region.first_row * shape.strides.rows;
  for (int64_t y = region.first_row; y < region.last_row; ++y) {
    const int64_t top = y * shape.strides.rows;
    for (prepared = prepared < top ? top : prepared; prepared < top + span; ++prepared) {
      interleave_row<Isa>(region, shape, row, prepared - shape.before.rows, channels,
                          region.scratch + prepared % span * line);
    }
    const uint8_t* lines[kMostKernelRows];
    for (int64_t ky = 0; ky < shape.kernel.rows; ++ky) {
      lines[ky] = region.scratch + (top + ky * shape.dilations.rows) % span * line;
    }
    for (int64_t x = 0; x < region.columns; ++x) {
      alignas(64) int32_t sums[4 * Isa::kLanes];
      sum_window<Isa>(shape, row, epilogue, channels, lines, x, sums);
      finish_channels<Isa>(epilogue, channels, sums, 1, (y - region.first_row) * region.columns + x);
    }
  }
}

/// The rows under a window, of which columns are read. Those outside of the image are a pixel of padding throughout.
template <int kKernel>
struct Rows {
  const uint8_t* at[kKernel];
  int64_t step[kKernel];
  const uint8_t* nothing;
  int64_t columns;

  Rows(const LayerShape& shape, const DepthwiseRegion& region, const Channels& channels, int64_t y)
      : nothing(region.nothing + channels.first), columns(region.size.columns) {
    for (int64_t ky = 0; ky < kKernel; ++ky) {
      const int64_t own = y * shape.strides.rows + ky * shape.dilations.rows - shape.before.rows;
      const bool outside = own < 0 || own >= region.size.rows;
      at[ky] = outside ? nothing : region.image + (own - region.top) * columns * shape.channels + channels.first;
      step[ky] = outside ? 0 : shape.channels;
    }
  }
};

/// Quads of rows of a column, [kQuads of rows, 4].
template <class Isa, int kKernel>
PCONV_INLINE void read_column(const Rows<kKernel>& rows, int64_t x, int64_t channels,
                              typename Isa::Bytes (&quads)[(kKernel + 3) / 4][4]) {
  const bool padding = x < 0 || x >= rows.columns;
  PCONV_UNROLLED for (int first = 0; first < kKernel; first += 4) {
    typename Isa::Bytes pixels[kQuad];
    PCONV_UNROLLED for (int t = 0; t < kQuad; ++t) {
      if (first + t < kKernel) {
        const int ky = first + t;
        pixels[t] = Isa::load_channels(padding ? rows.nothing : rows.at[ky] + x * rows.step[ky], channels);
      } else {
        pixels[t] = Isa::no_bytes();
      }
    }
    Isa::interleave(pixels, quads[first / 4]);
  }
}

/// Adds what a column gives to the windows that it is in, of which the first has it at kColumn.
template <class Isa, int kKernel, int kStride, int kColumn>
PCONV_INLINE void add_column(const int8_t* weights, const typename Isa::Bytes (&quads)[(kKernel + 3) / 4][4],
                             PartialOf<Isa> (&sums)[(kKernel + kStride - 1) / kStride][4]) {
  PCONV_UNROLLED for (int window = 0; window < (kKernel + kStride - 1) / kStride; ++window) {
    const int column = kColumn - window * kStride;
    if (column < 0 || column >= kKernel) continue;
    PCONV_UNROLLED for (int quad = 0; quad < (kKernel + 3) / 4; ++quad) {
      PCONV_UNROLLED for (int v = 0; v < 4; ++v) {
        const auto filter = Isa::load_filter(weights + ((quad * kKernel + column) * 4 + v) * Isa::kFilterBytes);
        sums[window][v] = Isa::dot(sums[window][v], quads[quad][v], filter);
      }
    }
  }
}

/// Square windows: the sums of all windows that a column is in are kept in registers, and a column is read once.
template <class Isa, int kKernel, int kStride, bool kWhole>
void rolling_windows(const LayerShape& shape, const DepthwiseRegion& region, const Epilogue& epilogue,
                     const Channels& channels) {
  constexpr int kWindows = (kKernel + kStride - 1) / kStride;
  const int64_t number = kWhole ? 4 * Isa::kLanes : channels.number;
  const int64_t outputs = epilogue.outputs;
  const int64_t columns = region.columns;
  const int8_t* weights = channels.weights;
  const bool plain = channels.are_float && is_plain(epilogue);
  IntsOf<Isa> bias[4];
  PCONV_UNROLLED for (int v = 0; v < 4; ++v) bias[v] = start<Isa>(epilogue, channels.position + v * Isa::kLanes);
  for (int64_t y = region.first_row; y < region.last_row; ++y) {
    const Rows<kKernel> rows(shape, region, channels, y);
    const int64_t pixel = (y - region.first_row) * columns;
    typename Isa::Bytes quads[(kKernel + 3) / 4][4];
    PartialOf<Isa> sums[kWindows][4];
    PCONV_UNROLLED for (auto& window : sums) {
      PCONV_UNROLLED for (int v = 0; v < 4; ++v) window[v] = Isa::begin(bias[v]);
    }
    int64_t x = -shape.before.columns;
    const auto read = [&]() PCONV_INLINE_LAMBDA { read_column<Isa, kKernel>(rows, x++, number, quads); };
    if constexpr (kKernel - kStride > 0) {
      read();
      add_column<Isa, kKernel, kStride, 0>(weights, quads, sums);
    }
    if constexpr (kKernel - kStride > 1) {
      read();
      add_column<Isa, kKernel, kStride, 1>(weights, quads, sums);
    }
    if constexpr (kKernel - kStride > 2) {
      read();
      add_column<Isa, kKernel, kStride, 2>(weights, quads, sums);
    }
    if constexpr (kKernel - kStride > 3) {
      read();
      add_column<Isa, kKernel, kStride, 3>(weights, quads, sums);
    }
    const auto next = [&]() PCONV_INLINE_LAMBDA {
      weights = kept(weights);
      if constexpr (kStride == 2) {
        read();
        add_column<Isa, kKernel, kStride, kKernel - 2>(weights, quads, sums);
      }
      read();
      add_column<Isa, kKernel, kStride, kKernel - 1>(weights, quads, sums);
    };
    const auto roll = [&]() PCONV_INLINE_LAMBDA {
      PCONV_UNROLLED for (int v = 0; v < 4; ++v) {
        PCONV_UNROLLED for (int window = 1; window < kWindows; ++window) sums[window - 1][v] = sums[window][v];
        sums[kWindows - 1][v] = Isa::begin(bias[v]);
      }
    };
    IntsOf<Isa> done[4];
    if (plain) {
      const Closed closed(*epilogue.neurons, channels.position);
      uint8_t* to = epilogue.counts + pixel * outputs + channels.first;
      for (int64_t column = 0; column < columns; ++column, to += outputs) {
        next();
        PCONV_UNROLLED for (int v = 0; v < 4; ++v) done[v] = Isa::end(sums[0][v], bias[v]);
        finish_plain<Isa>(closed, done, to, number);
        roll();
      }
    } else {
      for (int64_t column = 0; column < columns; ++column) {
        next();
        alignas(64) int32_t stored[4 * Isa::kLanes];
        PCONV_UNROLLED for (int v = 0; v < 4; ++v) {
          Isa::store(stored + v * Isa::kLanes, Isa::end(sums[0][v], bias[v]));
        }
        finish_channels<Isa>(epilogue, channels, stored, 1, pixel + column);
        roll();
      }
    }
  }
}

using Windows = void (*)(const LayerShape&, const DepthwiseRegion&, const Epilogue&, const Channels&);

template <class Isa, bool kWhole>
Windows rolling_windows_of(const LayerShape& shape) {
  if (shape.kernel.columns == 3) {
    return shape.strides.columns == 1 ? rolling_windows<Isa, 3, 1, kWhole> : rolling_windows<Isa, 3, 2, kWhole>;
  }
  return shape.strides.columns == 1 ? rolling_windows<Isa, 5, 1, kWhole> : rolling_windows<Isa, 5, 2, kWhole>;
}

template <class Isa>
void depthwise(const Depthwise& depthwise, const DepthwiseRegion& region, const Epilogue& epilogue) {
  constexpr int64_t kChannels = 4 * Isa::kLanes;
  const LayerShape& shape = *depthwise.shape;
  const Extent quads = quads_of(shape);
  Windows windows = any_windows<Isa>;
  if (rolls(shape)) {
    const bool whole = shape.channels >= kChannels;
    windows = whole ? rolling_windows_of<Isa, true>(shape) : rolling_windows_of<Isa, false>(shape);
  }
  const int64_t size = quads.rows * quads.columns * 4 * Isa::kFilterBytes;
  for (int64_t block = 0; block * kChannels < shape.channels; ++block) {
    const bool plain = epilogue.neurons != nullptr && are_float<Isa, 4>(*epilogue.neurons, block * kChannels);
    windows(shape, region, epilogue,
            {block * kChannels, first_channel(block, kChannels, shape.channels), least_of(kChannels, shape.channels),
             plain, depthwise.weights + block * size});
  }
}

}  // namespace
}  // namespace pconv::cpu
