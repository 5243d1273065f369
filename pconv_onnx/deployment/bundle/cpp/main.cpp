// Runs a spiking network through ONNX Runtime's C API: .npy files in, .npy files out.
//
//   run_snn MODEL LIBRARY OUTPUT_FOLDER INPUT.npy...
//
// takes one file an input, in the model's order (manifest.json lists it), and writes OUTPUT_FOLDER/0.npy, 1.npy, ... in
// the order of the outputs; the folder has to be there. Of a serial network a run is one time-step, and some outputs are
// the next step's inputs.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <regex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "pconv/ort_abi.h"

// What onnxruntime exports.
extern "C" const OrtApiBase* OrtGetApiBase();

namespace abi = pconv::abi;

namespace {

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

/// A dense array as in a .npy file.
struct Array {
  int type;  ///< of ONNX
  std::vector<int64_t> shape;
  std::vector<char> bytes;
};

struct ElementType {
  const char* descr;  ///< of NumPy, little-endian
  int type;           ///< of ONNX
  size_t size;
};
constexpr ElementType kTypes[] = {{"<f4", 1, 4}, {"|u1", 2, 1}, {"|i1", 3, 1},   {"<u2", 4, 2},
                                  {"<i2", 5, 2}, {"<i4", 6, 4}, {"<i8", 7, 8},   {"|b1", 9, 1},
                                  {"<f2", 10, 2}, {"<f8", 11, 8}, {"<u4", 12, 4}, {"<u8", 13, 8}};

template <class Matches>
const ElementType& element_type(Matches matches) {
  for (const ElementType& element : kTypes) {
    if (matches(element)) return element;
  }
  throw std::runtime_error("an element type that this program does not know");
}

size_t byte_count(const std::vector<int64_t>& shape, size_t element) {
  for (const int64_t size : shape) element *= static_cast<size_t>(size);
  return element;
}

Array read_npy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(file), {}};
  if (content.size() < 12 || content.compare(0, 6, "\x93NUMPY") != 0) {
    throw std::runtime_error(path + " cannot be read, or is no .npy file");
  }
  // The header's length has two bytes in version 1, four later; it begins after them.
  const size_t width = content[6] == 1 ? 2 : 4;
  size_t length = 0;
  for (size_t i = 0; i < width; ++i) length |= static_cast<size_t>(static_cast<uint8_t>(content[8 + i])) << (8 * i);
  const std::string header = content.substr(8 + width, length);
  std::smatch descr, shape;
  if (!std::regex_search(header, descr, std::regex("'descr': '([^']*)'")) ||
      !std::regex_search(header, shape, std::regex("'shape': \\(([^)]*)\\)")) ||
      header.find("'fortran_order': False") == std::string::npos) {
    throw std::runtime_error(path + " is no plain array in C order");
  }
  const ElementType& element = element_type([&](const ElementType& known) { return descr[1] == known.descr; });
  Array array{element.type, {}, {}};
  const std::string sizes = shape[1];
  const std::regex number("\\d+");
  for (std::sregex_iterator match(sizes.begin(), sizes.end(), number), end; match != end; ++match) {
    array.shape.push_back(std::stoll(match->str()));
  }
  const size_t count = byte_count(array.shape, element.size);
  if (content.size() != 8 + width + length + count) throw std::runtime_error(path + " is cut short");
  array.bytes.assign(content.end() - static_cast<std::ptrdiff_t>(count), content.end());
  return array;
}

