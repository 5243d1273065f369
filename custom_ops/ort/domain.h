// The one symbol that a library of operators exports, RegisterCustomOps, in all but name.
#pragma once

#include <vector>

#include "ort/operator.h"
#include "pconv/ort_abi.h"

#ifdef _WIN32
#define PCONV_EXPORT __declspec(dllexport)
#else
#define PCONV_EXPORT __attribute__((visibility("default")))
#endif

namespace pconv::ort {

/// Adds the domain of this library, which has one, to a session's options: its name, and its operators for a runtime.
OrtStatus* add_domain(OrtSessionOptions* options, const OrtApiBase* base, const char* name,
                      std::vector<Operator> (*operators)(const OrtApi*));

}  // namespace pconv::ort
