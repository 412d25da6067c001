#pragma once

// Which clients have keys, and what each may do. From a JSON file, read again when it changes:
//
//   {"keys": [{"sha256": "64 hexadecimal digits", "tenant": "team", "max_priority": 10,
//              "requests_per_minute": 600, "patches_per_minute": 100000,
//              "tokens_per_minute": 200000, "models": ["name"]}]}
//
// Only sha256 and tenant must be there; a rate that is not is no bound, nor are models. Without a
// file clients have no keys and are their addresses.

#include <cstdint>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/sha256.h"
#include "services/gateway/core/client.h"
#include "services/gateway/request/parsed_request.h"

namespace triptych::services {

// Thread-safe.
class ApiKeys {
 public:
  // Nobody has a key.
  explicit ApiKeys(const base::Clock& clock) : clock_(clock) {}
  // INVALID_ARGUMENT says what is wrong with the file. Borrows `clock`.
  static absl::StatusOr<std::unique_ptr<ApiKeys>> Load(const std::string& path,
                                                       const base::Clock& clock);

  // `authorization` as in HTTP's header, "Bearer KEY". Where there are keys: Refuse("invalid_key")
  // for none or an unknown one; else the key's client. Otherwise `by_address`.
  absl::StatusOr<Client> Identify(absl::string_view authorization, Client by_address);
  // What the request costs its client: Refuse("rate_limited"), Refuse("model_not_found").
  absl::Status Charge(const Client& client, const ParsedRequest& request, const std::string& model);

 private:
  // As much as a minute allows may come at once.
  struct Bucket {
    double per_minute = 0;  // 0: no bound
    double tokens = 0;
    base::TimePoint filled;
    bool Has(double amount, base::TimePoint now);
  };
  struct Key {
    base::Sha256Digest digest{};
    std::string tenant;
    int32_t max_priority = 0;
    Bucket requests, patches, tokens;
    std::vector<std::string> models;
  };

  static constexpr base::Duration kLookEvery = std::chrono::seconds(2);

  absl::StatusOr<std::vector<Key>> Read() const;
  // A file that has become wrong changes nothing.
  void LookAgain(base::TimePoint now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const base::Clock& clock_;
  std::string path_;
  base::Mutex mutex_;
  std::vector<Key> keys_ ABSL_GUARDED_BY(mutex_);
  base::TimePoint next_look_ ABSL_GUARDED_BY(mutex_);
  int64_t changed_ ABSL_GUARDED_BY(mutex_) = 0;  // when the file was written, as the system says
};

}  // namespace triptych::services
