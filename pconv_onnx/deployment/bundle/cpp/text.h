// Texts that others wrote, as a terminal can be given them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace pconv {

/// The text on one line, cut where it is longer. Bytes that are no letters of ASCII are escaped: a terminal would act on
/// some, and which of the others are letters takes tables.
inline std::string printable(std::string_view text, size_t most) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string told;
  for (const char letter : text) {
    const auto byte = static_cast<unsigned char>(letter);
    const bool space = letter == ' ' || letter == '\n' || letter == '\r' || letter == '\t';
    if (space && (told.empty() || told.back() == ' ')) continue;
    if (told.size() >= most) return told + "...";
    if (space) {
      told += ' ';
    } else if (byte > 0x20 && byte < 0x7f) {
      told += letter;
    } else {
      told += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  while (!told.empty() && told.back() == ' ') told.pop_back();
  return told;
}

/// A name or a path, in quotes.
inline std::string named(std::string_view name) { return "'" + printable(name, 100) + "'"; }

}  // namespace pconv
