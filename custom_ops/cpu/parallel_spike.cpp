#include "cpu/parallel_spike.h"

#include <algorithm>

#include "cpu/loops.h"
#include "cpu/memory.h"
#include "cpu/stretch.h"
#include "cpu/vectorised.h"

namespace pconv::cpu {
namespace {

// Found by measurement. Neurons in a tile: few enough that the next tile's currents can wait in the cache.
constexpr int64_t kWidth = 512;
// The same beside tables of thresholds and levels.
constexpr int64_t kExpandedWidth = 256;
// Neurons a channel below which loops over one channel are mostly ends.
constexpr int64_t kShortChannel = 16;
// Thresholds up to which passing every one is faster than a search.
constexpr int32_t kFew = 16;
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
  alignas(64) EvenThresholds even[kExpandedWidth];
  alignas(64) T thresholds[kFew * kStride];  // filled where they are few
  static constexpr int32_t kValues = std::max(kFew + 1, kDigitRows);
  alignas(64) T values[kValues * kStride];  // spikes by the row of their digit; or levels, where they are few

  PCONV_INLINE void prepare(const Plan<Call<T>>& plan, int64_t first, int64_t size) {
    const Layout& layout = plan.call.layout;
    const int32_t highest = layout.highest;
    const int64_t pattern = layout.channels * layout.inner;
    const bool wraps = first % pattern + size > pattern;
    first_channel = wraps ? 0 : first / layout.inner % layout.channels;
    for (Stretch stretch(layout, first, size); stretch.more(); stretch.next()) {
      std::fill(row + stretch.begin, row + stretch.end, static_cast<int32_t>(stretch.channel - first_channel));
    }
    const T* own_thresholds = plan.call.thresholds + first_channel * highest;
    const T* own_levels = plan.call.levels + first_channel * (highest + 1);
    if (layout.spikes) {
      spread(own_levels + layout.zero, highest + 1, size, silent);
      spread_spikes(layout, own_levels, size);
    }
    if (!plan.even.empty()) spread(plan.even.data() + first_channel, 1, size, even);
    if (highest > kFew) return;
    for (int32_t k = 0; k < highest; ++k) spread(own_thresholds + k, highest, size, thresholds + k * kStride);
    if (layout.spikes) return;
    for (int32_t k = 0; k <= highest; ++k) spread(own_levels + k, highest + 1, size, values + k * kStride);
  }

 private:
  template <class Value>
  PCONV_INLINE void spread(const Value* __restrict column, int32_t columns, int64_t size,
                           Value* __restrict values) const {
    for (int64_t i = 0; i < size; ++i) values[i] = column[row[i] * columns];
  }

