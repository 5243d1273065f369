// One time-step of integrate-and-fire neurons: a call after its inputs were checked, and the arithmetic of one neuron,
// the same for every provider (docs/SerialSpike-1.md, Semantics).
#pragma once

#include <cstdint>

#include "pconv/portable.h"

namespace pconv {

/// A dense array of `elements` neurons; neuron `m` belongs to channel `(m / inner) % channels`.
struct SerialLayout {
  int64_t elements;  ///< batch included
  int64_t channels;  ///< R: rows of the tables
  int64_t inner;     ///< consecutive neurons that share a channel
};

/// A call on dense arrays in the memory of the provider. Outputs may be inputs of the same size.
template <class T>
struct SerialCall {
  SerialLayout layout;
  const T* current;    ///< [elements]
  const T* potential;  ///< [elements]
  const T* bias;       ///< [channels]
  const T* threshold;  ///< [channels]
  const T* reset;      ///< [channels]
  const T* levels;     ///< [channels, 2]
  T* spikes;           ///< [elements]
  T* new_potential;    ///< [elements]
};

/// The potential of a neuron that has taken its current.
PCONV_HD PCONV_INLINE float charged(float potential, float current, float bias) { return potential + (current + bias); }

/// What a spike, if there was one, leaves of it. Nothing taken from a number leaves its bits, those of -0 too; without
/// a subtraction under a condition, loops over this vectorise.
PCONV_HD PCONV_INLINE float left_of(float charge, bool fired, float reset) { return charge - (fired ? reset : 0.0F); }

}  // namespace pconv
