#include "cpu/integer_layer.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

namespace pconv::cpu {
namespace {

// Found by measurement. Products that are worth handing to a thread.
constexpr int64_t kChunkWork = 1 << 20;
// The same where each channel is convolved by itself: a product then costs more.
constexpr int64_t kDepthwiseChunkWork = 1 << 17;
// Bytes of input of a chunk that the next cache holds.
constexpr int64_t kChunkBytes = 1 << 17;
// Chunks that are few.
constexpr int64_t kShares = 8;
// Pixels that all kernels divide into tiles without a rest.
constexpr int64_t kTilePixels = 48;
// Blocks of outputs that read an input once.
constexpr int64_t kChunkBlocks = 4;
// Rows of a window that convolutions of each channel by itself keep prepared.
constexpr int64_t kMostRing = 64;

constexpr int64_t ceil_div(int64_t value, int64_t divisor) { return value / divisor + (value % divisor > 0); }

/// A window is so many stretches of memory, of so many counts each: rows where its columns are neighbours.
struct Segments {
  explicit Segments(const LayerShape& shape) {
    const bool rows = shape.group == 1 && (shape.dilations.columns == 1 || shape.kernel.columns == 1);
    columns = rows ? shape.kernel.columns : 1;
    number = shape.kernel.rows * shape.kernel.columns / columns;
    counts = columns * shape.group_channels();
  }

  int64_t number;
  int64_t columns;  ///< of a segment
  int64_t counts;
};

bool is_pointwise(const LayerShape& shape) {
  return shape.kernel.rows * shape.kernel.columns == 1 && shape.strides.rows * shape.strides.columns == 1 &&
         shape.before.rows + shape.before.columns + shape.after.rows + shape.after.columns == 0;
}

/// How far the sum of two products of neighbours may go.
int64_t largest_pair(const Aligned<int8_t>& weights, int64_t highest) {
  int64_t largest = 0;
  for (size_t i = 0; i + 1 < weights.size(); i += 2) {
    const int64_t rise = std::max<int64_t>(weights[i], 0) + std::max<int64_t>(weights[i + 1], 0);
    const int64_t fall = std::min<int64_t>(weights[i], 0) + std::min<int64_t>(weights[i + 1], 0);
    largest = std::max({largest, rise, -fall});
  }
  return largest * highest;
}

/// Between which a sum lies, exactly as far as int32 goes and further.
struct Reach {
  double least;
  double most;

  Reach times(double factor) const {
    return {std::min(least * factor, most * factor), std::max(least * factor, most * factor)};
  }
  Reach plus(const Reach& other) const { return {least + other.least, most + other.most}; }
  bool within_int32() const { return least > INT32_MIN && most < INT32_MAX; }
  /// Beyond int32 nothing is promised, and a sum that may wrap may be anything.
  Interval sums() const {
    if (!within_int32()) return kAnySum;
    return {static_cast<int64_t>(least), static_cast<int64_t>(most)};
  }
};

/// Between which the sum of an output's products lies.
Reach reach_of_products(const LayerShape& shape, const int8_t* weights, int64_t output) {
  const double zero = shape.zero;
  const Reach counts{std::min(0.0, -zero), std::max(0.0, shape.highest - zero)};
  Reach sum{0, 0};
  for (int64_t i = 0; i < shape.depth(); ++i) sum = sum.plus(counts.times(weights[output * shape.depth() + i]));
  return sum;
}

/// The same neurons on the products alone: `factor · products + constant >= threshold` is a threshold of the products
/// where the factor is positive. Then nothing is left to be done after they are summed.
struct Folded {
  Folded(const LayerShape& shape, const LayerTables& from, const Interval& residual) : tables(from) {
    const int64_t highest = from.thresholds.highest;
    if (highest == 0 || residual.least != residual.most || shape.outputs == 0) return;
    for (int64_t output = 0; output < shape.outputs; ++output) {
      const int64_t factor = from.factor[output];
      if (factor < 1 || !reach_of_products(shape, from.weights, output).within_int32()) return;
      const int64_t added = int64_t{from.multiplier[output]} * (residual.least - shape.residual_zero);
      const int64_t constant = wrapped(from.bias[output] + int64_t{wrapped(added)});
      for (int64_t k = 0; k < highest; ++k) {
        const int64_t own = ceil_div(from.thresholds.of(output)[k] - constant, factor);
        // One beyond int32 is never reached or always, as one at its end: products reach neither.
        thresholds.push_back(static_cast<int32_t>(std::clamp<int64_t>(own, INT32_MIN, INT32_MAX)));
      }
    }
    zeros.assign(static_cast<size_t>(shape.outputs), 0);
    ones.assign(static_cast<size_t>(shape.outputs), 1);
    tables = {from.weights, zeros.data(), ones.data(), zeros.data(),
              {thresholds.data(), shape.outputs, from.thresholds.highest}};
  }

