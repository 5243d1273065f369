#include "cpu/serial_spike.h"

#include <algorithm>

#include "cpu/loops.h"
#include "cpu/stretch.h"
#include "cpu/vectorised.h"

namespace pconv::cpu {
namespace {

/// One column of `levels`, for as many channels in a row.
template <class T>
struct Column {
  const T* entries;
  PCONV_INLINE T operator[](int64_t channel) const { return entries[2 * channel]; }
};

/// Neurons from `first` on, whose rows of the tables are given.
template <class T, class Value, class Level>
PCONV_INLINE void step(const SerialCall<T>& call, int64_t first, int64_t size, Value bias, Value threshold, Value reset,
                       Level silent, Level firing) {
  const T* const current = call.current + first;
  const T* const potential = call.potential + first;
  T* const spikes = call.spikes + first;
  T* const new_potential = call.new_potential + first;
  PCONV_INDEPENDENT
  for (int64_t i = 0; i < size; ++i) {
    const float charge = charged(potential[i], current[i], bias[i]);
    const bool fired = fires<float>(charge, threshold[i]);
    spikes[i] = choose(fired, firing[i], silent[i]);
    new_potential[i] = static_cast<T>(left_of(charge, fired, reset[i]));
  }
}

template <class T>
PCONV_INLINE void run(const SerialCall<T>& call, int64_t chunk) {
  const SerialLayout& layout = call.layout;
  const int64_t first = chunk * kSerialChunk;
  const int64_t size = std::min(kSerialChunk, layout.elements - first);
  if (layout.channels > 1 && layout.inner == 1) {
    // All channels lie side by side, and so do their rows.
    for (int64_t begin = 0, end; begin < size; begin = end) {
      const int64_t channel = (first + begin) % layout.channels;
      end = std::min(size, begin + layout.channels - channel);
      const T* const levels = call.levels + 2 * channel;
      step(call, first + begin, end - begin, call.bias + channel, call.threshold + channel, call.reset + channel,
           Column<T>{levels}, Column<T>{levels + 1});
    }
    return;
  }
  for (Stretch stretch(layout, first, size); stretch.more(); stretch.next()) {
    const auto same = [&](const T* table, int64_t row) { return Same<T>{table[row]}; };
    const int64_t channel = stretch.channel;
    step(call, first + stretch.begin, stretch.end - stretch.begin, same(call.bias, channel),
         same(call.threshold, channel), same(call.reset, channel), same(call.levels, 2 * channel),
         same(call.levels, 2 * channel + 1));
  }
}

}  // namespace

template <class T>
void run_chunk(const Plan<SerialCall<T>>& plan, int64_t chunk) {
  vectorised([&plan, chunk]() PCONV_INLINE_LAMBDA { run(plan.call, chunk); });
}

template void run_chunk(const Plan<SerialCall<float>>& plan, int64_t chunk);
template void run_chunk(const Plan<SerialCall<Half>>& plan, int64_t chunk);
template void run_chunk(const Plan<SerialCall<BFloat16>>& plan, int64_t chunk);

}  // namespace pconv::cpu
