// Runs a spiking network through ONNX Runtime's C API: .npy files in, .npy files out.
//
//   run_snn MODEL LIBRARY OUTPUT_FOLDER INPUT.npy...
//
// takes one file an input, in the model's order (manifest.json lists it), and writes OUTPUT_FOLDER/0.npy, 1.npy, ... in
// the order of the outputs; the folder has to be there. Of a serial network a run is one time-step, and some outputs are
// the next step's inputs. With `-` as LIBRARY the network runs through its function bodies, more slowly.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "npy.h"
#include "pconv/ort_abi.h"
#include "text.h"

// What onnxruntime exports.
extern "C" const OrtApiBase* OrtGetApiBase();

namespace abi = pconv::abi;
namespace npy = pconv::npy;
using pconv::named;

namespace {

// In place of a library, where there is none.
const std::string kNone = "-";
const OrtApi* const api = OrtGetApiBase()->GetApi(abi::kVersion);

void check(OrtStatus* status) {
  if (status == nullptr) return;
  const std::string message = abi::GetErrorMessage(api, status);
  abi::ReleaseStatus(api, status);
  throw std::runtime_error(message);
}

/// What the C API creates and wants released.
template <const auto& Release>
struct Releaser {
  template <class T>
  void operator()(T* object) const {
    Release(api, object);
  }
};
template <class T, const auto& Release>
using Owned = std::unique_ptr<T, Releaser<Release>>;
using Value = Owned<OrtValue, abi::ReleaseValue>;

/// What a function of the C API gives through its last argument.
template <class T, class Function, class... Args>
T got(const Function& function, Args... args) {
  T result{};
  check(function(api, args..., &result));
  return result;
}

template <class Count, class Name>
std::vector<std::string> names(const OrtSession* session, const Count& count, const Name& name) {
  auto* allocator = got<OrtAllocator*>(abi::GetAllocatorWithDefaultOptions);
  std::vector<std::string> found;
  for (size_t i = 0, end = got<size_t>(count, session); i < end; ++i) {
    char* text = got<char*>(name, session, i, allocator);
    found.emplace_back(text);
    check(abi::AllocatorFree(api, allocator, text));
  }
  return found;
}

std::vector<const char*> pointers(const std::vector<std::string>& texts) {
  std::vector<const char*> found;
  for (const std::string& text : texts) found.push_back(text.c_str());
  return found;
}

void require_file(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) throw std::runtime_error("there is no file " + named(path));
}

void write(OrtValue* value, const std::string& name, const std::string& path) {
  const std::string told = "the output " + named(name);
  if (value == nullptr) throw std::runtime_error(told + " has no value");
  const Owned<OrtTensorTypeAndShapeInfo, abi::ReleaseTensorTypeAndShapeInfo> info(
      got<OrtTensorTypeAndShapeInfo*>(abi::GetTensorTypeAndShape, static_cast<const OrtValue*>(value)));
  const int type = got<int>(abi::GetTensorElementType, info.get());
  std::vector<int64_t> shape(got<size_t>(abi::GetDimensionsCount, info.get()));
  check(abi::GetDimensions(api, info.get(), shape.data(), shape.size()));
  const auto* element = npy::find_type([&](const npy::ElementType& known) { return known.type == type; });
  if (element == nullptr) throw std::runtime_error(told + " is of a type that NumPy does not have");
  npy::write(path, *element, shape, static_cast<const char*>(got<void*>(abi::GetTensorMutableData, value)));
  std::cout << pconv::printable(name, 100) << ": " << pconv::path_text(path) << "\n";
}

void run(const std::string& model, const std::string& library, const std::string& folder,
         const std::vector<std::string>& paths) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    throw std::runtime_error("there is no folder " + named(folder) + "; make it");
  }
  require_file(model);
  if (library != kNone) require_file(library);
  // What it would log is told by its statuses.
  const Owned<OrtEnv, abi::ReleaseEnv> env(got<OrtEnv*>(abi::CreateEnv, int{abi::kFatal}, "run_snn"));
  const Owned<OrtSessionOptions, abi::ReleaseSessionOptions> options(
      got<OrtSessionOptions*>(abi::CreateSessionOptions));
  if (library != kNone) {
    // The loader looks for a name without a folder elsewhere than here.
    const std::filesystem::path path_of_library = std::filesystem::absolute(library);
    check(abi::RegisterCustomOpsLibrary_V2(api, options.get(), path_of_library.c_str()));
  }
  const Owned<OrtSession, abi::ReleaseSession> session(
      got<OrtSession*>(abi::CreateSession, env.get(), std::filesystem::path(model).c_str(), options.get()));

  const auto inputs = names(session.get(), abi::SessionGetInputCount, abi::SessionGetInputName);
  const auto outputs = names(session.get(), abi::SessionGetOutputCount, abi::SessionGetOutputName);
  if (paths.size() != inputs.size()) {
    std::string wanted;
    for (const std::string& name : inputs) wanted += " " + pconv::printable(name, 100);
    throw std::runtime_error("one .npy file is needed for each input:" + wanted);
  }

  const Owned<OrtMemoryInfo, abi::ReleaseMemoryInfo> memory(
      got<OrtMemoryInfo*>(abi::CreateCpuMemoryInfo, int{abi::kArenaAllocator}, int{abi::kOfProvider}));
  std::vector<npy::Array> arrays;  // the values refer to their bytes
  std::vector<Value> feed;
  std::vector<const OrtValue*> given;
  arrays.reserve(paths.size());
  for (const std::string& path : paths) {
    npy::Array& array = arrays.emplace_back(npy::read(path));
    array.bytes.reserve(1);  // an address, where there are no values
    feed.emplace_back(got<OrtValue*>(
        abi::CreateTensorWithDataAsOrtValue, static_cast<const OrtMemoryInfo*>(memory.get()),
        static_cast<void*>(array.bytes.data()), array.bytes.size(), static_cast<const int64_t*>(array.shape.data()),
        array.shape.size(), array.element->type));
    given.push_back(feed.back().get());
  }

  std::vector<OrtValue*> results(outputs.size());
  check(abi::Run(api, session.get(), nullptr, pointers(inputs).data(), given.data(), given.size(),
                 pointers(outputs).data(), outputs.size(), results.data()));
  const std::vector<Value> values(results.begin(), results.end());
  for (size_t i = 0; i < values.size(); ++i) {
    write(values[i].get(), outputs[i], folder + "/" + std::to_string(i) + ".npy");
  }
  if (!std::cout.flush()) throw std::runtime_error("cannot write to stdout");
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 5) {
    std::cerr << "usage: run_snn MODEL LIBRARY OUTPUT_FOLDER INPUT.npy...\n";
    return 2;
  }
  std::string fault;
  try {
    if (api == nullptr) throw std::runtime_error("this onnxruntime is too old");
    run(arguments[1], arguments[2], arguments[3], {arguments + 4, arguments + count});
    return EXIT_SUCCESS;
  } catch (const std::bad_alloc&) {
    fault = "there is not enough memory";
  } catch (const std::exception& error) {
    fault = error.what();
  }
  std::cerr << "run_snn: " << pconv::printable(fault, 1000) << "\n";
  return EXIT_FAILURE;
}