  std::vector<int32_t> zeros, ones, thresholds;
  LayerTables tables;
};

}  // namespace

const Kernels& kernels() {
  switch (instructions()) {
#ifdef PCONV_X86_KERNELS
    case Instructions::kAvx512Vnni:
      return avx512vnni_kernels();
    case Instructions::kAvxVnni:
      return avxvnni_kernels();
    case Instructions::kAvx2:
      return avx2_kernels();
#endif
    default:
      return portable_kernels();
  }
}

QuadRow::QuadRow(const LayerShape& shape, int64_t columns) {
  taps = ceil_div(shape.kernel.columns, kQuad);
  const int64_t between = kQuad * shape.dilations.columns;
  step = taps == 1 || between % shape.strides.columns == 0 ? shape.strides.columns : 1;
  windows = shape.strides.columns / step;
  next = between / step;
  quads = (columns - 1) * windows + (taps - 1) * next + 1;
}

int64_t depthwise_scratch(const LayerShape& shape, int64_t columns, int64_t lanes) {
  return shape.span().rows * QuadRow(shape, columns).quads * 4 * lanes * kQuad;
}

Layer::Layer(const LayerShape& shape, const LayerTables& tables, const Interval& residual)
    : shape(shape),
      is_depthwise(shape.group > 1 && shape.group == shape.channels && shape.channels == shape.outputs &&
                   shape.kernel.rows <= kMostKernelRows && shape.span().rows <= kMostRing),
      kernels(&cpu::kernels()) {
  if (is_depthwise) {
    if (kernels->narrow != nullptr && shape.channels <= 4 * kernels->narrow->lanes) kernels = kernels->narrow;
    pack_depthwise(tables.weights);
  } else {
    pack_dense(tables.weights);
  }
  choose_kernels();
  add_tables(Folded(shape, tables, residual).tables, residual);
}

void Layer::add_position(int64_t output, int64_t place) {
  outputs_.push_back(output);
  stored_.push_back(place);
}

void Layer::pack_dense(const int8_t* from) {
  const int64_t lanes = kernels->lanes;
  const Segments segments(shape);
  dense.segments = segments.number;
  dense.quads = ceil_div(segments.counts, kQuad);
  dense.groups = shape.group;
  dense.group_channels = shape.group_channels();
  dense.group_outputs = shape.group_outputs();
  dense.blocks = ceil_div(dense.group_outputs, lanes);

  const int64_t pixels = shape.kernel.rows * shape.kernel.columns;
  weights.assign(static_cast<size_t>(dense.groups * dense.blocks * dense.segments * dense.quads * lanes * kQuad), 0);
  for (int64_t place = 0; place < dense.groups * dense.blocks * lanes; ++place) {
    const int64_t own = place % (dense.blocks * lanes);
    const int64_t output = place / (dense.blocks * lanes) * dense.group_outputs + own;
    const bool exists = own < dense.group_outputs;
    add_position(exists ? output : -1, place);
    if (!exists) continue;
    int8_t* const to = weights.data() + (place / lanes * dense.segments * dense.quads * lanes + place % lanes) * kQuad;
    for (int64_t segment = 0; segment < dense.segments; ++segment) {
      for (int64_t i = 0; i < segments.counts; ++i) {
        const int64_t pixel = segment * segments.columns + i / dense.group_channels;
        const int64_t quad = segment * dense.quads + i / kQuad;
        to[quad * lanes * kQuad + i % kQuad] = from[output * shape.depth() + i % dense.group_channels * pixels + pixel];
      }
    }
  }
  dense.weights = weights.data();
}

void Layer::pack_depthwise(const int8_t* from) {
  const int64_t lanes = kernels->lanes;
  const int64_t block = 4 * lanes;
  const int64_t blocks = ceil_div(shape.channels, block);
  const Extent kernel = shape.kernel;
  const bool rolling = rolls(shape);
  const Extent quads = quads_of(shape);
  weights.assign(static_cast<size_t>(blocks * quads.rows * quads.columns * block * kQuad), 0);
  for (int64_t place = 0; place < blocks * block; ++place) {
    const int64_t own = unpacked(place % block, lanes);
    const int64_t channel = first_channel(place / block, block, shape.channels) + own;
    const bool exists = channel < shape.channels;
    add_position(exists ? channel : -1, place / block * block + own);
    if (!exists) continue;
    int8_t* const to = weights.data() + (place / block * quads.rows * quads.columns * block + place % block) * kQuad;
    for (int64_t row = 0; row < kernel.rows; ++row) {
      for (int64_t column = 0; column < kernel.columns; ++column) {
        const int64_t quad = rolling ? row / kQuad * quads.columns + column : row * quads.columns + column / kQuad;
        to[quad * block * kQuad + (rolling ? row : column) % kQuad] =
            from[(channel * kernel.rows + row) * kernel.columns + column];
      }
    }
  }
  depthwise = {weights.data(), &shape};
}

void Layer::choose_kernels() {
  const int64_t pair = largest_pair(weights, std::max(shape.highest, shape.zero));
  dense.run = pair == 0 ? INT16_MAX : INT16_MAX / pair;
  // A convolution of each channel by itself does not stop before a window ends.
  const int64_t window = is_depthwise ? quads_of(shape).rows * quads_of(shape).columns : 0;
  const auto suffices = [&] { return dense.run >= kernels->run && (kernels->run <= 1 || dense.run >= window); };
  while (kernels->otherwise != nullptr && !suffices()) kernels = kernels->otherwise;
}

void Layer::add_tables(const LayerTables& tables, const Interval& residual) {
  const Reach added{static_cast<double>(residual.least) - shape.residual_zero,
                    static_cast<double>(residual.most) - shape.residual_zero};
  std::vector<Interval> reach(static_cast<size_t>(shape.outputs), {0, 0});
  bool scaled = false;
  for (const int64_t output : outputs_) {
    if (output < 0) {
      for (auto* table : {&bias, &residual_bias, &factor, &multiplier}) table->push_back(0);
      continue;
    }
    int64_t weight = 0;
    for (int64_t i = 0; i < shape.depth(); ++i) weight += tables.weights[output * shape.depth() + i];
    const int64_t own_factor = tables.factor[output];
    const int64_t own_multiplier = tables.multiplier[output];
    scaled = scaled || own_factor != 1;
    bias.push_back(wrapped(tables.bias[output] - int64_t{wrapped(own_factor * wrapped(shape.zero * weight))}));
    residual_bias.push_back(wrapped(bias.back() - own_multiplier * shape.residual_zero));
    factor.push_back(tables.factor[output]);
    multiplier.push_back(tables.multiplier[output]);
    const double constant = tables.bias[output];
    reach[static_cast<size_t>(output)] = reach_of_products(shape, tables.weights, output)
                                             .times(static_cast<double>(own_factor))
                                             .plus(added.times(static_cast<double>(own_multiplier)))
                                             .plus({constant, constant})
                                             .sums();
  }
  if (!scaled) factor.clear();
  if (tables.thresholds.highest > 0) neurons.emplace(tables.thresholds, outputs_, stored_, kernels->lanes, reach);
}

Plan<LayerCall>::Plan(const LayerCall& call) : call(call), size(call.size), images(call.images) {
  const Layer& layer = *call.layer;
  const LayerShape& shape = layer.shape;
  pointwise = !layer.is_depthwise && is_pointwise(shape);
  if (pointwise) {
    size = {1, images * size.rows * size.columns};
    images = 1;
  }
  output = shape.output(size);
  direct = shape.before.rows + shape.before.columns + shape.after.rows + shape.after.columns == 0;

  const int64_t steps = pointwise ? output.columns : output.rows;
  const int64_t step_work = (pointwise ? 1 : output.columns) * shape.outputs * shape.depth() + 1;
  const int64_t step_bytes = (pointwise ? 1 : size.columns * shape.strides.rows) * shape.channels + 1;
  const int64_t worth = layer.is_depthwise ? kDepthwiseChunkWork : kChunkWork;
  const int64_t unit = pointwise ? kTilePixels : 1;
  row_chunks = ceil_div(steps, std::max(int64_t{1}, std::min(ceil_div(worth, step_work), kChunkBytes / step_bytes)));
  // A few chunks are shares for threads, of which there is mostly a power of two.
  int64_t power = 1;
  while (power < row_chunks) power *= 2;
  if (images == 1 && power <= kShares) row_chunks = power;
  rows = ceil_div(ceil_div(steps, row_chunks), unit) * unit;
  row_chunks = ceil_div(steps, rows);

  block_chunks = 1;
  if (pointwise) {
    const int64_t wanted = rows * step_work / kChunkWork;
    block_chunks = std::clamp(wanted, int64_t{1}, std::max(int64_t{1}, layer.dense.blocks / kChunkBlocks));
  }
  blocks = std::max(int64_t{1}, ceil_div(layer.dense.blocks, block_chunks));
  block_chunks = std::max(int64_t{1}, ceil_div(layer.dense.blocks, blocks));
  chunks = images * row_chunks * block_chunks;

  const bool residual = call.residual_counts != nullptr || call.residual_sums != nullptr;
  const int32_t* own_bias = residual ? layer.residual_bias.data() : layer.bias.data();
  if (!residual && call.shared != 0) {
    for (size_t i = 0; i < layer.bias.size(); ++i) {
      bias.push_back(wrapped(layer.bias[i] + int64_t{wrapped(int64_t{layer.multiplier[i]} * call.shared)}));
    }
    own_bias = bias.data();
  }
  if (layer.is_depthwise) nothing.assign(static_cast<size_t>(shape.channels), static_cast<uint8_t>(shape.zero));
  epilogue = {own_bias,
              layer.factor.empty() ? nullptr : layer.factor.data(),
              layer.multiplier.data(),
              call.residual_counts,
              call.residual_sums,
              layer.neurons ? &*layer.neurons : nullptr,
              call.spikes,
              call.sums,
              shape.outputs};
}

namespace {

/// Memory of a thread, which calls share.
uint8_t* scratch(int64_t bytes) {
  thread_local Aligned<uint8_t> memory;
  if (static_cast<int64_t>(memory.size()) < bytes) memory.resize(static_cast<size_t>(bytes));
  return memory.data();
}

/// Copies columns of rows of an image, both counted with the padding, which holds `zero`.
void copy_padded(const Plan<LayerCall>& plan, const uint8_t* image, int64_t first_row, const Extent& rectangle,
                 uint8_t* to) {
  const LayerShape& shape = plan.call.layer->shape;
  const int64_t channels = shape.channels;
  const int64_t left = std::min(shape.before.columns, rectangle.columns);
  const int64_t inside = std::max(int64_t{0}, std::min(plan.size.columns, rectangle.columns - left));
  const int64_t right = rectangle.columns - left - inside;
  for (int64_t row = 0; row < rectangle.rows; ++row, to += rectangle.columns * channels) {
    const int64_t y = first_row + row - shape.before.rows;
    if (y < 0 || y >= plan.size.rows) {
      std::memset(to, shape.zero, static_cast<size_t>(rectangle.columns * channels));
      continue;
    }
    std::memset(to, shape.zero, static_cast<size_t>(left * channels));
    std::memcpy(to + left * channels, image + y * plan.size.columns * channels, static_cast<size_t>(inside * channels));
    std::memset(to + (left + inside) * channels, shape.zero, static_cast<size_t>(right * channels));
  }
}

void run_depthwise(const Plan<LayerCall>& plan, int64_t image, int64_t begin, int64_t end) {
  const Layer& layer = *plan.call.layer;
  DepthwiseRegion region{};
  region.image = plan.call.counts + image * plan.size.rows * plan.size.columns * layer.shape.channels;
  region.size = plan.size;
  region.columns = plan.output.columns;
  region.first_row = begin;
  region.last_row = end;
  region.output = image * plan.output.rows * plan.output.columns;
  region.nothing = plan.nothing.data();
  if (!rolls(layer.shape)) {
    region.scratch = scratch(depthwise_scratch(layer.shape, plan.output.columns, layer.kernels->lanes));
  }
  layer.kernels->depthwise(layer.depthwise, region, plan.epilogue);
}

}  // namespace

void run_chunk(const Plan<LayerCall>& plan, int64_t chunk) {
  const Layer& layer = *plan.call.layer;
  const LayerShape& shape = layer.shape;
  const int64_t block_chunk = chunk % plan.block_chunks;
  const int64_t row_chunk = chunk / plan.block_chunks % plan.row_chunks;
  const int64_t image = chunk / plan.block_chunks / plan.row_chunks;
  const int64_t begin = row_chunk * plan.rows;
  const int64_t end = std::min(begin + plan.rows, plan.pointwise ? plan.output.columns : plan.output.rows);
  if (layer.is_depthwise) return run_depthwise(plan, image, begin, end);

  const Extent first = plan.pointwise ? Extent{0, begin} : Extent{begin, 0};
  DenseRegion region{};
  region.rows = plan.pointwise ? 1 : end - begin;
  region.pixels = plan.pointwise ? end - begin : plan.output.columns;
  region.output = (image * plan.output.rows + first.rows) * plan.output.columns + first.columns;
  region.output_row = plan.output.columns;
  region.first_block = block_chunk * plan.blocks;
  region.last_block = std::min(region.first_block + plan.blocks, layer.dense.blocks);
  region.pixel_stride = shape.strides.columns * shape.channels;

  const Extent span = shape.span();
  const Segments segments(shape);
  const uint8_t* const pixels = plan.call.counts + image * plan.size.rows * plan.size.columns * shape.channels;
  int64_t line = plan.size.columns * shape.channels;
  // A read of more than a segment has must not leave the tensor.
  const bool last = image == plan.images - 1 && row_chunk == plan.row_chunks - 1;
  if (plan.direct && (segments.counts % kQuad == 0 || !last)) {
    region.input = pixels + first.rows * shape.strides.rows * line + first.columns * region.pixel_stride;
  } else {
    const Extent rectangle{(region.rows - 1) * shape.strides.rows + span.rows,
                           (region.pixels - 1) * shape.strides.columns + span.columns};
    const int64_t bytes = rectangle.rows * rectangle.columns * shape.channels;
    uint8_t* const copy = scratch(bytes + kSlack);
    if (plan.pointwise) {
      std::memcpy(copy, pixels + first.columns * shape.channels, static_cast<size_t>(bytes));
    } else {
      copy_padded(plan, pixels, first.rows * shape.strides.rows, rectangle, copy);
    }
    std::memset(copy + bytes, 0, kSlack);
    region.input = copy;
    line = rectangle.columns * shape.channels;
  }
  region.row_stride = shape.strides.rows * line;
  thread_local std::vector<int64_t> offsets;
  offsets.clear();
  for (int64_t segment = 0; segment < segments.number; ++segment) {
    const int64_t row = segment * segments.columns / shape.kernel.columns;
    const int64_t column = segment * segments.columns % shape.kernel.columns;
    offsets.push_back(row * shape.dilations.rows * line + column * shape.dilations.columns * shape.channels);
  }
  region.segments = offsets.data();
  layer.kernels->dense(layer.dense, region, plan.epilogue);
}

Plan<SpikeCall>::Plan(const SpikeCall& call) : call(call) {
  constexpr int64_t kSums = 1 << 14;
  pixels = ceil_div(kSums, call.outputs);
  chunks = ceil_div(call.pixels, pixels);
}

void run_chunk(const Plan<SpikeCall>& plan, int64_t chunk) {
  const SpikeCall& call = plan.call;
  const int64_t first = chunk * plan.pixels;
  Epilogue epilogue{};
  epilogue.neurons = call.neurons;
  epilogue.counts = call.spikes + first * call.outputs;
  epilogue.outputs = call.outputs;
  call.kernels->spike(call.sums + first * call.outputs, std::min(plan.pixels, call.pixels - first), epilogue);
}

Neurons spike_neurons(const Kernels& kernels, const Thresholds& thresholds) {
  const int64_t outputs = thresholds.rows == 1 ? kernels.lanes : thresholds.rows;
  std::vector<int64_t> positions;
  std::vector<int64_t> stored;
  for (int64_t i = 0; i < ceil_div(outputs, kernels.lanes) * kernels.lanes; ++i) {
    positions.push_back(i < outputs ? i : -1);
    stored.push_back(i);
  }
  const std::vector<Interval> sums(static_cast<size_t>(outputs), kAnySum);
  return Neurons(thresholds, positions, stored, kernels.lanes, sums);
}

}  // namespace pconv::cpu
