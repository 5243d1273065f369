// Arrays in .npy files, as NumPy writes them: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
//
// Whatever a file holds, it is read or refused by a std::runtime_error, and takes no more memory than its own size.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <istream>
#include <limits>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "text.h"

namespace pconv::npy {

struct ElementType {
  const char* descr;  ///< of NumPy, little-endian
  int type;           ///< of ONNX
  size_t size;
};
inline constexpr ElementType kTypes[] = {{"<f4", 1, 4}, {"|u1", 2, 1},  {"|i1", 3, 1},  {"<u2", 4, 2},
                                         {"<i2", 5, 2}, {"<i4", 6, 4},  {"<i8", 7, 8},  {"|b1", 9, 1},
                                         {"<f2", 10, 2}, {"<f8", 11, 8}, {"<u4", 12, 4}, {"<u8", 13, 8}};

/// NumPy's most.
inline constexpr size_t kMostAxes = 64;

/// A dense array in C order.
struct Array {
  const ElementType* element;  ///< one of kTypes
  std::vector<int64_t> shape;
  std::vector<char> bytes;
};

template <class Matches>
const ElementType* find_type(Matches matches) {
  for (const ElementType& element : kTypes) {
    if (matches(element)) return &element;
  }
  return nullptr;
}

/// How many bytes an array takes; nothing where that is more than an int64_t can count. No size is negative.
inline std::optional<uint64_t> byte_count(const std::vector<int64_t>& shape, uint64_t element) {
  for (const int64_t size : shape) {
    if (size == 0) return 0;
  }
  for (const int64_t size : shape) {
    if (element > static_cast<uint64_t>(std::numeric_limits<int64_t>::max() / size)) return std::nullopt;
    element *= static_cast<uint64_t>(size);
  }
  return element;
}

/// The header: a dictionary as Python writes it, of `descr`, `fortran_order` and `shape`, each once and in any order.
class Header {
 public:
  explicit Header(std::string_view text) : left_(text) {
    take('{');
    while (!takes('}')) {
      entry();
      if (takes(',')) continue;
      take('}');
      break;
    }
    spaces();
    if (!left_.empty() || !element_ || !ordered_ || !shape_) refuse();
  }

  const ElementType* element() const { return *element_; }
  const std::vector<int64_t>& shape() const { return *shape_; }

 private:
  [[noreturn]] static void refuse() { throw std::runtime_error("its header is not as NumPy writes it"); }

  void spaces() {
    const size_t end = left_.find_first_not_of(" \n");
    left_.remove_prefix(end == std::string_view::npos ? left_.size() : end);
  }

  bool takes(std::string_view token) {
    spaces();
    if (left_.substr(0, token.size()) != token) return false;
    left_.remove_prefix(token.size());
    return true;
  }
  bool takes(char token) { return takes(std::string_view(&token, 1)); }

  void take(char token) {
    if (!takes(token)) refuse();
  }

  std::string_view quoted() {
    take('\'');
    const size_t end = left_.find_first_of("'\\\n");
    if (end == std::string_view::npos || left_[end] != '\'') refuse();
    const std::string_view text = left_.substr(0, end);
    left_.remove_prefix(end + 1);
    return text;
  }

  void entry() {
    const std::string_view key = quoted();
    take(':');
    if (key == "descr" && !element_) {
      element_ = element_type();
    } else if (key == "fortran_order" && !ordered_) {
      take_order();
    } else if (key == "shape" && !shape_) {
      shape_ = sizes();
    } else {
      refuse();
    }
  }

  const ElementType* element_type() {
    if (takes('[')) throw std::runtime_error("its elements are structures, which this program does not read");
    const std::string_view descr = quoted();
    const auto* found = find_type([&](const ElementType& known) { return descr == known.descr; });
    if (found != nullptr) return found;
    std::string known;
    for (const ElementType& element : kTypes) known += std::string(" ") + element.descr;
    throw std::runtime_error("its element type is " + named(descr) + "; this program reads" + known);
  }

  void take_order() {
    if (takes("True")) throw std::runtime_error("it is in Fortran order; save numpy.ascontiguousarray of it");
    if (!takes("False")) refuse();
    ordered_ = true;
  }

  std::vector<int64_t> sizes() {
    std::vector<int64_t> found;
    take('(');
    while (!takes(')')) {
      if (found.size() == kMostAxes) throw std::runtime_error("it has more axes than an array can have");
      found.push_back(size());
      if (takes(',')) continue;
      // One number in parentheses is no tuple.
      if (found.size() == 1) refuse();
      take(')');
      break;
    }
    return found;
  }

  int64_t size() {
    if (takes('-')) throw std::runtime_error("its shape has a negative size");
    spaces();
    const std::string_view digits = left_.substr(0, left_.find_first_not_of("0123456789"));
    if (digits.empty() || (digits[0] == '0' && digits.size() > 1)) refuse();
    left_.remove_prefix(digits.size());
    int64_t number = 0;
    for (const char letter : digits) {
      const int digit = letter - '0';
      if (number > (std::numeric_limits<int64_t>::max() - digit) / 10) {
        throw std::runtime_error("its shape has the size " + printable(digits, 30) + ", which no array has");
      }
      number = 10 * number + digit;
    }
    return number;
  }