  PCONV_INLINE void spread_spikes(const Layout& layout, const T* levels, int64_t size) {
    int32_t last = -1;
    for (int32_t t = 0; t < layout.steps; ++t) {
      const Digit digit = digit_of(layout, t);
      if (digit.row == last) continue;
      last = digit.row;
      T* const spikes = values + last * kStride;
      for (int64_t i = 0; i < size; ++i) spikes[i] = spike_of(layout, digit, levels + row[i] * (layout.highest + 1));
    }
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
PCONV_INLINE void count_stretch(const Plan<Call<T>>& plan, const T* mean, int64_t channel, int64_t size,
                                int32_t* count) {
  const int32_t highest = plan.call.layout.highest;
  const T* thresholds = plan.call.thresholds + channel * highest;
  const Same<int32_t> row{0};
  if (highest <= kFew) {
    count_by_passing(mean, ChannelTable<T>{thresholds}, highest, size, count);
  } else if (plan.even.empty()) {
    count_by_search(mean, thresholds, row, highest, size, count);
  } else {
    find_nearest(mean, Same<EvenThresholds>{plan.even[static_cast<size_t>(channel)]}, size, count);
    count_from_nearest(mean, thresholds, row, highest, size, count);
  }
}

template <class T>
PCONV_INLINE void emit_channels(const Plan<Call<T>>& plan, const Tile<T>& tile, int32_t* count) {
  const Call<T>& call = plan.call;
  const Layout& layout = call.layout;
  const Stretch first(layout, tile.first, tile.size);
  if (!layout.by_threshold()) {
    for (Stretch stretch = first; stretch.more(); stretch.next()) {
      count_stretch(plan, tile.mean + stretch.begin, stretch.channel, stretch.end - stretch.begin,
                    count + stretch.begin);
    }
    offset_counts(layout.zero, tile.size, count);
  }
  TrainWriter<T> trains(plan, tile);
  for (int32_t t = 0; t < layout.steps; ++t) {
    const Digit digit = digit_of(layout, t);
    T* train = trains.open(t);
    for (Stretch stretch = first; stretch.more(); stretch.next()) {
      const T* levels = call.levels + stretch.channel * (layout.highest + 1);
      const Same<T> silent{levels[layout.zero]};
      const Same<T> spike{spike_of(layout, digit, levels)};
      const int64_t size = stretch.end - stretch.begin;
      if (layout.by_threshold()) {
        const ChannelTable<T> thresholds{call.thresholds + stretch.channel * layout.highest};
        fire(tile.mean + stretch.begin, thresholds.row(t), silent, spike, size, train + stretch.begin);
      } else {
        emit(count + stretch.begin, digit, silent, spike, size, train + stretch.begin);
      }
    }
    trains.close(t);
  }
}

template <class T>
PCONV_INLINE void average_channels(const Plan<Call<T>>& plan, const Tile<T>& tile, int32_t* count) {
  const Call<T>& call = plan.call;
  const int32_t highest = call.layout.highest;
  for (Stretch stretch(call.layout, tile.first, tile.size); stretch.more(); stretch.next()) {
    const T* thresholds = call.thresholds + stretch.channel * highest;
    const T* levels = call.levels + stretch.channel * (highest + 1);
    const T* mean = tile.mean + stretch.begin;
    T* output = call.output + tile.first + stretch.begin;
    const int64_t size = stretch.end - stretch.begin;
    const Same<int32_t> row{0};
    if (highest <= kFew) {
      climb(mean, ChannelTable<T>{thresholds}, ChannelTable<T>{levels}, highest, size, output);
      continue;
    }
    if (plan.even.empty()) {
      count_by_search(mean, thresholds, row, highest, size, count);
      look_up(count, levels, row, highest, size, output);
    } else {
      find_nearest(mean, Same<EvenThresholds>{plan.even[static_cast<size_t>(stretch.channel)]}, size, count);
      look_up_from_nearest(mean, count, thresholds, levels, row, highest, size, output);
    }
  }
}

template <class T>
PCONV_INLINE void emit_expanded(const Plan<Call<T>>& plan, const Tile<T>& tile, const Expanded<T>& expanded,
                                int32_t* count) {
  const Layout& layout = plan.call.layout;
  const bool by_threshold = layout.by_threshold() && layout.highest <= kFew;
  const NeuronTable<T> thresholds{expanded.thresholds, Expanded<T>::kStride};
  if (!by_threshold) {
    if (layout.highest <= kFew) count_by_passing(tile.mean, thresholds, layout.highest, tile.size, count);
    offset_counts(layout.zero, tile.size, count);
  }
  const NeuronTable<T> spikes{expanded.values, Expanded<T>::kStride};
  TrainWriter<T> trains(plan, tile);
  for (int32_t t = 0; t < layout.steps; ++t) {
    const Digit digit = digit_of(layout, t);
    const T* spike = spikes.row(digit.row);
    const T* silent = expanded.silent;
    T* train = trains.open(t);
    if (by_threshold) {
      fire(tile.mean, thresholds.row(t), silent, spike, tile.size, train);
    } else {
      emit(count, digit, silent, spike, tile.size, train);
    }
    trains.close(t);
  }
}

template <class T>
PCONV_INLINE void run_expanded(const Plan<Call<T>>& plan, const Tile<T>& tile, const Expanded<T>& expanded,
                               int32_t* count) {
  const Call<T>& call = plan.call;
  const int32_t highest = call.layout.highest;
  const bool few = highest <= kFew;
  if (!few) {
    const T* rows = call.thresholds + expanded.first_channel * highest;
    if (plan.even.empty()) {
      count_by_search(tile.mean, rows, expanded.row, highest, tile.size, count);
    } else {
      find_nearest(tile.mean, expanded.even, tile.size, count);
      count_from_nearest(tile.mean, rows, expanded.row, highest, tile.size, count);
    }
  }
  if (call.layout.spikes) {
    emit_expanded(plan, tile, expanded, count);
  } else if (few) {
    const NeuronTable<T> thresholds{expanded.thresholds, Expanded<T>::kStride};
    const NeuronTable<T> levels{expanded.values, Expanded<T>::kStride};
    climb(tile.mean, thresholds, levels, highest, tile.size, call.output + tile.first);
  } else {
    look_up(count, call.levels + expanded.first_channel * (highest + 1), expanded.row, highest, tile.size,
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
    } else if (layout.spikes) {
      emit_channels(plan, tile, count);
    } else {
      average_channels(plan, tile, count);
    }
  }
  if (plan.streamed) end_streaming();
}

/// Empty unless every channel is evenly spaced and has neurons enough to pay for the pass over its thresholds.
template <class T>
std::vector<EvenThresholds> fit_even(const Call<T>& call) {
  const Layout& layout = call.layout;
  std::vector<EvenThresholds> even;
  if (layout.highest <= kFew || layout.elements / layout.channels < layout.highest / 2) return even;
  for (int64_t channel = 0; channel < layout.channels; ++channel) {
    const T* thresholds = call.thresholds + channel * layout.highest;
    even.push_back(EvenThresholds::fit(thresholds, layout.highest));
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
  if (expanded || !layout.by_threshold()) even = fit_even(call);

  const int64_t pattern = expanded ? layout.channels * layout.inner : 1;
  const int64_t widest = expanded ? kExpandedWidth : kWidth;
  period = pattern * std::max(widest / pattern, int64_t{1});
  blocks = ceil_div(period, widest);
  width = ceil_div(period, blocks);
  periods = ceil_div(layout.elements, period);
  periods_per_chunk = std::max(kChunkValues / (width * (layout.input_steps + layout.steps)), int64_t{1});
  chunks = blocks * ceil_div(periods, periods_per_chunk);
}

template <class T>
void run_chunk(const Plan<Call<T>>& plan, int64_t chunk) {
  vectorised([&plan, chunk]() PCONV_INLINE_LAMBDA { run(plan, chunk); });
}

template void run_chunk(const Plan<Call<float>>& plan, int64_t chunk);
template void run_chunk(const Plan<Call<Half>>& plan, int64_t chunk);
template void run_chunk(const Plan<Call<BFloat16>>& plan, int64_t chunk);

template struct Plan<Call<float>>;
template struct Plan<Call<Half>>;
template struct Plan<Call<BFloat16>>;

}  // namespace pconv::cpu