void write_npy(const std::string& path, const ElementType& element, const std::vector<int64_t>& shape,
               const char* data) {
  std::string header = std::string("{'descr': '") + element.descr + "', 'fortran_order': False, 'shape': (";
  for (const int64_t size : shape) header += std::to_string(size) + ",";
  header += "), }";
  // The data begin at a multiple of 64 bytes.
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  std::ofstream file(path, std::ios::binary);
  file.write("\x93NUMPY\x01\x00", 8);
  file.put(static_cast<char>(header.size() & 0xff)).put(static_cast<char>(header.size() >> 8));
  file.write(header.data(), static_cast<std::streamsize>(header.size()));
  file.write(data, static_cast<std::streamsize>(byte_count(shape, element.size)));
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

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

void run(const std::string& model, const std::string& library, const std::string& folder,
         const std::vector<std::string>& paths) {
  if (!std::filesystem::is_directory(folder)) throw std::runtime_error("there is no folder " + folder + "; make it");
  const Owned<OrtEnv, abi::ReleaseEnv> env(got<OrtEnv*>(abi::CreateEnv, int{abi::kWarning}, "run_snn"));
  const Owned<OrtSessionOptions, abi::ReleaseSessionOptions> options(
      got<OrtSessionOptions*>(abi::CreateSessionOptions));
  // The loader looks for a name without a folder elsewhere than here. The library stays loaded as long as the program
  // runs.
  const std::string path_of_library = std::filesystem::absolute(library).string();
  got<void*>(abi::RegisterCustomOpsLibrary, options.get(), path_of_library.c_str());
  const Owned<OrtSession, abi::ReleaseSession> session(
      got<OrtSession*>(abi::CreateSession, env.get(), model.c_str(), options.get()));

  const auto inputs = names(session.get(), abi::SessionGetInputCount, abi::SessionGetInputName);
  const auto outputs = names(session.get(), abi::SessionGetOutputCount, abi::SessionGetOutputName);
  if (paths.size() != inputs.size()) {
    std::string wanted;
    for (const std::string& name : inputs) wanted += " " + name;
    throw std::runtime_error("one .npy file is needed for each input:" + wanted);
  }

  const Owned<OrtMemoryInfo, abi::ReleaseMemoryInfo> memory(
      got<OrtMemoryInfo*>(abi::CreateCpuMemoryInfo, int{abi::kArenaAllocator}, int{abi::kOfProvider}));
  std::vector<Array> arrays;  // the values refer to their bytes
  std::vector<Value> feed;
  std::vector<const OrtValue*> given;
  arrays.reserve(paths.size());
  for (const std::string& path : paths) {
    Array& array = arrays.emplace_back(read_npy(path));
    feed.emplace_back(got<OrtValue*>(abi::CreateTensorWithDataAsOrtValue,
                                     static_cast<const OrtMemoryInfo*>(memory.get()),
                                     static_cast<void*>(array.bytes.data()), array.bytes.size(),
                                     static_cast<const int64_t*>(array.shape.data()), array.shape.size(), array.type));
    given.push_back(feed.back().get());
  }

  std::vector<OrtValue*> results(outputs.size());
  check(abi::Run(api, session.get(), nullptr, pointers(inputs).data(), given.data(), given.size(),
                 pointers(outputs).data(), outputs.size(), results.data()));
  for (size_t i = 0; i < results.size(); ++i) {
    const Value value(results[i]);
    const Owned<OrtTensorTypeAndShapeInfo, abi::ReleaseTensorTypeAndShapeInfo> info(
        got<OrtTensorTypeAndShapeInfo*>(abi::GetTensorTypeAndShape, value.get()));
    const int type = got<int>(abi::GetTensorElementType, info.get());
    std::vector<int64_t> shape(got<size_t>(abi::GetDimensionsCount, info.get()));
    check(abi::GetDimensions(api, info.get(), shape.data(), shape.size()));
    const ElementType& element = element_type([&](const ElementType& known) { return known.type == type; });
    const std::string path = folder + "/" + std::to_string(i) + ".npy";
    write_npy(path, element, shape, static_cast<const char*>(got<void*>(abi::GetTensorMutableData, value.get())));
    std::cout << outputs[i] << ": " << path << "\n";
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 5) {
    std::cerr << "usage: run_snn MODEL LIBRARY OUTPUT_FOLDER INPUT.npy...\n";
    return 2;
  }
  try {
    if (api == nullptr) throw std::runtime_error("this onnxruntime is too old");
    run(arguments[1], arguments[2], arguments[3], {arguments + 4, arguments + count});
    return EXIT_SUCCESS;
  } catch (const std::exception& error) {
    std::cerr << "run_snn: " << error.what() << "\n";
    return EXIT_FAILURE;
  }
}
