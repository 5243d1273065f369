// What nodes of every operator promise: attributes of a type, shapes that fit, tables whose rows run along channels. A
// broken promise throws std::invalid_argument, and `named` puts the operator in front.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ort/tensor.h"
#include "pconv/ort_abi.h"

namespace pconv::ort {

[[noreturn]] void refuse(const std::string& what);

/// "[2, 3]".
std::string text(const Shape& shape);

/// An attribute of a node. Refuses where it is missing or of another type.
int64_t read_int(const OrtApi* api, const OrtKernelInfo* info, const char* name);

/// An attribute of a node, a list of so many. Refuses where it is missing or of another type or length.
std::vector<int64_t> read_ints(const OrtApi* api, const OrtKernelInfo* info, const char* name, size_t size);

/// Refuses a value outside of a range; `why` is what the range follows from.
void require_range(const char* attribute, int64_t value, int64_t least, int64_t most, const std::string& why = "");

/// An attribute that is 0 where the node does not have it. Refuses another type.
int64_t read_optional_int(const OrtApi* api, const OrtKernelInfo* info, const char* name);

/// An input by the name that the specification has for it.
struct Input {
  const char* name;
  const Shape& shape;
};

/// Refuses an input that does not have the shape which follows from that of `other`.
void require_shape(const Input& input, const Shape& expected, const Input& other);

/// Refuses a scalar, which has no first axis.
void require_axis(const Input& input);

/// Of the dimensions of a tensor from an axis on: without a zero among them they multiply to a size, with one anything
/// might.
int64_t product(const Shape& shape, size_t from = 0);

/// How many consecutive ones of `neurons` share a row of an input `table`: all where there is one row, or else those of
/// a channel of 'current'. Refuses where 'channel_axis' has other than `rows` channels. Axis 0 holds time and batch,
/// never channels.
int64_t neurons_per_row(const Shape& current, int64_t neurons, int64_t channel_axis, const char* table, int64_t rows);

}  // namespace pconv::ort
