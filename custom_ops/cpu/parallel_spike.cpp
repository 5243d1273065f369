#include "cpu/parallel_spike.h"

#include <algorithm>

#include "cpu/isa.h"
#include "cpu/loops.h"
#include "cpu/memory.h"
#include "cpu/stretch.h"

namespace pconv::cpu {
namespace {

// Found by measurement. Neurons in a tile: few enough that the next tile's currents can wait in the cache.
constexpr int64_t kWidth = 512;
// The same beside tables of thresholds and levels.
constexpr int64_t kExpandedWidth = 256;
// Neurons a channel below which loops over one channel are mostly ends.
constexpr int64_t kShortChannel = 16;
// Steps up to which passing every threshold is faster than a search.
constexpr int32_t kFewSteps = 16;
// Values read and written that are worth handing to a thread.
constexpr int64_t kChunkValues = 1 << 16;
// Output from which on even the next operator would find nothing of it in the cache.
constexpr int64_t kStreamedBytes = 32 << 20;

constexpr int64_t ceil_div(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

/// Neurons of short channels, prepared for loops that do not stop between channels.
template <class T>
struct Expanded {
  // Rows a power of two apart would compete for the same cache lines.
  static constexpr int64_t kStride = kExpandedWidth + 16;

  int64_t first_channel;
  alignas(64) int32_t row[kExpandedWidth];  // the channel of each neuron, counted from first_channel
  alignas(64) T silent[kExpandedWidth];
  alignas(64) T firing[kExpandedWidth];
  alignas(64) EvenThresholds even[kExpandedWidth];
  alignas(64) T thresholds[kFewSteps * kStride];    // filled where steps are few
  alignas(64) T levels[(kFewSteps + 1) * kStride];  // filled where steps are few and the output is the mean

  PCONV_INLINE void prepare(const Plan<Call<T>>& plan, int64_t first, int64_t size) {
    const Layout& layout = plan.call.layout;
    const int32_t steps = layout.steps;
    const int64_t pattern = layout.channels * layout.inner;
    const bool wraps = first % pattern + size > pattern;
    first_channel = wraps ? 0 : first / layout.inner % layout.channels;
    for (Stretch stretch(layout, first, size); stretch.more(); stretch.next()) {
      std::fill(row + stretch.begin, row + stretch.end, static_cast<int32_t>(stretch.channel - first_channel));
    }
    const T* own_thresholds = plan.call.thresholds + first_channel * steps;
    const T* own_levels = plan.call.levels + first_channel * (steps + 1);
    spread(own_levels, steps + 1, size, silent);
    spread(own_levels + steps, steps + 1, size, firing);
    if (!plan.even.empty()) spread(plan.even.data() + first_channel, 1, size, even);
    if (steps > kFewSteps) return;
    for (int32_t t = 0; t < steps; ++t) spread(own_thresholds + t, steps, size, thresholds + t * kStride);
    if (layout.spikes) return;
    for (int32_t k = 0; k <= steps; ++k) spread(own_levels + k, steps + 1, size, levels + k * kStride);
  }

 private:
  template <class Value>
  PCONV_INLINE void spread(const Value* __restrict column, int32_t columns, int64_t size,
                           Value* __restrict values) const {
    for (int64_t i = 0; i < size; ++i) values[i] = column[row[i] * columns];
  }
};

/// Up to kWidth neurons at consecutive places of a time-step.
template <class T>
struct Tile {
  int64_t first;
  int64_t size;
  const T* mean;
  const T* next;  ///< the currents of the tile that this thread takes next, or null
  int64_t next_size;
};

/// Writes the trains of a tile step by step: fill what `open` returns, then `close`.
template <class T>
class TrainWriter {
 public:
  PCONV_INLINE TrainWriter(const Plan<Call<T>>& plan, const Tile<T>& tile) : plan_(plan), tile_(tile) {}

  PCONV_INLINE T* open(int32_t t) {
    prefetch_share(t);
    return plan_.streamed ? passing_ : output(t);
  }
  PCONV_INLINE void close(int32_t t) const {
    if (plan_.streamed) stream(passing_, tile_.size, output(t));
  }

 private:
  PCONV_INLINE T* output(int32_t t) const { return plan_.call.output + t * plan_.call.layout.elements + tile_.first; }

  /// Memory that only writes has time to read: each step asks for its share of the next tile.
  PCONV_INLINE void prefetch_share(int32_t t) const {
    if (tile_.next == nullptr) return;
    const Layout& layout = plan_.call.layout;
    const int64_t end = (t + 1) * layout.input_steps / layout.steps;
    for (int64_t row = t * layout.input_steps / layout.steps; row < end; ++row) {
      prefetch(tile_.next + row * layout.elements, tile_.next_size);
    }
  }

  const Plan<Call<T>>& plan_;
  const Tile<T>& tile_;
  alignas(64) T passing_[kWidth];
};

template <class T>
PCONV_INLINE void run_channels(const Plan<Call<T>>& plan, const Tile<T>& tile, int32_t* count) {
  const Call<T>& call = plan.call;
  const int32_t steps = call.layout.steps;
  if (call.layout.spikes) {
    TrainWriter<T> trains(plan, tile);
    const Stretch first(call.layout, tile.first, tile.size);
    for (int32_t t = 0; t < steps; ++t) {
      T* train = trains.open(t);
      for (Stretch stretch = first; stretch.more(); stretch.next()) {
        const ChannelTable<T> thresholds{call.thresholds + stretch.channel * steps};
        const ChannelTable<T> levels{call.levels + stretch.channel * (steps + 1)};
        fire(tile.mean + stretch.begin, thresholds.row(t), levels.row(0), levels.row(steps),
             stretch.end - stretch.begin, train + stretch.begin);
      }
      trains.close(t);
    }
    return;
  }
  for (Stretch stretch(call.layout, tile.first, tile.size); stretch.more(); stretch.next()) {
    const T* thresholds = call.thresholds + stretch.channel * steps;
    const T* levels = call.levels + stretch.channel * (steps + 1);
    const T* mean = tile.mean + stretch.begin;
    T* output = call.output + tile.first + stretch.begin;
    const int64_t size = stretch.end - stretch.begin;
    const Same<int32_t> row{0};
    if (steps <= kFewSteps) {
      climb(mean, ChannelTable<T>{thresholds}, ChannelTable<T>{levels}, steps, size, output);
      continue;
    }
    if (plan.even.empty()) {
      count_by_search(mean, thresholds, row, steps, size, count);
      look_up(count, levels, row, steps, size, output);
    } else {
      find_nearest(mean, Same<EvenThresholds>{plan.even[static_cast<size_t>(stretch.channel)]}, size, count);
      look_up_from_nearest(mean, count, thresholds, levels, row, steps, size, output);
    }
  }
}

template <class T>
PCONV_INLINE void run_expanded(const Plan<Call<T>>& plan, const Tile<T>& tile, const Expanded<T>& expanded,
                               int32_t* count) {
  const Call<T>& call = plan.call;
  const int32_t steps = call.layout.steps;
  const bool few = steps <= kFewSteps;
  const NeuronTable<T> thresholds{expanded.thresholds, Expanded<T>::kStride};
  if (!few) {
    const T* rows = call.thresholds + expanded.first_channel * steps;
    if (plan.even.empty()) {
      count_by_search(tile.mean, rows, expanded.row, steps, tile.size, count);
    } else {
      find_nearest(tile.mean, expanded.even, tile.size, count);
      count_from_nearest(tile.mean, rows, expanded.row, steps, tile.size, count);
    }
  }
  if (call.layout.spikes) {
    TrainWriter<T> trains(plan, tile);
    for (int32_t t = 0; t < steps; ++t) {
      T* train = trains.open(t);
      if (few) {
        fire(tile.mean, thresholds.row(t), expanded.silent, expanded.firing, tile.size, train);
      } else {
        fire_counted(count, t, expanded.silent, expanded.firing, tile.size, train);
      }
      trains.close(t);
    }
  } else if (few) {
    const NeuronTable<T> levels{expanded.levels, Expanded<T>::kStride};
    climb(tile.mean, thresholds, levels, steps, tile.size, call.output + tile.first);
  } else {
    look_up(count, call.levels + expanded.first_channel * (steps + 1), expanded.row, steps, tile.size,
            call.output + tile.first);
  }
}

template <class T>
PCONV_INLINE void run(const Plan<Call<T>>& plan, int64_t chunk) {
  const Call<T>& call = plan.call;
  const Layout& layout = call.layout;
  const int64_t place = chunk % plan.blocks * plan.width;
  const int64_t width = std::min(plan.width, plan.period - place);
  const int64_t begin = chunk / plan.blocks * plan.periods_per_chunk;
  const int64_t end = std::min(plan.periods, begin + plan.periods_per_chunk);
  const auto size_at = [&](int64_t first) { return std::min(width, layout.elements - first); };

  Expanded<T> expanded;
  alignas(64) T averaged[kWidth];
  alignas(64) int32_t count[kWidth];
  if (plan.expanded) expanded.prepare(plan, place, width);
  for (int64_t period = begin; period < end; ++period) {
    const int64_t first = period * plan.period + place;
    const int64_t next = first + plan.period;
    const bool more = period + 1 < end && next < layout.elements;
    Tile<T> tile{first, size_at(first), call.current + first, more ? call.current + next : nullptr, size_at(next)};
    if (tile.size <= 0) break;
    // A current without a time axis is its own mean; a copy is needed where the output is about to take its place.
    if (layout.input_steps > 1) {
      average(tile.mean, layout.elements, layout.input_steps, tile.size, averaged);
      tile.mean = averaged;
    } else if (call.current == call.output) {
      std::copy_n(tile.mean, tile.size, averaged);
      tile.mean = averaged;
    }
    if (plan.expanded) {
      run_expanded(plan, tile, expanded, count);
    } else {
      run_channels(plan, tile, count);
    }
  }
  if (plan.streamed) end_streaming();
}

/// Empty unless every channel is evenly spaced and has neurons enough to pay for the pass over its thresholds.
template <class T>
std::vector<EvenThresholds> fit_even(const Call<T>& call) {
  const Layout& layout = call.layout;
  std::vector<EvenThresholds> even;
  if (layout.steps <= kFewSteps || layout.elements / layout.channels < layout.steps / 2) return even;
  for (int64_t channel = 0; channel < layout.channels; ++channel) {
    const T* thresholds = call.thresholds + channel * layout.steps;
    even.push_back(EvenThresholds::fit(thresholds, layout.steps));
    if (!even.back().holds_for(thresholds)) return {};
  }
  return even;
}

}  // namespace

template <class T>
Plan<Call<T>>::Plan(const Call<T>& call) : call(call) {
  const Layout& layout = call.layout;
  expanded = layout.channels > 1 && layout.inner < kShortChannel;
  streamed = layout.spikes && layout.elements * layout.steps * static_cast<int64_t>(sizeof(T)) >= kStreamedBytes;
  if (expanded || !layout.spikes) even = fit_even(call);

  const int64_t pattern = expanded ? layout.channels * layout.inner : 1;
  const int64_t widest = expanded ? kExpandedWidth : kWidth;
  period = pattern * std::max(widest / pattern, int64_t{1});
  blocks = ceil_div(period, widest);
  width = ceil_div(period, blocks);
  periods = ceil_div(layout.elements, period);
  periods_per_chunk = std::max(kChunkValues / (width * (layout.input_steps + layout.output_rows())), int64_t{1});
  chunks = blocks * ceil_div(periods, periods_per_chunk);
}

PCONV_MULTIVERSION void run_chunk(const Plan<Call<float>>& plan, int64_t chunk) { run(plan, chunk); }
PCONV_MULTIVERSION void run_chunk(const Plan<Call<Half>>& plan, int64_t chunk) { run(plan, chunk); }
PCONV_MULTIVERSION void run_chunk(const Plan<Call<BFloat16>>& plan, int64_t chunk) { run(plan, chunk); }

template struct Plan<Call<float>>;
template struct Plan<Call<Half>>;
template struct Plan<Call<BFloat16>>;

}  // namespace pconv::cpu
