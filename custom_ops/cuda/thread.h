// What one CUDA thread does, and how a call is cut into threads. No CUDA in it but the marks: tests run every thread of
// a call on the CPU (tests/threads.cpp).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "pconv/coding.h"
#include "pconv/half.h"
#include "pconv/layout.h"
#include "pconv/neuron.h"

namespace pconv::cuda {

constexpr int32_t kThreads = 128;  // of a block
constexpr int64_t kMaxBlocks = 0x7fffffff;
// The widest access to memory that a thread has, and the alignment that it needs.
constexpr int32_t kVectorBytes = 16;
// Rows of currents, or thresholds, that a thread asks for before it waits for one. As many as narrow vectors have
// registers for, where there are as many rows.
constexpr int32_t kFlight = 8;
template <int32_t kWidth>
constexpr int32_t kLongFlight = 32 / kWidth;
// Up to so many thresholds, which the neurons of a channel share, are passed one by one rather than searched.
constexpr int32_t kFewThresholds = 32;
// Fewer threads leave much of a GPU idle: then more of them, of narrow vectors, ask for more at once.
constexpr int64_t kFewThreads = int64_t{1} << 15;

/// How a call is cut into threads: each takes `width` consecutive neurons, all steps of them, and then those of the
/// same place in the next round, as long as there are any.
struct Grid {
  int32_t width;
  bool one_channel;  ///< neurons of one thread belong to one channel
  bool averages;     ///< currents are averaged over time
  int64_t blocks;
};

/// The grid for arrays of one or more time-steps that begin at these addresses; `few` is `kFewThreads` but in tests.
template <class T, class AnyLayout>
Grid grid_of(const AnyLayout& layout, std::initializer_list<const T*> arrays, bool averages, int64_t few) {
  constexpr int32_t kWidest = kVectorBytes / static_cast<int32_t>(sizeof(T));
  // A row begins where the one before it ends.
  bool aligned = layout.elements % kWidest == 0;
  for (const T* array : arrays) aligned &= reinterpret_cast<uintptr_t>(array) % kVectorBytes == 0;
  const int32_t width = aligned && layout.elements / kWidest >= few ? kWidest : 1;
  const bool one_channel = layout.channels == 1 || layout.inner % width == 0;
  const int64_t threads = layout.elements / width;
  return {width, one_channel, averages, std::min((threads - 1) / kThreads + 1, kMaxBlocks)};
}

template <class T>
Grid grid_of(const Call<T>& call, int64_t few = kFewThreads) {
  return grid_of<T>(call.layout, {call.current, call.output}, call.layout.input_steps > 1, few);
}

/// Calls `use` with the width and the two answers of the grid as constants.
template <class T, class Use>
auto with_constants(const Grid& grid, Use&& use) {
  const auto with_averages = [&](auto width, auto one_channel) {
    return grid.averages ? use(width, one_channel, std::true_type{}) : use(width, one_channel, std::false_type{});
  };
  using Widest = std::integral_constant<int32_t, kVectorBytes / static_cast<int32_t>(sizeof(T))>;
  if (grid.width == 1) return with_averages(std::integral_constant<int32_t, 1>{}, std::true_type{});
  return grid.one_channel ? with_averages(Widest{}, std::true_type{}) : with_averages(Widest{}, std::false_type{});
}

template <class Integer>
PCONV_HD PCONV_INLINE constexpr Integer at_most(Integer value, Integer limit) {
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

/// The same for each of consecutive neurons.
template <int32_t kWidth, class T>
PCONV_HD PCONV_INLINE Vector<T, kWidth> filled(T value) {
  Vector<T, kWidth> vector;
  PCONV_UNROLL
  for (int32_t i = 0; i < kWidth; ++i) vector.at[i] = value;
  return vector;
}

/// The temporal means of consecutive neurons.
template <int32_t kWidth, class T>
PCONV_HD PCONV_INLINE Vector<T, kWidth> average(const T* current, int64_t stride, int64_t input_steps) {
  TimeSumOf<T> sum[kWidth] = {};
  const auto add = [&](auto rows, int64_t left) {
    constexpr int32_t kRows = decltype(rows)::value;
    Vector<T, kWidth> row[kRows];
    // Past the end the last one again: without a branch, and from the cache.
    PCONV_UNROLL
    for (int32_t j = 0; j < kRows; ++j) row[j] = load<kWidth>(current + at_most<int64_t>(j, left - 1) * stride);
    PCONV_UNROLL
    for (int32_t j = 0; j < kRows; ++j) {
      PCONV_UNROLL
      for (int32_t i = 0; i < kWidth; ++i) sum[i] = j < left ? sum[i] + row[j].at[i] : sum[i];
    }
    current += kRows * stride;
  };
  using Long = std::integral_constant<int32_t, kLongFlight<kWidth>>;
  using Short = std::integral_constant<int32_t, at_most(kFlight, Long::value)>;
  int64_t left = input_steps;
  for (; left >= Long::value; left -= Long::value) add(Long{}, Long::value);
  for (; left > 0; left -= Short::value) add(Short{}, left);
  Vector<T, kWidth> mean;
  PCONV_UNROLL
  for (int32_t i = 0; i < kWidth; ++i) {
    mean.at[i] = temporal_mean<T>(sum[i], static_cast<TimeSumOf<T>>(input_steps));
  }
  return mean;
}

/// Where consecutive neurons of one channel reach a threshold `yes`, elsewhere what `no` has there.
template <int32_t kWidth, class T>
PCONV_HD PCONV_INLINE Vector<T, kWidth> choose(const Vector<T, kWidth>& mean, T threshold, T yes,
                                               const Vector<T, kWidth>& no) {
  Vector<T, kWidth> chosen;
  if constexpr (kWidth > 1 && sizeof(T) == sizeof(uint16_t)) {
    uint32_t means[kWidth / 2];
    uint32_t pairs[kWidth / 2];
    std::memcpy(means, &mean, sizeof(means));
    std::memcpy(pairs, &no, sizeof(pairs));
    PCONV_UNROLL
    for (int32_t i = 0; i < kWidth / 2; ++i) {
      const uint32_t reached = pairs_at_least<T>(means[i], pair_of(threshold));
      pairs[i] = (reached & pair_of(yes)) | (~reached & pairs[i]);
    }
    std::memcpy(&chosen, pairs, sizeof(pairs));
  } else {
    PCONV_UNROLL
    for (int32_t i = 0; i < kWidth; ++i) chosen.at[i] = fires<float>(mean.at[i], threshold) ? yes : no.at[i];
  }
  return chosen;
}

/// Calls `use` for the steps in order, up to `kMost` at once: with the first, and how many they are as a constant.
template <int32_t kMost, class Use>
PCONV_HD PCONV_INLINE void in_flights(int32_t steps, Use&& use) {
  int32_t t = 0;
  for (; t + kMost <= steps; t += kMost) use(t, std::integral_constant<int32_t, kMost>{});
  for (; t + kMost / 2 <= steps; t += kMost / 2) use(t, std::integral_constant<int32_t, kMost / 2>{});
  for (; t < steps; ++t) use(t, std::integral_constant<int32_t, 1>{});
}

/// The spike trains of consecutive neurons that fire by threshold, whose rows of the tables are those of `channels`.
template <int32_t kWidth, int32_t kRows, class T>
PCONV_HD PCONV_INLINE void fire(const Vector<T, kWidth>& mean, const Channels<kRows>& channels, const Call<T>& call,
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
  in_flights<kRows == 1 ? kFlight : kFlight / 2>(steps, [&](int32_t first, auto flight) {
    constexpr int32_t kSteps = decltype(flight)::value;
    // All loaded before the first store, which later loads would have to wait for.
    T threshold[kSteps][kRows];
    PCONV_UNROLL
    for (int32_t j = 0; j < kSteps; ++j) {
      PCONV_UNROLL
      for (int32_t i = 0; i < kRows; ++i) threshold[j][i] = thresholds[i][first + j];
    }
    PCONV_UNROLL
    for (int32_t j = 0; j < kSteps; ++j) {
      Vector<T, kWidth> train;
      if constexpr (kRows == 1) {
        train = choose(mean, threshold[j][0], firing[0], filled<kWidth>(silent[0]));
      } else {
        PCONV_UNROLL
        for (int32_t i = 0; i < kWidth; ++i) {
          train.at[i] = fires<float>(mean.at[i], threshold[j][i]) ? firing[i] : silent[i];
        }
      }
      store(train, output);
      output += call.layout.elements;
    }
  });
}

/// The levels that consecutive neurons of one channel reach, each threshold compared.
template <int32_t kWidth, class T>
PCONV_HD PCONV_INLINE Vector<T, kWidth> climb(const Vector<T, kWidth>& mean, const T* thresholds, const T* levels,
                                              int32_t highest) {
  Vector<T, kWidth> level = filled<kWidth>(levels[0]);
  in_flights<kFlight>(highest, [&](int32_t first, auto flight) {
    constexpr int32_t kSteps = decltype(flight)::value;
    T threshold[kSteps];
    T next[kSteps];
    PCONV_UNROLL
    for (int32_t j = 0; j < kSteps; ++j) {
      threshold[j] = thresholds[first + j];
      next[j] = levels[first + j + 1];
    }
    // Thresholds rise: the last one that is reached has the level.
    PCONV_UNROLL
    for (int32_t j = 0; j < kSteps; ++j) level = choose(mean, threshold[j], next[j], level);
  });
  return level;
}

/// The spike counts of consecutive neurons, their thresholds searched.
template <int32_t kWidth, int32_t kRows, class T>
PCONV_HD PCONV_INLINE void search(const Vector<T, kWidth>& mean, const Channels<kRows>& channels, const Call<T>& call,
                                  int32_t (&count)[kWidth]) {
  const int32_t highest = call.layout.highest;
  const T* thresholds[kRows];
  PCONV_UNROLL
  for (int32_t i = 0; i < kRows; ++i) thresholds[i] = call.thresholds + channels.at[i] * highest;
  PCONV_UNROLL
  for (int32_t i = 0; i < kWidth; ++i) count[i] = 0;
  // As float, which holds every element type: half types compare slowly.
  for (int32_t left = highest; left > 1; left -= left / 2) {
    PCONV_UNROLL
    for (int32_t i = 0; i < kWidth; ++i) {
      count[i] = search_half<float>(mean.at[i], thresholds[i % kRows], count[i], left / 2);
    }
  }
  PCONV_UNROLL
  for (int32_t i = 0; i < kWidth; ++i) count[i] += fires<float>(mean.at[i], thresholds[i % kRows][count[i]]);
}

/// The levels of consecutive neurons.
template <int32_t kWidth, int32_t kRows, class T>
PCONV_HD PCONV_INLINE Vector<T, kWidth> look_up(const Vector<T, kWidth>& mean, const Channels<kRows>& channels,
                                                const Call<T>& call) {
  int32_t count[kWidth];
  search(mean, channels, call, count);
  Vector<T, kWidth> level;
  PCONV_UNROLL
  for (int32_t i = 0; i < kWidth; ++i) {
    level.at[i] = call.levels[channels.at[i % kRows] * (call.layout.highest + 1) + count[i]];
  }
  return level;
}

/// The spike trains of consecutive neurons in any coding.
template <int32_t kWidth, int32_t kRows, class T>
PCONV_HD PCONV_INLINE void emit(const Vector<T, kWidth>& mean, const Channels<kRows>& channels, const Call<T>& call,
                                T* output) {
  const Layout& layout = call.layout;
  int32_t count[kWidth];
  search(mean, channels, call, count);
  uint32_t offset[kWidth];
  PCONV_UNROLL
  for (int32_t i = 0; i < kWidth; ++i) offset[i] = offset_of(count[i], layout.zero);
  const T* levels[kRows];
  T silent[kRows];
  PCONV_UNROLL
  for (int32_t i = 0; i < kRows; ++i) {
    levels[i] = call.levels + channels.at[i] * (layout.highest + 1);
    silent[i] = levels[i][layout.zero];
  }
  in_flights<kFlight / 2>(layout.steps, [&](int32_t first, auto flight) {
    constexpr int32_t kSteps = decltype(flight)::value;
    // All loaded before the first store, which later loads would have to wait for.
    T spike[kSteps][kRows];
    PCONV_UNROLL
    for (int32_t j = 0; j < kSteps; ++j) {
      const Digit digit = digit_of(layout, first + j);
      PCONV_UNROLL
      for (int32_t i = 0; i < kRows; ++i) spike[j][i] = spike_of(layout, digit, levels[i]);
    }
    PCONV_UNROLL
    for (int32_t j = 0; j < kSteps; ++j) {
      const Digit digit = digit_of(layout, first + j);
      Vector<T, kWidth> train;
      PCONV_UNROLL
      for (int32_t i = 0; i < kWidth; ++i) {
        train.at[i] = digit.is_set(offset[i]) ? signed_spike(offset[i], spike[j][i % kRows]) : silent[i % kRows];
      }
      store(train, output);
      output += layout.elements;
    }
  });
}

/// The work of one of `threads` threads. It reads all steps of a neuron before it writes one, and no other thread has
/// that neuron: the output may take the place of the current.
template <int32_t kWidth, bool kOneChannel, bool kAverages, class T>
PCONV_HD PCONV_INLINE void run_thread(const Call<T>& call, int64_t thread, int64_t threads) {
  const Layout& layout = call.layout;
  for (int64_t first = thread * kWidth; first < layout.elements; first += threads * kWidth) {
    const T* current = call.current + first;
    Vector<T, kWidth> mean;
    if constexpr (kAverages) {
      mean = average<kWidth>(current, layout.elements, layout.input_steps);
    } else {
      mean = load<kWidth>(current);
    }
    const Channels<kOneChannel ? 1 : kWidth> channels(layout, first);
    if (layout.by_threshold()) {
      fire(mean, channels, call, call.output + first);
    } else if (layout.spikes) {
      emit(mean, channels, call, call.output + first);
    } else if (kOneChannel && layout.highest <= kFewThresholds) {
      const int64_t channel = channels.at[0];
      store(climb(mean, call.thresholds + channel * layout.highest, call.levels + channel * (layout.highest + 1),
                  layout.highest),
            call.output + first);
    } else {
      store(look_up(mean, channels, call), call.output + first);
    }
  }
}

}  // namespace pconv::cuda
