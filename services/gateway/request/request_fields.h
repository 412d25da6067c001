#pragma once

// Every member of a request's body that OpenAI, vLLM, SGLang and llama.cpp know, and what becomes
// of it here: nothing that would change an answer is dropped in silence. docs/api.md holds the same
// rows, and a test compares them.

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/gateway/request/json.h"

namespace triptych::services {

enum class Treatment {
  kHonoured,  // read where the request is read
  kRefused,   // unless its value asks for what happens anyway
  kHarmless,  // no answer depends on it
};

// The values of a refused member that ask for nothing; null and an empty text, list or object
// always do.
enum class Neutral { kEmpty, kFalse, kTrue, kZero, kOne, kMinusOne, kNamed };

struct RequestField {
  const char* name;
  Treatment treatment = Treatment::kHonoured;
  Neutral neutral = Neutral::kEmpty;
  const char* named = "";  // kNamed: the values, as `|a|b|`
  const char* why = "";    // of a refusal: what to do instead
};

absl::Span<const RequestField> RequestFields();
// Null for a name that nobody knows.
const RequestField* FindRequestField(absl::string_view name);

// INVALID_ARGUMENT, with the name as `param`, when `value` asks for what is not offered.
absl::Status CheckRequestField(const RequestField& field, const JsonValue& value);

}  // namespace triptych::services
