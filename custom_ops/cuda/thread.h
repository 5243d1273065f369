// What one CUDA thread does, and how a call is cut into threads. No CUDA in it but the marks: tests run every thread of
// a call on the CPU (tests/threads.cpp).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "pconv/layout.h"
#include "pconv/neuron.h"

namespace pconv::cuda {

constexpr int32_t kThreads = 128;  // of a block
constexpr int64_t kMaxBlocks = 0x7fffffff;
// The widest access to memory that a thread has, and the alignment that it needs.
constexpr int32_t kVectorBytes = 16;
// Rows of currents, or thresholds, that a thread asks for before it waits for one.
constexpr int32_t kFlight = 4;
// Steps up to which thresholds, which the neurons of a channel share, are passed one by one rather than searched.
constexpr int32_t kFewSteps = 32;

/// How a call is cut into threads: each takes `width` consecutive neurons, all steps of them, and then those of the
/// same place in the next round, as long as there are any.
struct Grid {
  int32_t width;
  bool one_channel;  ///< neurons of one thread belong to one channel
  int64_t blocks;
};

/// The grid for arrays of one or more time-steps that begin at these addresses.
template <class T, class AnyLayout>
Grid grid_of(const AnyLayout& layout, std::initializer_list<const T*> arrays) {
  constexpr int32_t kWidest = kVectorBytes / static_cast<int32_t>(sizeof(T));
  // A row begins where the one before it ends.
  bool aligned = layout.elements % kWidest == 0;
  for (const T* array : arrays) aligned &= reinterpret_cast<uintptr_t>(array) % kVectorBytes == 0;
  const int32_t width = aligned ? kWidest : 1;
  const bool one_channel = layout.channels == 1 || layout.inner % width == 0;
  const int64_t threads = layout.elements / width;
  return {width, one_channel, std::min((threads - 1) / kThreads + 1, kMaxBlocks)};
}

template <class T>
Grid grid_of(const Call<T>& call) {
  return grid_of(call.layout, {call.current, static_cast<const T*>(call.output)});
}

/// Calls `use` with the width and whether there is one channel as constants.
template <class T, class Use>
auto with_constants(const Grid& grid, Use&& use) {
  using Widest = std::integral_constant<int32_t, kVectorBytes / static_cast<int32_t>(sizeof(T))>;
  if (grid.width == 1) return use(std::integral_constant<int32_t, 1>{}, std::true_type{});
  return grid.one_channel ? use(Widest{}, std::true_type{}) : use(Widest{}, std::false_type{});
}

template <class Integer>
PCONV_HD PCONV_INLINE Integer at_most(Integer value, Integer limit) {
  return value < limit ? value : limit;
}

/// Neighbours in memory, moved by one instruction.
template <class T, int32_t kWidth>
struct alignas(kWidth * sizeof(T)) Vector {
  T at[kWidth];
};

template <int32_t kWidth, class T>
PCONV_HD PCONV_INLINE Vector<T, kWidth> load(const T* from) {
  return *reinterpret_cast<const Vector<T, kWidth>*>(from);
}

template <class T, int32_t kWidth>
PCONV_HD PCONV_INLINE void store(const Vector<T, kWidth>& vector, T* to) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(vector) == sizeof(uint4)) {
    // An ordinary store of elements that were computed one by one is taken apart by the compiler.
    uint4 packed;
    std::memcpy(&packed, &vector, sizeof(packed));
    __stwb(reinterpret_cast<uint4*>(to), packed);
    return;
  }
#endif
  *reinterpret_cast<Vector<T, kWidth>*>(to) = vector;
}

/// The channels of consecutive neurons.
template <int32_t kRows>
struct Channels {
  int64_t at[kRows];

  template <class AnyLayout>
  PCONV_HD PCONV_INLINE Channels(const AnyLayout& layout, int64_t first) {
    if (layout.channels == 1) {
      PCONV_UNROLL
      for (int32_t i = 0; i < kRows; ++i) at[i] = 0;
      return;
    }
    int64_t channel = first / layout.inner % layout.channels;
    int64_t place = first % layout.inner;
    PCONV_UNROLL
    for (int32_t i = 0; i < kRows; ++i) {
      at[i] = channel;
      if (++place < layout.inner) continue;
      place = 0;
      channel = channel + 1 < layout.channels ? channel + 1 : 0;
    }
  }
};

