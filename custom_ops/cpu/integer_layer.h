// Layers of integer weights on the CPU: prepared once, called on images.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "cpu/aligned.h"
#include "cpu/integer_kernels.h"
#include "cpu/integer_neurons.h"
#include "cpu/integer_rests.h"
#include "cpu/integer_time.h"
#include "cpu/plan.h"
#include "pconv/integer_layer.h"

namespace pconv::cpu {

class Layer {
 public:
  /// `residual` is what there may be to add, before its zero is subtracted.
  Layer(const LayerShape& shape, const LayerTables& tables, const Interval& residual);
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  const LayerShape shape;
  const bool is_depthwise;
  const Kernels* kernels;
  // In the order of positions.
  Aligned<int8_t> weights;
  Aligned<int32_t> bias;           ///< with what `zero` amounts to
  Aligned<int32_t> residual_bias;  ///< and `residual_zero`, for a residual of the output's shape
  Aligned<int32_t> factor;         ///< empty where all are 1
  Aligned<int32_t> multiplier;
  std::optional<Neurons> neurons;
  // Counts in time may be worth more than a byte holds. Each byte of them is a plane, convolved by itself.
  int64_t planes;
  std::vector<Aligned<int32_t>> plane_factors;  ///< of those above the lowest
  Aligned<int32_t> zeros, ones;                 ///< as many; empty where there is one plane
  Dense dense{};          ///< either one
  Depthwise depthwise{};

 private:
  void pack_dense(const int8_t* weights);
  void pack_depthwise(const int8_t* weights);
  void add_position(int64_t output, int64_t place);
  void choose_kernels();
  /// Makes weights small enough for the kernels, unless that takes more rests than they allow.
  bool leave_rests(const Limits& limits);
  void add_tables(const LayerTables& tables, const Interval& residual);

  std::vector<int64_t> outputs_;  ///< of each position, or -1
  std::vector<int64_t> stored_;   ///< where the counts of each position come among those of all
  std::vector<int64_t> first_rests_;
  std::vector<Rest> rests_;
  Aligned<int8_t> rest_weights_;
};

/// A call on at least one image of at least one pixel and output.
struct LayerCall {
  const Layer* layer;
  int64_t images;  ///< of a time-step
  Extent size;
  const uint8_t* counts;
  const uint8_t* residual_counts;  ///< of the output's shape, or in time; either one or none
  const int32_t* residual_sums;
  int32_t shared;  ///< what is added, times the multipliers, where there is no residual
  uint8_t* spikes;  ///< either one
  int32_t* sums;
};

template <>
struct Plan<LayerCall> {
  explicit Plan(const LayerCall& call);

  LayerCall call;
  bool pointwise; ///< windows are single pixels, and all images one row of them
  Extent size;    ///< of the images
  Extent output;
  int64_t images;
  bool direct;    ///< windows lie in the input itself
  int64_t rows;   ///< of a chunk, or pixels where there is one row
  int64_t row_chunks;
  int64_t blocks; ///< of a chunk
  int64_t block_chunks;
  int64_t chunks;
  Aligned<int32_t> bias;         ///< where `shared` is not 0
  std::vector<uint8_t> nothing;  ///< a pixel of padding in each plane
  Steps input_steps;
  Steps residual_steps;
  int64_t output_size;  ///< of a time-step
  Epilogue epilogue;
};

void run_chunk(const Plan<LayerCall>& plan, int64_t chunk);

/// Neurons on sums in memory.
struct SpikeCall {
  const Kernels* kernels;
  const Neurons* neurons;
  int64_t pixels;
  int64_t outputs;
  const int32_t* sums;
  uint8_t* spikes;
  Train train;
};

template <>
struct Plan<SpikeCall> {
  explicit Plan(const SpikeCall& call);

  SpikeCall call;
  int64_t pixels;  ///< of a chunk
  int64_t chunks;
};

void run_chunk(const Plan<SpikeCall>& plan, int64_t chunk);

/// The neurons of a SpikeCall: of every output, or of one block that all share.
Neurons spike_neurons(const Kernels& kernels, const Thresholds& thresholds);

}  // namespace pconv::cpu
