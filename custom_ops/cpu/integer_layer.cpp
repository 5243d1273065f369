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
// The same in time: an input is summed over its steps for each chunk.
constexpr int64_t kTimeChunkBlocks = 16;
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
  const Reach digits{std::min(0.0, -zero), std::max(0.0, shape.highest - zero)};
  const Reach counts = digits.times(static_cast<double>(shape.worth(shape.input_steps)));
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
#ifdef PCONV_X86
    case Instructions::kAvx512Vnni:
      return avx512vnni_kernels();
    case Instructions::kAvxVnni:
      return avxvnni_kernels();
    case Instructions::kAvx512:
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
  depthwise.shape = &shape;
}

void Layer::choose_kernels() {
  const int64_t highest = std::max(shape.highest, shape.zero) * shape.worth(shape.input_steps);
  planes = 1;
  while (planes < int64_t{sizeof(int32_t)} && highest >> (8 * planes) != 0) ++planes;
  const Extent window = quads_of(shape);
  const int64_t quads = is_depthwise ? window.rows * window.columns : dense.segments * dense.quads;
  const int64_t lanes = is_depthwise ? 4 * kernels->lanes : kernels->lanes;
  const int64_t block = std::max(int64_t{1}, quads * lanes * kQuad);
  const int64_t largest = std::min<int64_t>(highest, UINT8_MAX);
  const Limits limits{INT16_MAX / largest, -INT16_MIN / largest};
  if (kernels->run > 0) {
    dense.run = longest_run(weights, {static_cast<int64_t>(weights.size()) / block, quads, lanes}, limits);
  }
  const auto suffices = [&] {
    if (kernels->run == 0) return true;
    if (kernels->most_rests > 0) return is_depthwise ? dense.run > 0 : leave_rests(limits);
    // A convolution of each channel by itself does not stop before a window ends.
    return dense.run >= (is_depthwise ? quads : std::min(kernels->run, quads));
  };
  while (!suffices()) kernels = kernels->otherwise;
  if (kernels->filter_bytes > kernels->lanes * kQuad) weights = widened(weights, kernels->lanes * kQuad);
  dense.weights = depthwise.weights = weights.data();
}

bool Layer::leave_rests(const Limits& limits) {
  const int64_t stretches = dense.groups * dense.blocks * dense.segments;
  Split split(weights, {stretches, dense.quads, kernels->lanes}, kernels->run, limits);
  const double most = kernels->most_rests * static_cast<double>(stretches * dense.quads);
  if (!split.is_enough || static_cast<double>(split.quads.size()) > most) return false;
  weights = std::move(split.weights);
  rest_weights_ = std::move(split.rests);
  for (size_t stretch = 0; stretch < static_cast<size_t>(stretches); ++stretch) {
    const int64_t segment = static_cast<int64_t>(stretch) % dense.segments;
    if (segment == 0) first_rests_.push_back(split.first[stretch]);
    for (int64_t rest = split.first[stretch]; rest < split.first[stretch + 1]; ++rest) {
      rests_.push_back({segment, split.quads[static_cast<size_t>(rest)] * kQuad});
    }
  }
  first_rests_.push_back(split.first.back());
  dense.first_rests = first_rests_.data();
  dense.rests = rests_.data();
  dense.rest_weights = rest_weights_.data();
  return true;
}

void Layer::add_tables(const LayerTables& tables, const Interval& residual) {
  const int64_t residual_worth = shape.worth(shape.residual_steps);
  const Reach added = Reach{static_cast<double>(residual.least) - shape.residual_zero,
                            static_cast<double>(residual.most) - shape.residual_zero}
                          .times(static_cast<double>(residual_worth));
  const int64_t zero = wrapped(shape.zero * shape.worth(shape.input_steps));
  const int64_t residual_zero = wrapped(shape.residual_zero * residual_worth);
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
    bias.push_back(wrapped(tables.bias[output] - int64_t{wrapped(own_factor * wrapped(zero * weight))}));
    residual_bias.push_back(wrapped(bias.back() - int64_t{wrapped(own_multiplier * residual_zero)}));
    factor.push_back(tables.factor[output]);
    multiplier.push_back(tables.multiplier[output]);
    const double constant = tables.bias[output];
    reach[static_cast<size_t>(output)] = reach_of_products(shape, tables.weights, output)
                                             .times(static_cast<double>(own_factor))
                                             .plus(added.times(static_cast<double>(own_multiplier)))
                                             .plus({constant, constant})
                                             .sums();
  }
  for (int64_t plane = 1; plane < planes; ++plane) {
    Aligned<int32_t>& own = plane_factors.emplace_back();
    for (const int32_t each : factor) own.push_back(wrapped(each * (int64_t{1} << (8 * plane))));
    zeros.assign(factor.size(), 0);
    ones.assign(factor.size(), 1);
  }
  if (!scaled) factor.clear();
  if (tables.thresholds.highest > 0) neurons.emplace(tables.thresholds, outputs_, stored_, kernels->lanes, reach);
}

