// The loops over a tile of neurons, each written so that compilers vectorise it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "pconv/coding.h"
#include "pconv/neuron.h"

namespace pconv::cpu {

/// A row that holds one value for every neuron of the tile. Where neurons differ, a row is a pointer.
template <class T>
struct Same {
  T value;
  PCONV_INLINE T operator[](int64_t) const { return value; }
};

/// The rows of a table for one channel: row t is entry t.
template <class T>
struct ChannelTable {
  const T* entries;
  PCONV_INLINE Same<T> row(int32_t t) const { return {entries[t]}; }
};

/// The rows of a table laid out per neuron.
template <class T>
struct NeuronTable {
  const T* entries;
  int64_t stride;
  PCONV_INLINE const T* row(int32_t t) const { return entries + t * stride; }
};

/// A choice between values that are both loaded: a load under a condition would keep a loop from being vectorised, and
/// so would a choice between structs.
PCONV_INLINE float choose(bool condition, float yes, float no) { return condition ? yes : no; }
template <class T>
PCONV_INLINE T choose(bool condition, T yes, T no) {
  T chosen;
  chosen.bits = condition ? yes.bits : no.bits;
  return chosen;
}

/// The temporal means of `current` [input_steps, stride].
///
/// A few neurons at a time see all their steps, so that the sums stay in registers or near them, and memory is read as
/// `input_steps` streams.
template <class T>
PCONV_INLINE void average(const T* __restrict current, int64_t stride, int64_t input_steps, int64_t size,
                          T* __restrict mean) {
  constexpr int64_t kBlock = 64;
  const TimeSumOf<T> steps = static_cast<TimeSumOf<T>>(input_steps);
  alignas(64) TimeSumOf<T> sum[kBlock];
  for (int64_t begin = 0; begin < size; begin += kBlock) {
    const int64_t block = std::min(kBlock, size - begin);
    const T* row = current + begin;
    for (int64_t i = 0; i < block; ++i) sum[i] = row[i];
    for (int64_t t = 1; t < input_steps; ++t) {
      row += stride;
      for (int64_t i = 0; i < block; ++i) sum[i] += row[i];
    }
    for (int64_t i = 0; i < block; ++i) mean[begin + i] = temporal_mean<T>(sum[i], steps);
  }
}

/// One time-step of the spike trains.
template <class T, class Threshold, class Level>
PCONV_INLINE void fire(const T* __restrict mean, Threshold threshold, Level silent, Level firing, int64_t size,
                       T* __restrict train) {
  for (int64_t i = 0; i < size; ++i) train[i] = choose(fires(mean[i], threshold[i]), firing[i], silent[i]);
}

/// Spike counts to their offsets from that of silence, in place.
PCONV_INLINE void offset_counts(int32_t zero, int64_t size, int32_t* __restrict count) {
  for (int64_t i = 0; i < size; ++i) count[i] = static_cast<int32_t>(offset_of(count[i], zero));
}

/// One time-step of the spike trains, from offsets of spike counts.
template <class T, class Level>
PCONV_INLINE void emit(const int32_t* __restrict offset, const Digit& digit, Level silent, Level spike, int64_t size,
                       T* __restrict train) {
  for (int64_t i = 0; i < size; ++i) {
    const uint32_t own = static_cast<uint32_t>(offset[i]);
    train[i] = choose(digit.is_set(own), signed_spike<T>(own, spike[i]), silent[i]);
  }
}

constexpr int32_t kFlight = 8;  // thresholds for each load and store of a level

/// Takes neurons over kFlight thresholds from the one of step t on: the last that is reached leaves its level.
template <bool kFirst, class T, class Thresholds, class Levels>
PCONV_INLINE void climb_flight(const T* __restrict mean, Thresholds thresholds, Levels levels, int32_t t, int32_t last,
                               int64_t size, T* __restrict level) {
  decltype(thresholds.row(0)) threshold[kFlight];
  decltype(levels.row(0)) reached_level[kFlight];
  for (int32_t j = 0; j < kFlight; ++j) {
    const int32_t step = std::min(t + j, last);  // passing the last one again changes nothing
    threshold[j] = thresholds.row(step);
    reached_level[j] = levels.row(step + 1);
  }
  const auto silent = levels.row(0);
  for (int64_t i = 0; i < size; ++i) {
    T reached = kFirst ? silent[i] : level[i];
    for (int32_t j = 0; j < kFlight; ++j) {
      reached = choose(fires(mean[i], threshold[j][i]), reached_level[j][i], reached);
    }
    level[i] = reached;
  }
}

/// The level of each spike count, by passing every threshold.
template <class T, class Thresholds, class Levels>
PCONV_INLINE void climb(const T* mean, Thresholds thresholds, Levels levels, int32_t highest, int64_t size, T* level) {
  climb_flight<true>(mean, thresholds, levels, 0, highest - 1, size, level);
  for (int32_t t = kFlight; t < highest; t += kFlight) {
    climb_flight<false>(mean, thresholds, levels, t, highest - 1, size, level);
  }
}

/// Spike counts, by passing every threshold.
template <class T, class Thresholds>
PCONV_INLINE void count_by_passing(const T* __restrict mean, Thresholds thresholds, int32_t highest, int64_t size,
                                   int32_t* __restrict count) {
  std::fill(count, count + size, 0);
  for (int32_t k = 0; k < highest; ++k) {
    const auto threshold = thresholds.row(k);
    for (int64_t i = 0; i < size; ++i) count[i] += fires(mean[i], threshold[i]);
  }
}

/// Keeps a loop with look-ups by `index` scalar: gathers, which compilers put together from single loads, are slower.
PCONV_INLINE int32_t scalar(int32_t index) {
#if defined(__GNUC__)
  asm("" : "+r"(index));
#endif
  return index;
}

/// The nearest threshold of each neuron, for the two loops that follow.
template <class T, class Even>
PCONV_INLINE void find_nearest(const T* __restrict mean, Even even, int64_t size, int32_t* __restrict nearest) {
  for (int64_t i = 0; i < size; ++i) nearest[i] = even[i].nearest(mean[i]);
}

/// Spike counts from nearest thresholds, in place; the thresholds of neuron i begin at entry `row[i] * highest`.
template <class T, class Row>
PCONV_INLINE void count_from_nearest(const T* __restrict mean, const T* __restrict thresholds, Row row, int32_t highest,
                                     int64_t size, int32_t* __restrict count) {
  for (int64_t i = 0; i < size; ++i) {
    const int32_t nearest = scalar(count[i]);
    count[i] = nearest + fires(mean[i], thresholds[row[i] * highest + nearest]);
  }
}

/// The level of each spike count from nearest thresholds; those of neuron i begin at entry `row[i] * (highest + 1)`.
template <class T, class Row>
PCONV_INLINE void look_up_from_nearest(const T* __restrict mean, const int32_t* __restrict nearest,
                                       const T* __restrict thresholds, const T* __restrict levels, Row row,
                                       int32_t highest, int64_t size, T* __restrict level) {
  for (int64_t i = 0; i < size; ++i) {
    const int32_t k = scalar(nearest[i]);
    level[i] = levels[row[i] * (highest + 1) + k + fires(mean[i], thresholds[row[i] * highest + k])];
  }
}

/// Spike counts over any thresholds; those of neuron i begin at entry `row[i] * highest`.
template <class T, class Row>
PCONV_INLINE void count_by_search(const T* __restrict mean, const T* __restrict thresholds, Row row, int32_t highest,
                                  int64_t size, int32_t* __restrict count) {
  std::fill(count, count + size, 0);
  for (int32_t left = highest; left > 1; left -= left / 2) {
    for (int64_t i = 0; i < size; ++i) {
      count[i] = search_half(mean[i], thresholds + row[i] * highest, count[i], left / 2);
    }
  }
  for (int64_t i = 0; i < size; ++i) count[i] += fires(mean[i], thresholds[row[i] * highest + count[i]]);
}

/// The level of each spike count; the levels of neuron i begin at entry `row[i] * (highest + 1)`.
template <class T, class Row>
PCONV_INLINE void look_up(const int32_t* __restrict count, const T* __restrict levels, Row row, int32_t highest,
                          int64_t size, T* __restrict level) {
  for (int64_t i = 0; i < size; ++i) level[i] = levels[row[i] * (highest + 1) + count[i]];
}

}  // namespace pconv::cpu
