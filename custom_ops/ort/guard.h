// Errors between onnxruntime's statuses and C++ exceptions: no exception crosses the ABI, and no status is lost.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>

#include "pconv/ort_abi.h"

namespace pconv::ort {

/// A status that onnxruntime returned, on its way back to onnxruntime.
struct StatusError {
  OrtStatus* status;
};

inline void check(OrtStatus* status) {
  if (status != nullptr) throw StatusError{status};
}

/// Runs `body`; what it throws becomes the status that is returned. std::invalid_argument is an error of the model or
/// of its user.
template <class Body>
OrtStatus* guard(const OrtApi* api, Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const StatusError& error) {
    return error.status;
  } catch (const std::invalid_argument& error) {
    return abi::CreateStatus(api, abi::kInvalidArgument, error.what());
  } catch (const std::exception& error) {
    return abi::CreateStatus(api, abi::kFail, error.what());
  } catch (...) {
    return abi::CreateStatus(api, abi::kFail, "pconv: unknown error");
  }
}

/// Runs `body`, for an operator whose name is put before what it throws.
template <class Body>
void named(const char* op, Body&& body) {
  const auto told = [op](const std::exception& error) { return std::string(op) + ": " + error.what(); };
  try {
    body();
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(told(error));
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(told(error));
  }
}

}  // namespace pconv::ort