namespace {

/// What padding holds in a plane.
uint8_t zero_of(const LayerShape& shape, int64_t plane) {
  return static_cast<uint8_t>(shape.zero * shape.worth(shape.input_steps) >> (8 * plane));
}

}  // namespace

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
    const int64_t least = shape.input_steps > 1 ? kTimeChunkBlocks : kChunkBlocks;
    block_chunks = std::clamp(wanted, int64_t{1}, std::max(int64_t{1}, layer.dense.blocks / least));
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
  if (layer.is_depthwise) {
    for (int64_t plane = 0; plane < layer.planes; ++plane) {
      nothing.insert(nothing.end(), static_cast<size_t>(shape.channels), zero_of(shape, plane));
    }
  }
  input_steps = {shape.input_steps, shape.input_coding, images * size.rows * size.columns * shape.channels};
  output_size = images * output.rows * output.columns * shape.outputs;
  residual_steps = {shape.residual_steps, shape.input_coding, output_size};
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

/// What a thread needs memory for.
enum class Use { kValues, kPadded, kQuads, kResidual, kSums, kCounts };

/// Memory of a thread, which calls share.
template <Use kUse, class T>
T* scratch(int64_t size) {
  thread_local Aligned<T> memory;
  if (static_cast<int64_t>(memory.size()) < size) memory.resize(static_cast<size_t>(size));
  return memory.data();
}

/// A part of the output: rows of an image, or pixels where all are one row, and blocks of outputs.
struct Part {
  Part(const Plan<LayerCall>& plan, int64_t chunk) {
    const Layer& layer = *plan.call.layer;
    const int64_t row_chunk = chunk / plan.block_chunks % plan.row_chunks;
    image = chunk / plan.block_chunks / plan.row_chunks;
    begin = row_chunk * plan.rows;
    end = std::min(begin + plan.rows, plan.pointwise ? plan.output.columns : plan.output.rows);
    last = image == plan.images - 1 && row_chunk == plan.row_chunks - 1;
    first_block = chunk % plan.block_chunks * plan.blocks;
    last_block = std::min(first_block + plan.blocks, layer.dense.blocks);
    const int64_t row = plan.pointwise ? 1 : plan.output.columns;
    first = (image * plan.output.rows * plan.output.columns + begin * row) * layer.shape.outputs;
    pixels = (end - begin) * row;
  }

  /// Calls `take` with the outputs from one on, in a row of so many. Those of a layer lie in memory one after another.
  template <class Take>
  void each_stretch(const Plan<LayerCall>& plan, Take take) const {
    const LayerShape& shape = plan.call.layer->shape;
    if (plan.block_chunks == 1) return take(int64_t{0}, pixels * shape.outputs);
    const int64_t lanes = plan.call.layer->kernels->lanes;
    const int64_t from = first_block * lanes;
    const int64_t to = std::min(last_block * lanes, shape.group_outputs());
    for (int64_t group = 0; group < pixels * shape.group; ++group) {
      take(group * shape.group_outputs() + from, to - from);
    }
  }

  int64_t image;
  int64_t begin;
  int64_t end;
  bool last;  ///< of the tensor
  int64_t first_block;
  int64_t last_block;
  int64_t first;  ///< output, of those of a time-step
  int64_t pixels;
};

