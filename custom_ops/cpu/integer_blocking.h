// Kernels of integer layers, written once for every instruction set. A file that defines an `Isa` includes this where
// its instructions are switched on, and everything that this needs before that.
//
//   kLanes                  of a vector of int32
//   kMostBlocks, pixels(B)  outputs are computed for B blocks and pixels(B) pixels at once, all sums in registers
//   Ints, Floats            vectors of sums; Bytes of quads of counts, Filter of quads of weights
//   Partial                 sums on their way, from `begin` at a bias to `end`; `dot` adds the four products of each lane
//   kRun                    0, or so many dots of a Partial and more, as many as a filter's run, are exact
//   Counts                  those of four vectors of sums, limited to uint8: of a block at four pixels, or of four blocks
//   interleave              four vectors of quads from four pixels, whose channels are in the order of `unpacked`
#include "cpu/integer_kernels.h"
#include "pconv/portable.h"

namespace pconv::cpu {
namespace {

template <class Isa>
using IntsOf = typename Isa::Ints;

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
enum class Then { kSums, kEven, kUneven };

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
  const uint8_t* least;
  const uint8_t* most;

  Closed(const Neurons& neurons, int64_t position)
      : scale(neurons.scale.data() + position),
        offset(neurons.offset.data() + position),
        least(neurons.least.data() + position),
        most(neurons.most.data() + position) {}
};

/// The spike counts of sums in closed form, before they are clamped; the first of these is `place` after that of the
/// table.
template <class Isa>
PCONV_INLINE IntsOf<Isa> count_closed(const Closed& closed, int64_t place, IntsOf<Isa> sum) {
  return Isa::to_ints(Isa::add(Isa::multiply(Isa::to_floats(sum), Isa::load(closed.scale + place)),
                               Isa::load(closed.offset + place)));
}

/// The spike counts of sums at a position, in closed form before they are clamped.
template <class Isa, Then kThen>
PCONV_INLINE IntsOf<Isa> count(const Neurons& neurons, int64_t position, IntsOf<Isa> sum) {
  if constexpr (kThen == Then::kEven) {
    return count_closed<Isa>(Closed(neurons, position), 0, sum);
  } else {
    const int32_t* threshold = neurons.thresholds.data() + neurons.uneven[static_cast<size_t>(position / Isa::kLanes)];
    IntsOf<Isa> reached = Isa::zeros();
    for (int32_t k = 0; k < neurons.highest; ++k, threshold += Isa::kLanes) {
      reached = Isa::count_reached(reached, sum, Isa::load(threshold));
    }
    return reached;
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
  } else if (epilogue.neurons->uneven[static_cast<size_t>(position / Isa::kLanes)] < 0) {
    finish_block<Isa, kResidual, Then::kEven>(epilogue, sums, stride, pixels, pixel, position, output, lanes);
  } else {
    finish_block<Isa, kResidual, Then::kUneven>(epilogue, sums, stride, pixels, pixel, position, output, lanes);
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

/// The same of sums to which nothing is to be added.
template <class Isa, bool kInterleaved>
PCONV_INLINE void finish_plain(const Closed& closed, const IntsOf<Isa> (&sums)[4], uint8_t* to, int64_t channels) {
  IntsOf<Isa> reached[4];
  PCONV_UNROLLED for (int v = 0; v < 4; ++v) reached[v] = count_closed<Isa>(closed, v * Isa::kLanes, sums[v]);
  store_four<Isa, kInterleaved>(closed, reached, to, channels);
}

/// The counts of four blocks side by side, all of them in closed form, at several pixels.
template <class Isa, Residual kResidual, bool kInterleaved>
void finish_four(const Epilogue& all, const int32_t* sums, int64_t pixels, int64_t pixel, int64_t position,
                 int64_t output, int64_t channels) {
  const Epilogue epilogue = all;
  const Closed closed(*epilogue.neurons, position);
  for (int64_t p = 0; p < pixels; ++p, sums += 4 * Isa::kLanes) {
    const int64_t at = (pixel + p) * epilogue.outputs + output;
    IntsOf<Isa> residual[4];
    if constexpr (kResidual == Residual::kCounts && kInterleaved) {
      Isa::load_unpacked(epilogue.residual_counts + at, channels, residual);
    }
    IntsOf<Isa> reached[4];
    PCONV_UNROLLED for (int v = 0; v < 4; ++v) {
      const int64_t own = position + v * Isa::kLanes;
      auto sum = Isa::load(sums + v * Isa::kLanes);
      if constexpr (kInterleaved) {
        sum = completed<Isa, Residual::kNone>(epilogue, sum, own, 0, 0);
        if constexpr (kResidual == Residual::kCounts) {
          sum = Isa::add(sum, Isa::multiply(Isa::load(epilogue.multiplier + own), residual[v]));
        }
      } else {
        sum = completed<Isa, kResidual>(epilogue, sum, own, at + v * Isa::kLanes, Isa::kLanes);
      }
      reached[v] = count_closed<Isa>(closed, v * Isa::kLanes, sum);
    }
    store_four<Isa, kInterleaved>(closed, reached, epilogue.counts + at, channels);
  }
}

/// Whether nothing is multiplied or added after the sum of products.
PCONV_INLINE bool is_plain(const Epilogue& epilogue) {
  return epilogue.neurons != nullptr && epilogue.factor == nullptr && epilogue.residual_counts == nullptr &&
         epilogue.residual_sums == nullptr;
}

/// Where sums begin: at the bias, unless they are multiplied before it is added.
template <class Isa>
PCONV_INLINE IntsOf<Isa> start(const Epilogue& epilogue, int64_t position) {
  return epilogue.factor == nullptr ? Isa::load(epilogue.bias + position) : Isa::zeros();
}

template <class Isa>
using PartialOf = typename Isa::Partial;

/// Adds the products of kQuads quads that follow one another.
template <class Isa, int kBlocks, int kPixels, int kQuads>
PCONV_INLINE void add_quads(const uint8_t* const* from, int64_t stride, const int8_t* weights, int64_t block,
                            PartialOf<Isa> (&sum)[kPixels][kBlocks]) {
  PCONV_UNROLLED for (int quad = 0; quad < kQuads; ++quad) {
    const int8_t* const filters = weights + quad * Isa::kLanes * kQuad;
    if constexpr (kPixels < kBlocks) {
      typename Isa::Bytes counts[kPixels];
      PCONV_UNROLLED for (int p = 0; p < kPixels; ++p) counts[p] = Isa::broadcast(from[0] + p * stride + quad * kQuad);
      PCONV_UNROLLED for (int b = 0; b < kBlocks; ++b) {
        const auto filter = Isa::load_filter(filters + b * block);
        PCONV_UNROLLED for (int p = 0; p < kPixels; ++p) sum[p][b] = Isa::dot(sum[p][b], counts[p], filter);
      }
    } else {
      typename Isa::Filter filter[kBlocks];
      PCONV_UNROLLED for (int b = 0; b < kBlocks; ++b) filter[b] = Isa::load_filter(filters + b * block);
      PCONV_UNROLLED for (int p = 0; p < kPixels; ++p) {
        const auto counts = Isa::broadcast(from[p / 4] + p % 4 * stride + quad * kQuad);
        PCONV_UNROLLED for (int b = 0; b < kBlocks; ++b) sum[p][b] = Isa::dot(sum[p][b], counts, filter[b]);
      }
    }
  }
}

/// Adds the products of any number of quads.
template <class Isa, int kBlocks, int kPixels>
PCONV_INLINE void add_stretch(const uint8_t* input, int64_t stride, const int8_t* weights, int64_t block, int64_t quads,
                              PartialOf<Isa> (&sum)[kPixels][kBlocks]) {
  constexpr int kAtOnce = 4;
  const uint8_t* from[(kPixels + 3) / 4];
  PCONV_UNROLLED for (int p = 0; p < kPixels; p += 4) from[p / 4] = kept(input + p * stride);
  for (; quads >= kAtOnce; quads -= kAtOnce, weights += kAtOnce * Isa::kLanes * kQuad) {
    add_quads<Isa, kBlocks, kPixels, kAtOnce>(from, stride, weights, block, sum);
    PCONV_UNROLLED for (auto& address : from) address = kept(address + kAtOnce * kQuad);
  }
  for (; quads > 0; --quads, weights += Isa::kLanes * kQuad) {
    add_quads<Isa, kBlocks, kPixels, 1>(from, stride, weights, block, sum);
    PCONV_UNROLLED for (auto& address : from) address = kept(address + kQuad);
  }
}

/// The spike counts of a tile whose sums are in registers, of blocks that are whole and in closed form.
template <class Isa, int kBlocks, int kPixels>
PCONV_INLINE void finish_registers(const Closed& closed, const IntsOf<Isa> (&sums)[kPixels][kBlocks], uint8_t* to,
                                   int64_t stride) {
  if constexpr (kBlocks == 4) {
    PCONV_UNROLLED for (int p = 0; p < kPixels; ++p) {
      finish_plain<Isa, false>(closed, sums[p], to + p * stride, 4 * Isa::kLanes);
    }
  } else {
    constexpr int kLast = kPixels - 1;
    PCONV_UNROLLED for (int b = 0; b < kBlocks; ++b) {
      const int64_t own = b * Isa::kLanes;
      PCONV_UNROLLED for (int p = 0; p < kPixels; p += 4) {
        IntsOf<Isa> reached[4];
        PCONV_UNROLLED for (int q = 0; q < 4; ++q) {
          reached[q] = count_closed<Isa>(closed, own, sums[p + q < kLast ? p + q : kLast][b]);
        }
        const auto counts = Isa::clamp(Isa::pack_pixels(reached), Isa::load_bounds(closed.least + own),
                                       Isa::load_bounds(closed.most + own));
        Isa::store_pixels(to + p * stride + own, stride, kPixels - p < 4 ? kPixels - p : 4, Isa::kLanes, counts);
      }
    }
  }
}

/// Whether so many blocks from a position on are in closed form.
template <class Isa, int kBlocks>
PCONV_INLINE bool are_closed(const Neurons& neurons, int64_t position) {
  const int64_t* const uneven = neurons.uneven.data() + position / Isa::kLanes;
  bool closed = true;
  for (int b = 0; b < kBlocks; ++b) closed = closed && uneven[b] < 0;
  return closed;
}

template <class Isa, int kBlocks, int kPixels>
void tile(const Dense& dense, const DenseRegion& region, const Epilogue& epilogue, int64_t group, int64_t block,
          const uint8_t* input, int64_t pixel) {
  constexpr int64_t kFilter = Isa::kLanes * kQuad;
  const int64_t stride = region.pixel_stride;
  const int64_t size = dense.segments * dense.quads * kFilter;
  const int64_t first = group * dense.blocks + block;
  const int64_t position = first * Isa::kLanes;
  const int64_t output = group * dense.group_outputs + block * Isa::kLanes;
  const int64_t outputs = dense.group_outputs - block * Isa::kLanes;
  const int8_t* weights = dense.weights + first * size;

  alignas(64) int32_t sums[kPixels * kBlocks * Isa::kLanes];
  PartialOf<Isa> partial[kPixels][kBlocks];
  IntsOf<Isa> done[kPixels][kBlocks];
  PCONV_UNROLLED for (int b = 0; b < kBlocks; ++b) {
    const auto bias = start<Isa>(epilogue, position + b * Isa::kLanes);
    PCONV_UNROLLED for (int p = 0; p < kPixels; ++p) {
      done[p][b] = bias;
      partial[p][b] = Isa::begin(bias);
    }
  }
  if constexpr (Isa::kRun == 0) {
    for (int64_t segment = 0; segment < dense.segments; ++segment, weights += dense.quads * kFilter) {
      add_stretch<Isa>(input + region.segments[segment], stride, weights, size, dense.quads, partial);
    }
    PCONV_UNROLLED for (int i = 0; i < kPixels * kBlocks; ++i) {
      auto& own = done[i / kBlocks][i % kBlocks];
      own = Isa::end(partial[i / kBlocks][i % kBlocks], own);
    }
  } else {
    // As many products as 16 bits hold are summed in registers, and their sums in memory.
    const auto flush = [&]() PCONV_INLINE_LAMBDA {
      PCONV_UNROLLED for (int i = 0; i < kPixels * kBlocks; ++i) {
        int32_t* const own = sums + i * Isa::kLanes;
        done[i / kBlocks][i % kBlocks] = Isa::end(partial[i / kBlocks][i % kBlocks], Isa::load(own));
        Isa::store(own, done[i / kBlocks][i % kBlocks]);
        partial[i / kBlocks][i % kBlocks] = Isa::begin(done[0][0]);
      }
    };
    PCONV_UNROLLED for (int i = 0; i < kPixels * kBlocks; ++i) {
      Isa::store(sums + i * Isa::kLanes, done[i / kBlocks][i % kBlocks]);
    }
    int64_t room = dense.run;
    for (int64_t segment = 0; segment < dense.segments; ++segment) {
      const uint8_t* from = input + region.segments[segment];
      for (int64_t left = dense.quads, quads; left > 0; left -= quads) {
        if (room == 0) {
          flush();
          room = dense.run;
        }
        quads = least_of(left, room);
        add_stretch<Isa>(from, stride, weights, size, quads, partial);
        room -= quads;
        from += quads * kQuad;
        weights += quads * kFilter;
      }
    }
    flush();
  }

  if (is_plain(epilogue) && outputs >= kBlocks * Isa::kLanes && are_closed<Isa, kBlocks>(*epilogue.neurons, position)) {
    const Closed closed(*epilogue.neurons, position);
    uint8_t* const to = epilogue.counts + pixel * epilogue.outputs + output;
    return finish_registers<Isa, kBlocks, kPixels>(closed, done, to, epilogue.outputs);
  }
  if constexpr (Isa::kRun == 0) {
    PCONV_UNROLLED for (int i = 0; i < kPixels * kBlocks; ++i) {
      Isa::store(sums + i * Isa::kLanes, done[i / kBlocks][i % kBlocks]);
    }
  }
  if constexpr (kBlocks == 4) {
    if (outputs >= 4 * Isa::kLanes && epilogue.neurons != nullptr && epilogue.residual_sums == nullptr &&
        are_closed<Isa, 4>(*epilogue.neurons, position)) {
      const auto four = epilogue.residual_counts == nullptr ? finish_four<Isa, Residual::kNone, false>
                                                            : finish_four<Isa, Residual::kCounts, false>;
      return four(epilogue, sums, kPixels, pixel, position, output, 4 * Isa::kLanes);
    }
  }
  for (int b = 0; b < kBlocks; ++b) {
    finish<Isa>(epilogue, sums + b * Isa::kLanes, kBlocks * Isa::kLanes, kPixels, pixel, position + b * Isa::kLanes,
                output + b * Isa::kLanes, least_of(Isa::kLanes, outputs - b * Isa::kLanes));
  }
}

using Tile = void (*)(const Dense&, const DenseRegion&, const Epilogue&, int64_t group, int64_t block,
                      const uint8_t* input, int64_t pixel);

/// tile<Isa, kBlocks, 1>, tile<Isa, kBlocks, 2> and so on.
template <class Isa, int kBlocks, class Pixels>
struct Tiles;
template <class Isa, int kBlocks, int... kPixels>
struct Tiles<Isa, kBlocks, std::integer_sequence<int, kPixels...>> {
  static constexpr Tile kTiles[] = {tile<Isa, kBlocks, kPixels + 1>...};
};

template <class Isa, int kBlocks>
void tiles_of_blocks(const Dense& dense, const DenseRegion& region, const Epilogue& epilogue, int64_t group,
                     int64_t block) {
  constexpr int kMost = Isa::pixels(kBlocks);
  const int64_t tiles = divide_up(region.pixels, kMost);
  for (int64_t row = 0; row < region.rows; ++row) {
    const uint8_t* const input = region.input + row * region.row_stride + group * dense.group_channels;
    const int64_t output = region.output + row * region.output_row;
    int64_t begin = 0;
    for (int64_t t = 1; t <= tiles; ++t) {
      const int64_t end = t * region.pixels / tiles;
      Tiles<Isa, kBlocks, std::make_integer_sequence<int, kMost>>::kTiles[end - begin - 1](
          dense, region, epilogue, group, block, input + begin * region.pixel_stride, output + begin);
      begin = end;
    }
  }
}

using Blocks = void (*)(const Dense&, const DenseRegion&, const Epilogue&, int64_t group, int64_t block);

template <class Isa, class Counts>
struct BlockTiles;
template <class Isa, int... kBlocks>
struct BlockTiles<Isa, std::integer_sequence<int, kBlocks...>> {
  static constexpr Blocks kBlockTiles[] = {tiles_of_blocks<Isa, kBlocks + 1>...};
};

template <class Isa>
void dense(const Dense& dense, const DenseRegion& region, const Epilogue& epilogue) {
  using All = BlockTiles<Isa, std::make_integer_sequence<int, Isa::kMostBlocks>>;
  for (int64_t group = 0; group < dense.groups; ++group) {
    int64_t blocks = 0;
    for (int64_t block = region.first_block; block < region.last_block; block += blocks) {
      blocks = least_of(Isa::kMostBlocks, region.last_block - block);
      All::kBlockTiles[blocks - 1](dense, region, epilogue, group, block);
    }
  }
}

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
      if (epilogue.residual_counts != nullptr) sum += int64_t{epilogue.multiplier[own]} * epilogue.residual_counts[at];
      if (epilogue.residual_sums != nullptr) sum += wrapped(int64_t{epilogue.multiplier[own]} * epilogue.residual_sums[at]);
      const int32_t value = wrapped(sum);
      if (epilogue.neurons == nullptr) {
        epilogue.sums[at] = value;
      } else {
        epilogue.counts[at] = static_cast<uint8_t>(epilogue.neurons->count(own, position + channel, lanes, value));
      }
    }
  }
}

