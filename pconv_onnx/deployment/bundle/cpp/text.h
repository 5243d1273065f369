// Texts that others wrote, as a terminal can be given them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pconv {

/// A byte in four letters.
inline std::string escaped(char letter) {
  constexpr char kDigits[] = "0123456789abcdef";
  const auto byte = static_cast<unsigned char>(letter);
  return {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
}

/// The text on one line, cut where it is longer. Bytes that are no letters of ASCII are escaped: a terminal would act on
/// some, and which of the others are letters takes tables.
inline std::string printable(std::string_view text, size_t most) {
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
      told += escaped(letter);
    }
  }
  while (!told.empty() && told.back() == ' ') told.pop_back();
  return told;
}

/// How many bytes the character of UTF-8 takes with which a text begins; 0 where it is none, or a control character.
inline size_t character_size(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  if (first < 0x80) return first >= 0x20 && first != 0x7f ? 1 : 0;
  const size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < size) return 0;
  uint32_t code = first & (0xffU >> (size + 1));
  for (const char letter : text.substr(1, size - 1)) {
    const auto byte = static_cast<unsigned char>(letter);
    if ((byte & 0xc0) != 0x80) return 0;
    code = code << 6 | (byte & 0x3fU);
  }
  // No longer than needed; in two bytes there are controls first.
  constexpr uint32_t kLeast[] = {0xa0, 0x800, 0x10000};
  return code < kLeast[size - 2] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0 : size;
}

/// A path as a script finds it: all of it, but for escapes of control characters and of what is not UTF-8.
inline std::string path_text(std::string_view path) {
  std::string told;
  while (!path.empty()) {
    const size_t size = character_size(path);
    told += size > 0 ? std::string(path.substr(0, size)) : escaped(path[0]);
    path.remove_prefix(std::max<size_t>(size, 1));
  }
  return told;
}

/// A name or a path, in quotes.
inline std::string named(std::string_view name) { return "'" + printable(name, 100) + "'"; }

}  // namespace pconv
