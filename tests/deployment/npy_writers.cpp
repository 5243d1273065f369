// Writers of one .npy file and a reader at the same time: each array that is read is one writer's, and no write fails.
//
//   npy_writers PATH
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "npy.h"

namespace npy = pconv::npy;

int main(int, char** arguments) {
  const std::string path = arguments[1];
  constexpr size_t kWriters = 4, kTimes = 50, kMost = 1 << 20;
  std::atomic<size_t> faults = 0, writing = kWriters, read = 0;
  const auto counted = [&](const auto& function) {
    try {
      function();
    } catch (const std::exception& error) {
      std::cerr << error.what() << std::endl;
      ++faults;
    }
  };
  // Of a size of its own for each writer.
  const auto write = [&](size_t writer) {
    const std::vector<char> values(kMost >> writer, static_cast<char>(writer));
    const npy::ElementType* bytes = npy::find_type([](const npy::ElementType& known) { return known.type == 2; });
    npy::write(path, *bytes, {static_cast<int64_t>(values.size())}, values.data());
  };
  write(0);
  std::vector<std::thread> threads;
  for (size_t writer = 0; writer < kWriters; ++writer) {
    threads.emplace_back([&, writer] {
      for (size_t time = 0; time < kTimes; ++time) counted([&] { write(writer); });
      --writing;
    });
  }
  while (writing > 0) {
    counted([&] {
      const std::vector<char> values = npy::read(path).bytes;
      const char writer = values.at(0);
      const bool whole = values.size() == kMost >> writer;
      if (!whole || std::count(values.begin(), values.end(), writer) != static_cast<int64_t>(values.size())) {
        throw std::runtime_error("an array is read that none has written");
      }
      ++read;
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::cout << read << " arrays read\n";
  return faults > 0 ? 1 : 0;
}