/// Four vectors of interleaved channels of a layer, in every row and column.
struct Channels {
  int64_t position;
  int64_t first;
  int64_t number;
  bool even;         ///< `finish_four` may take them
  const int8_t* weights;
};

template <class Isa>
void finish_channels(const Epilogue& epilogue, const Channels& channels, const int32_t* sums, int64_t pixels,
                     int64_t pixel) {
  if (!channels.even) {
    finish_singly(epilogue, sums, Isa::kLanes, pixels, pixel, channels.position, channels.first, channels.number);
    return;
  }
  const auto finish = epilogue.residual_counts == nullptr ? finish_four<Isa, Residual::kNone, true>
                                                          : finish_four<Isa, Residual::kCounts, true>;
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
      const int64_t at = (y * region.size.columns + x) * shape.channels + channels.first;
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
    for (int64_t tap = 0; tap < row.taps; ++tap, from += row.next * 4 * kVector, weights += 4 * kVector) {
      PCONV_UNROLLED for (int v = 0; v < 4; ++v) {
        sum[v] = Isa::dot(sum[v], Isa::load_bytes(from + v * kVector), Isa::load_filter(weights + v * kVector));
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
      finish_channels<Isa>(epilogue, channels, sums, 1, region.output + y * region.columns + x);
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
      at[ky] = outside ? nothing : region.image + own * columns * shape.channels + channels.first;
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
  constexpr int kVector = Isa::kLanes * kQuad;
  PCONV_UNROLLED for (int window = 0; window < (kKernel + kStride - 1) / kStride; ++window) {
    const int column = kColumn - window * kStride;
    if (column < 0 || column >= kKernel) continue;
    PCONV_UNROLLED for (int quad = 0; quad < (kKernel + 3) / 4; ++quad) {
      PCONV_UNROLLED for (int v = 0; v < 4; ++v) {
        const auto filter = Isa::load_filter(weights + ((quad * kKernel + column) * 4 + v) * kVector);
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
  const bool plain = channels.even && is_plain(epilogue);
  IntsOf<Isa> bias[4];
  PCONV_UNROLLED for (int v = 0; v < 4; ++v) bias[v] = start<Isa>(epilogue, channels.position + v * Isa::kLanes);
  for (int64_t y = region.first_row; y < region.last_row; ++y) {
    const Rows<kKernel> rows(shape, region, channels, y);
    const int64_t pixel = region.output + y * columns;
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
        finish_plain<Isa, true>(closed, done, to, number);
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
    windows = shape.channels >= kChannels ? rolling_windows_of<Isa, true>(shape) : rolling_windows_of<Isa, false>(shape);
  }
  const int64_t size = quads.rows * quads.columns * kChannels * kQuad;
  const bool even = epilogue.neurons != nullptr && epilogue.residual_sums == nullptr;
  for (int64_t block = 0; block * kChannels < shape.channels; ++block) {
    windows(shape, region, epilogue,
            {block * kChannels, first_channel(block, kChannels, shape.channels), least_of(kChannels, shape.channels),
             even && are_closed<Isa, 4>(*epilogue.neurons, block * kChannels), depthwise.weights + block * size});
  }
}

template <class Isa>
void spike(const int32_t* sums, int64_t pixels, const Epilogue& epilogue) {
  const Neurons& neurons = *epilogue.neurons;
  for (int64_t output = 0; output < epilogue.outputs; output += Isa::kLanes) {
    const int64_t lanes = least_of(Isa::kLanes, epilogue.outputs - output);
    const bool even = neurons.uneven[static_cast<size_t>(output / Isa::kLanes)] < 0;
    const auto least = Isa::load_bounds(neurons.least.data() + output);
    const auto most = Isa::load_bounds(neurons.most.data() + output);
    for (int64_t p = 0; p < pixels; p += 4) {
      const int64_t last = least_of(pixels - 1 - p, 3);
      IntsOf<Isa> reached[4];
      for (int64_t q = 0; q < 4; ++q) {
        const auto sum = Isa::load_some(sums + (p + least_of(q, last)) * epilogue.outputs + output, lanes);
        reached[q] = even ? count<Isa, Then::kEven>(neurons, output, sum) : count<Isa, Then::kUneven>(neurons, output, sum);
      }
      Isa::store_pixels(epilogue.counts + p * epilogue.outputs + output, epilogue.outputs, last + 1, lanes,
                        Isa::clamp(Isa::pack_pixels(reached), least, most));
    }
  }
}

template <class Isa>
constexpr Kernels kernels_of(const Kernels* otherwise = nullptr, const Kernels* narrow = nullptr) {
  return {Isa::kLanes, dense<Isa>, depthwise<Isa>, spike<Isa>, Isa::kRun, otherwise, narrow};
}

}  // namespace
}  // namespace pconv::cpu
