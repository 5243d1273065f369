// Time axes of integer layers. Sums are linear: trains are summed to what they are worth before a layer, which then
// runs once, and the spike counts behind it become trains again.
#pragma once

#include <cstdint>

#include "pconv/integer_layer.h"

namespace pconv::cpu {

/// Steps of trains, `stride` values apart.
struct Steps {
  int64_t number;
  Coding coding;
  int64_t stride;
};

/// What trains are worth, as the bytes of it that planes hold, the lowest first and `plane` bytes apart.
void sum_to_bytes(const uint8_t* trains, const Steps& steps, int64_t size, int64_t planes, int64_t plane, uint8_t* to);

/// The same modulo 2³².
void sum_to_ints(const uint8_t* trains, const Steps& steps, int64_t size, int32_t* to);
void sum_to_ints(const int32_t* trains, const Steps& steps, int64_t size, int32_t* to);

/// The trains of spike counts, whose steps are `stride` bytes apart.
void emit_trains(const uint8_t* counts, const Train& train, int64_t size, uint8_t* to, int64_t stride);

}  // namespace pconv::cpu
