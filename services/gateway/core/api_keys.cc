#include "services/gateway/core/api_keys.h"

#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "services/gateway/request/errors.h"

namespace triptych::services {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxKeys = 1 << 16;
constexpr size_t kMaxTenantBytes = 128;
constexpr char kBearer[] = "Bearer ";

// Nanoseconds of the last change; 0 when there is no file.
int64_t ChangedAt(const std::string& path) {
  struct stat found = {};
  if (stat(path.c_str(), &found) != 0) return 0;
  return found.st_mtim.tv_sec * int64_t{1'000'000'000} + found.st_mtim.tv_nsec;
}

absl::Status Wrong(absl::string_view path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

}  // namespace

bool ApiKeys::Bucket::Has(double amount, base::TimePoint now) {
  if (per_minute <= 0) return true;
  tokens = std::min(per_minute, tokens + per_minute / 60 * base::ToSeconds(now - filled));
  filled = now;
  return tokens >= amount;
}

absl::StatusOr<std::unique_ptr<ApiKeys>> ApiKeys::Load(const std::string& path,
                                                       const base::Clock& clock) {
  auto keys = std::make_unique<ApiKeys>(clock);
  keys->path_ = path;
  base::MutexLock lock(&keys->mutex_);
  keys->changed_ = ChangedAt(path);
  ASSIGN_OR_RETURN(keys->keys_, keys->Read());
  keys->next_look_ = clock.Now() + kLookEvery;
  return keys;
}

absl::StatusOr<std::vector<ApiKeys::Key>> ApiKeys::Read() const {
  std::ifstream in(path_);
  if (!in) return Wrong(path_, "cannot be read");
  const Json json = Json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("keys") || !json["keys"].is_array()) {
    return Wrong(path_, "wants an object with an array \"keys\"");
  }
  if (json["keys"].size() > kMaxKeys) return Wrong(path_, "too many keys");
  std::vector<Key> keys;
  const base::TimePoint now = clock_.Now();
  for (const Json& entry : json["keys"]) {
    try {
      Key& key = keys.emplace_back();
      const std::string digest = absl::HexStringToBytes(entry.at("sha256").get<std::string>());
      if (digest.size() != key.digest.size() ||
          entry.at("sha256").get<std::string>().size() != 2 * digest.size()) {
        return Wrong(path_, "sha256 wants 64 hexadecimal digits");
      }
      std::copy(digest.begin(), digest.end(), key.digest.begin());
      key.tenant = entry.at("tenant").get<std::string>();
      if (key.tenant.empty() || key.tenant.size() > kMaxTenantBytes) {
        return Wrong(path_, "a tenant has between 1 and 128 bytes");
      }
      key.max_priority = std::clamp(entry.value("max_priority", 0), -100, 100);
      key.models = entry.value("models", std::vector<std::string>());
      const std::pair<const char*, Bucket*> rates[] = {{"requests_per_minute", &key.requests},
                                                       {"patches_per_minute", &key.patches},
                                                       {"tokens_per_minute", &key.tokens}};
      for (const auto& [name, bucket] : rates) {
        bucket->per_minute = bucket->tokens = entry.value(name, 0.0);
        bucket->filled = now;
      }
    } catch (const Json::exception&) {
      return Wrong(path_, "a key lacks sha256 or tenant, or a value is of the wrong kind");
    }
  }
  return keys;
}

void ApiKeys::LookAgain(base::TimePoint now) {
  if (path_.empty() || now < next_look_) return;
  next_look_ = now + kLookEvery;
  const int64_t changed = ChangedAt(path_);
  if (changed == changed_) return;
  changed_ = changed;
  absl::StatusOr<std::vector<Key>> read = Read();
  if (!read.ok()) return;
  // Who was at its bound stays there.
  for (Key& key : *read) {
    for (const Key& old : keys_) {
      if (!base::SameDigest(old.digest, key.digest)) continue;
      key.requests.tokens = std::min(key.requests.tokens, old.requests.tokens);
      key.patches.tokens = std::min(key.patches.tokens, old.patches.tokens);
      key.tokens.tokens = std::min(key.tokens.tokens, old.tokens.tokens);
    }
  }
  keys_ = *std::move(read);
}

absl::StatusOr<Client> ApiKeys::Identify(absl::string_view authorization, Client by_address) {
  if (path_.empty()) return by_address;
  base::MutexLock lock(&mutex_);
  LookAgain(clock_.Now());
  if (!absl::StartsWithIgnoreCase(authorization, kBearer)) return Refuse("invalid_key");
  authorization.remove_prefix(sizeof(kBearer) - 1);
  const base::Sha256Digest digest = base::Sha256(authorization);
  const Key* found = nullptr;
  for (const Key& key : keys_) {
    if (base::SameDigest(key.digest, digest)) found = &key;
  }
  if (found == nullptr) return Refuse("invalid_key");
  const std::string name(digest.begin(), digest.end());
  return Client{.owner = absl::StrCat("key:", name),
                .tenant = found->tenant,
                .top_priority = found->max_priority,
                .key = name};
}

absl::Status ApiKeys::Charge(const Client& client, const ParsedRequest& request,
                             const std::string& model) {
  if (client.key.empty()) return absl::OkStatus();
  base::MutexLock lock(&mutex_);
  const auto key = std::find_if(keys_.begin(), keys_.end(), [&](const Key& k) {
    return std::equal(k.digest.begin(), k.digest.end(), client.key.begin(), client.key.end(),
                      [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); });
  });
  if (key == keys_.end()) return Refuse("invalid_key");
  if (!key->models.empty() &&
      std::find(key->models.begin(), key->models.end(), model) == key->models.end()) {
    return Refuse("model_not_found");
  }
  int64_t patches = 0;
  for (const scheduler::ItemCost& item : request.submit.items) patches += item.patches;
  const double tokens = double{1.0} * request.submit.prompt_tokens + request.submit.max_tokens;
  const base::TimePoint now = clock_.Now();
  // All are looked at before any is charged.
  if (!key->requests.Has(1, now) || !key->patches.Has(static_cast<double>(patches), now) ||
      !key->tokens.Has(tokens, now)) {
    return Refuse("rate_limited");
  }
  key->requests.tokens -= 1;
  key->patches.tokens -= static_cast<double>(patches);
  key->tokens.tokens -= tokens;
  return absl::OkStatus();
}

}  // namespace triptych::services
