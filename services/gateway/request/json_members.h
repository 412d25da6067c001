#pragma once

// Members of a JSON object by type. A refusal says what came and what is wanted, and names the
// member.

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/gateway/request/errors.h"
#include "services/gateway/request/json.h"

namespace triptych::services {

// What a value is, as a sentence calls it.
inline const char* NameOfType(const JsonValue& value) {
  constexpr const char* kNames[] = {"null",     "a boolean", "an integer", "an integer",
                                    "a number", "a string",  "a list",     "an object"};
  return kNames[value.value.index()];
}

template <typename T>
constexpr const char* NameOfType() {
  if constexpr (std::is_same_v<T, bool>) return "a boolean";
  if constexpr (std::is_same_v<T, int64_t>) return "an integer";
  if constexpr (std::is_same_v<T, double>) return "a number";
  if constexpr (std::is_same_v<T, std::string>) return "a string";
  if constexpr (std::is_same_v<T, JsonArray>) return "a list";
  return "an object";
}

inline absl::Status WrongType(absl::string_view key, const JsonValue& came,
                              absl::string_view wanted) {
  return At(key, Refuse("invalid_request",
                        absl::StrCat(key, " is ", wanted, ", not ", NameOfType(came))));
}

inline absl::Status Missing(absl::string_view key) {
  return At(key, Refuse("invalid_request", absl::StrCat(key, " is missing")));
}

// A number with or without fraction, of the member `key`.
inline absl::Status ReadNumber(absl::string_view key, const JsonValue& value, double* to) {
  if (const auto* real = value.As<double>()) {
    *to = *real;
  } else if (const auto* integer = value.As<int64_t>()) {
    *to = static_cast<double>(*integer);
  } else {
    return WrongType(key, value, "a number");
  }
  return absl::OkStatus();
}

// Absent and null members leave `*to` as it is. Borrows the object.
class Members {
 public:
  explicit Members(JsonValue& object) : object_(object) {}

  // Null when it is absent or null.
  JsonValue* Find(absl::string_view key) const {
    JsonValue* member = object_.Find(key);
    return member == nullptr || member->is_null() ? nullptr : member;
  }

  // Takes the value out of the object. INVALID_ARGUMENT for another type.
  template <typename T>
  absl::Status Read(absl::string_view key, T* to) const {
    JsonValue* member = Find(key);
    if (member == nullptr) return absl::OkStatus();
    T* value = member->As<T>();
    if (value == nullptr) return WrongType(key, *member, NameOfType<T>());
    *to = std::move(*value);
    return absl::OkStatus();
  }

  absl::Status ReadNumber(absl::string_view key, double* to) const {
    const JsonValue* member = Find(key);
    return member == nullptr ? absl::OkStatus() : services::ReadNumber(key, *member, to);
  }

  // A list of values of one type.
  template <typename T>
  absl::Status ReadList(absl::string_view key, std::vector<T>* to) const {
    JsonValue* member = Find(key);
    if (member == nullptr) return absl::OkStatus();
    JsonArray* list = member->As<JsonArray>();
    if (list == nullptr) return WrongType(key, *member, "a list");
    for (size_t i = 0; i < list->size(); ++i) {
      T* value = (*list)[i].As<T>();
      if (value == nullptr) {
        return WrongType(absl::StrCat(key, "[", i, "]"), (*list)[i], NameOfType<T>());
      }
      to->push_back(std::move(*value));
    }
    return absl::OkStatus();
  }

 private:
  JsonValue& object_;
};

}  // namespace triptych::services