/// The temporal means of consecutive neurons. As float, which holds every element type: half types compare slowly.
template <int32_t kWidth, class T>
PCONV_HD PCONV_INLINE void average(const T* current, int64_t stride, int64_t input_steps, float (&mean)[kWidth]) {
  if (input_steps == 1) {
    const Vector<T, kWidth> row = load<kWidth>(current);
    PCONV_UNROLL
    for (int32_t i = 0; i < kWidth; ++i) mean[i] = row.at[i];
    return;
  }
  TimeSumOf<T> sum[kWidth] = {};
  for (int64_t t = 0; t < input_steps; t += kFlight) {
    Vector<T, kWidth> row[kFlight];
    PCONV_UNROLL
    for (int32_t j = 0; j < kFlight; ++j) {
      // Past the end the last one again: without a branch, and from the cache.
      row[j] = load<kWidth>(current + at_most(t + j, input_steps - 1) * stride);
    }
    PCONV_UNROLL
    for (int32_t j = 0; j < kFlight; ++j) {
      PCONV_UNROLL
      for (int32_t i = 0; i < kWidth; ++i) sum[i] = t + j < input_steps ? sum[i] + row[j].at[i] : sum[i];
    }
  }
  PCONV_UNROLL
  for (int32_t i = 0; i < kWidth; ++i) mean[i] = temporal_mean<T>(sum[i], static_cast<TimeSumOf<T>>(input_steps));
}

/// The spike trains of consecutive neurons, whose rows of the tables are those of `channels`.
template <int32_t kWidth, int32_t kRows, class T>
PCONV_HD PCONV_INLINE void fire(const float (&mean)[kWidth], const Channels<kRows>& channels, const Call<T>& call,
                                T* output) {
  const int32_t steps = call.layout.steps;
  const T* thresholds[kRows];
  T silent[kRows];
  T firing[kRows];
  PCONV_UNROLL
  for (int32_t i = 0; i < kRows; ++i) {
    const T* levels = call.levels + channels.at[i] * (steps + 1);
    thresholds[i] = call.thresholds + channels.at[i] * steps;
    silent[i] = levels[0];
    firing[i] = levels[steps];
  }
  for (int32_t t = 0; t < steps; t += kFlight) {
    // All loaded before the first store, which later loads would have to wait for.
    float threshold[kFlight][kRows];
    PCONV_UNROLL
    for (int32_t j = 0; j < kFlight; ++j) {
      PCONV_UNROLL
      for (int32_t i = 0; i < kRows; ++i) threshold[j][i] = thresholds[i][at_most(t + j, steps - 1)];
    }
    PCONV_UNROLL
    for (int32_t j = 0; j < kFlight; ++j) {
      Vector<T, kWidth> train;
      PCONV_UNROLL
      for (int32_t i = 0; i < kWidth; ++i) {
        const int32_t row = i % kRows;
        train.at[i] = fires(mean[i], threshold[j][row]) ? firing[row] : silent[row];
      }
      if (t + j < steps) store(train, output + (t + j) * call.layout.elements);
    }
  }
}

/// The levels that consecutive neurons reach, likewise.
template <int32_t kWidth, int32_t kRows, class T>
PCONV_HD PCONV_INLINE void climb(const float (&mean)[kWidth], const Channels<kRows>& channels, const Call<T>& call,
                                 T* output) {
  const int32_t steps = call.layout.steps;
  const T* thresholds[kRows];
  PCONV_UNROLL
  for (int32_t i = 0; i < kRows; ++i) thresholds[i] = call.thresholds + channels.at[i] * steps;
  int32_t count[kWidth] = {};
  if (kRows == 1 && steps <= kFewSteps) {
    for (int32_t t = 0; t < steps; ++t) {
      const float threshold = thresholds[0][t];
      PCONV_UNROLL
      for (int32_t i = 0; i < kWidth; ++i) count[i] += fires(mean[i], threshold);
    }
  } else {
    for (int32_t left = steps; left > 1; left -= left / 2) {
      PCONV_UNROLL
      for (int32_t i = 0; i < kWidth; ++i) count[i] = search_half(mean[i], thresholds[i % kRows], count[i], left / 2);
    }
    PCONV_UNROLL
    for (int32_t i = 0; i < kWidth; ++i) count[i] += fires<float>(mean[i], thresholds[i % kRows][count[i]]);
  }
  Vector<T, kWidth> level;
  PCONV_UNROLL
  for (int32_t i = 0; i < kWidth; ++i) {
    level.at[i] = call.levels[channels.at[i % kRows] * (steps + 1) + count[i]];
  }
  store(level, output);
}

/// The work of one of `threads` threads. It reads all steps of a neuron before it writes one, and no other thread has
/// that neuron: the output may take the place of the current.
template <int32_t kWidth, bool kOneChannel, class T>
PCONV_HD PCONV_INLINE void run_thread(const Call<T>& call, int64_t thread, int64_t threads) {
  const Layout& layout = call.layout;
  for (int64_t first = thread * kWidth; first < layout.elements; first += threads * kWidth) {
    float mean[kWidth];
    average(call.current + first, layout.elements, layout.input_steps, mean);
    const Channels<kOneChannel ? 1 : kWidth> channels(layout, first);
    if (layout.spikes) {
      fire(mean, channels, call, call.output + first);
    } else {
      climb(mean, channels, call, call.output + first);
    }
  }
}

}  // namespace pconv::cuda
