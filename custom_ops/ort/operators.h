// Every operator of this library.
#pragma once

#include <vector>

#include "ort/operator.h"
#include "ort/parallel_spike.h"
#include "ort/serial_spike.h"
#include "pconv/half.h"

namespace pconv::ort {

/// Every operator for every element type. A Provider brings what providers differ in: `kName`, and the arithmetic over
/// memory of its own,
///
///   run(api, context, call)  of a call with at least one element; throws what `guard` makes a status of
template <class Provider>
std::vector<Operator> operators(const OrtApi* api) {
  return {
      operator_of<float, parallel_spike::Node<float, Provider>>(api, Provider::kName),
      operator_of<Half, parallel_spike::Node<Half, Provider>>(api, Provider::kName),
      operator_of<BFloat16, parallel_spike::Node<BFloat16, Provider>>(api, Provider::kName),
      operator_of<float, serial_spike::Node<float, Provider>>(api, Provider::kName),
      operator_of<Half, serial_spike::Node<Half, Provider>>(api, Provider::kName),
      operator_of<BFloat16, serial_spike::Node<BFloat16, Provider>>(api, Provider::kName),
  };
}

}  // namespace pconv::ort
