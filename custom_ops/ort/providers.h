// Operators for every provider of this library.
#pragma once

#include <vector>

#include "cpu/provider.h"
#ifdef PCONV_CUDA
#include "cuda/provider.h"
#endif
#include "ort/operator.h"
#include "ort/tensor.h"
#include "pconv/half.h"

namespace pconv::ort {

/// What operators over floats take.
using Floats = Types<float, Half, BFloat16>;

/// The operator whose nodes are `Node<T, Provider>`s, for each of the types T and each provider. A Provider has a
/// `kName`, and the arithmetic over memory of its own:
///
///   run(api, context, call)  of a call with at least one element; throws what `guard` makes a status of
///
/// Node belongs to a namespace with a name: gcc 12 takes templates of one name in the unnamed namespaces of two files
/// for one, and registers one operator twice.
template <template <class T, class Provider> class Node, class... T>
std::vector<Operator> operators_of(const OrtApi* api, Types<T...>) {
  return {
      operator_of<Node<T, cpu::Provider>>(api, cpu::Provider::kName)...,
#ifdef PCONV_CUDA
      operator_of<Node<T, cuda::Provider>>(api, cuda::Provider::kName)...,
#endif
  };
}

}  // namespace pconv::ort
