// Text helpers that need no torch header.
#pragma once

#include <cstdint>
#include <string>

namespace tv {

inline std::string text(const char* p, int64_t n) {
  return n > 0 ? std::string(p, static_cast<size_t>(n)) : std::string();
}

// Replaces bytes that are not UTF-8 by U+FFFD, so that Go and JSON can hold the text.
std::string valid_utf8(const std::string& s);

// s as the inside of a JSON string.
__attribute__((visibility("default"))) std::string json_escape(const std::string& s);

}  // namespace tv
