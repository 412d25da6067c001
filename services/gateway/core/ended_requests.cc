#include "services/gateway/core/ended_requests.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace triptych::services {

void EndedRequests::Put(EndedRequest request) {
  base::MutexLock lock(&mutex_);
  if (requests_.size() == kCapacity) requests_.pop_front();
  requests_.push_back(std::move(request));
}

std::optional<EndedRequest> EndedRequests::Find(absl::string_view name) const {
  base::MutexLock lock(&mutex_);
  const auto found =
      std::find_if(requests_.rbegin(), requests_.rend(), [name](const EndedRequest& request) {
        return name == request.client_id || name == request.request_id || name == request.tag;
      });
  if (found == requests_.rend()) return std::nullopt;
  return *found;
}

std::string ToJson(const EndedRequest& request) {
  const Timeline& t = request.timeline;
  const Usage& u = request.usage;
  const nlohmann::ordered_json json = {{"request_id", request.request_id},
                                       {"id", request.client_id},
                                       {"x_request_id", request.tag},
                                       {"result", request.result},
                                       {"usage",
                                        {{"prompt_tokens", u.prompt_tokens},
                                         {"picture_tokens", u.picture_tokens},
                                         {"cached_tokens", u.cached_tokens},
                                         {"output_tokens", u.output_tokens}}},
                                       {"timeline",
                                        {{"queue_us", t.queue_us},
                                         {"media_decode_us", t.media_decode_us},
                                         {"encode_us", t.encode_us},
                                         {"embedding_transfer_us", t.embedding_transfer_us},
                                         {"embedding_bytes", t.embedding_bytes},
                                         {"prefill_us", t.prefill_us},
                                         {"kv_transfer_us", t.kv_transfer_us},
                                         {"kv_bytes", t.kv_bytes},
                                         {"first_token_us", t.first_token_us},
                                         {"total_us", t.total_us},
                                         {"tokens_per_second", t.tokens_per_second}}}};
  return json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace triptych::services
