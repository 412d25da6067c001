#include "services/gateway/request/errors.h"

#include <algorithm>
#include <iterator>
#include <set>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace triptych::services {
namespace {

using absl::StatusCode;

struct Row {
  const char* code;
  StatusCode status;
  int http_status;
  const char* type;
  const char* sentence;
};

// Where a refusal keeps the name of the member; canonical statuses carry such notes.
constexpr char kMemberNote[] = "triptych/member";

constexpr char kInvalid[] = "invalid_request_error";
constexpr char kOverload[] = "overloaded_error";
constexpr char kServer[] = "server_error";

constexpr Row kRows[] = {
    {"invalid_json", StatusCode::kInvalidArgument, 400, kInvalid, "the body is not valid JSON"},
    {"invalid_request", StatusCode::kInvalidArgument, 400, kInvalid, "the request is not valid"},
    {"invalid_http", StatusCode::kInvalidArgument, 400, kInvalid, "the HTTP request is malformed"},
    {"prompt_too_long", StatusCode::kInvalidArgument, 400, kInvalid,
     "the prompt does not fit into the context"},
    {"too_many_images", StatusCode::kInvalidArgument, 400, kInvalid,
     "the request has too many pictures"},
    {"image_too_large", StatusCode::kInvalidArgument, 400, kInvalid,
     "a picture is larger than allowed"},
    {"image_malformed", StatusCode::kInvalidArgument, 400, kInvalid, "a picture cannot be decoded"},
    {"unsupported_image_format", StatusCode::kInvalidArgument, 400, kInvalid,
     "a picture is not JPEG, PNG, WebP, GIF or BMP"},
    {"unsupported_image_source", StatusCode::kInvalidArgument, 400, kInvalid,
     "pictures are not fetched: send data:image/png;base64,... (or jpeg, webp, gif, bmp)"},
    {"model_not_found", StatusCode::kNotFound, 404, kInvalid, "no such model is served here"},
    {"not_found", StatusCode::kNotFound, 404, kInvalid, "there is nothing at this address"},
    {"method_not_allowed", StatusCode::kUnimplemented, 405, kInvalid,
     "this address does not take this method"},
    {"invalid_key", StatusCode::kUnauthenticated, 401, kInvalid,
     "the API key is missing or not known"},
    {"request_timeout", StatusCode::kDeadlineExceeded, 408, kInvalid,
     "the request did not arrive in time"},
    {"request_id_active", StatusCode::kAlreadyExists, 409, kInvalid,
     "a request of this id is active"},
    {"body_too_large", StatusCode::kResourceExhausted, 413, kInvalid,
     "the body is larger than allowed"},
    {"overloaded", StatusCode::kResourceExhausted, 429, kOverload,
     "the server is full, try again later"},
    {"unsupported_encoding", StatusCode::kInvalidArgument, 415, kInvalid,
     "a body is sent as it is, without Content-Encoding"},
    {"rate_limited", StatusCode::kResourceExhausted, 429, kOverload,
     "this key has used up its rate, try again later"},
    {"header_too_large", StatusCode::kInvalidArgument, 431, kInvalid,
     "the header is larger than allowed"},
    {"cancelled", StatusCode::kCancelled, 499, kInvalid, "the request was cancelled"},
    {"numerical_error", StatusCode::kInternal, 500, kServer, "the model's output was not finite"},
    {"internal", StatusCode::kInternal, 500, kServer, "an internal error ended the request"},
    {"draining", StatusCode::kUnavailable, 503, kOverload,
     "the server is shutting down, try again"},
    {"unavailable", StatusCode::kUnavailable, 503, kOverload,
     "the server cannot take the request now, try again"},
    {"client_stalled", StatusCode::kDeadlineExceeded, 504, kInvalid,
     "the client does not read its answer"},
    {"deadline_exceeded", StatusCode::kDeadlineExceeded, 504, kServer,
     "the deadline of the request has passed"},
};

const Row* FindCode(absl::string_view code) {
  const auto* row = std::find_if(std::begin(kRows), std::end(kRows),
                                 [&](const Row& r) { return code == r.code; });
  return row == std::end(kRows) ? nullptr : row;
}

// What stands for a status whose text is not one of ours.
const Row& RowOfCanonical(StatusCode status) {
  const char* code = "internal";
  switch (status) {
    case StatusCode::kInvalidArgument:
      code = "invalid_request";
      break;
    case StatusCode::kNotFound:
      code = "not_found";
      break;
    case StatusCode::kAlreadyExists:
      code = "request_id_active";
      break;
    case StatusCode::kResourceExhausted:
      code = "overloaded";
      break;
    case StatusCode::kUnavailable:
    case StatusCode::kFailedPrecondition:
      code = "unavailable";
      break;
    case StatusCode::kDeadlineExceeded:
      code = "deadline_exceeded";
      break;
    case StatusCode::kCancelled:
      code = "cancelled";
      break;
    default:
      break;
  }
  return *FindCode(code);
}

// The row that the message names; `sentence` becomes what follows the code, or the row's own.
const Row& RowOf(const absl::Status& status, std::string* sentence) {
  const absl::string_view message = status.message();
  const size_t colon = message.find(": ");
  const Row* row = FindCode(message.substr(0, colon));
  if (row == nullptr || row->status != status.code()) {
    const Row& canonical = RowOfCanonical(status.code());
    *sentence = canonical.sentence;
    return canonical;
  }
  *sentence = colon == absl::string_view::npos ? std::string(row->sentence)
                                               : std::string(message.substr(colon + 2));
  return *row;
}

}  // namespace

ClientError ToClientError(const absl::Status& status) {
  CHECK_TRUE(!status.ok());
  ClientError error;
  const Row& row = RowOf(status, &error.message);
  error.code = row.code;
  error.http_status = row.http_status;
  error.type = row.type;
  if (const auto member = status.GetPayload(kMemberNote)) error.param = std::string(*member);
  return error;
}

std::vector<const char*> ClientErrorCodes() {
  std::vector<const char*> codes;
  for (const Row& row : kRows) codes.push_back(row.code);
  return codes;
}

std::vector<int> HttpStatuses() {
  std::set<int> statuses = {200, 204};
  for (const Row& row : kRows) statuses.insert(row.http_status);
  return {statuses.begin(), statuses.end()};
}

absl::Status ToClientStatus(const absl::Status& status) {
  if (status.ok()) return status;
  std::string sentence;
  const Row& row = RowOf(status, &sentence);
  return absl::Status(row.status, absl::StrCat(row.code, ": ", sentence));
}

absl::Status Refuse(const char* code) {
  const Row* row = FindCode(code);
  CHECK_TRUE(row != nullptr);
  return absl::Status(row->status, row->code);
}

absl::Status Refuse(const char* code, absl::string_view sentence) {
  const Row* row = FindCode(code);
  CHECK_TRUE(row != nullptr);
  return absl::Status(row->status, absl::StrCat(row->code, ": ", sentence));
}

absl::Status At(absl::string_view member, absl::Status refusal) {
  const auto inner = refusal.GetPayload(kMemberNote);
  refusal.SetPayload(kMemberNote, absl::Cord(inner ? absl::StrCat(member, ".", std::string(*inner))
                                                   : std::string(member)));
  return refusal;
}

}  // namespace triptych::services
