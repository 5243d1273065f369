// The library of the domain "pconv".
#include <vector>

#include "ort/domain.h"
#include "ort/operators.h"

namespace {

using pconv::ort::Operator;

std::vector<Operator> operators(const OrtApi* api) {
  std::vector<Operator> all;
  for (const auto row : pconv::ort::kOperators) {
    for (const Operator& op : row(api)) all.push_back(op);
  }
  return all;
}

}  // namespace

extern "C" PCONV_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  return pconv::ort::add_domain(options, base, "pconv", operators);
}
