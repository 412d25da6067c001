#pragma once

// JSON from strangers: strict, bounded in depth and in nodes, linear in time. Not a general JSON
// library: it reads, and what it reads is small but for a few long strings.

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace triptych::services {

struct JsonValue;
struct JsonNull {};
using JsonArray = std::vector<JsonValue>;
using JsonObject = std::vector<std::pair<std::string, JsonValue>>;

// A number without fraction and exponent that fits is an int64 or, above that, a uint64.
struct JsonValue {
  std::variant<JsonNull, bool, int64_t, uint64_t, double, std::string, JsonArray, JsonObject> value;

  template <typename T>
  const T* As() const {
    return std::get_if<T>(&value);
  }
  template <typename T>
  T* As() {
    return std::get_if<T>(&value);
  }
  bool is_null() const { return value.index() == 0; }
  // Of an object; null when it is another type or has no such key. Linear in the keys, which the
  // bound on nodes and the duplicate check keep few.
  const JsonValue* Find(absl::string_view key) const;
  JsonValue* Find(absl::string_view key);
};

struct JsonLimits {
  int max_depth = 32;
  int max_nodes = 200'000;  // values and keys
};

// INVALID_ARGUMENT `invalid_json`: syntax, bytes after the end, a key twice in one object, bytes
// that are not UTF-8, a number that no double holds, or a limit exceeded.
absl::StatusOr<JsonValue> ParseJson(absl::string_view text, const JsonLimits& limits = {});

}  // namespace triptych::services