/// The counts under the windows of a part, from a row of the image on. In time they are what trains are worth.
struct Values {
  Values(const Plan<LayerCall>& plan, const Part& part) {
    const LayerShape& shape = plan.call.layer->shape;
    const int64_t step = plan.pointwise ? 1 : shape.strides.rows;
    const int64_t row = (plan.pointwise ? 1 : plan.size.columns) * shape.channels;
    const int64_t rows = plan.pointwise ? plan.size.columns : plan.size.rows;
    top = std::clamp(part.begin * step - shape.before.rows, int64_t{0}, rows);
    const int64_t bottom = std::clamp((part.end - 1) * step - shape.before.rows + shape.span().rows, top, rows);
    const uint8_t* const trains = plan.call.counts + (part.image * rows + top) * row;
    if (plan.input_steps.number == 1) {
      data = trains;
      return;
    }
    const int64_t size = (bottom - top) * row;
    const int64_t planes = plan.call.layer->planes;
    plane = size + kSlack;
    uint8_t* const sums = scratch<Use::kValues, uint8_t>(planes * plane);
    sum_to_bytes(trains, plan.input_steps, size, planes, plane, sums);
    data = sums;
  }

  const uint8_t* data;
  int64_t plane = 0;  ///< between planes
  int64_t top;
};

/// Copies columns of rows of an image from row `top` on. They are counted with the padding, which holds `zero`.
void copy_padded(const Plan<LayerCall>& plan, const uint8_t* image, int64_t top, uint8_t zero, int64_t first_row,
                 const Extent& rectangle, uint8_t* to) {
  const LayerShape& shape = plan.call.layer->shape;
  const int64_t channels = shape.channels;
  const int64_t left = std::min(shape.before.columns, rectangle.columns);
  const int64_t inside = std::max(int64_t{0}, std::min(plan.size.columns, rectangle.columns - left));
  const int64_t right = rectangle.columns - left - inside;
  for (int64_t row = 0; row < rectangle.rows; ++row, to += rectangle.columns * channels) {
    const int64_t y = first_row + row - shape.before.rows;
    if (y < 0 || y >= plan.size.rows) {
      std::memset(to, zero, static_cast<size_t>(rectangle.columns * channels));
      continue;
    }
    const uint8_t* const from = image + (y - top) * plan.size.columns * channels;
    std::memset(to, zero, static_cast<size_t>(left * channels));
    std::memcpy(to + left * channels, from, static_cast<size_t>(inside * channels));
    std::memset(to + (left + inside) * channels, zero, static_cast<size_t>(right * channels));
  }
}

void run_depthwise(const Plan<LayerCall>& plan, const Part& part, const Values& values, int64_t plane,
                   const Epilogue& epilogue) {
  const Layer& layer = *plan.call.layer;
  DepthwiseRegion region{};
  region.image = values.data + plane * values.plane;
  region.top = values.top;
  region.size = plan.size;
  region.columns = plan.output.columns;
  region.first_row = part.begin;
  region.last_row = part.end;
  region.nothing = plan.nothing.data() + plane * layer.shape.channels;
  if (!rolls(layer.shape)) {
    const int64_t quads = depthwise_scratch(layer.shape, plan.output.columns, layer.kernels->lanes);
    region.scratch = scratch<Use::kQuads, uint8_t>(quads);
  }
  layer.kernels->depthwise(layer.depthwise, region, epilogue);
}

