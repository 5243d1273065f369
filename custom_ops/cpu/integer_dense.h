// Convolutions of integer layers in tiles of pixels and blocks of outputs. Part of cpu/integer_blocking.h.
#pragma once

#include "cpu/integer_epilogue.h"

namespace pconv::cpu {
namespace {

/// Adds the products of kQuads quads that follow one another, of as many at once as the instructions do.
template <class Isa, int kBlocks, int kPixels, int kQuads>
PCONV_INLINE void add_quads(const uint8_t* const* from, int64_t stride, const int8_t* weights, int64_t block,
                            PartialOf<Isa> (&sum)[kPixels][kBlocks]) {
  constexpr int kSummed = kQuads % Isa::kSummed == 0 ? Isa::kSummed : 1;
  PCONV_UNROLLED for (int quad = 0; quad < kQuads; quad += kSummed) {
    const int8_t* const filters = weights + quad * Isa::kFilterBytes;
    if constexpr (kSummed > 1) {
      PCONV_UNROLLED for (int p = 0; p < kPixels; ++p) {
        typename Isa::Bytes counts[kSummed];
        PCONV_UNROLLED for (int q = 0; q < kSummed; ++q) {
          counts[q] = Isa::broadcast(from[p / 4] + p % 4 * stride + (quad + q) * kQuad);
        }
        PCONV_UNROLLED for (int b = 0; b < kBlocks; ++b) {
          sum[p][b] = Isa::dot_summed(sum[p][b], counts, filters + b * block);
        }
      }
    } else if constexpr (kPixels < kBlocks) {
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
  const auto add = [&](auto number) PCONV_INLINE_LAMBDA {
    add_quads<Isa, kBlocks, kPixels, number>(from, stride, weights, block, sum);
    PCONV_UNROLLED for (auto& address : from) address = kept(address + number * kQuad);
    weights += number * Isa::kFilterBytes;
    quads -= number;
  };
  while (quads >= kAtOnce) add(std::integral_constant<int, kAtOnce>());
  if constexpr (Isa::kSummed > 1) {
    if (quads >= Isa::kSummed) add(std::integral_constant<int, Isa::kSummed>());
  }
  while (quads > 0) add(std::integral_constant<int, 1>());
}

/// The spike counts of a tile whose sums are in registers, of blocks that are whole and in closed form.
template <class Isa, Residual kResidual, int kBlocks, int kPixels>
PCONV_INLINE void finish_registers(const Epilogue& all, const IntsOf<Isa> (&sums)[kPixels][kBlocks], int64_t pixel,
                                   int64_t position, int64_t output) {
  const Epilogue epilogue = all;
  const Closed closed(*epilogue.neurons, position);
  const int64_t stride = epilogue.outputs;
  const int64_t first = pixel * stride + output;
  const auto reached_by = [&](int p, int b) PCONV_INLINE_LAMBDA {
    const int64_t own = b * Isa::kLanes;
    const auto sum = completed<Isa, kResidual>(epilogue, sums[p][b], position + own, first + p * stride + own,
                                               Isa::kLanes);
    return count_closed<Isa, false>(closed, own, sum);
  };
  if constexpr (kBlocks == 4) {
    PCONV_UNROLLED for (int p = 0; p < kPixels; ++p) {
      IntsOf<Isa> reached[4];
      PCONV_UNROLLED for (int b = 0; b < 4; ++b) reached[b] = reached_by(p, b);
      store_four<Isa, false>(closed, reached, epilogue.counts + first + p * stride, 4 * Isa::kLanes);
    }
  } else {
    constexpr int kLast = kPixels - 1;
    PCONV_UNROLLED for (int b = 0; b < kBlocks; ++b) {
      const int64_t own = b * Isa::kLanes;
      PCONV_UNROLLED for (int p = 0; p < kPixels; p += 4) {
        IntsOf<Isa> reached[4];
        PCONV_UNROLLED for (int q = 0; q < 4; ++q) reached[q] = reached_by(p + q < kLast ? p + q : kLast, b);
        const auto counts = Isa::clamp(Isa::pack_pixels(reached), Isa::load_bounds(closed.least + own),
                                       Isa::load_bounds(closed.most + own));
        Isa::store_pixels(epilogue.counts + first + p * stride + own, stride, kPixels - p < 4 ? kPixels - p : 4,
                          Isa::kLanes, counts);
      }
    }
  }
}

/// Adds the products of what weights lack.
template <class Isa, int kBlocks, int kPixels>
PCONV_INLINE void add_rests(const Dense& dense, const DenseRegion& region, int64_t first, const uint8_t* input,
                            IntsOf<Isa> (&sums)[kPixels][kBlocks]) {
  PCONV_UNROLLED for (int b = 0; b < kBlocks; ++b) {
    for (int64_t rest = dense.first_rests[first + b]; rest < dense.first_rests[first + b + 1]; ++rest) {
      const uint8_t* const from = input + region.segments[dense.rests[rest].segment] + dense.rests[rest].offset;
      const auto filter = Isa::load_filter(dense.rest_weights + rest * Isa::kFilterBytes);
      PCONV_UNROLLED for (int p = 0; p < kPixels; ++p) {
        sums[p][b] = Isa::dot(sums[p][b], Isa::broadcast(from + p * region.pixel_stride), filter);
      }
    }
  }
}

template <class Isa, int kBlocks, int kPixels>
void tile(const Dense& dense, const DenseRegion& region, const Epilogue& epilogue, int64_t group, int64_t block,
          const uint8_t* input, int64_t pixel) {
  const int64_t stride = region.pixel_stride;
  const int64_t size = dense.segments * dense.quads * Isa::kFilterBytes;
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
    for (int64_t segment = 0; segment < dense.segments; ++segment, weights += dense.quads * Isa::kFilterBytes) {
      add_stretch<Isa>(input + region.segments[segment], stride, weights, size, dense.quads, partial);
    }
    PCONV_UNROLLED for (int i = 0; i < kPixels * kBlocks; ++i) {
      auto& own = done[i / kBlocks][i % kBlocks];
      own = Isa::end(partial[i / kBlocks][i % kBlocks], own);
    }
  } else {
    // As many products as 16 bits hold are summed in registers, and their sums in memory.
    const auto widen = [&]() PCONV_INLINE_LAMBDA {
      PCONV_UNROLLED for (int i = 0; i < kPixels * kBlocks; ++i) {
        auto& own = done[i / kBlocks][i % kBlocks];
        own = Isa::end(partial[i / kBlocks][i % kBlocks], Isa::load(sums + i * Isa::kLanes));
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
          widen();
          PCONV_UNROLLED for (int i = 0; i < kPixels * kBlocks; ++i) {
            Isa::store(sums + i * Isa::kLanes, done[i / kBlocks][i % kBlocks]);
            partial[i / kBlocks][i % kBlocks] = Isa::begin(done[0][0]);
          }
          room = dense.run;
        }
        quads = least_of(left, room);
        add_stretch<Isa>(from, stride, weights, size, quads, partial);
        room -= quads;
        from += quads * kQuad;
        weights += quads * Isa::kFilterBytes;
      }
    }
    widen();
  }
  if constexpr (Isa::kSummed > 1) {
    if (dense.first_rests != nullptr) add_rests<Isa>(dense, region, first, input, done);
  }

  if (epilogue.neurons != nullptr && epilogue.residual_sums == nullptr && outputs >= kBlocks * Isa::kLanes &&
      are_float<Isa, kBlocks>(*epilogue.neurons, position)) {
    if (epilogue.residual_counts == nullptr) {
      return finish_registers<Isa, Residual::kNone, kBlocks, kPixels>(epilogue, done, pixel, position, output);
    }
    return finish_registers<Isa, Residual::kCounts, kBlocks, kPixels>(epilogue, done, pixel, position, output);
  }
  PCONV_UNROLLED for (int i = 0; i < kPixels * kBlocks; ++i) {
    Isa::store(sums + i * Isa::kLanes, done[i / kBlocks][i % kBlocks]);
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
    const int64_t output = row * region.output_row;
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

}  // namespace
}  // namespace pconv::cpu
