#include "services/gateway/http/http_target.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace triptych::services {
namespace {

struct Row {
  const char* path;
  Route route;
};
constexpr Row kPosted[] = {
    {"/v1/chat/completions", Route::kChat},
    {"/v1/completions", Route::kCompletions},
    {"/tokenize", Route::kTokenize},
    {"/detokenize", Route::kDetokenize},
};
constexpr Row kGot[] = {
    {"/v1/models", Route::kModels}, {"/healthz", Route::kHealth},
    {"/health", Route::kReady},     {"/ping", Route::kReady},
    {"/readyz", Route::kReady},     {"/version", Route::kVersion},
    {"/metrics", Route::kMetrics},  {"/openapi.json", Route::kOpenApi},
};
constexpr absl::string_view kModelPrefix = "/v1/models/";

absl::string_view PathOf(absl::string_view target) {
  for (const char* scheme : {"http://", "https://"}) {
    if (!absl::StartsWithIgnoreCase(target, scheme)) continue;
    target.remove_prefix(absl::string_view(scheme).size());
    const size_t slash = target.find('/');
    target = slash == absl::string_view::npos ? "/" : target.substr(slash);
    break;
  }
  return target.substr(0, target.find_first_of("?#"));
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = absl::ascii_tolower(c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// Clients of Azure's put the model into the path: /openai/deployments/MODEL/chat/completions. It
// stands in the body too.
absl::string_view WithoutDeployment(absl::string_view path, std::string* whole) {
  for (const char* prefix : {"/openai/deployments/", "/v1/deployments/"}) {
    absl::string_view rest = path;
    if (!absl::ConsumePrefix(&rest, prefix)) continue;
    const size_t slash = rest.find('/');
    if (slash == absl::string_view::npos) break;
    *whole = absl::StrCat("/v1", rest.substr(slash));
    return *whole;
  }
  return path;
}

std::string Decoded(absl::string_view path) {
  std::string out;
  for (size_t i = 0; i < path.size(); ++i) {
    const int high = path[i] == '%' && i + 2 < path.size() ? HexDigit(path[i + 1]) : -1;
    const int low = high >= 0 ? HexDigit(path[i + 2]) : -1;
    if (low < 0) {
      out += path[i];
      continue;
    }
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

}  // namespace

Target TargetOf(absl::string_view raw) {
  Target target;
  target.path = Decoded(PathOf(raw));
  absl::string_view path = target.path;
  if (path.size() > 1) absl::ConsumeSuffix(&path, "/");
  std::string whole;
  path = WithoutDeployment(path, &whole);
  for (const Row& row : kPosted) {
    if (path != row.path) continue;
    target.route = row.route;
    target.allow = "POST, OPTIONS";
    target.posted = true;
    return target;
  }
  target.allow = "GET, HEAD, OPTIONS";
  for (const Row& row : kGot) {
    if (path == row.path) target.route = row.route;
  }
  if (target.route == Route::kNone && absl::ConsumePrefix(&path, kModelPrefix)) {
    target.route = Route::kModel;
    target.model = std::string(path);
  }
  return target;
}

}  // namespace triptych::services
