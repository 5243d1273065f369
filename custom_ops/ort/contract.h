// What nodes of every operator promise: attributes of a type, and tables whose rows run along channels.
#pragma once

#include <cstdint>
#include <string>

#include "ort/tensor.h"
#include "pconv/ort_abi.h"

namespace pconv::ort {

/// Throws std::invalid_argument with the name of the operator in front.
[[noreturn]] void refuse(const char* op, const std::string& what);

/// "[2, 3]".
std::string text(const Shape& shape);

/// An attribute of a node. Refuses where it is missing or of another type.
int64_t read_int(const OrtApi* api, const OrtKernelInfo* info, const char* op, const char* name);

/// Of dimensions that a tensor has: without a zero among them they multiply to its size, with one anything might.
int64_t product(Shape::const_iterator begin, Shape::const_iterator end);

/// The axis of 'current' along which several rows of an input `table` run. Refuses where there are other than `rows`
/// channels. Axis 0 holds time and batch, never channels.
size_t channel_axis(const char* op, int64_t attribute, const Shape& current, const char* table, int64_t rows);

}  // namespace pconv::ort
