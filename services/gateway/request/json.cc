#include "services/gateway/request/json.h"

#include <nlohmann/json.hpp>
#include <tuple>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "services/gateway/request/errors.h"

namespace triptych::services {
namespace {

using Json = nlohmann::json;

// Builds a JsonValue from the parser's events and stops it at the first thing that is refused.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(const JsonLimits& limits) : limits_(limits) {}

  JsonValue TakeRoot() { return std::move(root_); }
  // Why the parser was stopped.
  const std::string& why() const { return why_; }

  bool null() override { return NewValue() != nullptr; }
  bool boolean(bool value) override { return Add<bool>(value); }
  bool number_integer(number_integer_t value) override { return Add<int64_t>(value); }
  bool number_unsigned(number_unsigned_t value) override {
    const bool fits = value <= static_cast<uint64_t>(INT64_MAX);
    return fits ? Add<int64_t>(static_cast<int64_t>(value)) : Add<uint64_t>(value);
  }
  bool number_float(number_float_t value, const string_t&) override { return Add<double>(value); }
  bool string(string_t& value) override { return Add<std::string>(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return Open<JsonObject>(); }
  bool start_array(size_t) override { return Open<JsonArray>(); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    Level& level = open_.back();
    if (++nodes_ > limits_.max_nodes) return TooMany();
    if (!level.keys.insert(name).second) return Stop("a member stands twice in one object");
    level.key = std::move(name);
    return true;
  }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return Stop(absl::StrCat("the body is not valid JSON, at byte ", position));
  }

 private:
  // An array or object whose end has not come. The pointer stays valid: its parent does not grow
  // while it is open.
  struct Level {
    JsonValue* value;
    std::string key;
    absl::flat_hash_set<std::string> keys;
  };

  bool Stop(std::string why) {
    why_ = std::move(why);
    return false;
  }
  bool TooMany() {
    return Stop(absl::StrCat("the body has more than ", limits_.max_nodes, " values and names"));
  }

  // A null in the place where the next value belongs; nullptr when there are too many. Values are
  // made in place: GCC 12 warns, wrongly, about moved temporaries of such a variant.
  JsonValue* NewValue() {
    if (++nodes_ > limits_.max_nodes) {
      TooMany();
      return nullptr;
    }
    if (open_.empty()) return &root_;
    Level& level = open_.back();
    if (JsonArray* array = level.value->As<JsonArray>()) return &array->emplace_back();
    JsonObject* object = level.value->As<JsonObject>();
    return &object
                ->emplace_back(std::piecewise_construct,
                               std::forward_as_tuple(std::move(level.key)), std::tuple<>())
                .second;
  }

  template <typename T>
  bool Add(T value) {
    JsonValue* added = NewValue();
    if (added != nullptr) added->value.emplace<T>(std::move(value));
    return added != nullptr;
  }

  template <typename T>
  bool Open() {
    if (static_cast<int>(open_.size()) >= limits_.max_depth) {
      return Stop(absl::StrCat("the body nests deeper than ", limits_.max_depth));
    }
    JsonValue* added = NewValue();
    if (added == nullptr) return false;
    added->value.emplace<T>();
    open_.push_back({added, {}, {}});
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  const JsonLimits limits_;
  JsonValue root_;
  std::vector<Level> open_;
  int nodes_ = 0;
  std::string why_;
};

}  // namespace

const JsonValue* JsonValue::Find(absl::string_view key) const {
  const JsonObject* object = As<JsonObject>();
  if (object == nullptr) return nullptr;
  for (const auto& [name, member] : *object) {
    if (name == key) return &member;
  }
  return nullptr;
}

JsonValue* JsonValue::Find(absl::string_view key) {
  return const_cast<JsonValue*>(static_cast<const JsonValue*>(this)->Find(key));
}

absl::StatusOr<JsonValue> ParseJson(absl::string_view text, const JsonLimits& limits) {
  Builder builder(limits);
  if (!Json::sax_parse(text.data(), text.data() + text.size(), &builder)) {
    return Refuse("invalid_json", builder.why());
  }
  return builder.TakeRoot();
}

}  // namespace triptych::services
