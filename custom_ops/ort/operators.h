// Every operator of this library: a declaration and a row each. The file in ort/ with the name of the namespace
// describes it; its kernels are in cpu/ and cuda/.
#pragma once

#include <vector>

#include "ort/operator.h"

namespace pconv::ort {

namespace integer_spike {
std::vector<Operator> operators(const OrtApi* api);
}
namespace parallel_spike {
std::vector<Operator> operators(const OrtApi* api);
}
namespace serial_spike {
std::vector<Operator> operators(const OrtApi* api);
}

inline constexpr std::vector<Operator> (*kOperators[])(const OrtApi*) = {
    integer_spike::operators,
    parallel_spike::operators,
    serial_spike::operators,
};

}  // namespace pconv::ort