void run_dense(const Plan<LayerCall>& plan, const Part& part, const Values& values, int64_t plane,
               const Epilogue& epilogue) {
  const Layer& layer = *plan.call.layer;
  const LayerShape& shape = layer.shape;
  DenseRegion region{};
  region.rows = plan.pointwise ? 1 : part.end - part.begin;
  region.pixels = plan.pointwise ? part.pixels : plan.output.columns;
  region.output_row = plan.output.columns;
  region.first_block = part.first_block;
  region.last_block = part.last_block;
  region.pixel_stride = shape.strides.columns * shape.channels;

  const Extent span = shape.span();
  const Segments segments(shape);
  const uint8_t* const pixels = values.data + plane * values.plane;
  int64_t line = plan.size.columns * shape.channels;
  // A read of more than a segment has must not leave the tensor. Behind sums of trains there is room.
  const bool room = segments.counts % kQuad == 0 || !part.last || plan.input_steps.number > 1;
  if (plan.direct && room) {
    region.input = pixels;
  } else {
    const Extent rectangle{(region.rows - 1) * shape.strides.rows + span.rows,
                           (region.pixels - 1) * shape.strides.columns + span.columns};
    const int64_t bytes = rectangle.rows * rectangle.columns * shape.channels;
    uint8_t* const copy = scratch<Use::kPadded, uint8_t>(bytes + kSlack);
    if (plan.pointwise) {
      std::memcpy(copy, pixels, static_cast<size_t>(bytes));
    } else {
      const int64_t first_row = part.begin * shape.strides.rows;
      copy_padded(plan, pixels, values.top, zero_of(shape, plane), first_row, rectangle, copy);
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
  layer.kernels->dense(layer.dense, region, epilogue);
}

/// What becomes of the sums of a part; spike counts that are to become trains are left in memory of the thread.
Epilogue epilogue_of(const Plan<LayerCall>& plan, const Part& part) {
  const LayerShape& shape = plan.call.layer->shape;
  Epilogue epilogue = plan.epilogue;
  if (epilogue.sums != nullptr) epilogue.sums += part.first;
  if (epilogue.counts != nullptr) epilogue.counts += part.first;
  if (epilogue.residual_counts != nullptr) epilogue.residual_counts += part.first;
  if (epilogue.residual_sums != nullptr) epilogue.residual_sums += part.first;
  if (shape.train.steps > 0) epilogue.counts = scratch<Use::kCounts, uint8_t>(part.pixels * shape.outputs);
  if (plan.residual_steps.number == 1) return epilogue;
  int32_t* const sums = scratch<Use::kResidual, int32_t>(part.pixels * shape.outputs);
  part.each_stretch(plan, [&](int64_t from, int64_t size) {
    if (epilogue.residual_counts != nullptr) {
      sum_to_ints(epilogue.residual_counts + from, plan.residual_steps, size, sums + from);
    } else {
      sum_to_ints(epilogue.residual_sums + from, plan.residual_steps, size, sums + from);
    }
  });
  epilogue.residual_counts = nullptr;
  epilogue.residual_sums = sums;
  return epilogue;
}

/// That of one plane: all but the last leave their sums, and all but the first add to them.
Epilogue of_plane(const Layer& layer, const Part& part, const Epilogue& all, int64_t plane) {
  if (layer.planes == 1) return all;
  Epilogue epilogue = all;
  // Kernels may take an output twice, so they do not add in place.
  const int64_t size = part.pixels * all.outputs;
  int32_t* const sums = scratch<Use::kSums, int32_t>(2 * size);
  if (plane > 0) {
    epilogue.bias = layer.zeros.data();
    epilogue.factor = layer.plane_factors[static_cast<size_t>(plane - 1)].data();
    epilogue.multiplier = layer.ones.data();
    epilogue.residual_counts = nullptr;
    epilogue.residual_sums = sums + (plane - 1) % 2 * size;
  }
  if (plane < layer.planes - 1) {
    epilogue.neurons = nullptr;
    epilogue.counts = nullptr;
    epilogue.sums = sums + plane % 2 * size;
  }
  return epilogue;
}

}  // namespace

void run_chunk(const Plan<LayerCall>& plan, int64_t chunk) {
  const Layer& layer = *plan.call.layer;
  const Train& train = layer.shape.train;
  const Part part(plan, chunk);
  const Values values(plan, part);
  const Epilogue epilogue = epilogue_of(plan, part);
  for (int64_t plane = 0; plane < layer.planes; ++plane) {
    const auto run = layer.is_depthwise ? run_depthwise : run_dense;
    run(plan, part, values, plane, of_plane(layer, part, epilogue, plane));
  }
  if (train.steps == 0) return;
  part.each_stretch(plan, [&](int64_t from, int64_t size) {
    emit_trains(epilogue.counts + from, train, size, plan.call.spikes + part.first + from, plan.output_size);
  });
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
  epilogue.outputs = call.outputs;
  const int64_t pixels = std::min(plan.pixels, call.pixels - first);
  uint8_t* const spikes = call.spikes + first * call.outputs;
  epilogue.counts = call.train.steps > 0 ? scratch<Use::kCounts, uint8_t>(pixels * call.outputs) : spikes;
  call.kernels->spike(call.sums + first * call.outputs, pixels, epilogue);
  emit_trains(epilogue.counts, call.train, pixels * call.outputs, spikes, call.pixels * call.outputs);
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
