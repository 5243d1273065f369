// Seeded random .npy files for the reader of the C++ program: what is right is read, what is wrong refused in one line.
//
//   npy_fuzzing SECONDS [FIRST_SEED]
//
// Built with sanitizers, which end it at a fault in memory or arithmetic. Each seed makes the same file again.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "npy.h"

namespace npy = pconv::npy;

namespace {

using Random = std::mt19937_64;

size_t below(Random& random, size_t end) { return random() % end; }

template <class Choices>
auto pick(Random& random, const Choices& choices) {
  return std::data(choices)[below(random, std::size(choices))];
}

/// An array, with what a file of it holds.
struct Case {
  npy::Array array;
  std::string file;
  bool right;  ///< whether it must be read; else it must be refused
};

npy::Array any_array(Random& random) {
  npy::Array array{&npy::kTypes[below(random, std::size(npy::kTypes))], {}, {}};
  const size_t axes = random() % 50 == 0 ? npy::kMostAxes : below(random, 5);
  for (size_t axis = 0; axis < axes; ++axis) {
    array.shape.push_back(axes > 5 ? 1 : static_cast<int64_t>(below(random, 5)));
  }
  array.bytes.resize(npy::byte_count(array.shape, array.element->size).value());
  for (char& byte : array.bytes) byte = static_cast<char>(random());
  return array;
}

std::string gap(Random& random) { return std::string(random() % 4 == 0 ? below(random, 4) : 0, ' '); }

/// A shape as Python may write it.
std::string shape_text(Random& random, const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (const int64_t size : shape) text += gap(random) + std::to_string(size) + gap(random) + ",";
  if (shape.size() > 1 && random() % 2 == 0) text.pop_back();
  return text + gap(random) + ")";
}

/// The text of a value that no plain array has.
std::string wrong_value(Random& random, const std::string& key) {
  static const std::string descr[] = {
      "'>f4'", "'|O'", "'<c8'", "'<U5'", "'|V8'", "'<M8[s]'", "[('a', '<f4')]", "'f4'", "'<f4", "<f4", "''", "'<f4\\'",
      "\"<f4\"", "'\x1b[31m'", "5", "('<f4', (2,))"};
  static const std::string order[] = {"True", "false", "0", "None", "'False'", "Fals", "", "FalseTrue"};
  static const std::string shape[] = {
      "(-2, 3)", "(3)", "3", "[3]", "(3, -1)", "(-0,)", "(1.0,)", "(1e3,)", "(03,)", "(0x3,)", "(3L,)", "(,)", "(3,,)",
      "(3 3)", "((3,),)", "(9223372036854775808,)", "(18446744073709551619,)", "(4294967296, 4294967296)",
      "(2305843009213693952, 8)", "(True,)", "(", ")", "None", "(" + std::string(5000, '9') + ",)",
      std::string(20000, '(')};
  if (key == "descr") return pick(random, descr);
  if (key == "fortran_order") return pick(random, order);
  if (random() % 8 != 0) return pick(random, shape);
  std::string many = "(";
  for (size_t axis = 0; axis <= npy::kMostAxes + below(random, 9000); ++axis) many += "1,";
  return many + ")";
}

std::string bytes_of(uint64_t number, size_t width) {
  std::string text;
  for (size_t i = 0; i < width; ++i) text += static_cast<char>(number >> (8 * i));
  return text;
}

/// A file whose parts are each right, or but for one of them.
Case of_structure(Random& random) {
  const npy::Array array = any_array(random);
  std::vector<std::pair<std::string, std::string>> entries = {
      {"descr", std::string("'") + array.element->descr + "'"},
      {"fortran_order", "False"},
      {"shape", shape_text(random, array.shape)}};
  // Of the kinds of faults here, from 1; there is none from 12.
  const size_t fault = 1 + below(random, 22);
  if (fault < 6) {
    auto& [key, value] = entries[below(random, 3)];
    value = wrong_value(random, key);
  }
  if (fault == 6) entries.erase(entries.begin() + static_cast<std::ptrdiff_t>(below(random, 3)));
  if (fault == 7) entries.push_back(entries[below(random, 3)]);
  if (fault == 8) entries[below(random, 3)].first += pick(random, std::vector<std::string>{"x", " ", "\\", "\n", "'"});
  std::shuffle(entries.begin(), entries.end(), random);
  std::string header = gap(random) + "{";
  for (const auto& [key, value] : entries) {
    header += gap(random) + "'" + key + "'" + gap(random) + ":" + gap(random) + value + gap(random) + ",";
  }
  if (random() % 2 == 0) header.pop_back();
  header += gap(random) + "}" + gap(random);
  if (fault == 9) header += pick(random, std::vector<std::string>{"}", "x", ",", std::string(1, '\0'), "{}"});
  header += std::string(below(random, 70), ' ') + "\n";
  const auto version = static_cast<char>(1 + below(random, 3));
  const size_t width = version == 1 ? 2 : 4;
  std::string file = std::string("\x93NUMPY") + version + '\0' + bytes_of(header.size(), width) + header;
  file.append(array.bytes.begin(), array.bytes.end());
  if (fault == 10) file.resize(below(random, file.size()));
  if (fault == 11) file += std::string(1 + below(random, 3), '\0');
  return {array, file, fault >= 12};
}

std::string file_of(const npy::Array& array) {
  return npy::preamble(*array.element, array.shape) + std::string(array.bytes.begin(), array.bytes.end());
}

/// A file that was written, with bytes changed; whether it is right is not known.
std::string of_bytes(Random& random) {
  std::string file = file_of(any_array(random));
  for (size_t change = 1 + below(random, 4); change > 0; --change) {
    const size_t place = below(random, file.size() + 1), count = below(random, 20);
    switch (below(random, 5)) {
      case 0:
        if (place < file.size()) file[place] = static_cast<char>(random());
        break;
      case 1:
        file.erase(place, count);
        break;
      case 2:
        file.insert(place, file.substr(below(random, file.size() + 1), count));
        break;
      case 3:
        file.insert(place, count, pick(random, std::string("0123456789-(),'{} \n\\\xff")));
        break;
      default:
        if (place < file.size()) file[place] = pick(random, std::string("\0\x01\x7f\x80\xff'(){},:-09", 15));
    }
  }
  return file;
}

bool same(const npy::Array& one, const npy::Array& other) {
  return one.element == other.element && one.shape == other.shape && one.bytes == other.bytes;
}

npy::Array read(const std::string& file) {
  std::istringstream stream(file);
  return npy::read(stream, file.size());
}

/// Whether a file is read; what is read must be whole, and the same once written.
bool is_read(const std::string& file, npy::Array& array) {
  try {
    array = read(file);
  } catch (const std::runtime_error& error) {
    if (pconv::printable(error.what(), 1000) != error.what()) throw std::logic_error("a refusal is not one line");
    return false;
  }
  if (!same(read(file_of(array)), array)) throw std::logic_error("it is another one once written");
  return true;
}

/// Whether the file of a seed is read.
bool attempt(uint64_t seed) {
  Random random(seed);
  npy::Array found;
  if (seed % 2 == 0) return is_read(of_bytes(random), found);
  const Case made = of_structure(random);
  const bool taken = is_read(made.file, found);
  if (taken != made.right) throw std::logic_error(taken ? "it is read, and wrong" : "it is right, and refused");
  if (taken && !same(found, made.array)) throw std::logic_error("another array is read");
  return taken;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) return 2;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::atoi(arguments[1]));
  const uint64_t first = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 0;
  uint64_t seed = first, taken = 0;
  for (; std::chrono::steady_clock::now() < end; ++seed) {
    try {
      taken += attempt(seed) ? 1 : 0;
    } catch (const std::exception& error) {
      std::cerr << "seed " << seed << ": " << error.what() << "\n";
      return EXIT_FAILURE;
    }
  }
  std::cout << seed - first << " files from seed " << first << ", " << taken << " read and the others refused\n";
  return EXIT_SUCCESS;
}