  std::string_view left_;
  std::optional<const ElementType*> element_;
  bool ordered_ = false;
  std::optional<std::vector<int64_t>> shape_;
};

/// The array that a stream of so many bytes holds.
inline Array read(std::istream& file, uint64_t bytes) {
  // More than the header of any array takes.
  constexpr uint64_t kMostHeader = 0xffff;
  const auto next = [&](uint64_t count) {
    std::string content(count, '\0');
    if (!file.read(content.data(), static_cast<std::streamsize>(count))) {
      throw std::runtime_error("it is cut short, or cannot be read");
    }
    return content;
  };
  if (bytes < 8 || next(6) != "\x93NUMPY") throw std::runtime_error("it is no .npy file");
  const std::string version = next(2);
  if (version[0] < 1 || version[0] > 3 || version[1] != 0) throw std::runtime_error("its version of .npy is not known");
  // The header's length has two bytes in version 1, four later.
  const size_t width = version[0] == 1 ? 2 : 4;
  uint64_t length = 0, shift = 0;
  for (const char digit : next(width)) {
    length |= static_cast<uint64_t>(static_cast<unsigned char>(digit)) << shift;
    shift += 8;
  }
  if (length > kMostHeader) throw std::runtime_error("its header is longer than that of any array");
  const uint64_t begin = 8 + width + length;
  const std::string text = next(length);
  const Header header(text);
  const std::optional<uint64_t> count = byte_count(header.shape(), header.element()->size);
  if (!count || *count != bytes - begin) {
    throw std::runtime_error("it has " + std::to_string(bytes - begin) + " bytes of values, and its shape takes " +
                             (count ? std::to_string(*count) : "more than there can be"));
  }
  Array array{header.element(), header.shape(), {}};
  array.bytes.resize(*count);
  if (!file.read(array.bytes.data(), static_cast<std::streamsize>(*count))) throw std::runtime_error("it cannot be read");
  return array;
}

/// The array that a file holds.
inline Array read(const std::string& path) {
  try {
    std::error_code error;
    // A pipe would be waited for, and a device may have no end.
    if (!std::filesystem::is_regular_file(path, error)) throw std::runtime_error("it is not there, or is no file");
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    // Of what is open: another writer may have given the name to another file.
    const std::streamoff bytes = file.tellg();
    if (!file.seekg(0) || bytes < 0) throw std::runtime_error("it cannot be opened");
    return read(file, static_cast<uint64_t>(bytes));
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(named(path) + " is not read: " + error.what());
  }
}

/// What NumPy writes before the values of an array.
inline std::string preamble(const ElementType& element, const std::vector<int64_t>& shape) {
  if (shape.size() > kMostAxes) throw std::runtime_error("an array has more axes than NumPy reads");
  std::string header = std::string("{'descr': '") + element.descr + "', 'fortran_order': False, 'shape': (";
  for (const int64_t size : shape) header += std::to_string(size) + ",";
  header += "), }";
  // The values begin at a multiple of 64 bytes.
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  const char length[] = {static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  return std::string("\x93NUMPY\x01\x00", 8).append(length, 2) + header;
}

/// A new file beside one that it is to replace, under a name that no other writer has; removed unless it does.
class Part {
 public:
  explicit Part(const std::string& path) : path_(path) {
    std::random_device random;  // on some systems the same numbers each time, hence more than one try
    for (int tries = 0; file_ == nullptr && tries < 100; ++tries) {
      name_ = path + "." + std::to_string(random()) + std::to_string(random()) + ".part";
      errno = 0;
      file_ = std::fopen(name_.c_str(), "wbx");
      if (file_ == nullptr && errno != EEXIST) break;
    }
    made_ = file_ != nullptr;
  }
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;
  ~Part() {
    close();
    std::error_code error;
    if (made_) std::filesystem::remove(name_, error);
  }

  bool write(const char* bytes, size_t count) {
    if (file_ == nullptr) return false;
    return count == 0 || std::fwrite(bytes, 1, count, file_) == count;  // of no bytes there may be no address
  }

  bool replace() {
    std::error_code error;
    if (!close()) return false;
    std::filesystem::rename(name_, path_, error);
    made_ = static_cast<bool>(error);
    return !error;
  }

 private:
  bool close() {
    std::FILE* const file = file_;
    file_ = nullptr;
    return file != nullptr && std::fclose(file) == 0;
  }

  std::string path_, name_;
  std::FILE* file_ = nullptr;
  bool made_ = false;
};

/// Write an array as NumPy would, into a file that appears whole or not at all; `data` are the bytes its shape takes.
inline void write(const std::string& path, const ElementType& element, const std::vector<int64_t>& shape,
                  const char* data) {
  const std::string head = preamble(element, shape);
  Part part(path);
  const bool written = part.write(head.data(), head.size()) && part.write(data, *byte_count(shape, element.size));
  if (!written || !part.replace()) throw std::runtime_error("cannot write " + named(path));
}

}  // namespace pconv::npy
